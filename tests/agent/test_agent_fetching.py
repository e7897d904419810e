"""Images that a host fetches itself, by the real curl from a web server that knows no ranges."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.agent import fetching
from harness.agent.config import AgentConfig
from harness.agent.deadline import Deadline
from harness.agent.real_host import RealHost
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Error, InvalidParameter, NotFound, Unavailable
from harness.spi.ports import CommandResult, Output

needs = [name for name in ("curl", "qemu-img") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(needs), reason=f"needs {needs} (apt install curl qemu-utils)")

SECONDS = 10.0
OPERATION = "op-1"


class Watched(RealHost):
    """Remembers the arguments of every program."""

    def __init__(self, runtime: ThreadRuntime) -> None:
        super().__init__(runtime)
        self.runtime = runtime
        self.seen: list[str] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        operation: str | None = None,
        output: Output | None = None,
    ) -> CommandResult:
        self.seen += argv
        return super().run(argv, stdin=stdin, timeout=timeout, operation=operation, output=output)


@pytest.fixture
def host() -> Iterator[Watched]:
    runtime = ThreadRuntime("agent")
    yield Watched(runtime)
    runtime.kill()


def until(host: Watched) -> Deadline:
    return Deadline(host.runtime, SECONDS)


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return AgentConfig(
        host_uuid="u", host_name="kvm1", download_directory=str(tmp_path / "downloads"), max_download_bytes=1 << 20
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("images")

    def image(*arguments: str) -> bytes:
        file = folder / f"{len(arguments)}"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *arguments[:-1], str(file), arguments[-1]], check=True
        )
        return file.read_bytes()

    backed = image("-F", "raw", "-b", "/etc/hostname", "64M")
    return {
        "/good": image("64M"),
        "/{a,b}[1-3]": image("-o", "cluster_size=4096", "64M"),
        "/backed": backed,
        "/text": b"x" * 4096,
        "/long": bytes(2 << 20),
        "/endless": bytes(2 << 20),
        "/empty": b"",
    }


@pytest.fixture(scope="module")
def web(pages: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            self.send_response((503 if self.path == "/busy" else 404) if page is None else 200)
            if self.path != "/endless":
                self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_image_is_looked_at_and_fetched_and_no_program_is_told_its_url(
    host: Watched, config: AgentConfig, web: str, pages: dict[str, bytes]
) -> None:
    url = f"{web}/good?signature=secret"
    assert fetching.virtual_size(host, config, url, SECONDS) == 64 << 20
    checksum = "{SHA-256}" + hashlib.sha256(pages["/good"]).hexdigest()
    file = fetching.fetch(host, config, url, checksum, OPERATION, until(host))
    assert file == fetching.file_of(config, OPERATION) and Path(file).read_bytes() == pages["/good"]
    assert not [argument for argument in host.seen if "127.0.0.1" in argument or "secret" in argument]


def test_a_url_is_one_url_whatever_curl_could_make_of_it(
    host: Watched, config: AgentConfig, web: str, pages: dict[str, bytes]
) -> None:
    page = "/{a,b}[1-3]"
    assert fetching.virtual_size(host, config, web + page, SECONDS) == 64 << 20
    assert Path(fetching.fetch(host, config, web + page, None, OPERATION, until(host))).read_bytes() == pages[page]


@pytest.mark.parametrize(
    ("page", "kind", "words"),
    [
        ("/none", NotFound, "404"),
        ("/text", InvalidParameter, "is not a QCOW2 image"),
        ("/empty", InvalidParameter, "is not a QCOW2 image"),
        ("/backed", InvalidParameter, "backing file"),
    ],
)
def test_what_is_no_image_is_told(
    host: Watched, config: AgentConfig, web: str, page: str, kind: type[Error], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        fetching.virtual_size(host, config, f"{web}{page}?signature=secret", SECONDS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("page", "checksum", "kind", "words"),
    [
        ("/none", None, NotFound, "404"),
        ("/busy", None, Unavailable, "503"),
        ("/long", None, Unavailable, "maximum|exceeded"),
        ("/endless", None, Unavailable, "longer than 1048576"),
        ("/good", "0" * 64, InvalidParameter, "expected 0000"),
    ],
)
def test_what_cannot_be_fetched_is_told(
    host: Watched, config: AgentConfig, web: str, page: str, checksum: str | None, kind: type[Error], words: str
) -> None:
    with pytest.raises(kind, match=f"(?i){words}"):
        fetching.fetch(host, config, web + page, checksum, OPERATION, until(host))


@pytest.mark.parametrize("checksum", ["{ROT-13}00", "{MD5}" + "0" * 64, "{SHA-256}" + "0" * 63, "z" * 64])
def test_nothing_is_fetched_for_a_checksum_that_is_none(
    host: Watched, config: AgentConfig, web: str, checksum: str
) -> None:
    with pytest.raises(InvalidParameter, match="SHA-256"):
        fetching.fetch(host, config, web + "/good", checksum, OPERATION, until(host))
    assert host.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://h/x",
        'http://h/x"\noutput = "/etc/x',
        "http://h/\\x",
        "http://secret@h:no/x",
        "http://[::1/x",
        "http:x",
    ],
)
def test_other_urls_are_never_given_to_curl(host: Watched, config: AgentConfig, url: str) -> None:
    for work in (
        lambda: fetching.virtual_size(host, config, url, SECONDS),
        lambda: fetching.fetch(host, config, url, None, OPERATION, until(host)),
    ):
        with pytest.raises(InvalidParameter) as caught:
            work()
        assert "secret" not in str(caught.value)
    assert host.seen == []
