"""Copying a snapshot to a pool of another location, from StorPool to StorPool (spec/cloudstack-plugin.md 5.5).

The source's cluster exports the snapshot to the location of the destination, whose cluster copies it under the same
global id. That id is how the copy is found again after a lost answer. The export is taken back once the copy has
recovered, by the background tasks: nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from harness.driver import tags
from harness.driver.operations import ANSWERED, SOURCE_POOL, Operation, Operations, undone_by_errors
from harness.driver.pools import Connect, Pool, Pools, cluster_of
from harness.driver.removal import remove_snapshot
from harness.driver.settings import seconds
from harness.driver.settling import Fate, Settler
from harness.spi.driver import DriverRecords
from harness.spi.errors import InvalidParameter, NotFound, Unknown
from harness.spi.objects import SnapshotObject, device_path, storpool_id
from harness.storpool import (
    Busy,
    ObjectDoesNotExist,
    ObjectExists,
    SnapshotFromRemoteDesc,
    SnapshotSummary,
    StorPoolClient,
    parse_url,
)

LOCATION = "sp.cluster.location"
ENDPOINT = "sp.cluster.endpoint"
RECOVERY_CHECK = "storpool.snapshot.recovery.from.remote.check"
SENDINGS = 3
AWAY = 3600.0
"""As `creation.AWAY`: a server that starts so long after the last sending may be on records from a backup."""


class SnapshotReplication:
    """Steps: export, fetch, answered; undo. Open until the copy has recovered and the export is taken back.

    Both requests may be sent again: an export that is there stays, and a second copy is refused. A copy that comes late
    needs the export, so what is undone takes that back first.
    """

    kind = "copy-snapshot"

    def __init__(
        self, operations: Operations, pools: Pools, records: DriverRecords, connect: Connect, settler: Settler
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._connect = connect
        self._settler = settler

    def copy(self, source: SnapshotObject, destination: SnapshotObject) -> SnapshotObject:
        """The answer is `destination` with path and size. `NotFound` when StorPool has lost the source."""
        origin, target = self._pools.of(source), self._pools.of(destination)
        if source.path is None:
            raise NotFound(f"snapshot {source.name} ({source.uuid}) has no path on its pool")
        name = storpool_id(source.path)
        subject = f"snapshot:{source.uuid}@pool:{target.id}"
        data = {"pool": str(target.id), SOURCE_POOL: str(origin.id), "object": name, "at": "", "location": ""}
        with self._operations.exclusive(subject):
            operation = self._operations.begin(self.kind, subject, "export", data)
            if operation.step == ANSWERED and operation.data["object"] == name:
                # The copy was deleted since, and the export may have been taken back.
                operation.advance("export", data)
            elif operation.resumed and (operation.data["object"] != name or operation.step == "undo"):
                if self._undo(operation):
                    operation = self._operations.begin(self.kind, subject, "export", data)
                else:
                    # What of it may still arrive is asked for again now, so it does no harm.
                    operation.advance("export", data)
            with undone_by_errors(operation, self._undo):
                made = self._run(operation, origin, target, source)
            self._operations.answer(operation)
        self._settler.wake()
        return msgspec.structs.replace(destination, path=device_path(made.global_id), size=made.size)

    def recover(self, operation: Operation) -> str:
        if operation.step == ANSWERED:
            fate = self._fate(operation)
            if fate is not Fate.ABANDONED:
                if self.settle(operation):
                    return f"{operation}: done"
                return f"{operation}: copied; open until it has recovered and is surely recorded"
        if self._operations.started - float(operation.data.get("sent") or 0) > AWAY and operation.step != "export":
            return (
                f"{operation}: left open, because this server started more than {AWAY:g} s after it was asked for; if"
                f" these records were restored from a backup, the copy of {operation.data['object']} may be in use"
            )
        if self._undo(operation):
            return f"{operation}: undone"
        return f"{operation}: open until a lost request can no longer arrive"

    def settle(self, operation: Operation) -> bool:
        fate = self._fate(operation)
        if fate is Fate.ABANDONED:
            return self._operations.in_nobodys_hands(operation) and self._undo(operation)
        if fate is Fate.AWAITED or (fate is Fate.UNTOLD and not self._operations.surely_recorded(operation)):
            return False
        interval = seconds(self._records, RECOVERY_CHECK)
        if not interval or not self._operations.passed(operation, "check", interval):
            return False
        if not self._recovered(operation):
            operation.note({"check": str(self._operations.now() + interval)})
            return False
        self._take_back(operation, force=False)
        if not self._operations.settled(operation):
            # A request for it that comes late would export the snapshot once more.
            operation.note({"check": str(self._operations.now() + interval)})
            return False
        operation.done()
        return True

    def _run(self, operation: Operation, origin: Pool, target: Pool, source: SnapshotObject) -> SnapshotSummary:
        name = operation.data["object"]
        if operation.step == "export":
            at = self._whereabouts(origin, name, source)
            locations = self._location(origin, target), self._location(target, origin)
            if locations[0] == locations[1]:
                raise InvalidParameter(
                    f"pools {origin.id} and {target.id} are both in StorPool location {locations[0]}; a snapshot is"
                    f" copied to another location only, see {LOCATION} of the pools"
                )
            operation.note({"at": at or "", "location": locations[1], "from": locations[0]})
            api = self._source(operation)
            self._send(operation, lambda: api.snapshot_export(name, operation.data["location"]))
            operation.advance("fetch")
        return self._fetch(operation, target, source)

    def _fetch(self, operation: Operation, target: Pool, source: SnapshotObject) -> SnapshotSummary:
        name = operation.data["object"]
        desc = SnapshotFromRemoteDesc(
            remote_location=operation.data["from"],
            remote_id=name.removeprefix("~"),
            template=target.template,
            tags=tags.new_snapshot(source),
        )

        def send() -> None:
            try:
                target.client.snapshot_from_remote(desc)
            except ObjectExists:
                found = target.client.snapshot_here(name)
                if found.tags.get("uuid") != source.uuid:
                    raise

        self._send(operation, send)
        return target.client.snapshot_here(name)

    def _send(self, operation: Operation, send: Callable[[], None]) -> None:
        """Until an answer comes; both requests say only how things should be."""
        for left in reversed(range(SENDINGS)):
            operation.note({"sent": str(self._operations.now())})
            try:
                send()
                return
            except Unknown:
                operation.note(self._operations.settling())
                if not left:
                    raise

    def _whereabouts(self, origin: Pool, name: str, source: SnapshotObject) -> str | None:
        """The cluster that has the snapshot now, which need not be the one that made it."""
        try:
            return origin.client.snapshot(name).cluster_id
        except ObjectDoesNotExist as error:
            raise NotFound(f"snapshot {source.name} ({source.uuid}) is gone from StorPool ({error})") from error

    def _location(self, pool: Pool, asked: Pool) -> str:
        """Name of the pool's location: as it is configured, else as `asked`'s cluster calls it by its id."""
        configured = self._records.setting(LOCATION, pool_id=pool.id)
        if configured:
            return configured
        wanted = None if pool.cluster_id is None else pool.cluster_id.partition(".")[0]
        for location in asked.client.locations_list():
            if location.id == wanted:
                return location.name
        raise InvalidParameter(
            f"the StorPool cluster of pool {asked.id} knows no location {wanted or 'of the other pool'}; set {LOCATION}"
            f" of pool {pool.id}, or register the location there"
        )

    def _source(self, operation: Operation) -> StorPoolClient:
        """The API of exactly the cluster that has the snapshot: its own, where one is configured."""
        pool = self._pools.get(int(operation.data[SOURCE_POOL]))
        at = operation.data["at"] or cluster_of_name(operation.data["object"])
        row = None if at is None else self._records.cluster_of(at)
        endpoint = None if row is None else self._records.setting(ENDPOINT, cluster_id=row)
        if endpoint:
            return self._connect(parse_url(f"{endpoint};SP_TEMPLATE={pool.template}"))
        return pool.at(at)

    def _recovered(self, operation: Operation) -> bool:
        """Whether the copy needs its source no more; also when it was deleted since."""
        target = self._pools.get(int(operation.data["pool"]))
        name = operation.data["object"]
        try:
            if target.client.snapshot_here(name).recovering_from_remote:
                return False
            target.client.snapshot_reconcile(name)
        except ObjectDoesNotExist:
            return True
        except Busy:
            return False
        return True

    def _take_back(self, operation: Operation, *, force: bool) -> None:
        if not operation.data["location"]:
            return
        api = self._source(operation)

        def send() -> None:
            try:
                api.snapshot_unexport(operation.data["object"], operation.data["location"], force=force)
            except ObjectDoesNotExist:
                return

        for left in reversed(range(SENDINGS)):
            try:
                send()
                return
            except Unknown:
                # An export that is gone is gone; sent again it says so.
                if not left:
                    raise

    def _undo(self, operation: Operation) -> bool:
        """First the export, so that no copy can be made any more, then the copy; whether that is all."""
        if operation.step != "undo":
            operation.advance("undo")
        self._take_back(operation, force=True)
        target = self._pools.get(int(operation.data["pool"]))
        name = operation.data["object"]
        try:
            found = target.client.snapshot_here(name)
        except ObjectDoesNotExist:
            found = None
        uuid = operation.subject.removeprefix("snapshot:").partition("@")[0]
        if found is not None and not found.deleted and found.tags.get("uuid") == uuid:
            remove_snapshot(target.client, name)
        if not self._operations.settled(operation):
            return False
        operation.undone()
        return True

    def _fate(self, operation: Operation) -> Fate:
        uuid = operation.subject.removeprefix("snapshot:").partition("@")[0]
        copy = self._records.snapshot_copy(uuid, int(operation.data["pool"]))
        if copy is None:
            return Fate.UNTOLD if self._records.snapshot(uuid) is None else Fate.ABANDONED
        if copy.path == device_path(operation.data["object"].removeprefix("~")):
            return Fate.RECORDED
        return Fate.ABANDONED if copy.steady else Fate.AWAITED


def cluster_of_name(name: str) -> str | None:
    """Id of the cluster that made the object `~globalId`."""
    return cluster_of(device_path(name.removeprefix("~"))) if name.startswith("~") else None
