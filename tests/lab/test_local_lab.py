"""The local lab, from `up` to a machine that shows no trace of it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.doctor import examine_lab
from lab.errors import LabError
from lab.file import Lab, Ssh, load
from lab.local import down, machine_lock, status, up
from lab.local.cgroup import processes
from lab.local.ledger import Kind, Ledger
from lab.local.machines import folder_of
from lab.ssh import SshHost

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("needs_root"), pytest.mark.timeout(400)]

Listing = dict[str, set[str]]
Take = Callable[[str], Listing]

DOMAIN = """<domain type='{kind}'><name>i-2-3-VM</name><memory unit='MiB'>128</memory>
<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
<devices><disk type='block' device='disk'><driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
<source dev='{device}'/><target dev='vda' bus='virtio'/><serial>{serial}</serial></disk>
<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/><model type='virtio'/></interface>
<memballoon model='none'/></devices></domain>"""


def wait(what: str, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def assert_as_before(before: Listing, take: Take, about: str) -> None:
    """The kernel lets namespaces go a moment after their last process, so the comparison has a deadline."""
    deadline = time.monotonic() + 20
    while True:
        after = take(about)
        left = {kind: after[kind] - before[kind] for kind in after if after[kind] - before[kind]}
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert left == {}


def storpool(lab: Lab, call: str, **body: object) -> Any:
    host, port = lab.storpool.endpoints[0].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    token = lab.storpool.token_file.read_text().strip()
    headers = {"Authorization": f"Storpool v1:{token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"/ctrl/1.0/{call}", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)["data"]
    finally:
        connection.close()


def test_a_guest_boots_from_storpool_over_ssh_only_and_a_killed_lab_leaves_no_trace(
    state_directory: Path, listing: Take
) -> None:
    about = str(state_directory)
    before = listing(about)
    lab = up(state_directory)
    assert load(state_directory / "lab.yaml") == lab
    assert [str(finding) for finding in examine_lab(lab) if not finding.ok] == []
    assert {name for name, _, ok in status(state_directory) if ok} >= {"storpool", "kvm1", "kvm2", "nfs"}
    first, second = (SshHost(host.ssh).inspector() for host in lab.hosts)
    assert (first.check_output("hostname"), second.check_output("hostname")) == ("kvm1", "kvm2")
    assert first.check_output("cat /etc/machine-id") != second.check_output("cat /etc/machine-id")
    assert first.file("/etc/storpool.conf").mode == 0o600
    assert lab.storpool.token_file.stat().st_mode & 0o077 == 0

    host = SshHost(lab.hosts[0].ssh)
    # An address that was set, and not one that follows the ports as guests start and end.
    assert host.run(["cat", f"/sys/class/net/{lab.hosts[0].bridge}/addr_assign_type"]).text == "3"
    device = volume_with_the_image(lab, host)
    assert second.file(device).exists is False, "a device shows on the client it is attached to only"
    run_guest(lab, host, device)
    storpool_commands(host, device)

    assert up(state_directory) == lab
    assert host.run(["virsh", "domstate", "i-2-3-VM"]).text == "running"

    everything = processes(folder_of(""))
    assert len(everything) > 10
    for process in everything:
        os.kill(process, signal.SIGKILL)
    wait("every process of the lab is dead", lambda: not processes(folder_of("")), 20)
    down(state_directory)
    assert_as_before(before, listing, about)
    assert not state_directory.exists()
    down(state_directory)


def volume_with_the_image(lab: Lab, host: SshHost) -> str:
    """A StorPool volume attached to the first host, with the guest image that the NFS host fetched."""
    secondary = SshHost(lab.secondary.ssh)
    secondary.run(["curl", "-sf", "-o", f"{lab.secondary.export_directory}/guest.qcow2", lab.guest_image.url])
    url = f"{lab.secondary.nfs_url}/guest.qcow2"
    seen = json.loads(host.run(["qemu-img", "info", "--output=json", url]).text)
    assert (seen["format"], seen["virtual-size"]) == ("qcow2", lab.guest_image.virtual_size)
    made = storpool(
        lab, "VolumeCreate", name="root", size=lab.guest_image.virtual_size, template=lab.storpool.templates[0]
    )
    storpool(lab, "VolumesReassignWait", reassign=[{"volume": "root", "rw": [lab.hosts[0].client_id]}])
    device = f"/dev/storpool-byid/{made['globalId']}"
    host.run(["qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", url, device])
    sums = host.run(["sha256sum", device]).text.split()
    assert sums[0] == lab.guest_image.sha256
    return device


def storpool_commands(host: SshHost, device: str) -> None:
    """StorPool's command-line tools on a host, where the volume `root` is attached and open."""
    assert host.run(["storpool_confshow", "-ne", "SP_OURID"]).text == "1"
    attached = json.loads(host.run(["storpool", "-j", "attach", "list"]).text)["data"]
    assert [(entry["volume"], entry["client"], entry["rights"]) for entry in attached] == [("root", 1, "rw")]
    refused = host.run(["storpool", "-Mj", "detach", "volume", f"~{device.rpartition('/')[2]}", "here"], check=False)
    assert refused.returncode == 1 and json.loads(refused.text)["error"]["name"] == "busy"
    host.run(["storpool", "volume", "other", "size", "1M", "create"])
    host.run(["storpool", "attach", "volume", "other", "mode", "ro", "here"])
    assert host.run(["blockdev", "--getsize64", "--getro", "/dev/storpool/other"]).text.split() == ["1048576", "1"]
    # A login shell makes a PATH of its own; in /dev there is something else of this name.
    host.run(["bash", "-lc", "cd /dev && storpool detach volume other here && storpool volume other delete other"])
    gone = host.run(["storpool_req", "Volume", "other"], check=False)
    assert gone.returncode == 3 and json.loads(gone.stderr)["error"]["name"] == "objectDoesNotExist"


def run_guest(lab: Lab, host: SshHost, device: str) -> None:
    address = lab.guest_addresses[0]
    kind = "kvm" if lab.hosts[0].accelerator == "kvm" else "qemu"
    xml = DOMAIN.format(kind=kind, device=device, serial="first", mac=address.mac, bridge=lab.hosts[0].bridge)
    host.run(["sh", "-c", "cat > /run/guest.xml"], stdin=xml.encode())
    host.run(["virsh", "create", "/run/guest.xml"])
    known = lab.guest_image.known_hosts_file
    assert known is not None
    guest = SshHost(
        Ssh(address=address.ip, key_file=lab.guest_image.ssh_key_file, known_hosts_file=known), shared=False
    )
    wait("the guest answers SSH", lambda: guest.run(["true"], check=False).returncode == 0, 60)
    assert guest.run(["cat", "/sys/block/vda/serial"]).text == "first"


def noted(kind: Kind, count: int = 1) -> Callable[[Ledger], bool]:
    return lambda ledger: [entry.kind for entry in ledger.entries()].count(kind) >= count


def runs(machine: str) -> Callable[[Ledger], bool]:
    return lambda _: folder_of(machine).is_dir() and bool(processes(folder_of(machine)))


@pytest.mark.parametrize(
    "far_enough",
    [
        pytest.param(noted(Kind.TREE), id="first directory"),
        pytest.param(noted(Kind.NETNS, 2), id="second namespace"),
        pytest.param(noted(Kind.LINK), id="link"),
        pytest.param(noted(Kind.CGROUP), id="cgroup"),
        pytest.param(runs("mgmt"), id="first machine runs"),
        pytest.param(runs("nfs"), id="last machine runs"),
    ],
)
def test_an_up_that_is_killed_half_way_is_taken_down_without_a_trace(
    state_directory: Path, listing: Take, far_enough: Callable[[Ledger], bool]
) -> None:
    about = str(state_directory)
    before = listing(about)
    code = f"import pathlib; from lab.local import up; up(pathlib.Path({about!r}))"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    ledger = Ledger(state_directory / "ledger.jsonl")
    deadline = time.monotonic() + 90
    while not far_enough(ledger) and child.poll() is None:
        assert time.monotonic() < deadline, "up does not come so far"
        time.sleep(0.005)
    assert child.poll() is None, "up ended before it could be killed; its error is above"
    child.kill()
    child.wait(30)
    down(state_directory)
    assert_as_before(before, listing, about)
    assert not state_directory.exists()


def test_a_second_lab_on_the_machine_is_refused_and_told_where_the_first_is(
    state_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_lock, "OWNER", tmp_path / "owner")
    (tmp_path / "owner").write_text("/var/lib/elsewhere")
    for act in (up, down):
        with pytest.raises(LabError, match="SPLAB_STATE=/var/lib/elsewhere splab lab down"):
            act(state_directory)
    (tmp_path / "owner").unlink()
    assert not state_directory.exists()


def test_a_lab_whose_state_directory_was_deleted_under_it_is_still_taken_down(
    state_directory: Path, listing: Take
) -> None:
    about = str(state_directory)
    before = listing(about)
    up(state_directory)
    shutil.rmtree(state_directory)
    down(state_directory)
    assert_as_before(before, listing, about)


def test_what_has_the_lab_s_name_but_no_owner_is_neither_used_nor_removed(state_directory: Path) -> None:
    stranger = folder_of("")
    stranger.mkdir()
    process = subprocess.Popen(["sleep", "300"])
    try:
        (stranger / "cgroup.procs").write_text(str(process.pid))
        with pytest.raises(LabError, match=f"cgroup {stranger}"):
            up(state_directory)
        down(state_directory)
        assert processes(stranger) == [process.pid]
    finally:
        process.kill()
        process.wait(10)
        wait("the folder can go", lambda: not processes(stranger), 10)
        stranger.rmdir()


def test_a_lab_that_lost_a_machine_is_repaired_by_up(state_directory: Path) -> None:
    lab = up(state_directory)
    first = lab.hosts[0].cgroup
    assert first is not None
    (first / "cgroup.kill").write_text("1")
    wait("kvm1 is dead", lambda: not processes(first), 10)
    assert ("kvm1", False) in {(name, ok) for name, _, ok in status(state_directory)}
    again = up(state_directory)
    assert SshHost(again.hosts[0].ssh).run(["hostname"]).text == "kvm1"


def test_libvirtd_that_was_killed_comes_back_by_itself(state_directory: Path) -> None:
    host = SshHost(up(state_directory).hosts[1].ssh)
    killed = host.run(["cat", "/run/libvirtd.pid"]).text
    host.run(["kill", "-9", killed])
    wait("libvirtd is back", lambda: host.run(["virsh", "version"], check=False).returncode == 0, 20)
    assert host.run(["cat", "/run/libvirtd.pid"]).text != killed
