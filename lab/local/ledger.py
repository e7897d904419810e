"""The ledger: a line on disk for everything the lab makes, before it makes it. `down` walks it backwards."""

from __future__ import annotations

import enum
import os
from pathlib import Path

import msgspec


class Kind(enum.StrEnum):
    TREE = "tree"
    """A directory of the lab's own with everything in it."""
    DIRECTORY = "directory"
    """A directory outside; removed only when empty."""
    FILE = "file"
    NETNS_ROOT = "netns root"
    """The mount that `ip netns` makes the first time."""
    NETNS = "network namespace"
    LINK = "link"
    SIMULATOR = "StorPool simulator"
    """Its state directory: loop devices, pool mount."""
    CGROUP = "cgroup"
    """With every process in it."""


class Entry(msgspec.Struct, frozen=True):
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Ledger:
    """Append-only; `record` returns when the line is on disk. With a `copy`, that gets each line first, and is read
    when the ledger itself is gone."""

    def __init__(self, path: Path, copy: Path | None = None) -> None:
        self.path = path
        self.copy = copy

    def record(self, kind: Kind, name: str | Path) -> None:
        entry = Entry(kind, str(name))
        if entry in self.entries():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in [self.copy, self.path] if self.copy else [self.path]:
            with path.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def entries(self) -> list[Entry]:
        """Everything recorded, in order; a last line torn by a crash was never acted upon and is left out."""
        path = self.path if self.path.exists() or self.copy is None else self.copy
        if not path.exists():
            return []
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        return [msgspec.json.decode(line, type=Entry) for line in whole.splitlines()]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        if self.copy is not None:
            self.copy.unlink(missing_ok=True)
