"""What a command asks of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Request:
    """One call."""

    verb: Literal["GET", "POST"]
    call: str
    target: str | None = None
    """Name or `~globalId` in the path."""
    body: Any = None
    """JSON of a POST."""
    multicluster: bool = False
    """Whether `-M` reaches out to the other clusters of the location."""

    def path(self, multicluster: bool) -> str:
        prefix = "MultiCluster/" if multicluster and self.multicluster else ""
        target = "" if self.target is None else "/" + quote(self.target, safe="~@:")
        return f"/ctrl/1.0/{prefix}{self.call}{target}"


@dataclass(frozen=True, slots=True)
class Choice:
    """`known` if the list that `ask` answers has an object of this name, else `unknown`."""

    ask: Request
    name: str
    known: Request
    unknown: Request

    def choose(self, data: Any) -> Request:
        """`data`: a list of objects, or an object whose only member is such a list."""
        entries = next(iter(data.values()), []) if isinstance(data, dict) else data
        return self.known if any(entry.get("name") == self.name for entry in entries) else self.unknown


Action = Request | Choice


def get(call: str, target: str | None = None, *, multicluster: bool = False) -> Request:
    return Request("GET", call, target, None, multicluster)


def post(call: str, target: str | None = None, body: Any = None, *, multicluster: bool = False) -> Request:
    return Request("POST", call, target, body, multicluster)
