"""Changing size, tier, StorPool template and limits of a volume (spec/cloudstack-plugin.md 4.15 and 4.26).

All that changes on StorPool goes in one update, which StorPool carries out or refuses as a whole. The guest is told
after it, of a smaller size too: QEMU shows what the device has, and lets nobody show less.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from harness.driver import tags
from harness.driver.operations import Operation, Operations, report_also
from harness.driver.pools import Pool, Pools
from harness.driver.tiers import limits, placement
from harness.spi.commands import StorPoolResizeVolumeCommand
from harness.spi.driver import DriverRecords, HostEndpoints, ResizePayload
from harness.spi.errors import Conflict, Error, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import VolumeObject, storpool_id
from harness.storpool import ObjectDoesNotExist, VolumeSummary, VolumeUpdateDesc

SENDINGS = 3
TELL_WAIT = 60.0
"""Seconds that the agent has for telling a guest."""
TELL_TRIES = 3
TELL_PAUSE = 5.0
SECTOR = 512


class Resizing:
    """Resizes one volume, or changes its tier, template or limits only. Steps: update, tell, undo, settle.

    Undone is only a larger size that no guest was told of; what was cut off is gone, so a smaller one is gone on with.
    While an update that was not answered may still arrive the operation stays open, and no other change is begun
    that it would undo: a late shrink would cut off what was written since.
    """

    kind = "resize"

    def __init__(
        self,
        operations: Operations,
        pools: Pools,
        records: DriverRecords,
        endpoints: HostEndpoints,
        updates: tags.TagUpdates,
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._endpoints = endpoints
        self._updates = updates

    def resize(self, volume: VolumeObject, payload: ResizePayload) -> VolumeObject:
        """See `harness.spi.driver.PrimaryDataStoreDriver.resize`."""
        pool = self._pools.of(volume)
        if volume.path is None:
            raise InvalidParameter(f"volume {volume.name} ({volume.uuid}) is on no pool, so there is nothing to resize")
        if payload.size <= 0 or payload.size % SECTOR:
            raise InvalidParameter(f"volume {volume.name}: {payload.size} bytes are not whole sectors of {SECTOR}")
        # From here on sizes are those of StorPool.
        whole = msgspec.structs.replace(payload, size=payload.size + volume.overhead)
        with self._operations.exclusive(f"volume:{volume.uuid}"):
            operation = self._begin(volume, volume.path, whole, pool)
            self._carry_out(operation, pool, whole)
        return msgspec.structs.replace(volume, size=payload.size)

    def recover(self, operation: Operation) -> str:
        """What CloudStack asks for again is its to finish; here it is waited for what may still arrive."""
        record = self._records.volume(operation.subject.removeprefix("volume:"))
        if record is None or record.removed or record.path != operation.data["path"]:
            operation.done()
            return f"{operation}: the volume is gone"
        if not record.steady:
            return f"{operation}: open until CloudStack has asked for it again"
        if operation.step != "settle":
            # CloudStack's records are of another time, or it has given up: nothing more is sent for it.
            operation.advance("settle", self._operations.settling())
        if self._lost(operation):
            return f"{operation}: over; open until an earlier update can no longer arrive"
        if "tags" in msgspec.json.decode(operation.data["new"], type=dict[str, object]):
            pool = self._pools.get(operation.pool_id)
            self._updates.mend(record, pool, {"qc": tags.recorded(self._records, record).get("qc", "")}, None)
        operation.done()
        return f"{operation}: done"

    def _begin(self, volume: VolumeObject, path: str, payload: ResizePayload, pool: Pool) -> Operation:
        """A new operation, or the open one that wants the same."""
        subject, asked = f"volume:{volume.uuid}", _asked(payload)
        kept = self._operations.find(self.kind, subject)
        if kept is not None and kept.step != "settle":
            if (kept.data["path"], kept.data["asked"]) != (path, asked):
                raise Conflict(f"{kept}: another change of the volume is under way; try again when it is over")
            _count_with_a_dead_process(self._operations, kept)
            return kept
        try:
            found = pool.client.volume(storpool_id(path))
        except ObjectDoesNotExist:
            raise NotFound(f"StorPool has no volume {path}, so it cannot be resized") from None
        shrinks = payload.size < found.size
        if shrinks and not payload.shrink_ok:
            raise InvalidParameter(
                f"volume {volume.name} has {found.size} bytes on StorPool, so {payload.size} would shrink it; that was "
                "not asked for"
            )
        new = self._wanted(pool, payload, found)
        data = {
            "pool": str(pool.id),
            "path": path,
            "asked": asked,
            "from": str(found.size),
            "new": _text(new),
            "old": _text(_before(found, new)),
            "shrinks": "1" if shrinks else "",
            # CloudStack has recorded the size, so the guest was told of it.
            "told": "1" if volume.size == payload.size == found.size else "",
            "overhead": str(volume.overhead),
            "settles": "",
            "process": self._operations.incarnation,
        }
        if kept is not None:
            data["settles"] = self._let_go(kept, data, payload)
        return self._operations.begin(self.kind, subject, "update", data)

    def _let_go(self, kept: Operation, data: dict[str, str], payload: ResizePayload) -> str:
        """End an earlier change that is over, unless it may arrive again and do harm; until when it may."""
        settles = kept.data["settles"]
        if self._lost(kept):
            same = kept.data["new"] == data["new"] and not kept.data["shrinks"]
            grows = not kept.data["shrinks"] and payload.size > _size(kept)
            if not same and not grows:
                raise Conflict(
                    f"{kept}: an update of the volume was not answered and may still arrive at StorPool; no other "
                    f"change is made until it cannot, at most {self._operations.settle_time:g} s"
                )
        kept.done()
        return settles

    def _wanted(self, pool: Pool, payload: ResizePayload, found: VolumeSummary) -> VolumeUpdateDesc:
        """Limits are the offering's; those that storpool_qos, or an offering before, has left behind are taken off."""
        desc = VolumeUpdateDesc(size=payload.size, shrink_ok=True if payload.size < found.size else UNSET)
        if payload.disk_offering_id is None:
            return desc
        place = placement(self._records, payload.disk_offering_id)
        template = place.template or pool.template
        desc = msgspec.structs.replace(desc, tags=tags.of_tier(place.tier))
        if not payload.moves:
            template = found.template_name or template
        elif template != found.template_name:
            desc = msgspec.structs.replace(desc, template=template)
        if place.tier is not None:
            return desc
        iops, bw = limits(pool.client, template, place.limit(payload.max_iops))
        return msgspec.structs.replace(desc, iops=iops, bw=bw)

    def _carry_out(self, operation: Operation, pool: Pool, payload: ResizePayload) -> None:
        if operation.step == "undo":
            self._undo(operation, pool, payload)
            raise Error(operation.data["why"])
        if operation.step == "update":
            try:
                self._update(operation, pool, operation.data["new"])
            except Unknown:
                raise
            except Error as error:
                self._give_up(operation, pool, payload, error)
                raise
            operation.advance("tell")
        try:
            self._tell(operation, payload)
        except Unknown:
            raise
        except Error as error:
            if payload.size <= _from(operation) or self._lost(operation):
                raise Unknown(f"{error}; StorPool has the new size, so it is tried again") from error
            self._give_up(operation, pool, payload, error)
            raise
        self._updates.remember(operation.subject)
        if self._lost(operation):
            operation.advance("settle")
        else:
            operation.done()

    def _give_up(self, operation: Operation, pool: Pool, payload: ResizePayload, error: Error) -> None:
        """Undo after a failure. When that does not end either, `Unknown` is raised, with both."""
        operation.advance("undo", {"why": str(error)[:1000], "undone": operation.step})
        try:
            self._undo(operation, pool, payload)
        except Error as cleanup:
            report_also(error, cleanup, operation)
            raise Unknown(str(error)) from cleanup

    def _undo(self, operation: Operation, pool: Pool, payload: ResizePayload) -> None:
        """Everything as it was on StorPool, when that took the update."""
        if operation.data["undone"] == "tell":
            operation.note({"shrinks": "1"})
            if self._found_size(operation, pool) == payload.size:
                self._update(operation, pool, operation.data["old"])
        if self._lost(operation):
            raise Unknown(f"{operation}: undone; an earlier update may still arrive")
        operation.undone()

    def _update(self, operation: Operation, pool: Pool, text: str) -> None:
        name, desc = storpool_id(operation.data["path"]), msgspec.json.decode(text, type=VolumeUpdateDesc)
        for left in reversed(range(SENDINGS)):
            try:
                pool.client.volume_update(name, desc)
                return
            except Unknown:
                # Sending the same values again does no harm, and reading back would not show what is under way.
                operation.note(self._operations.settling())
                if not left:
                    raise
            except Error as error:
                if not self._lost(operation):
                    raise
                raise Unknown(f"{error}; an earlier sending may still arrive") from error

    def _tell(self, operation: Operation, payload: ResizePayload) -> None:
        """Have the guest see the new size; after an error that is not `Unknown` it sees what it saw before."""
        if payload.host_id is None or operation.data.get("told"):
            return
        command = StorPoolResizeVolumeCommand(
            vm_name=payload.vm_name,
            path=operation.data["path"],
            size=payload.size,
            overhead=int(operation.data.get("overhead") or 0),
            wait=TELL_WAIT,
        )
        lost: Unknown | None = None
        for left in reversed(range(TELL_TRIES)):
            try:
                self._endpoints.tell(payload.host_id, command)
                return
            except Unknown as error:
                lost = error
            except (Unavailable, Conflict) as error:
                # Not reached this time, or one before is still at work: that says nothing about that one.
                if lost is None and not operation.resumed:
                    raise
                lost = Unknown(str(error))
            if left:
                self._operations.sleep(TELL_PAUSE)
        if lost is not None:
            raise lost

    def _found_size(self, operation: Operation, pool: Pool) -> int:
        return pool.client.volume(storpool_id(operation.data["path"])).size

    def _lost(self, operation: Operation) -> bool:
        """Whether an update may still arrive."""
        return not self._operations.settled(operation)


def refuse_late(operations: Operations, volume: str, size: int) -> None:
    """Raises `Conflict` while an update of the volume with this uuid may still arrive that would set another size."""
    kept = operations.find(Resizing.kind, f"volume:{volume}")
    if kept is None:
        return
    if kept.step != "settle":
        _count_with_a_dead_process(operations, kept)
    if operations.settled(kept) or (kept.step == "settle" and _size(kept) == size):
        return
    raise Conflict(
        f"{kept}: an update of the volume was not answered and may still arrive at StorPool, where it would set another"
        f" size; it is given none until that cannot be, at most {operations.settle_time:g} s"
    )


def _count_with_a_dead_process(operations: Operations, kept: Operation) -> None:
    """A process that died may have had an update on its way."""
    if kept.data["process"] != operations.incarnation:
        kept.note({**operations.settling(), "process": operations.incarnation})


def _asked(payload: ResizePayload) -> str:
    """What tells one change from another; where the VM runs does not."""
    return msgspec.json.encode(msgspec.structs.replace(payload, vm_name="", host_id=None)).decode()


def _before(found: VolumeSummary, new: VolumeUpdateDesc) -> VolumeUpdateDesc:
    """The update that undoes `new`."""
    desc = VolumeUpdateDesc(size=found.size, shrink_ok=True)
    if new.tags is not UNSET:
        desc = msgspec.structs.replace(desc, tags={key: found.tags.get(key, "") for key in new.tags})
    if new.template is not UNSET:
        desc = msgspec.structs.replace(desc, template=found.template_name)
    if new.template is not UNSET or new.iops is not UNSET:
        desc = msgspec.structs.replace(desc, iops=found.iops, bw=found.bw)
    return desc


def _text(desc: VolumeUpdateDesc) -> str:
    return msgspec.json.encode(desc).decode()


def _size(operation: Operation) -> int:
    size = msgspec.json.decode(operation.data["new"], type=VolumeUpdateDesc).size
    assert size is not UNSET
    return size


def _from(operation: Operation) -> int:
    return int(operation.data["from"])
