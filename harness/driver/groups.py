"""Snapshots of several volumes at one point in time, made by one operation with one request (spec/storpool-api.md 7.5).

StorPool makes all of them or none. So whether the request was carried out shows in the first, which is created as any
other object is (`creation`); the others have names of their own, derived from the operation as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.driver.creation import Creation
from harness.driver.discard import Discards
from harness.driver.operations import Operation, Operations
from harness.storpool import (
    GroupSnapshotDesc,
    GroupSnapshotsDesc,
    SnapshotSummary,
    StorPoolClient,
    exists,
)


class Group:
    """The snapshots of the operation, of these volumes as StorPool knows them."""

    def __init__(
        self, operations: Operations, operation: Operation, client: StorPoolClient, volumes: Sequence[str]
    ) -> None:
        self._client = client
        self._volumes = tuple(volumes)
        self.creation = Creation(operations, operation, "snapshot", client)
        """Of the first."""
        others = (f"cs-{operation.id}-disk{number}-snapshot" for number in range(1, len(self._volumes)))
        self.names = (self.creation.name, *others)

    def make(self, tags: dict[str, str], made_step: str) -> list[SnapshotSummary]:
        """The snapshots, in the order of the volumes, made now or before; errors are those of `Creation.make`.

        `ObjectDoesNotExist` too when one of them was deleted since.
        """

        def send(name: str) -> str:
            volumes = zip(self._volumes, self.names, strict=True)
            desc = GroupSnapshotsDesc(
                volumes=tuple(GroupSnapshotDesc(volume=volume, name=new) for volume, new in volumes), tags=tags
            )
            made = self._client.snapshot_create_group(desc)
            told = [found.snapshot_global_id for found in made.snapshots if found.snapshot == name]
            return told[0] if told else self._client.snapshot(name).global_id

        self.creation.make(send, made_step)
        return [self._client.snapshot(name) for name in self.names]

    def whole(self) -> bool:
        """Whether all of them are there."""
        return all(exists(self._client.snapshot, name) for name in self.names)

    def discard(self, discards: Discards, pool_id: int) -> None:
        """They are to go, and so are those that a request makes which comes late; each is an operation of its own."""
        if not self.creation.settles_at:
            return
        # The first comes last: as long as it is there, no late request makes them anew.
        for name in reversed(self.names):
            discards.take_over_snapshot(name, self.creation.unanswered, self.creation.settles_at, pool_id)
