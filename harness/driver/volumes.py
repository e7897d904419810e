"""Making volumes: empty, from a cached template, from a snapshot, or with what an agent copies onto them.

spec/cloudstack-plugin.md 4.1, 4.2, 4.10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from harness.driver import tags
from harness.driver.copying import COPIED, COPY, ask
from harness.driver.creation import Creation
from harness.driver.discard import Discards
from harness.driver.in_use import IN_USE
from harness.driver.operations import ANSWERED, Operation, Operations, undone_by_errors
from harness.driver.pools import Pool, Pools
from harness.driver.removal import remover
from harness.driver.settling import Fate, Settler, fate
from harness.driver.tiers import limits, placement
from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.driver import DriverRecords
from harness.spi.errors import Conflict, Error, InvalidParameter, NotFound
from harness.spi.objects import VolumeObject, device_path
from harness.spi.ports import Endpoint
from harness.storpool import ObjectDoesNotExist, VolumeCreateDesc, VolumeUpdateDesc

SECTOR = 512

Ask = Callable[[Endpoint, AnyCommand, str], AnyAnswer]
"""`harness.driver.copying.ask` of the operation that makes the volume."""
Fill = Callable[[Ask, VolumeObject], None]
"""Asks an agent, once, to put contents onto the empty volume, and sees to it that the answer says so."""


class VolumeCreation:
    """Creates a volume. Steps: create, made, (copy, copied,) answered.

    A copy whose end is unknown is never trusted or repeated on the same volume: it may still be written to. It is
    discarded once nobody uses it, and the next call starts with a new one.

    At the end the name is taken away, because a revert breaks the `~globalId` of a volume that has one; but not while a
    lost create could still arrive, which a taken name turns away.
    """

    kind = "create-volume"

    def __init__(
        self, operations: Operations, pools: Pools, records: DriverRecords, discards: Discards, settler: Settler
    ) -> None:
        self._settler = settler
        self._operations = operations
        self._pools = pools
        self._records = records
        self._discards = discards

    def create(
        self, volume: VolumeObject, parent: str | None = None, least_size: int = 0, *, limited: bool = False
    ) -> VolumeObject:
        """Make the volume on its pool; the answer has path and real size. `parent` is a snapshot, as StorPool knows it,
        and `limited` when it has limits.

        `least_size` is StorPool's, with the overhead of an encrypted one. Raises `NotFound` when the parent is gone.
        """
        return self._create(volume, parent, least_size, {}, limited=limited)

    def create_filled(self, volume: VolumeObject, fill: Fill, source: str, least_size: int) -> VolumeObject:
        """As `create`, of an empty volume that `fill` puts the contents of `source` onto."""

        def copy(operation: Operation, empty: VolumeObject) -> None:
            fill(partial(ask, self._operations, operation), empty)
            operation.advance(COPIED, {IN_USE: "0"})

        return self._create(volume, None, least_size, {"source": source}, copy)

    def _create(
        self,
        volume: VolumeObject,
        parent: str | None,
        least_size: int,
        more: dict[str, str],
        copy: Callable[[Operation, VolumeObject], None] | None = None,
        *,
        limited: bool = False,
    ) -> VolumeObject:
        pool = self._pools.of(volume)
        size = max(_whole_sectors(volume) + volume.overhead, least_size)
        desc = self._request(pool, volume, parent, size, limited=limited)
        request = msgspec.json.encode(desc).decode()
        subject = f"volume:{volume.uuid}"
        with self._operations.exclusive(subject):
            operation = self._begin(subject, {"pool": str(pool.id), "request": request, **more})
            creation = Creation(self._operations, operation, "volume", pool.client)
            if operation.step in (ANSWERED, COPIED) and creation.global_id is not None:
                global_id = creation.global_id
            else:
                global_id = self._make(operation, creation, pool, desc)
            made = msgspec.structs.replace(volume, path=device_path(global_id), size=size - volume.overhead)
            if copy is not None and operation.step == "made":
                with undone_by_errors(operation, self.undo):
                    copy(operation, made)
            self._operations.answer(operation)
        self._settler.wake()
        return made

    def forget(self, volume: VolumeObject) -> None:
        """The volume is to go although no path of it was recorded: undo a creation that was left open."""
        subject = f"volume:{volume.uuid}"
        with self._operations.exclusive(subject):
            operation = self._operations.find(self.kind, subject)
            if operation is not None:
                self.undo(operation)

    def give_name_away(self, subject: str) -> None:
        """Take its name from a volume just made; `Conflict` while it may not be. The caller holds the subject."""
        operation = self._operations.find(self.kind, subject)
        if operation is None:
            return
        creation = self.creation(operation)
        if operation.step != ANSWERED or self.fate(operation) is not Fate.RECORDED or not creation.settled:
            raise Conflict(f"{operation}: a request for the volume may still be under way; try again in some minutes")
        self._take_name(creation, operation.pool_id)
        self._discards.look_out(creation, operation.pool_id)
        operation.done()

    def recover(self, operation: Operation) -> str:
        return self._settler.recover(self, operation)

    def settle(self, operation: Operation) -> bool:
        return self._settler.settle(self, operation)

    def fate(self, operation: Operation) -> Fate:
        return fate(self._records.volume(operation.subject.removeprefix("volume:")), operation.data["volume.id"])

    def finish(self, operation: Operation) -> None:
        creation, pool = self.creation(operation), self._pools.get(operation.pool_id)
        try:
            self._take_name(creation, pool.id)
        except ObjectDoesNotExist:
            creation.unmake_late(remover(pool.client, "volume"))
        self._discards.look_out(creation, pool.id)

    def _take_name(self, creation: Creation, pool_id: int) -> None:
        """Leave the volume known by its id alone. Raises `ObjectDoesNotExist` when it is gone.

        Each time by the name that it has, so that a request which comes late finds nothing: a volume that was reverted
        meanwhile has its old id for a name, and by nothing else does its path lead to it. In two steps, because a copy
        of the create may come as soon as the first name is free: if the first step comes again, too, what that made
        has a name still, by which it is looked for.
        """
        client, given = self._pools.get(pool_id).client, f"{creation.name.removesuffix('volume')}given-volume"
        name = client.volume(f"~{creation.global_id}").name
        if name == creation.name and not creation.over:
            client.volume_update(name, VolumeUpdateDesc(rename=given))
            name = given
        if name in (creation.name, given):
            client.volume_update(name, VolumeUpdateDesc(rename=""))
        if name == given:
            self._discards.look_out_for(given, creation, pool_id)

    def _request(
        self, pool: Pool, volume: VolumeObject, parent: str | None, size: int, *, limited: bool
    ) -> VolumeCreateDesc:
        place = placement(self._records, volume.disk_offering_id)
        limit, template = place.limit(volume.max_iops), place.template or pool.template
        desc = VolumeCreateDesc(
            size=size,
            parent=msgspec.UNSET if parent is None else parent,
            template=template,
            iops=limit or msgspec.UNSET,
            tags=tags.new_volume(self._records, volume),
        )
        if limited:
            # They are of the volume that the snapshot was taken of, and StorPool would hand them on.
            iops, bw = limits(pool.client, template, limit)
            desc = msgspec.structs.replace(desc, iops=iops, bw=bw)
        return desc

    def _begin(self, subject: str, data: dict[str, str]) -> Operation:
        """A new operation, or the open one where this call can go on."""
        operation = self._operations.begin(self.kind, subject, "create", data)
        if not operation.resumed:
            return operation
        pool = self._pools.get(operation.pool_id)
        creation = self.creation(operation)
        if operation.step == COPY:
            self.undo(operation)
            return self._operations.begin(self.kind, subject, "create", data)
        if creation.global_id is not None and not creation.exists():
            operation.advance("create", {"volume.id": ""})
        if all(operation.data.get(key) == value for key, value in data.items()):
            return operation
        if operation.step == ANSWERED and creation.global_id and self._operations.answered_here(operation):
            raise Conflict(f"{operation}: the volume was made before with other attributes, and is there")
        doubt = creation.doubt()
        if doubt is not None:
            raise Conflict(f"{operation}: the volume was asked for before with other attributes; {doubt}")
        self._discards.take_over(creation, pool.id)
        operation.undone()
        return self._operations.begin(self.kind, subject, "create", data)

    def _make(self, operation: Operation, creation: Creation, pool: Pool, desc: VolumeCreateDesc) -> str:
        def send(name: str) -> str:
            return pool.client.volume_create(msgspec.structs.replace(desc, name=name)).global_id

        try:
            with undone_by_errors(operation, self.undo):
                return creation.make(send, "made")
        except ObjectDoesNotExist as error:
            raise _missing(pool, desc) from error

    def undo(self, operation: Operation) -> bool:
        creation = self.creation(operation)
        if operation.step == COPY:
            self._discards.take_from(operation, creation)
        elif not creation.unmake(remover(self._pools.get(operation.pool_id).client, "volume")):
            return False
        operation.undone()
        return True

    def creation(self, operation: Operation) -> Creation:
        return Creation(self._operations, operation, "volume", self._pools.get(operation.pool_id).client)


def _whole_sectors(volume: VolumeObject) -> int:
    if volume.size <= 0:
        raise InvalidParameter(f"volume {volume.name} ({volume.uuid}): size {volume.size} is not a size in bytes")
    return -(-volume.size // SECTOR) * SECTOR


def _missing(pool: Pool, desc: VolumeCreateDesc) -> Error:
    """Which of the objects that a create names does not exist."""
    if isinstance(desc.parent, str):
        try:
            pool.client.snapshot(desc.parent)
        except ObjectDoesNotExist:
            return NotFound(f"StorPool snapshot {desc.parent} is gone; seed the template, or copy the snapshot, again")
        except Error as error:
            return NotFound(f"StorPool has no snapshot {desc.parent} or no template {desc.template} ({error})")
    return InvalidParameter(f"StorPool has no template {desc.template}; check SP_TEMPLATE of offering and pool")
