"""The local world's parts that need no lab: clients, logs, what is put on a host, the management process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import requests_mock
import trustme

from harness.observers import CloudApiError, DomainDisk
from harness.worlds.local import host as local_host
from harness.worlds.local.cloud import CsCloud
from harness.worlds.local.deploy import AgentProcess
from harness.worlds.local.guest import SshGuest
from harness.worlds.local.host import SshKvmHost, disks_of
from harness.worlds.local.timeline import Log, Logs
from harness.worlds.local.venue import why_not
from lab.file import Accelerator, GuestImage, KvmHost, Ssh
from lab.shell import CommandFailed, Completed, run

API = "http://10.0.0.1:8080/client/api"
SECRET = "the-secret-key-of-this-test"


@pytest.fixture
def http() -> Iterator[requests_mock.Mocker]:
    with requests_mock.Mocker() as mocker:
        yield mocker


def cloud() -> CsCloud:
    return CsCloud("10.0.0.1:8080", "key", SECRET)


def job(status: int, result: object, code: int = 0) -> dict[str, object]:
    found = {"jobid": "j", "jobstatus": status, "jobresultcode": code, "jobresult": result}
    return {"json": {"queryasyncjobresultresponse": found}, "headers": {"Content-Type": "application/json"}}


JSON = {"Content-Type": "application/json"}


def test_a_call_gives_the_answer_without_its_envelope(http: requests_mock.Mocker) -> None:
    http.get(API, json={"listzonesresponse": {"count": 1, "zone": [{"id": "z"}]}}, headers=JSON)
    assert cloud().call("listZones") == {"count": 1, "zone": [{"id": "z"}]}
    assert SECRET not in (http.last_request.url if http.last_request else SECRET)


def test_an_async_call_waits_for_its_job(http: requests_mock.Mocker) -> None:
    started = {"json": {"attachvolumeresponse": {"jobid": "j"}}, "headers": JSON}
    http.get(API, [started, job(0, None), job(1, {"volume": {"id": "v"}})])
    assert cloud().call("attachVolume", id="v") == {"volume": {"id": "v"}}


def test_a_failed_job_raises_with_the_jobs_code_and_text(http: requests_mock.Mocker) -> None:
    started = {"json": {"attachvolumeresponse": {"jobid": "j"}}, "headers": JSON}
    http.get(API, [started, job(2, {"errorcode": 530, "errortext": "no way"}, 530)])
    with pytest.raises(CloudApiError) as caught:
        cloud().call("attachVolume", id="v")
    assert (caught.value.command, caught.value.code, caught.value.text) == ("attachVolume", 530, "no way")


def test_a_refusal_raises_with_code_and_text(http: requests_mock.Mocker) -> None:
    body = {"createvolumeresponse": {"errorcode": 431, "errortext": "size", "uuidList": []}}
    http.get(API, json=body, headers=JSON, status_code=431)
    with pytest.raises(CloudApiError) as caught:
        cloud().start("createVolume", size=-1)
    assert (caught.value.code, caught.value.text) == (431, "size")


def test_a_job_that_does_not_end_is_not_waited_for_for_ever(http: requests_mock.Mocker) -> None:
    http.get(API, [job(0, None)])
    with pytest.raises(TimeoutError, match="job j"):
        cloud().wait("j", timeout=0)


def test_disks_are_read_from_the_domains_xml() -> None:
    xml = """<domain><devices>
      <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/>
        <source dev='/dev/storpool-byid/a.b.1' index='1'/><target dev='vda' bus='virtio'/><serial>abc</serial></disk>
      <disk type='file' device='cdrom'><target dev='sda'/></disk>
      <disk type='file' device='disk'><source file='/x'/><target dev='vdb'/></disk>
    </devices></domain>"""
    assert disks_of(xml) == (
        DomainDisk("/dev/storpool-byid/a.b.1", "vda", "abc", "raw", "unmap", "none"),
        DomainDisk("/x", "vdb", "", "", None, None),
    )


def test_logs_are_read_piece_by_piece_and_merged_by_time() -> None:
    texts = {"one": b"", "two": b""}

    def log(name: str) -> Log:
        return Log(name, lambda since: (len(texts[name]), texts[name][since:].decode()))

    logs = Logs([log("one"), log("two")])
    texts["one"] = b'{"ts":2.0,"logger":"harness.agent","message":"second","host":"h"}\n{"ts":3.0,"log'
    texts["two"] = b'{"ts":1.0,"logger":"harness.x","level":"warning","message":"first"}\nTraceback\n'
    assert logs.entries() == [
        (1.0, "two x warning", "first"),
        (1.0, "two stderr", "Traceback"),
        (2.0, "one agent", "second"),
    ]
    texts["one"] += b'ger":"harness.agent","message":"third"}\n'
    assert logs.entries() == [(3.0, "one agent", "third")]
    assert logs.entries() == []


def test_without_root_the_reason_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    reason = why_not(None)
    assert reason is not None and "root" in reason and "--lab" in reason
    assert why_not(Path("lab.yaml")) is None


def test_a_guest_that_is_not_up_is_an_error_and_unaligned_ranges_are_refused() -> None:
    image = GuestImage(
        url="http://x/",
        virtual_size=1,
        sha256="0",
        iso_url="http://x.iso",
        iso_size=1,
        ssh_user="root",
        ssh_key_file=Path("/nonexistent/key"),
        known_hosts_file=Path("/nonexistent/hosts"),
    )
    guest = SshGuest(image, lambda: "127.0.0.254", lambda: "")
    with pytest.raises(CommandFailed):
        guest.disks()
    with pytest.raises(ValueError, match="512"):
        guest.read("serial", 100, 512)


class Here:
    """In place of a host's SSH: its commands run on this machine."""

    def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60, check: bool = True) -> Completed:
        return run(command, stdin=stdin, timeout=timeout, check=check)


def host_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> SshKvmHost:
    """A host with devices below `devices`, and files below `libvirt` and `agent`."""
    for name in ("devices", "libvirt", "agent"):
        (directory / name).mkdir()
    monkeypatch.setattr(local_host, "BY_ID", str(directory / "devices"))
    monkeypatch.setattr(local_host, "LIBVIRT_FOLDERS", (str(directory / "libvirt"),))
    described = KvmHost(
        name="kvm1",
        ssh=Ssh(address="127.0.0.254", key_file=Path("/nonexistent"), known_hosts_file=Path("/nonexistent")),
        client_id=1,
        agent_address="127.0.0.254:1",
        agent_directory=directory / "agent",
        agent_python=Path(sys.executable),
        bridge="none",
        accelerator=Accelerator.TCG,
    )
    host = SshKvmHost(described, ())
    monkeypatch.setattr(host, "_ssh", Here())
    return host


def test_traces_are_found_on_devices_and_in_files_whatever_else_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, text = host_in(tmp_path, monkeypatch), b"a word of a guest \xff\xfe."
    assert host.traces(text) == []
    device, other = tmp_path / "devices/a.b.1", tmp_path / "devices/a.b.2"
    with device.open("wb") as file:
        file.seek(64 << 20)
        file.write(text)
        file.truncate(1 << 30)
    other.write_bytes(bytes(4096) + text[:-1])
    log = tmp_path / "libvirt/below/log"
    log.parent.mkdir()
    log.write_bytes(b"line\n" + text + b"\n")
    assert host.traces(text) == sorted([str(device), str(log)])


@pytest.mark.parametrize("unread", ["devices/a.b.1", "agent"])
def test_what_cannot_be_searched_is_an_error_and_not_free_of_traces(
    unread: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_in(tmp_path, monkeypatch)
    place = tmp_path / unread
    if place.exists():
        place.rmdir()
    else:
        place.symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match=rf"kvm1.*{unread}: No such file"):
        host.traces(b"a word")


@pytest.mark.parametrize("text", [b"", b"two\nlines", b"zero\0"])
def test_what_grep_would_not_look_for_as_it_is_is_refused(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="by lines"):
        host_in(tmp_path, monkeypatch).traces(text)


def certificates(directory: Path) -> Path:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    for name in ("management", "kvm1"):
        certificate = ca.issue_cert(name)
        certificate.private_key_pem.write_to_path(directory / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(directory / f"{name}.pem")
    return directory


def agent() -> AgentProcess:
    ssh = Ssh(address="127.0.0.254", key_file=Path("/nonexistent"), known_hosts_file=Path("/nonexistent"))
    directory = Path("/var/lib/splab-agent")
    files = {"storpool.conf.d/endpoints.conf": b"SP_API_HTTP_HOST=10.0.0.1:4711\n"}
    python = Path(sys.executable)
    return AgentProcess("kvm1", ssh, directory, python, "harness.agent.main", {"host_name": "kvm1"}, files=files)


def test_a_host_gets_production_rooms_only_and_they_import_alone(tmp_path: Path) -> None:
    bundle = agent()._bundle(certificates(tmp_path))
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        names = tar.getnames()
        private = ("tls/key.pem", "agent.json", "storpool.conf.d/endpoints.conf")
        assert {tar.getmember(name).mode for name in private} == {0o600}
        tar.extractall(tmp_path / "host", filter="data")
    rooms = {name.split("/")[2] for name in names if name.startswith("code/")}
    assert rooms == {"__init__.py", "agent", "spi", "storpool", "runtime"}
    assert [name for name in names if "/runtime/" in name] == [
        "code/harness/runtime/__init__.py",
        "code/harness/runtime/threads.py",
    ]
    script = "import harness.agent.main, harness, sys; print(harness.__file__); assert 'lab' not in sys.modules"
    code = tmp_path / "host/code"
    environment = {"PYTHONPATH": str(code), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd="/", env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(code / "harness/__init__.py"), done.stderr


def management_config(directory: Path) -> dict[str, object]:
    certificates(directory)
    return {
        "listen": "127.0.0.1:0",
        "database": str(directory / "cloud.db"),
        "agents": {"kvm1": "https://127.0.0.1:9"},
        "secondary": "https://127.0.0.1:9",
        "tls": {
            "ca": str(directory / "ca.pem"),
            "certificate": str(directory / "management.pem"),
            "key": str(directory / "management.key"),
        },
        "cloud": {
            "hosts": ["kvm1"],
            "image_store_url": "nfs://127.0.0.1/export",
            "guest_addresses": [{"mac": "02:00:00:00:00:01", "ip": "10.0.0.2"}],
            "bridge": "cloudbr0",
            "api_key": "key",
            "secret_key": SECRET,
            "ping_interval": 0.5,
        },
    }


def start_management(directory: Path, config: dict[str, object]) -> subprocess.Popen[str]:
    path = directory / "management.json"
    path.write_text(json.dumps(config))
    argv = [sys.executable, "-m", "harness.worlds.management", "--config", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_the_management_process_serves_signed_calls_ends_on_sigterm_and_tells_no_secret(tmp_path: Path) -> None:
    process = start_management(tmp_path, management_config(tmp_path))
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        assert ready.startswith("ready http://127.0.0.1:"), ready
        address = ready.split("//")[1].strip()
        zones = CsCloud(address, "key", SECRET).call("listZones")
        with pytest.raises(CloudApiError) as caught:
            CsCloud(address, "key", "a wrong secret").call("listZones")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
    assert zones["count"] == 1
    assert caught.value.code == 401
    assert process.returncode == 0, log
    assert SECRET not in log and "Traceback" not in log


def test_a_configuration_with_an_unknown_key_is_refused_by_its_name(tmp_path: Path) -> None:
    process = start_management(tmp_path, {**management_config(tmp_path), "colour": SECRET})
    _, log = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "colour" in log and SECRET not in log
