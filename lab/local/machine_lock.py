"""One local lab a machine: its names and addresses are the machine's, a second would take them from the first."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError

LOCK = Path("/run/lock/splab.lock")
OWNER = Path("/run/splab.owner")
"""Holds the state directory of the lab that is up. After a reboot gone with everything it speaks of, where /run is in
memory; where it is on disk, `abandoned` tells."""

LEDGER_COPY = Path("/run/splab.ledger")
"""A copy of that lab's ledger, for the case that its state directory is deleted under it."""


@contextmanager
def exclusive() -> Iterator[None]:
    """While inside, no other process brings a lab up or down. Raises `LabError` at once when one does."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(f"another process is bringing a local lab up or down ({LOCK}); wait for it") from error
        yield


def owner() -> Path | None:
    """State directory of the lab that is up on this machine, if one is."""
    try:
        return Path(OWNER.read_text().strip())
    except FileNotFoundError:
        return None


def refuse_other(state: Path) -> None:
    """Raises `LabError` when the lab on this machine is another one."""
    other = owner()
    if other is not None and other != state:
        raise LabError(
            f"another local lab is up on this machine, with its state in {other};"
            f" take it down first: SPLAB_STATE={other} splab lab down"
        )
