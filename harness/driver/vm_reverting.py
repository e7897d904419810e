"""Reverting all disks of a VM to one of its snapshots: all of them, or none (spec/cloudstack-plugin.md 4.20).

StorPool reverts one volume at a time, and what a volume has is lost then. So all disks are kept first, by one group
snapshot: when one of them cannot be reverted, those that were are put back to it. Which way it goes is durable before
it goes there, and it never turns a second time.

As with a single volume (`harness.driver.reverting`), a request that arrives late must not find what it names: the
snapshots have names of the operation while it runs only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from harness.driver import tags
from harness.driver.discard import Discards
from harness.driver.groups import Group
from harness.driver.operations import Operation, Operations
from harness.driver.pools import Pools
from harness.driver.removal import release_volumes, remove_snapshot
from harness.driver.resizing import refuse_late
from harness.driver.reverting import resolved, there
from harness.driver.vm_snapshots import subject_of
from harness.driver.volumes import VolumeCreation
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, InvalidParameter, Unavailable, Unknown
from harness.spi.objects import PATH_PREFIX, storpool_id
from harness.spi.states import VmSnapshotState
from harness.spi.vm_snapshots import VmSnapshotObject
from harness.storpool import (
    ObjectDoesNotExist,
    ObjectExists,
    SnapshotUpdateDesc,
    StorPoolClient,
    VolumeRevertDesc,
    VolumeUpdateDesc,
)


class _Disk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of the operation; names are as StorPool is told them, ids are bare."""

    uuid: str
    """Of the volume."""
    volume: str
    snapshot: str
    name: str
    """That the snapshot had; empty when it had none."""
    was: str
    """Global id of the volume before: it has another one once it is reverted."""
    moved: str = ""
    """Global id that it had when it was decided to put it back; empty when it had not been reverted by then."""


class VmReverting:
    """Steps forward: begin, keep, name, revert, unname. Back, from revert: back, restore, drop."""

    kind = "revert-vm-snapshot"

    def __init__(
        self,
        operations: Operations,
        pools: Pools,
        records: DriverRecords,
        volumes: VolumeCreation,
        discards: Discards,
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._volumes = volumes
        self._discards = discards

    def revert(self, snapshot: VmSnapshotObject) -> dict[str, int]:
        """Sizes of the volumes as guests see them, by uuid. Errors as `VmSnapshotStrategy.revert` says."""
        if snapshot.pool_id is None:
            raise InvalidParameter(f"VM snapshot {snapshot.name} ({snapshot.uuid}) is on no pool")
        client = self._pools.get(snapshot.pool_id).client
        subject = subject_of(snapshot)
        with ExitStack() as held:
            # In one order everywhere, so that no two wait for each other.
            for each in (subject, *sorted(f"volume:{volume.uuid}" for volume in snapshot.volumes)):
                held.enter_context(self._operations.exclusive(each))
            operation = self._operations.find(self.kind, subject)
            if operation is None:
                disks = _looked_up(self._operations, client, snapshot)
                data = {"pool": str(snapshot.pool_id), "disks": _text(disks)}
                operation = self._operations.begin(self.kind, subject, "begin", data)
            run = _Run(self._operations, operation, client, self._discards)
            if operation.step in ("begin", "keep"):
                self._prepare(run, snapshot)
            overheads = {volume.uuid: volume.overhead for volume in snapshot.volumes}
            return {uuid: size - overheads.get(uuid, 0) for uuid, size in run.carry_out().items()}

    def recover(self, operation: Operation) -> str:
        record = self._records.vm_snapshot(operation.subject.removeprefix("vmsnapshot:"))
        if record is not None and not record.removed and record.state is VmSnapshotState.REVERTING:
            return f"{operation}: open until CloudStack asks for it again"
        client = self._pools.get(operation.pool_id).client
        run = _Run(self._operations, operation, client, self._discards)
        doubt = run.group.creation.doubt()
        if doubt is not None:
            return f"{operation}: {doubt}"
        run.give_up()
        return f"{operation}: not carried out any further; CloudStack asks again if it still wants it"

    def _prepare(self, run: _Run, snapshot: VmSnapshotObject) -> None:
        """Nobody has a disk, each is known by its id alone, and what they have is kept. After an error nothing was
        changed: whatever was asked for and may yet come does no harm."""
        try:
            for volume in snapshot.volumes:
                if volume.path is not None and volume.path.startswith(PATH_PREFIX):
                    self._volumes.give_name_away(f"volume:{volume.uuid}")
            run.keep(tags.kept_disks(snapshot.uuid))
        except Error as error:
            run.give_up()
            if isinstance(error, Unknown):
                raise Unavailable(f"{error}; no disk was reverted") from error
            raise


class _Run:
    """The operation, at whatever step it is."""

    def __init__(
        self, operations: Operations, operation: Operation, client: StorPoolClient, discards: Discards
    ) -> None:
        self._operation = operation
        self._client = client
        self._discards = discards
        self._disks = _of(operation)
        self.group = Group(operations, operation, client, [disk.volume for disk in self._disks])
        """What the disks are put back to."""

    def keep(self, group_tags: dict[str, str]) -> None:
        if self._operation.step == "begin":
            release_volumes(self._client, [disk.volume for disk in self._disks])
            for disk in self._disks:
                if not self._client.volume(disk.volume).name.startswith("~") and disk.volume.startswith("~"):
                    self._client.volume_update(disk.volume, VolumeUpdateDesc(rename=""))
            self._operation.advance("keep")
        self.group.make(group_tags, "name")

    def carry_out(self) -> dict[str, int]:
        if self._operation.step == "name":
            self._name()
        if self._operation.step == "revert":
            self._revert()
        if self._operation.step == "unname":
            return self._finish()
        self._go_back()
        raise Error(f"{self._operation.data['why']}; every disk is as it was before")

    def give_up(self) -> None:
        """Of one that reverted nothing, or whose snapshot is reverted to by nobody any more."""
        if self._operation.step not in ("begin", "keep"):
            self._unname()
        self.group.discard(self._discards, self._operation.pool_id)
        self._operation.undone()

    def _name(self) -> None:
        try:
            for number, disk in enumerate(self._disks):
                self._rename(disk, self._target(number))
        except Unknown:
            raise
        except Error as error:
            try:
                self.give_up()
            except Error as problem:
                raise Unknown(f"{error}; {self._operation} is not undone yet: {problem}") from error
            raise
        self._operation.advance("revert")

    def _revert(self) -> None:
        try:
            for number, disk in enumerate(self._disks):
                if self._id(disk) == disk.was:
                    self._send(disk, self._target(number), disk.was)
        except Unknown:
            raise
        except Unavailable as error:
            raise Unknown(f"{self._operation}: not every disk is reverted yet: {error}") from error
        except Error as error:
            self._operation.advance("back", {"why": str(error)})
            return
        self._operation.advance("unname")

    def _finish(self) -> dict[str, int]:
        try:
            self._unname()
            sizes = {disk.uuid: self._client.volume(disk.volume).size for disk in self._disks}
        except Error as error:
            # A copy of a revert would still find its snapshot.
            raise Unknown(f"{self._operation}: reverted, but the disks may not be used yet: {error}") from error
        self.group.discard(self._discards, self._operation.pool_id)
        self._operation.done()
        return sizes

    def _go_back(self) -> None:
        try:
            if self._operation.step == "back":
                # From here on no request of this operation reverts a disk forward.
                self._unname()
                self._disks = [self._looked_at(disk) for disk in self._disks]
                self._operation.advance("restore", {"disks": _text(self._disks)})
            if self._operation.step == "restore":
                for disk, kept in zip(self._disks, self.group.names, strict=True):
                    if disk.moved and self._id(disk) == disk.moved:
                        self._send(disk, kept, disk.moved)
                self._operation.advance("drop")
            # From here on no request of this operation puts a disk back.
            for kept in reversed(self.group.names):
                remove_snapshot(self._client, kept)
        except Error as error:
            raise Unknown(f"{self._operation}: not every disk is put back yet: {error}") from error
        self.group.discard(self._discards, self._operation.pool_id)
        self._operation.undone()

    def _looked_at(self, disk: _Disk) -> _Disk:
        now = self._id(disk)
        return msgspec.structs.replace(disk, moved="" if now == disk.was else now)

    def _send(self, disk: _Disk, snapshot: str, before: str) -> None:
        desc = VolumeRevertDesc(to_snapshot=snapshot, revert_size=True)
        resolved(lambda: self._client.volume_revert(disk.volume, desc), lambda: self._id(disk) != before)

    def _id(self, disk: _Disk) -> str:
        return self._client.volume(disk.volume).global_id

    def _target(self, number: int) -> str:
        return f"cs-{self._operation.id}-target{number}"

    def _rename(self, disk: _Disk, name: str) -> None:
        desc = SnapshotUpdateDesc(rename=name)
        resolved(
            lambda: self._client.snapshot_update(disk.snapshot, desc),
            lambda: self._client.snapshot(disk.snapshot).name == name,
        )

    def _unname(self) -> None:
        """Every snapshot gets the name back that it had; without it no revert of this operation finds it."""
        for number, disk in enumerate(self._disks):
            target = self._target(number)
            try:
                if self._client.snapshot(disk.snapshot).name != target and self._operation.step != "name":
                    continue
                self._give_back(disk, target)
            except ObjectExists:
                # A late request for a snapshot has taken it since. Any other name does.
                self._rename(disk, f"cs-{self._operation.id}-reverted{number}")
            except ObjectDoesNotExist:
                continue

    def _give_back(self, disk: _Disk, target: str) -> None:
        resolved(
            lambda: self._client.snapshot_update(disk.snapshot, SnapshotUpdateDesc(rename=disk.name)),
            lambda: self._client.snapshot(disk.snapshot).name != target,
        )


def _looked_up(operations: Operations, client: StorPoolClient, snapshot: VmSnapshotObject) -> list[_Disk]:
    try:
        return _disks(operations, client, snapshot)
    except Unknown as error:
        raise Unavailable(f"{error}; no disk was reverted") from error


def _disks(operations: Operations, client: StorPoolClient, snapshot: VmSnapshotObject) -> list[_Disk]:
    """All that is needed is there, or an error says what is not; nothing was changed by then."""
    known, now = set(snapshot.paths), {volume.uuid: volume for volume in snapshot.volumes}
    where = f"VM snapshot {snapshot.name} ({snapshot.uuid})"
    since = ", ".join(now[uuid].name for uuid in sorted(now.keys() - known))
    if since:
        raise InvalidParameter(f"{where} cannot be reverted to: it has no snapshot of {since}, attached since")
    if known - now.keys():
        missing = ", ".join(sorted(known - now.keys()))
        raise InvalidParameter(f"{where} cannot be reverted to: the VM has volume {missing} no more")
    disks = []
    for uuid, volume in now.items():
        name, target = storpool_id(volume.path or ""), storpool_id(snapshot.paths[uuid])
        was = there(client.volume, name, f"volume {volume.name} ({uuid})", "every disk")
        found = there(client.snapshot, target, f"the snapshot of {volume.name} in {where}", "every disk")
        refuse_late(operations, uuid, found.size)
        kept = "" if found.name.startswith("~") else found.name
        disks.append(_Disk(uuid=uuid, volume=name, snapshot=target, name=kept, was=was.global_id))
    return disks


def _text(disks: Sequence[_Disk]) -> str:
    return msgspec.json.encode(disks).decode()


def _of(operation: Operation) -> list[_Disk]:
    return msgspec.json.decode(operation.data["disks"], type=list[_Disk])
