"""Remove everything that the state directory of a stopped simulator has on this machine, also after a crash."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from simulator.blocks import loop, pool
from simulator.blocks.links import clients_directory
from simulator.blocks.openers import openers
from simulator.blocks.stores import explained
from simulator.ports import BlocksError

_SETTLE_SECONDS = 5.0


def destroy(state: Path) -> list[str]:
    """Fence and take away devices, unmount and delete the pool, delete the links; one line for each thing removed.

    May be repeated. Raises `BlocksError` naming who still holds something; what is held then stays and nothing that it
    needs is deleted.
    """
    state = state.resolve()
    removed = []
    with explained(f"removing the blocks of {state}"):
        if loop.missing() is None:
            removed += _devices(state)
            removed += _mount(state)
        elif pool.mounted(pool.mount_point(state)):
            raise BlocksError(f"removing the pool of {state} needs {loop.missing()}")
        for path in (clients_directory(state), pool.mount_point(state)):
            if path.exists():
                shutil.rmtree(path)
                removed.append(f"removed {path}")
        for path in (pool.image(state), state / "pool.json.new", state / "pool.json"):
            if path.exists():
                path.unlink()
                removed.append(f"removed {path}")
    return removed


def _devices(state: Path) -> list[str]:
    removed = []
    for status in loop.find(pool.mount_point(state), "splab:"):
        if not loop.clear(status.number, status.tag, force=False):
            loop.fence(status.number, status.tag)
            loop.clear(status.number, status.tag, force=True)
        removed.append(f"took away {status.path} ({status.tag})")
    _wait_for(state, pool.mount_point(state), "devices of its volumes are open")
    return removed


def _mount(state: Path) -> list[str]:
    if not pool.mounted(pool.mount_point(state)):
        _wait_for(state, pool.image(state), "another mount namespace holds the pool")
        return []
    if not pool.unmount(state):
        raise BlocksError(f"{pool.mount_point(state)} is in use (fuser -m shows by whom); stop that and repeat")
    _wait_for(state, pool.image(state), "another mount namespace holds the pool")
    return [f"unmounted {pool.mount_point(state)}"]


def _wait_for(state: Path, where: Path, why: str) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while left := loop.find(where, "splab:"):
        if time.monotonic() > deadline:
            who = "; ".join(f"{status.path}: {_who(status.path)}" for status in left)
            raise BlocksError(f"{state} cannot be removed yet, {why}: {who}. Stop them and repeat")
        time.sleep(0.05)


def _who(device: str) -> str:
    return ", ".join(str(opener) for opener in openers(device)) or "the kernel"
