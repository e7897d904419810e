"""Copies on the export, and what is published of it over HTTP."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import requests

from harness.agent.config import TlsFiles
from harness.agent.real_host import RealHost
from harness.cloudstack.secondary.config import SecondaryConfig
from harness.cloudstack.secondary.downloads import Downloads
from harness.cloudstack.secondary.role import SecondaryRole
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import (
    CopyCmdAnswer,
    CopyCommand,
    CreateEntityDownloadURLAnswer,
    CreateEntityDownloadURLCommand,
    DeleteCommand,
    published,
)
from harness.spi.errors import ErrorClass, InvalidParameter
from harness.spi.objects import (
    DataStore,
    ImageFormat,
    SnapshotObject,
    StoreRole,
    TemplateObject,
    VolumeObject,
    VolumeType,
)

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img (apt install qemu-utils)")

STORE = DataStore(id=1, uuid="s", name="s", role=StoreRole.IMAGE, provider="NFS", url="nfs://h/export")
VOLUME = VolumeObject(id=1, uuid="v", name="v", type=VolumeType.ROOT, size=1 << 20)
TOKEN = "00000000-0000-4000-8000-00000000000a"
FILE, COPY = "snapshots/a.qcow2", "template/tmpl/2/t.own.qcow2"
SECONDS = 10.0


@pytest.fixture
def export(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    return made


@pytest.fixture
def runtime() -> Iterator[ThreadRuntime]:
    made = ThreadRuntime("secondary")
    yield made
    made.kill()


@pytest.fixture
def downloads(runtime: ThreadRuntime, export: Path) -> Iterator[Downloads]:
    made = Downloads(runtime, config(export), "127.0.0.1:0")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def role(runtime: ThreadRuntime, export: Path, downloads: Downloads) -> SecondaryRole:
    made = SecondaryRole(runtime, RealHost(runtime), config(export), lambda: downloads.url)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(export / FILE), "64M"]
    subprocess.run(argv, check=True)
    return made


def config(export: Path) -> SecondaryConfig:
    tls = TlsFiles(ca="-", certificate="-", key="-")
    return SecondaryConfig(listen="127.0.0.1:0", export_directory=str(export), tls=tls)


def copy(source: str = FILE, path: str = COPY) -> CopyCommand:
    snapshot = SnapshotObject(id=1, uuid="a", name="a", volume=VOLUME, size=1, store=STORE, path=source)
    template = TemplateObject(id=2, uuid="t", name="t", format=ImageFormat.QCOW2, size=0, store=STORE, path=path)
    return CopyCommand(source=snapshot, destination=template)


def publish(token: str = TOKEN, path: str = FILE) -> CreateEntityDownloadURLCommand:
    return CreateEntityDownloadURLCommand(store=STORE, path=path, token=token)


def test_a_file_is_copied_whole_and_a_command_that_comes_again_leaves_it(role: SecondaryRole, export: Path) -> None:
    answer = role.handle(copy())
    assert isinstance(answer, CopyCmdAnswer) and answer.size == 64 << 20, answer
    assert (export / COPY).read_bytes() == (export / FILE).read_bytes()
    (export / FILE).unlink()
    again = role.handle(copy())
    assert isinstance(again, CopyCmdAnswer) and again.size == answer.size


def test_a_copy_of_what_is_not_there_leaves_nothing(role: SecondaryRole, export: Path) -> None:
    answer = role.handle(copy("snapshots/gone.qcow2"))
    assert not answer.result and "not on the image store any more" in answer.details
    assert list((export / "template/tmpl/2").iterdir()) == []
    assert not role.handle(copy("../outside.qcow2")).result


def test_a_copy_that_is_no_image_leaves_nothing(role: SecondaryRole, export: Path) -> None:
    (export / FILE).write_bytes(b"a backup that was cut off")
    assert not role.handle(copy()).result
    assert list((export / "template/tmpl/2").iterdir()) == []


def test_a_published_file_is_served_until_its_name_is_deleted(role: SecondaryRole, export: Path) -> None:
    first, answer = role.handle(publish()), role.handle(publish())
    assert isinstance(answer, CreateEntityDownloadURLAnswer) and first == answer, answer
    found = requests.get(answer.url, timeout=SECONDS)
    assert found.content == (export / FILE).read_bytes()
    head = requests.head(answer.url, timeout=SECONDS)
    assert head.headers["Content-Length"] == str(len(found.content)) and head.content == b""
    assert TOKEN not in repr(answer) and TOKEN not in repr(publish())
    assert role.handle(DeleteCommand(store=STORE, path=published(TOKEN))).result
    assert requests.get(answer.url, timeout=SECONDS).status_code == 404
    assert (export / FILE).is_file()


def test_an_error_does_not_tell_the_name_that_a_file_is_published_by(
    role: SecondaryRole, export: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (export / published(TOKEN)).mkdir()
    for command in (DeleteCommand(store=STORE, path=published(TOKEN)), publish()):
        answer = role.handle(command)
        assert not answer.result and answer.details
        assert TOKEN not in answer.details + caplog.text


def test_nothing_else_is_served(role: SecondaryRole, export: Path, downloads: Downloads) -> None:
    role.handle(publish())
    (export / "userdata/link.qcow2").symlink_to("/etc/passwd")
    (export / published(TOKEN.replace("a", "b"))).symlink_to("/etc/passwd")
    names = (
        "",
        "userdata",
        "userdata/",
        FILE,
        "userdata/link.qcow2",
        published(TOKEN.replace("a", "b")),
        published(TOKEN.replace("a", "c")),
        f"userdata/..%2f{FILE}",
        f"userdata/{TOKEN}.qcow2/",
        f"userdata/{TOKEN}.qcow2?x",
    )
    codes = {requests.get(f"{downloads.url}/{name}", timeout=SECONDS).status_code for name in names}
    assert codes == {404}


def test_more_connections_than_the_limit_are_closed_and_one_that_ends_makes_room(
    runtime: ThreadRuntime, export: Path
) -> None:
    narrow = Downloads(runtime, msgspec.structs.replace(config(export), max_downloads=1), "127.0.0.1:0")
    narrow.start()
    parts = urlsplit(narrow.url)
    address = str(parts.hostname), int(parts.port or 0)
    with socket.create_connection(address, SECONDS) as first, socket.create_connection(address, SECONDS) as second:
        assert second.recv(1) == b"", "closed without an answer"
        first.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.0 404"
    deadline, code = runtime.monotonic() + SECONDS, 0
    while not code:
        assert runtime.monotonic() < deadline
        with contextlib.suppress(requests.ConnectionError):
            code = requests.get(narrow.url, timeout=SECONDS).status_code
    narrow.stop()
    assert code == 404


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:65536", "127.0.0.1:x", ":0", "127.0.0.1:²"])
def test_what_is_no_address_is_refused(runtime: ThreadRuntime, export: Path, listen: str) -> None:
    with pytest.raises(InvalidParameter, match="address:port"):
        Downloads(runtime, config(export), listen)


@pytest.mark.parametrize("token", ["", "../snapshots/x", TOKEN + "x", TOKEN.upper()])
def test_a_token_that_is_no_uuid_is_refused(role: SecondaryRole, token: str) -> None:
    answer = role.handle(publish(token))
    assert not answer.result and "uuid" in answer.details


def test_what_is_not_there_or_cannot_be_served_is_not_published(
    role: SecondaryRole, runtime: ThreadRuntime, export: Path
) -> None:
    answer = role.handle(publish(path="volumes/gone.qcow2"))
    assert not answer.result and answer.error_class is ErrorClass.PERMANENT, answer
    silent = SecondaryRole(runtime, RealHost(runtime), config(export))
    assert "downloads_listen" in silent.handle(publish()).details
