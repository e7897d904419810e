"""Snapshots of all disks of a VM, as CloudStack asks a storage provider for them (spec/cloudstack-plugin.md 4.19)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from harness.spi.objects import VolumeObject


class VmSnapshotObject(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    uuid: str
    name: str
    vm_uuid: str
    volumes: tuple[VolumeObject, ...]
    """The VM's volumes now, by slot."""
    pool_id: int | None = None
    """By whose API its snapshots are reached; None before they are taken."""
    paths: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Device path of the snapshot of each disk, by the uuid of its volume; empty before they are taken."""


class VmSnapshotStrategy(Protocol):
    """Every method may be called again after a crash or a lost answer, and then finishes what the first call began."""

    def why_not(self, volumes: Collection[VolumeObject], *, memory: bool) -> str | None:
        """Why it cannot snapshot a VM with these volumes; None when it can. Nothing is asked of the storage."""
        ...

    def take(self, snapshot: VmSnapshotObject) -> VmSnapshotObject:
        """All volumes at one point in time, whether the VM runs or not; the answer has `pool_id` and `paths`."""
        ...

    def revert(self, snapshot: VmSnapshotObject) -> dict[str, int]:
        """Put every volume back to what it was then; their sizes now, by uuid. The VM must not run.

        After `Unknown` some may be back and others not: the VM must not be started before another call has ended
        otherwise. After any other error every volume is as it was.
        """
        ...

    def delete(self, snapshot: VmSnapshotObject) -> None:
        """Delete all its snapshots, whoever has the volumes now. What is gone is success.

        `Conflict` names who holds one; after an error some may be gone.
        """
        ...
