"""The secondary storage role on a real directory, with qemu-img and a web server that misbehaves."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from harness.agent.config import TlsFiles
from harness.agent.real_host import RealHost
from harness.cloudstack.secondary.config import SecondaryConfig, load_config
from harness.cloudstack.secondary.export import Export
from harness.cloudstack.secondary.role import SecondaryRole
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import (
    Answer,
    AnyAnswer,
    DeleteCommand,
    DownloadAnswer,
    DownloadCommand,
    PingCommand,
    StopCommand,
)
from harness.spi.errors import ErrorClass, InvalidParameter
from harness.spi.objects import DataStore, ImageFormat, StoreRole, TemplateObject

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img (apt install qemu-utils)")

MIB = 1 << 20
STORE = DataStore(id=1, uuid="s", name="s", role=StoreRole.IMAGE, provider="NFS", url="nfs://h/export")
PATH = "template/tmpl/2/1/guest.qcow2"
TLS = TlsFiles(ca="-", certificate="-", key="-")


class Web:
    """Serves `pages`; a page may be cut short, be endless, or redirect for ever."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.hits: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.hits.append(self.path)
                if self.path == "/loop":
                    self.send_response(302)
                    self.send_header("Location", "/loop")
                    self.end_headers()
                    return
                page = web.pages.get(self.path)
                self.send_response(404 if page is None else 200)
                cut = self.path == "/cut"
                self.send_header("Content-Length", str(len(page or b"") + (100 if cut else 0)))
                self.end_headers()
                self.wfile.write(page or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("images")
    web = Web()

    def make(name: str, *arguments: str) -> None:
        subprocess.run(["qemu-img", "create", "-q", *arguments[:-1], str(folder / name), arguments[-1]], check=True)
        web.pages[f"/{name}"] = (folder / name).read_bytes()

    make("good", "-f", "qcow2", "64M")
    make("huge", "-f", "qcow2", "4T")
    make("backed", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", "64M")
    make("raw", "-f", "raw", "1M")
    web.pages |= {"/cut": web.pages["/good"], "/empty": b"", "/long": bytes(3 * MIB)}
    yield web
    web.close()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "export").mkdir()
    return tmp_path / "export"


@pytest.fixture
def role(export: Path) -> Iterator[SecondaryRole]:
    runtime = ThreadRuntime("secondary")
    config = SecondaryConfig(listen="127.0.0.1:0", export_directory=str(export), tls=TLS, max_image_bytes=2 * MIB)
    yield SecondaryRole(runtime, RealHost(runtime), config)
    runtime.kill()


def asked(url: str, path: str | None = PATH, checksum: str | None = None) -> DownloadCommand:
    template = TemplateObject(
        id=1, uuid="guest", name="guest", format=ImageFormat.QCOW2, size=0, store=STORE, path=path
    )
    return DownloadCommand(template=template, url=url, checksum=checksum)


def download(role: SecondaryRole, url: str, path: str | None = PATH, checksum: str | None = None) -> AnyAnswer:
    return role.handle(asked(url, path, checksum))


"""Directories that are always there."""


def files(export: Path) -> list[str]:
    """Without directories."""
    return sorted(str(file.relative_to(export)) for file in export.rglob("*") if not file.is_dir())


def test_an_image_is_fetched_checked_and_put_in_place_whole(role: SecondaryRole, export: Path, web: Web) -> None:
    answer = download(role, f"{web.url}/good")
    assert isinstance(answer, DownloadAnswer), answer
    assert answer.install_path == PATH and answer.virtual_size == 64 * MIB
    assert (export / PATH).read_bytes() == web.pages["/good"]
    assert answer.physical_size == len(web.pages["/good"])
    assert [file for file in files(export) if file.endswith("part")] == []


def test_what_a_templates_url_may_hold_in_secret_is_not_in_the_commands_text() -> None:
    url = "https://per-son:pass-word@images.example/guest.qcow2?signature=to-ken"
    command = asked(url)
    text = f"{command} {command!r}"
    assert "images.example/guest.qcow2" in text and "per-son" not in text and "pass-word" not in text
    assert "to-ken" not in text and msgspec.json.decode(msgspec.json.encode(command))["url"] == url


def test_a_command_that_comes_again_does_not_fetch_again(role: SecondaryRole, web: Web) -> None:
    first = download(role, f"{web.url}/good")
    hits = len(web.hits)
    assert download(role, f"{web.url}/good") == first
    assert len(web.hits) == hits


@pytest.mark.parametrize(
    ("page", "words", "kind"),
    [
        ("missing", "404", ErrorClass.PERMANENT),
        ("raw", "not in qcow2 format", ErrorClass.PERMANENT),
        ("empty", "register the template with its real format", ErrorClass.PERMANENT),
        ("backed", "backing file", ErrorClass.PERMANENT),
        ("huge", "virtual size", ErrorClass.PERMANENT),
        ("long", "limit", ErrorClass.PERMANENT),
        ("cut", "cannot be fetched", ErrorClass.TRANSIENT),
        ("loop", "TooManyRedirects", ErrorClass.TRANSIENT),
    ],
)
def test_an_image_that_is_not_what_it_must_be_is_refused_and_nothing_stays(
    role: SecondaryRole, export: Path, web: Web, page: str, words: str, kind: ErrorClass
) -> None:
    answer = download(role, f"{web.url}/{page}")
    assert not answer.result and answer.error_class is kind
    assert words.lower() in answer.details.lower().replace("'", ""), answer.details
    assert files(export) == []


def test_a_server_that_cannot_be_reached_and_other_schemes_are_refused(role: SecondaryRole, export: Path) -> None:
    assert download(role, "http://127.0.0.1:1/x").error_class is ErrorClass.TRANSIENT
    assert "only http" in download(role, "ftp://host/x").details
    assert "file_sources" in download(role, "file:///etc/passwd").details
    secret = download(role, "http://user:hunter2@127.0.0.1:1/x?token=hunter3")
    assert "hunter" not in secret.details
    assert files(export) == []


def test_a_file_url_names_files_of_allowed_directories_only(tmp_path: Path, export: Path, web: Web) -> None:
    runtime = ThreadRuntime("secondary")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a b.qcow2").write_bytes(web.pages["/good"])
    (tmp_path / "images/link").symlink_to("/etc/passwd")
    sources = (str(tmp_path / "images"),)
    config = SecondaryConfig(listen="127.0.0.1:0", export_directory=str(export), tls=TLS, file_sources=sources)
    role = SecondaryRole(runtime, RealHost(runtime), config)
    assert download(role, f"file://{tmp_path}/images/a%20b.qcow2").result
    for bad in ("link", "../other", "missing"):
        assert not download(role, f"file://{tmp_path}/images/{bad}", path=f"x/{bad[-4:]}").result
    runtime.kill()


@pytest.mark.parametrize("form", ["{SHA-256}%s", "{sha256}%s", "%s"])
def test_a_checksum_in_cloudstacks_forms_is_checked(role: SecondaryRole, export: Path, web: Web, form: str) -> None:
    right = hashlib.sha256(web.pages["/good"]).hexdigest()
    answer = download(role, f"{web.url}/good", checksum=form % ("0" * 64))
    assert "checksum" in answer.details and files(export) == []
    assert download(role, f"{web.url}/good", checksum=form % right.upper()).result
    assert not download(role, f"{web.url}/good", path="other", checksum="{CRC}123").result


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "", "link/file", "link2", "a\x00b"])
def test_paths_never_leave_the_export(role: SecondaryRole, export: Path, web: Web, path: str) -> None:
    outside = export.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("keep")
    (export / "link").symlink_to(outside)
    (export / "link2").symlink_to(outside / "file")
    with pytest.raises(InvalidParameter):
        Export(export).locate(path)
    assert not role.handle(DeleteCommand(store=STORE, path=path)).result
    if path:
        assert not download(role, f"{web.url}/good", path=path).result
    assert files(outside) == ["file"] and (outside / "file").read_text() == "keep"


def test_deleting_removes_the_file_and_its_directory_and_may_be_repeated(
    role: SecondaryRole, export: Path, web: Web
) -> None:
    download(role, f"{web.url}/good")
    (export / "template/other").mkdir()
    (export / "template/other/file").write_text("keep")
    for _ in range(2):
        assert role.handle(DeleteCommand(store=STORE, path=PATH)).result
    assert files(export) == ["template/other/file"]
    place = (export / PATH).parent
    # An NFS server refuses to mount a directory made anew under a name that it knew.
    assert not place.exists() and place.parent.exists()
    assert not role.handle(DeleteCommand(store=STORE, path="template/other")).result


def test_commands_of_hosts_are_refused_and_pings_answered(role: SecondaryRole) -> None:
    answer = role.handle(StopCommand(vm_name="i-2-3-VM"))
    assert answer == Answer(
        result=False,
        details="StopCommand is not for the secondary storage role",
        error_class=ErrorClass.PERMANENT,
    )
    assert role.handle(PingCommand()).result


def test_a_configuration_with_an_unknown_key_or_without_its_export_is_refused(tmp_path: Path, export: Path) -> None:
    tls = {"ca": "a", "certificate": "b", "key": "c"}
    good = {"listen": "127.0.0.1:0", "export_directory": str(export), "tls": tls}
    path = tmp_path / "config.json"
    for config, words in (
        ({**good, "lisen": "x"}, "lisen"),
        ({**good, "export_directory": str(tmp_path / "none")}, "not a directory"),
        ({"listen": "x"}, "export_directory"),
    ):
        path.write_text(json.dumps(config))
        with pytest.raises(InvalidParameter, match=words):
            load_config(path)
    path.write_text(json.dumps(good))
    assert load_config(path).export_directory == str(export)


def test_an_iso_is_taken_and_what_is_none_is_refused(role: SecondaryRole, export: Path, web: Web) -> None:
    web.pages["/good.iso"] = bytes(0x8001) + b"CD001" + bytes(4096)
    web.pages["/other.iso"] = bytes(0x8001) + b"XX001" + bytes(4096)
    template = TemplateObject(id=2, uuid="cd", name="cd", format=ImageFormat.ISO, size=0, store=STORE, path="iso/a.iso")
    assert not role.handle(DownloadCommand(template=template, url=f"{web.url}/other.iso")).result
    assert files(export) == []
    answer = role.handle(DownloadCommand(template=template, url=f"{web.url}/good.iso"))
    assert isinstance(answer, DownloadAnswer) and answer.result, answer
    assert (export / "iso/a.iso").read_bytes() == web.pages["/good.iso"]
    assert answer.virtual_size is not None and answer.virtual_size % 512 == 0
