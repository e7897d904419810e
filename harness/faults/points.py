"""Points: places in a run where a fault may strike, as the simulated runtime tells them. None is listed by hand."""

from __future__ import annotations

import functools
from typing import NamedTuple

MANAGEMENT = "management"
STORPOOL = "storpool"
SECONDARY = "secondary"
AGENT = "agent-"
CLIENT = "scenario"
"""Process of whoever calls CloudStack's API."""
_PROCESSES = (MANAGEMENT, STORPOOL, f"{STORPOOL}-2", SECONDARY, CLIENT, "network")
_AT = " at "
"""Before the StorPool process that a call is made at, unless it is the first."""

_LOOKS = ("query", "list")
"""Beginnings of API commands that change nothing."""


class Point(NamedTuple):
    """One place of one process; a run passes it once, often or never."""

    process: str
    kind: str
    """`send`, `answer`, `commit`, `effect-begin` or `effect-end`."""
    detail: str

    def __str__(self) -> str:
        return f"{self.process}: {self.kind} {self.detail}"

    @property
    def agent(self) -> bool:
        """Whether it is a place of a host's agent."""
        return self.process.startswith(AGENT)

    @property
    def machine(self) -> bool:
        """Whether it is a place of a host itself: a program that goes on without its agent, or a guest."""
        return not self.agent and self.process not in _PROCESSES

    @property
    def message(self) -> bool:
        return self.kind in ("send", "answer")

    @property
    def call(self) -> str | None:
        """Name of the StorPool call that is being made."""
        if not self.detail.startswith("StorPool "):
            return None
        return self.detail.removeprefix("StorPool ").partition(_AT)[0]

    @property
    def peer(self) -> str | None:
        """The process that the message goes to."""
        return _peer(self.detail) if self.message else None

    @property
    def host(self) -> str | None:
        """The KVM host that is concerned."""
        if self.machine:
            return self.process
        for process in (self.process, self.peer or ""):
            if process.startswith(AGENT):
                return process.removeprefix(AGENT)
        return None


@functools.cache
def _peer(detail: str) -> str | None:
    if detail.startswith("StorPool "):
        return detail.partition(_AT)[2] or STORPOOL
    if detail.startswith("API request "):
        return None if detail.removeprefix("API request ").startswith(_LOOKS) else MANAGEMENT
    command, to, receiver = detail.partition(" to ")
    if not to or not command.endswith("Command"):
        return None
    return SECONDARY if receiver == SECONDARY else AGENT + receiver
