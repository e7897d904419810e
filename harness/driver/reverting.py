"""Reverting a volume to one of its snapshots (spec/cloudstack-plugin.md 4.14, spec/storpool-api.md 7.4).

What makes it dangerous is a request that arrives late: by then a guest may have written to the volume again. So the
snapshot is given a name of the operation, the revert names it by that only, and the name is taken away before the
answer: a request that comes later finds no such snapshot. That a revert took place shows in the volume's global id,
which is a new one then, though the volume still goes by the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.driver.operations import Operation, Operations
from harness.driver.pools import Pools
from harness.driver.removal import release_volume
from harness.driver.resizing import refuse_late
from harness.driver.volumes import VolumeCreation
from harness.spi.driver import DriverRecords
from harness.spi.errors import Conflict, Error, InvalidParameter, NotFound, Unknown
from harness.spi.objects import PATH_PREFIX, SnapshotObject, storpool_id
from harness.spi.states import VolumeState
from harness.storpool import (
    ObjectDoesNotExist,
    ObjectExists,
    SnapshotSummary,
    SnapshotUpdateDesc,
    StorPoolClient,
    VolumeRevertDesc,
    VolumeUpdateDesc,
)

T = TypeVar("T")

SENDINGS = 3


class SnapshotReverting:
    """Steps: begin, name (of the snapshot), revert, unname.

    Raises `Unknown` while it cannot be said that nothing of it comes later: the volume must not be used until a call
    has ended otherwise. After any other error the volume is as it was.
    """

    kind = "revert-snapshot"

    def __init__(self, operations: Operations, pools: Pools, records: DriverRecords, volumes: VolumeCreation) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._volumes = volumes

    def revert(self, snapshot: SnapshotObject) -> int:
        """The size that the volume has now. `NotFound` when StorPool has lost either, `Conflict` names who holds it, or
        the resize that may still arrive."""
        volume = snapshot.volume
        if snapshot.path is None or volume.path is None:
            raise InvalidParameter(f"snapshot {snapshot.uuid} of volume {volume.uuid}: one of them is on no pool")
        pool = self._pools.of(volume)
        client = pool.client
        name, target = storpool_id(volume.path), storpool_id(snapshot.path)
        subject = f"volume:{volume.uuid}"
        with self._operations.exclusive(subject):
            found = there(client.snapshot, target, f"snapshot {snapshot.name} ({snapshot.uuid})", "the volume")
            was = there(client.volume, name, f"volume {volume.name} ({volume.uuid})", "the volume")
            refuse_late(self._operations, volume.uuid, found.size)
            data = {"pool": str(pool.id), "object": name, "snapshot": target, "was": was.global_id}
            operation = self._begin(subject, data)
            try:
                self._run(operation, client, found, volume.path)
            except Unknown:
                raise
            except Error as error:
                self._back_out(operation, client, error)
                raise
        return found.size

    def recover(self, operation: Operation) -> str:
        record = self._records.volume(operation.subject.removeprefix("volume:"))
        if record is not None and record.state is VolumeState.REVERT_SNAPSHOTTING:
            return f"{operation}: open until CloudStack asks for it again"
        self._unname(operation, self._pools.get(operation.pool_id).client)
        operation.undone()
        return f"{operation}: not carried out any further; CloudStack asks again if it still wants it"

    def _begin(self, subject: str, data: dict[str, str]) -> Operation:
        operation = self._operations.begin(self.kind, subject, "begin", data)
        if operation.resumed and operation.data["snapshot"] != data["snapshot"]:
            raise Conflict(f"{operation}: a revert to another snapshot is not over; try again later")
        return operation

    def _run(self, operation: Operation, client: StorPoolClient, found: SnapshotSummary, path: str) -> None:
        if operation.step == "begin":
            self._prepare(operation, client, path)
            operation.advance("name", {"name": "" if found.name.startswith("~") else found.name})
        if operation.step == "name":
            desc = SnapshotUpdateDesc(rename=_name(operation))
            resolved(
                lambda: client.snapshot_update(operation.data["snapshot"], desc),
                lambda: client.snapshot(operation.data["snapshot"]).name == _name(operation),
            )
            operation.advance("revert")
        if operation.step == "revert":
            if not _is_reverted(operation, client):
                desc_of_revert = VolumeRevertDesc(to_snapshot=_name(operation), revert_size=True)
                resolved(
                    lambda: client.volume_revert(operation.data["object"], desc_of_revert),
                    lambda: _is_reverted(operation, client),
                )
            operation.advance("unname")
        try:
            self._unname(operation, client)
        except Unknown:
            raise
        except Error as error:
            # A copy of the revert would still find the snapshot.
            raise Unknown(f"{operation}: the volume is reverted, but may not be used yet: {error}") from error
        operation.done()

    def _prepare(self, operation: Operation, client: StorPoolClient, path: str) -> None:
        """Nobody has it, and it is known by its id alone: a revert of a volume with a name would change its path."""
        if path.startswith(PATH_PREFIX):
            self._volumes.give_name_away(operation.subject)
            name = client.volume(operation.data["object"]).name
            if not name.startswith("~"):
                # By its name: by its id a copy that comes late would take the reverted volume's own name from it.
                client.volume_update(name, VolumeUpdateDesc(rename=""))
        release_volume(client, operation.data["object"])

    def _back_out(self, operation: Operation, client: StorPoolClient, error: Error) -> None:
        """Nothing of it is to come. Raises `Unknown` when that cannot be brought about now."""
        try:
            self._unname(operation, client)
        except Error as problem:
            raise Unknown(f"{error}; {operation} is not undone yet: {problem}") from error
        operation.undone()

    def _unname(self, operation: Operation, client: StorPoolClient) -> None:
        """The snapshot gets the name back that it had; without it no request of this operation finds it."""
        if operation.step == "begin":
            return
        snapshot = operation.data["snapshot"]
        try:
            if client.snapshot(snapshot).name != _name(operation) and operation.step != "name":
                return
            resolved(
                lambda: client.snapshot_update(snapshot, SnapshotUpdateDesc(rename=operation.data["name"])),
                lambda: client.snapshot(snapshot).name != _name(operation),
            )
        except ObjectExists:
            # A late request for a snapshot has taken it since. Any other name does.
            client.snapshot_update(snapshot, SnapshotUpdateDesc(rename=f"cs-{operation.id}-reverted"))
        except ObjectDoesNotExist:
            return


def _name(operation: Operation) -> str:
    return f"cs-{operation.id}-target"


def _is_reverted(operation: Operation, client: StorPoolClient) -> bool:
    return client.volume(operation.data["object"]).global_id != operation.data["was"]


def there(look: Callable[[str], T], name: str, what: str, unchanged: str) -> T:
    """`NotFound` says what is gone, and what was not changed."""
    try:
        return look(name)
    except ObjectDoesNotExist as error:
        raise NotFound(f"{what} is gone from StorPool ({error}); {unchanged} is as it was") from error


def resolved(send: Callable[[], None], took_effect: Callable[[], bool]) -> None:
    """Send it until it was answered, or its effect is seen; every sending has the same effect."""
    for left in reversed(range(SENDINGS)):
        try:
            send()
            return
        except Unknown as lost:
            try:
                if took_effect():
                    return
            except Error as error:
                raise lost from error
            if not left:
                raise
