"""HTTP messages as the proxy passes them on, and names for them in which nothing differs between runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote, urlsplit

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024 * 1024
API = "/ctrl/1.0/"
PING = "PingCommand"
_PREFIX = "MultiCluster"
_REMOTE = "RemoteCommand"
_BY_CONTENT = ("VolumeUpdate", "SnapshotUpdate")
_REASSIGN = "VolumesReassign"
_LOOKS = ("Volume ", "Snapshot ")
_BY_ITSELF = (PING, "VolumeUpdate by id (rename)", "VolumeUpdate by name (rename)")
_OBJECT = re.compile(rb"~([a-z0-9]+\.[a-z0-9]+\.[a-z0-9]+)")
_WHAT = frozenset({"volume", "snapshot", "force"})
"""Members of a reassignment that do not say whether it attaches or detaches."""


class BrokenMessage(OSError):
    """The peer closed the connection, or sent what is no HTTP."""


@dataclass(frozen=True, slots=True)
class HttpMessage:
    head: bytes
    """With the empty line."""
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    @property
    def target(self) -> str:
        """Path and query of a request."""
        words = self.head.split(b"\r\n", 1)[0].split(b" ")
        return words[1].decode("ascii", errors="replace") if len(words) == 3 else ""

    @property
    def json(self) -> Any:
        """The body's JSON; None when it has none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def read_message(stream: IO[bytes], *, until_end: bool = False) -> HttpMessage:
    """One whole message. A body without a length is empty, or with `until_end` lasts until the peer closes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline(HEAD_LIMIT)
        if not line or len(head) + len(line) > HEAD_LIMIT:
            raise BrokenMessage(f"the connection ended after {len(head)} bytes, before a whole head")
        head += line
    headers = _headers(head)
    length = headers.get("content-length", "")
    if length.isdigit():
        wanted = min(int(length), BODY_LIMIT)
        body = stream.read(wanted)
        if len(body) != int(length):
            raise BrokenMessage(f"a body of {length} bytes ended after {len(body)}")
        return HttpMessage(head, body)
    return HttpMessage(head, stream.read(BODY_LIMIT) if until_end else b"")


def _headers(head: bytes) -> Mapping[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:] if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def call_name(request: HttpMessage) -> str:
    """A StorPool call: its name, how it names its object, and of an update or reassignment what it changes."""
    parts = unquote(urlsplit(request.target).path).removeprefix(API).split("/")
    parts = parts[2:] if parts[0] == _REMOTE else parts
    parts = [part for part in parts if part and part != _PREFIX]
    call = parts[0] if parts else "nothing"
    words = [call]
    if len(parts) > 1:
        words.append("by id" if parts[1].startswith("~") else "by name")
    body = request.json
    if call in _BY_CONTENT and isinstance(body, dict):
        words.append(f"({', '.join(sorted(body))})")
    if call.startswith(_REASSIGN) and isinstance(body, dict):
        items = [item for item in body.get("reassign", ()) if isinstance(item, dict)]
        words.append(f"({', '.join(sorted({key for item in items for key in item} - _WHAT))})")
    return " ".join(words)


def objects_named(request: HttpMessage) -> frozenset[str]:
    """Global ids of the volumes and snapshots that a StorPool call is about, as far as it names them by id."""
    return frozenset(found.decode() for found in _OBJECT.findall(request.target.encode() + b" " + request.body))


def command_name(request: HttpMessage) -> str:
    """A command to an agent or to the secondary storage role."""
    body = request.json
    return str(body.get("command", "nothing")) if isinstance(body, dict) else "nothing"


def is_background(name: str) -> bool:
    """Whether a message of that name is sent now and then by itself, and belongs to no operation.

    Pings; the taking away of names once an answer is surely recorded; look-ups by name, with which recovery asks again
    and again whether a lost create has arrived (an object whose create was answered is addressed by its id).
    """
    return name in _BY_ITSELF or (name.endswith(" by name") and name.startswith(_LOOKS))
