"""A VM snapshot strategy over dictionaries, which can be told to fail."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import msgspec

from harness.spi.errors import InvalidParameter
from harness.spi.objects import VolumeObject, device_path
from harness.spi.vm_snapshots import VmSnapshotObject


class Script(Protocol):
    """`cloud_rig.Scripted`."""

    def step(self, call: str) -> None: ...

    def struck(self, call: str, *, after: bool = False) -> None: ...


class FakeVmSnapshots:
    """Calls are named `vm take`, `vm revert` and `vm delete`."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.groups: dict[str, set[str]] = {}
        """Paths by uuid of the VM snapshot."""
        self.reverted: list[str] = []
        self.during_revert: Callable[[], object] = lambda: None

    def why_not(self, volumes: Collection[VolumeObject], *, memory: bool) -> str | None:
        assert all(volume.store is not None for volume in volumes)
        return "not the memory" if memory else None

    def take(self, snapshot: VmSnapshotObject) -> VmSnapshotObject:
        self._script.step("vm take")
        paths = {volume.uuid: device_path(f"{snapshot.uuid[:8]}{volume.uuid[:8]}") for volume in snapshot.volumes}
        self.groups[snapshot.uuid] = set(paths.values())
        self._script.struck("vm take", after=True)
        return msgspec.structs.replace(snapshot, pool_id=1, paths=paths)

    def revert(self, snapshot: VmSnapshotObject) -> dict[str, int]:
        self._script.step("vm revert")
        if set(snapshot.paths) != {volume.uuid for volume in snapshot.volumes}:
            raise InvalidParameter("disks came or went since")
        self.during_revert()
        self.reverted.append(snapshot.uuid)
        self._script.struck("vm revert", after=True)
        return {volume.uuid: volume.size for volume in snapshot.volumes}

    def delete(self, snapshot: VmSnapshotObject) -> None:
        self._script.step("vm delete")
        self.groups.pop(snapshot.uuid, None)
        self._script.struck("vm delete", after=True)
