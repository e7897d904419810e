"""The last calls that were served: for whoever wants to see what a client does, on the page or by `/_sim/log`.

Never shown are the token, values of the key-value store and secrets of iSCSI. Answers are not kept.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from simulator.api import wire
from simulator.api.paths import BASE
from simulator.api.subject import subject
from simulator.ports import Reply
from simulator.settings import Settings

MOST = 1000
"""Calls that are kept."""
KEPT_BODY = 4096
"""Bytes; of a longer body only the length is told."""
SHOWN_BODY = 400
SHOWN_PATH = 300
"""Characters."""
_HIDDEN = "[hidden]"
_SECRETS = re.compile(r"secret|passw|token|username|\Aset\Z|\Apairs\Z", re.IGNORECASE)
"""Members of a body whose value is not shown: of iSCSI, of the key-value store, and what looks like them."""
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Served:
    """One call, filled in as it comes to its end."""

    at: float
    """Unix seconds."""
    verb: str
    path: str
    client: str
    """Address."""
    body: bytes = b""
    length: int = 0
    """Bytes of the body, which is kept only when it is short."""
    fault: str = ""
    """Kind and number of the fault that struck it."""
    status: int | None = None
    """None when it was not answered: the client left, or a fault lost the answer."""
    error: str = ""
    milliseconds: float = 0.0
    number: int = 0
    """Grows by one for each call, from 1 on; 0 until it is over."""

    def keep(self, body: bytes) -> None:
        self.length = len(body)
        self.body = body if self.length <= KEPT_BODY else b""

    def answered(self, reply: Reply) -> None:
        self.status = reply.status
        self.error = wire.error_name(reply.body) if reply.status != 200 else ""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it is shown."""

    number: int
    time: float
    """Unix seconds at which it came."""
    verb: str
    path: str
    call: str
    objects: list[str]
    client: str
    status: int | None
    error: str
    fault: str
    milliseconds: float
    body: str


class Log:
    """A ring of the last calls. Lives on the server's event loop."""

    def __init__(self, settings: Settings, now: Callable[[], float], token: str, most: int = MOST) -> None:
        self.now = now
        self._settings = settings
        self._token = token
        self._ring: deque[Served] = deque(maxlen=most)
        self._last = 0
        self._news = asyncio.Event()
        self._awaited = False
        """Whether somebody waits for news."""
        self._closed = False

    @property
    def last(self) -> int:
        """Number of the last call."""
        return self._last

    def add(self, served: Served) -> None:
        self._last += 1
        served.number = self._last
        self._ring.append(served)
        self._wake()

    def close(self) -> None:
        """Whoever follows it has come to the end."""
        self._closed = True
        self._wake()

    def after(self, number: int, most: int = MOST) -> list[Line]:
        """The last calls with greater numbers, oldest first. A number that was not given out yet is of an earlier
        process, and counts as 0."""
        kept = len(self._ring)
        count = min(kept, most, self._last - number if number <= self._last else kept)
        return [self._line(self._ring[at]) for at in range(kept - count, kept)]

    async def follow(self, number: int, most: int, patience: float) -> AsyncIterator[list[Line]]:
        """What comes after that number, for as long as the log is open; nothing, after that many seconds of silence.
        Whoever is too slow, or is overrun, misses the oldest, as the numbers tell."""
        while not self._closed:
            news = self._news
            lines = self.after(number, most)
            if lines:
                number = lines[-1].number
                yield lines
                continue
            self._awaited = True
            try:
                async with asyncio.timeout(patience):
                    await news.wait()
            except TimeoutError:
                yield []

    def _wake(self) -> None:
        if self._awaited:
            self._awaited = False
            self._news.set()
            self._news = asyncio.Event()

    def _line(self, served: Served) -> Line:
        about = subject(served.verb, served.path, served.body, self._settings)
        return Line(
            number=served.number,
            time=round(served.at, 3),
            verb=self._safe(served.verb, SHOWN_PATH),
            path=self._safe(served.path, SHOWN_PATH),
            call=about.call,
            objects=[self._safe(name, SHOWN_PATH) for name in about.objects[:8]],
            client=served.client,
            status=served.status,
            error=served.error,
            fault=served.fault,
            milliseconds=round(served.milliseconds, 1),
            body=self._safe(_readable(served), SHOWN_BODY),
        )

    def _safe(self, text: str, longest: int) -> str:
        """Cut, without the token, and without half surrogate pairs, which no JSON can hold."""
        text = text.replace(self._token, _HIDDEN).encode(errors="replace").decode()
        return text if len(text) <= longest else text[:longest] + "…"


def _readable(served: Served) -> str:
    """The body less its secrets; only its length when it is long, or nothing in which they could be found."""
    if not served.length:
        return ""
    try:
        body = msgspec.json.decode(served.body)
        if served.path.startswith(BASE) and isinstance(body, dict | list):
            return _encode(_without_secrets(body)).decode()
    except (ValueError, RecursionError):
        pass
    return f"[{served.length} bytes]"


def _without_secrets(value: Any) -> Any:  # Any: JSON
    if isinstance(value, dict):
        return {key: _HIDDEN if _SECRETS.search(key) else _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner) for inner in value]
    return value
