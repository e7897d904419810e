"""Images from a URL: over HTTP with limits on size and time, or from a local file where that is allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import requests

from harness.agent.checksum import parse_checksum
from harness.cloudstack.secondary.config import SecondaryConfig
from harness.spi.commands import shown
from harness.spi.errors import InsufficientCapacity, InvalidParameter, NotFound, Unavailable

CHUNK = 1 << 20
MAX_REDIRECTS = 5


def fetch(url: str, into: IO[bytes], config: SecondaryConfig, expired: Callable[[], bool]) -> None:
    """Write what the URL has; `expired` tells when the time for the whole download is over."""
    scheme = urlsplit(url).scheme.lower()
    if scheme == "file":
        chunks = _from_file(url, config)
    elif scheme in ("http", "https"):
        chunks = _from_web(url, config)
    else:
        raise InvalidParameter(f"{shown(url)}: only http, https and file URLs are fetched")
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > config.max_image_bytes:
            raise InsufficientCapacity(f"{shown(url)} has more than {config.max_image_bytes} bytes; the limit stops it")
        if expired():
            raise Unavailable(f"{shown(url)} was not fetched in time; {size} bytes came")
        into.write(chunk)


def check_sum(file: Path, expected: str, url: str) -> None:
    """Raises `InvalidParameter` when the file has another one, or `expected` is none."""
    wanted = parse_checksum(expected, shown(url))
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, wanted.method).hexdigest()
    wanted.check(found, shown(url))


def _from_web(url: str, config: SecondaryConfig) -> Iterator[bytes]:
    timeouts = (config.connect_timeout, config.read_timeout)
    with requests.Session() as session:
        session.trust_env = False
        session.max_redirects = MAX_REDIRECTS
        try:
            with session.get(url, stream=True, timeout=timeouts, headers={"Accept-Encoding": "identity"}) as response:
                if response.status_code in (404, 410):
                    raise NotFound(f"{shown(url)} answers {response.status_code}; check the template's URL")
                if response.status_code != 200:
                    raise Unavailable(f"{shown(url)} answers {response.status_code}")
                yield from _complete(response, url)
        except requests.exceptions.RequestException as error:
            raise Unavailable(f"{shown(url)} cannot be fetched: {type(error).__name__}") from None


def _complete(response: requests.Response, url: str) -> Iterator[bytes]:
    """The body; raises when it ends before the length that was announced."""
    announced = response.headers.get("Content-Length", "")
    size = 0
    for chunk in response.iter_content(CHUNK):
        size += len(chunk)
        yield chunk
    if announced.isdigit() and size != int(announced):
        raise Unavailable(f"{shown(url)} ended after {size} of {announced} bytes")


def _from_file(url: str, config: SecondaryConfig) -> Iterator[bytes]:
    file = Path(unquote(urlsplit(url).path)).resolve()
    if not any(file.is_relative_to(Path(directory).resolve()) for directory in config.file_sources):
        raise InvalidParameter(f"{shown(url)} is outside the directories (file_sources) that file URLs may name")
    try:
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise NotFound(f"{shown(url)} does not exist") from None
    except OSError as error:
        raise Unavailable(f"{shown(url)} cannot be read: {error.strerror}") from error
