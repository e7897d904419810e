"""`splab-agent` as a process: what it needs, what it imports, how it starts and stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trustme

from harness.agent.main import main
from harness.agent.operations import Kind, Record
from harness.cloudstack.agents.https import HttpsEndpoint
from harness.spi.commands import PingCommand, StorPoolModifyStoragePoolCommand
from harness.spi.errors import ErrorClass
from harness.spi.objects import DataStore, StoreRole

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "1234567890123456789"
PRODUCTION = ("harness.agent", "harness.spi", "harness.storpool", "harness.runtime.threads")
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")


def imported(statement: str) -> set[str]:
    """Modules that a fresh interpreter has after this statement."""
    script = f"import sys; {statement}; print(*sys.modules)"
    program = [sys.executable, "-c", script]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    return set(ran.stdout.split())


def test_the_agent_imports_production_code_and_its_libraries_only() -> None:
    modules = imported("import harness.agent.main")
    own = {name for name in modules if name.split(".")[0] == "harness"}
    assert "harness.agent.main" in own
    assert {name for name in own if not name.startswith(PRODUCTION)} == {"harness", "harness.runtime"}
    # Libraries bring what they use, and what they find; the agent itself adds the standard library at most.
    others = modules - own - imported("import requests, msgspec")
    assert {name.split(".")[0] for name in others} - sys.stdlib_module_names == set()


def settings(directory: Path, **changes: object) -> Path:
    """Configuration, storpool.conf and certificates of an agent that listens on a free port."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    for name in ("kvm1", "management"):
        issued = ca.issue_cert(name, "127.0.0.1", common_name=name)
        issued.cert_chain_pems[0].write_to_path(directory / f"{name}.pem")
        issued.private_key_pem.write_to_path(directory / f"{name}.key")
    conf = directory / "storpool.conf"
    conf.write_text(f"SP_CLUSTER_ID=d.n\nSP_API_HTTP_HOST=127.0.0.1\nSP_API_HTTP_PORT=1\nSP_AUTH_TOKEN={TOKEN}\n")
    drop_ins = directory / "storpool.conf.d"
    drop_ins.mkdir(exist_ok=True)
    (drop_ins / "10-ids.conf").write_text("[kvm1]\nSP_OURID=3\n")
    (drop_ins / ".hidden.conf").write_text("SP_CLUSTER_ID=wrong\n")
    file = directory / "agent.json"
    tls = {"ca": str(directory / "ca.pem"), "certificate": str(directory / "kvm1.pem")}
    config = {
        "host_uuid": "11111111-2222-4333-8444-555555555555",
        "host_name": "kvm1",
        "listen": "127.0.0.1:0",
        "tls": tls | {"key": str(directory / "kvm1.key")},
        "libvirt_uri": "test:///default",
        "storpool_conf": str(conf),
        "storpool_conf_directory": str(drop_ins),
        "operations_directory": str(directory / "operations"),
    }
    file.write_text(json.dumps(config | changes))
    return file


@contextmanager
def running(program: list[str], config: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The agent's process and its URL."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*program, "--config", str(config)], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready https://"), line + log.read_text()
            yield process, line.split()[1]
        finally:
            process.kill()
            process.communicate(timeout=20)


def endpoint(directory: Path, url: str) -> HttpsEndpoint:
    files = (str(directory / name) for name in ("ca.pem", "management.pem", "management.key"))
    return HttpsEndpoint("kvm1", url, *files)


def test_a_process_serves_commands_logs_json_without_the_token_and_ends_on_sigterm(tmp_path: Path) -> None:
    pytest.importorskip("libvirt", reason="needs libvirt-python: pip install '.[agent]'")
    log = tmp_path / "log"
    with running([sys.executable, "-m", "harness.agent.main"], settings(tmp_path), log) as (process, url):
        pinged = endpoint(tmp_path, url).send(PingCommand(), timeout=30)
        assert pinged.result, pinged.details
        assert getattr(pinged, "vms", None) == {"test": "PowerOn"}, "the domain that libvirt's test driver starts with"
        checked = endpoint(tmp_path, url).send(
            StorPoolModifyStoragePoolCommand(pool=POOL, volume_path="/dev/storpool-byid/d.n.1"), timeout=60
        )
        assert not checked.result
        assert checked.error_class is ErrorClass.TRANSIENT
        assert "does not reach the StorPool API" in checked.details
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["host"] for line in lines} == {"kvm1"}
    assert any("StorPoolModifyStoragePoolCommand failed" in line["message"] for line in lines)
    assert TOKEN not in log.read_text() + checked.details


def test_an_agent_serves_though_records_cannot_be_read_or_concluded_and_one_that_is_killed_keeps_them(
    tmp_path: Path,
) -> None:
    pytest.importorskip("libvirt", reason="needs libvirt-python: pip install '.[agent]'")
    config = settings(tmp_path)
    directory = tmp_path / "operations"
    directory.mkdir()
    (directory / "torn.json").write_text('{"id":"torn","kind":"att')
    left = Record(id="op-1", kind=Kind.ATTACH, vm="test", paths=("/dev/storpool-byid/d.n.1",), began_at=1.0)
    (directory / "op-1.json").write_bytes(msgspec.json.encode(left))
    (directory / "op-2.json.new").write_text("")
    for number in range(2):
        log = tmp_path / f"log-{number}"
        with running([sys.executable, "-m", "harness.agent.main"], config, log) as (process, url):
            assert endpoint(tmp_path, url).send(PingCommand(), timeout=30).result
            process.kill()
        assert sorted(path.name for path in directory.iterdir()) == ["op-1.json", "torn.json"]
        assert f"{directory}/torn.json cannot be read" in log.read_text()
        assert "operation op-1 (attach test /dev/storpool-byid/d.n.1, acting) was left open" in log.read_text()


def test_a_second_agent_does_not_touch_what_the_first_one_works_on(tmp_path: Path) -> None:
    pytest.importorskip("libvirt", reason="needs libvirt-python: pip install '.[agent]'")
    config = settings(tmp_path)
    directory = tmp_path / "operations"
    directory.mkdir()
    program = [sys.executable, "-m", "harness.agent.main"]
    with running(program, config, tmp_path / "log-1") as (first, _):
        open_one = Record(id="op-1", kind=Kind.ATTACH, vm="test", began_at=1.0)
        (directory / "op-1.json").write_bytes(msgspec.json.encode(open_one))
        (directory / "op-2.json.new").write_text("")
        second = subprocess.run(
            [*program, "--config", str(config)], capture_output=True, text=True, timeout=20, cwd=ROOT
        )
        assert second.returncode == 2
        assert f"{directory} is in use by another agent" in second.stderr
        assert "was left open" not in second.stderr
        assert sorted(path.name for path in directory.iterdir()) == ["op-1.json", "op-2.json.new"]
        first.kill()
        first.wait(20)
        with running(program, config, tmp_path / "log-2"):
            assert [path.name for path in directory.iterdir()] == ["op-1.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "blue"}, "colour"),
        ({"host_name": 3}, "host_name"),
        ({"accelerator": "tcg"}, "accelerator"),
        ({"tls": None}, "tls"),
        ({"listen": "nowhere"}, "nowhere"),
        ({"storpool_conf": "/nonexistent/storpool.conf"}, "/nonexistent/storpool.conf"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line_that_says_why(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    program = [sys.executable, "-m", "harness.agent.main", "--config", str(settings(tmp_path, **change))]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ran.returncode == 2
    (line,) = [line for line in ran.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("splab-agent: ")
    assert words in line
    assert TOKEN not in ran.stderr


def test_a_missing_configuration_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.local
def test_the_agent_installs_and_starts_in_a_bare_environment(tmp_path: Path) -> None:
    for tool in ("gcc", "pkg-config"):
        if shutil.which(tool) is None:
            pytest.skip(f"libvirt-python is built from source: needs {tool} and libvirt-dev")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    source = tmp_path / "source"
    source.mkdir()
    for name in ("harness", "simulator", "scenarios", "lab", "pyproject.toml", "README.md", "LICENSE"):
        item = ROOT / name
        if item.is_dir():
            shutil.copytree(item, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif item.exists():
            shutil.copy(item, source)
    (source / "README.md").touch()
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", str(bare)], check=True, timeout=120)
    pip = [str(bare / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", f"{source}[agent]"]
    installed = subprocess.run(pip, capture_output=True, text=True, timeout=280, env=environment)
    assert installed.returncode == 0, installed.stderr
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(bare)}))
    assert not (site / "starlette").exists()
    assert not (site / "greenlet").exists()
    config = settings(tmp_path)
    with running([str(bare / "bin/splab-agent")], config, tmp_path / "log") as (process, url):
        pinged = endpoint(tmp_path, url).send(PingCommand(), timeout=30)
        assert pinged.result, pinged.details
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
