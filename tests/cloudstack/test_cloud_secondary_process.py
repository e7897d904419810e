"""The secondary storage role as a process of its own, reached as the management server reaches it: over mutual TLS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from harness.cloudstack.agents.https import HttpsEndpoint
from harness.spi.commands import DeleteCommand, DownloadCommand, PingCommand
from harness.spi.errors import Unavailable
from harness.spi.objects import DataStore, ImageFormat, StoreRole, TemplateObject

STORE = DataStore(id=1, uuid="s", name="s", role=StoreRole.IMAGE, provider="NFS", url="nfs://h/export")
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img (apt install qemu-utils)")
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    tls: Path
    export: Path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    ca, tls, export = trustme.CA(), tmp_path / "tls", tmp_path / "export"
    tls.mkdir()
    export.mkdir()
    ca.cert_pem.write_to_path(str(tls / "ca.pem"))
    for name in ("management", "secondary", "stranger"):
        issued = ca.issue_cert("127.0.0.1", name, common_name=name)
        issued.private_key_pem.write_to_path(str(tls / f"{name}.key"))
        for index, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(str(tls / f"{name}.pem"), append=index > 0)
    files = {"ca": str(tls / "ca.pem"), "certificate": str(tls / "secondary.pem"), "key": str(tls / "secondary.key")}
    config = {"listen": "127.0.0.1:0", "export_directory": str(export), "tls": files, "file_sources": [str(tmp_path)]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    argv = [sys.executable, "-m", "harness.cloudstack.secondary.main", "--config", str(tmp_path / "config.json")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("ready https://127.0.0.1:")
        yield Running(process, ready.split()[1], tls, export)
        if process.poll() is None:
            process.kill()


def endpoint(running: Running, name: str) -> HttpsEndpoint:
    tls = running.tls
    return HttpsEndpoint(
        "secondary", running.url, str(tls / "ca.pem"), str(tls / f"{name}.pem"), str(tls / f"{name}.key")
    )


def test_the_role_serves_the_management_server_alone_and_ends_on_sigterm(running: Running, tmp_path: Path) -> None:
    image = tmp_path / "guest.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "8M"], check=True)
    template = TemplateObject(
        id=1, uuid="u", name="n", format=ImageFormat.QCOW2, size=0, store=STORE, path="template/guest.qcow2"
    )
    management = endpoint(running, "management")
    assert management.send(PingCommand(), timeout=10).result
    answer = management.send(DownloadCommand(template=template, url=image.as_uri()), timeout=30)
    assert answer.result, answer
    assert (running.export / "template/guest.qcow2").read_bytes() == image.read_bytes()
    assert management.send(DeleteCommand(store=STORE, path="template/guest.qcow2"), timeout=10).result
    assert [path for path in running.export.rglob("*") if path.is_file()] == []
    with pytest.raises(Unavailable):
        refused = endpoint(running, "stranger").send(PingCommand(), timeout=10)
        assert not refused.result
        raise Unavailable(refused.details)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0


def test_a_configuration_that_cannot_be_used_ends_it_with_one_line(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "harness.cloudstack.secondary.main", "--config", str(tmp_path / "missing.json")]
    done = subprocess.run(
        argv, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "missing.json" in done.stderr
