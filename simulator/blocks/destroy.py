"""Remove everything that the state directory of a stopped simulator has on this machine, also after a crash."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from simulator.blocks import gate, loop, pool, throttle
from simulator.blocks.links import clients_directory
from simulator.blocks.openers import openers
from simulator.blocks.stores import explained
from simulator.ports import BlocksError

_SETTLE_SECONDS = 5.0


def destroy(state: Path) -> list[str]:
    """Fence and take away devices, delete the pool and the links; one line for each thing removed.

    May be repeated. Raises `BlocksError` naming who still holds something; what is held then stays and nothing that it
    needs is deleted.
    """
    state = state.resolve()
    removed = []
    with explained(f"removing the blocks of {state}"):
        removed += gate.lift_left(state)
        if loop.missing() is None:
            removed += _devices(state)
        elif pool.image(state).exists():
            raise BlocksError(f"removing the pool of {state} needs {loop.missing()}")
        for path in (clients_directory(state), pool.plain_directory(state)):
            if path.exists():
                shutil.rmtree(path)
                removed.append(f"removed {path}")
        for path in (*pool.unfinished(state), *gate.state_files(state), state / "pool.json"):
            if path.exists():
                path.unlink()
                removed.append(f"removed {path}")
    return removed


def _devices(state: Path) -> list[str]:
    removed = []
    of_volumes = [status for pool_id in _pool_ids(state) for status in pool.devices(pool_id)]
    for status in of_volumes:
        if throttle.missing() is None:
            throttle.limit(status.number, throttle.NONE)
        if not loop.clear(status.number, status.tag, force=False):
            loop.fence(status.number, status.tag)
            loop.clear(status.number, status.tag, force=True)
        removed.append(f"took away {status.path} ({status.tag})")
    _wait_until_gone(state)
    return removed


def _pool_ids(state: Path) -> set[str]:
    """From the description, and from the image's device if the description is lost."""
    ids = {status.tag.split(":")[1] for status in pool.image_devices(state)}
    try:
        description = pool.describe(state)
    except BlocksError:
        return ids
    return ids | {description.id} if description is not None else ids


def _wait_until_gone(state: Path) -> None:
    """The image's device is the last to go: with it the file system is unmounted."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        left = [status for pool_id in _pool_ids(state) for status in pool.devices(pool_id)]
        if not left and not (left := pool.image_devices(state)):
            return
        if time.monotonic() > deadline:
            who = "; ".join(f"{status.path} ({status.tag}): {_who(status.path)}" for status in left)
            raise BlocksError(f"{state} cannot be removed yet, devices are in use: {who}. Stop the users and repeat")
        time.sleep(0.02)


def _who(device: str) -> str:
    return ", ".join(str(opener) for opener in openers(device)) or "a mount or a driver of the kernel"
