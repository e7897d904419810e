"""Carrying out effects on the blocks, and undoing those that went before one that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from simulator.cluster.effects import (
    Attach,
    Cause,
    Clone,
    CloneGroup,
    Create,
    Delete,
    Detach,
    Effect,
    Failure,
    Fetch,
    Limit,
    Resize,
)
from simulator.fetching import fetch
from simulator.ports import Blocks, BlocksError, Bridges, DeviceBusy, OutOfSpace

Work = Callable[[], Failure | None]
Done = Callable[[Failure | None], None]


class Effects(Protocol):
    """Runs the work of changes. The cluster lets no two works on one object be under way, so any order will do."""

    def start(self, work: Work, done: Done) -> None:
        """Run `work` now or on another thread, then `done` with its result on the thread of the service."""
        ...


class Inline:
    """At once, in the caller."""

    def start(self, work: Work, done: Done) -> None:
        done(work())


def carry_out(blocks: Blocks, bridges: Bridges, effects: Sequence[Effect]) -> Failure | None:
    """All of them in order, or none: when one fails, those before it are undone in reverse."""
    for at, effect in enumerate(effects):
        try:
            _do(blocks, bridges, effect)
        except (BlocksError, OSError) as error:
            text = str(error)
            # What was copied half way from elsewhere is an object already.
            begun = effects[: at + 1] if isinstance(effect, Fetch) else effects[:at]
            for earlier in reversed(begun):
                try:
                    _undo(blocks, earlier)
                except (BlocksError, OSError) as second:
                    text += f"; undoing {earlier} failed: {second}; it is mended at the next start"
            return Failure(effect, _cause(error), text)
    return None


def _cause(error: Exception) -> Cause:
    if isinstance(error, DeviceBusy):
        return Cause.BUSY
    return Cause.SPACE if isinstance(error, OutOfSpace) else Cause.BROKEN


def _do(blocks: Blocks, bridges: Bridges, effect: Effect) -> None:
    if isinstance(effect, Create):
        blocks.create(effect.key, effect.size)
    elif isinstance(effect, Clone):
        blocks.clone(effect.source, effect.key, effect.size)
    elif isinstance(effect, Fetch):
        fetch(blocks, bridges, effect)
    elif isinstance(effect, CloneGroup):
        blocks.clone_group([(clone.source, clone.key, clone.size) for clone in effect.clones])
    elif isinstance(effect, Attach):
        blocks.attach(effect.key, effect.links, read_only=effect.read_only)
    elif isinstance(effect, Detach):
        blocks.detach(effect.key, effect.client, force=effect.force)
    elif isinstance(effect, Resize):
        blocks.resize(effect.key, effect.size)
    elif isinstance(effect, Limit):
        blocks.limit(effect.key, effect.iops, effect.bytes_per_second)
    else:
        blocks.delete(effect.key)


def _undo(blocks: Blocks, effect: Effect) -> None:
    if isinstance(effect, Create | Clone | Fetch):
        blocks.delete(effect.key)
    elif isinstance(effect, CloneGroup):
        for clone in effect.clones:
            blocks.delete(clone.key)
    elif isinstance(effect, Attach):
        if effect.was is None:
            blocks.detach(effect.key, effect.links.client, force=True)
        else:
            blocks.attach(effect.key, effect.was[0], read_only=effect.was[1])
    elif isinstance(effect, Detach):
        blocks.attach(effect.key, effect.was[0], read_only=effect.was[1])
    elif isinstance(effect, Resize):
        blocks.resize(effect.key, effect.was)
    elif isinstance(effect, Limit):
        blocks.limit(effect.key, *effect.was)
    else:
        assert isinstance(effect, Delete)
        raise BlocksError(f"a deletion of object {effect.key} cannot be undone")
