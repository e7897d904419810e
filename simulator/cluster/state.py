"""The committed state: tables of records, the indexes over them, and look-ups by name or global id."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from simulator.api import errors
from simulator.cluster.records import (
    AnyRecord,
    Balancer,
    Bucket,
    Client,
    Disk,
    Event,
    Exported,
    Group,
    Object,
    Put,
    Record,
    Relocation,
    Server,
    Snapshot,
    Template,
    Vag,
)
from simulator.ports import FOREIGN

_encoder = msgspec.msgpack.Encoder()
_FIRST_IDS = dict.fromkeys(
    ("template", "group", "bucket", "location", "remote-cluster", "bridge", "export", "arrival"), 1
)
_R = TypeVar("_R", bound=Record)
BALANCER = 1
"""Id of the only record of its kind."""
_TIMED = frozenset({"disk", "server", "relocation", "balancer"})
"""Tags of records that say when, or whether, a relocation is over."""


class State:
    """Changed by `apply` only. Dictionaries stand in for ordered sets, so that two runs walk them alike."""

    def __init__(self) -> None:
        self.generation = 0
        self.next_serial = 1
        self.next_id = dict(_FIRST_IDS)
        """By tag of the record, for those that get ids from here."""
        self._tables: dict[str, dict[int, Record]] = {}
        self.objects = self.table(Object)
        self.templates = self.table(Template)
        self.groups = self.table(Group)
        self.disks = self.table(Disk)
        self.servers = self.table(Server)
        self.vags = self.table(Vag)
        self.relocations = self.table(Relocation)
        self.clients = self.table(Client)
        self.names: dict[str, int] = {}
        self.global_ids: dict[str, int] = {}
        self.volumes_by_visible_id: dict[int, int] = {}
        self.children: dict[int, dict[int, None]] = {}
        self.snapshots_of: dict[int, dict[int, None]] = {}
        """By visible id of the volume that they were taken on."""
        self.shown: tuple[dict[int, msgspec.Raw], dict[int, msgspec.Raw]] = ({}, {})
        """Objects as answers show them, to calls of one cluster and of MultiCluster; filled by `summary`, and forgotten
        when they or what they name change."""
        self.positions: dict[int, dict[int, int]] = {}
        """By client: object by position."""
        self.watched: dict[int, None] = {}
        """Snapshots that the passing of time concerns: deleted, transient, bound or with a delete date."""
        self.watch_changes = 0
        """Grows whenever something may have changed when watched snapshots or relocations are due."""
        self.vag_members: dict[int, dict[int, None]] = {}
        """By allocation group: volumes and snapshots of it."""
        self._left: dict[int, None] = {}
        """Allocation groups that an event took a member from."""
        self.exports: dict[int, dict[int, None]] = {}
        """By object: its records of `Exported`."""
        self.leaving: dict[int, None] = {}
        """Objects that another cluster takes over."""
        self.templates_by_name: dict[str, int] = {}
        self.groups_by_name: dict[str, int] = {}
        self.buckets_by_name: dict[str, int] = {}

    def table(self, kind: type[_R]) -> dict[int, _R]:
        """The records of this kind by id, to be changed by events only."""
        return self._tables.setdefault(_tag(kind), {})  # type: ignore[return-value]  # each table holds one kind

    # Events.

    def commit(self, events: Iterable[Event]) -> None:
        """Apply the events of one change and count it."""
        for event in events:
            self.apply(event)
        for vag in self._left:
            if vag not in self.vag_members:
                self.vags.pop(vag, None)
        self._left.clear()
        self.generation += 1

    def apply(self, event: Event) -> None:
        if isinstance(event, Put):
            self._put(event.record)
        else:
            old = self._tables[event.table].pop(event.id)
            if isinstance(old, Object):
                self._unindex(old)
                self._forget(old)
                if self.relocations.pop(old.id, None) is not None:
                    self.watch_changes += 1
            elif isinstance(old, Template):
                del self.templates_by_name[old.name]
                self._forget_all()
            elif isinstance(old, Group):
                del self.groups_by_name[old.name]
                self._forget_all()
            elif event.table in _TIMED:
                self.watch_changes += 1
            elif isinstance(old, Bucket):
                del self.buckets_by_name[old.name]
            elif isinstance(old, Exported):
                self._unindex_export(old)

    def _put(self, record: Record) -> None:
        if isinstance(record, Object):
            old = self.objects.get(record.id)
            if old is not None:
                self._unindex(old)
                self._forget(old)
            elif record.id >= self.next_serial:
                self.next_serial = record.id + 1
            self.objects[record.id] = record
            self._index(record)
            self._forget(record)
        elif isinstance(record, Template):
            self._put_named("template", self.templates, self.templates_by_name, record)
            self._forget_all()
        elif isinstance(record, Group):
            self._put_named("group", self.groups, self.groups_by_name, record)
            self._forget_all()
        elif isinstance(record, Bucket):
            self._put_named("bucket", self.table(Bucket), self.buckets_by_name, record)
        else:
            tag = _tag(type(record))
            if isinstance(record, Exported):
                before = self.table(Exported).get(record.id)
                if before is not None:
                    self._unindex_export(before)
                _add(self.exports, record.object, record.id)
                self.watch_changes += 1
                self._forget_one(record.object)
            self._tables.setdefault(tag, {})[record.id] = record
            if tag in self.next_id:
                self.next_id[tag] = max(self.next_id[tag], record.id + 1)
            if tag in _TIMED:
                self.watch_changes += 1

    def _unindex_export(self, old: Exported) -> None:
        del self.exports[old.object][old.id]
        if not self.exports[old.object]:
            del self.exports[old.object]
        self.watch_changes += 1
        self._forget_one(old.object)

    def _put_named(
        self,
        table: str,
        records: dict[int, Template] | dict[int, Group] | dict[int, Bucket],
        names: dict[str, int],
        new: Template | Group | Bucket,
    ) -> None:
        old = records.get(new.id)
        if old is not None:
            del names[old.name]
        records[new.id] = new  # type: ignore[assignment]  # the two arguments are of one table
        names[new.name] = new.id
        self.next_id[table] = max(self.next_id[table], new.id + 1)

    def _index(self, new: Object) -> None:
        if not new.gone_at:
            if new.name:
                self.names[new.name] = new.id
            self.global_ids[new.global_id] = new.id
        if not new.snapshot:
            self.volumes_by_visible_id[new.visible_id] = new.id
        elif new.gone_at or new.transient or new.bound or new.delete_date:
            self.watched[new.id] = None
            self.watch_changes += 1
        if new.parent:
            if new.parent in self.watched:
                self.watch_changes += 1
            _add(self.children, new.parent, new.id)
        if new.taken_on:
            _add(self.snapshots_of, new.taken_on, new.id)
        _add(self.vag_members, new.allocation_group, new.id)
        if new.leaving_to:
            self.leaving[new.id] = None
        for client, attachment in new.attachments.items():
            self.positions.setdefault(client, {})[attachment.pos] = new.id

    def _unindex(self, old: Object) -> None:
        if not old.gone_at:
            if old.name:
                del self.names[old.name]
            del self.global_ids[old.global_id]
        if not old.snapshot:
            del self.volumes_by_visible_id[old.visible_id]
        elif old.id in self.watched:
            del self.watched[old.id]
            self.watch_changes += 1
        if old.parent:
            if old.parent in self.watched:
                self.watch_changes += 1
            siblings = self.children[old.parent]
            del siblings[old.id]
            if not siblings:
                del self.children[old.parent]
        if old.taken_on:
            taken = self.snapshots_of[old.taken_on]
            del taken[old.id]
            if not taken:
                del self.snapshots_of[old.taken_on]
        members = self.vag_members[old.allocation_group]
        del members[old.id]
        if not members:
            del self.vag_members[old.allocation_group]
            self._left[old.allocation_group] = None
        self.leaving.pop(old.id, None)
        for client, attachment in old.attachments.items():
            del self.positions[client][attachment.pos]

    def _forget(self, changed: Object) -> None:
        """Children name their parent, snapshots their volume; a deleted parent shows whether it has children."""
        if not (self.shown[0] or self.shown[1]):
            return
        for shown in self.shown:
            if shown:
                children, taken = self.children.get(changed.id, ()), self.snapshots_of.get(changed.visible_id, ())
                for serial in (changed.id, changed.parent, *children, *taken):
                    shown.pop(serial, None)

    def _forget_one(self, serial: int) -> None:
        for shown in self.shown:
            shown.pop(serial, None)

    def _forget_all(self) -> None:
        for shown in self.shown:
            shown.clear()

    # Look-ups.

    def find(self, reference: str) -> Object | None:
        """By name, or by `~globalId`, which falls back to names (spec 7.4). None for what is being deleted."""
        serial = None
        if reference.startswith("~"):
            serial = self.global_ids.get(reference[1:])
        if serial is None:
            serial = self.names.get(reference)
        return None if serial is None else self.objects[serial]

    def volume(self, reference: str) -> Object:
        found = self.find(reference)
        if found is None or found.snapshot:
            raise errors.missing("Volume", reference)
        return found

    def snapshot(self, reference: str) -> Object:
        found = self.find(reference)
        if found is None or not found.snapshot:
            raise errors.missing("Snapshot", reference)
        return found

    def template(self, name: str) -> Template:
        found = self.templates_by_name.get(name)
        if found is None:
            raise errors.missing("Template", name)
        return self.templates[found]

    def group(self, name: str) -> Group:
        found = self.groups_by_name.get(name)
        if found is None:
            raise errors.missing("Placement group", name)
        return self.groups[found]

    def bucket(self, name: str) -> Bucket:
        found = self.find_bucket(name)
        if found is None:
            raise errors.missing("Bucket", name)
        return found

    def find_bucket(self, name: str) -> Bucket | None:
        found = self.buckets_by_name.get(name)
        return None if found is None else self.table(Bucket)[found]

    def runs(self, client: int) -> bool:
        """Whether this client takes devices now. Those of other clusters are believed to: nobody here hears of them."""
        return client >= FOREIGN or self.clients[client].running

    def client(self, number: int) -> Client:
        found = self.clients.get(number)
        if found is None:
            raise errors.invalid("No such client registered")
        return found

    @property
    def balancer(self) -> Balancer | None:
        """Its run, while there is one."""
        return self.table(Balancer).get(BALANCER)

    def ancestors(self, child: Object) -> list[Object]:
        """The chain of parents, nearest first."""
        chain: list[Object] = []
        while child.parent:
            child = self.objects[child.parent]
            chain.append(child)
        return chain

    def with_records(self, records: Iterable[Group | Vag]) -> State:
        """A view, for looking only: these records are as given, and all else is as it is here."""
        view = copy.copy(self)
        view.groups, view.vags = dict(self.groups), dict(self.vags)
        for record in records:
            if isinstance(record, Group):
                view.groups[record.id] = record
            else:
                view.vags[record.id] = record
        return view

    def exported(self, serial: int) -> list[Exported]:
        """Where the object is exported to."""
        return [self.table(Exported)[number] for number in self.exports.get(serial, ())]

    # The whole.

    def snapshot_record(self) -> Snapshot:
        records: list[AnyRecord] = [
            self._tables[tag][number]  # type: ignore[misc]  # events hold no other records
            for tag in sorted(self._tables)
            for number in sorted(self._tables[tag])
        ]
        return Snapshot(self.generation, self.next_serial, dict(self.next_id), records)

    def encode(self) -> bytes:
        """Equal states give equal bytes, whichever way they came about."""
        return _encoder.encode(self.snapshot_record())

    @classmethod
    def restore(cls, snapshot: Snapshot) -> State:
        state = cls()
        for record in snapshot.records:
            if isinstance(record, Object):  # most are, and none is there twice
                state.objects[record.id] = record
                state._index(record)
            else:
                state._put(record)
        state.generation, state.next_serial = snapshot.generation, snapshot.next_serial
        state.next_id = _FIRST_IDS | snapshot.next_id
        return state


def _add(members: dict[int, dict[int, None]], key: int, new: int) -> None:
    known = members.get(key)
    if known is None:
        members[key] = {new: None}
    else:
        known[new] = None


def _tag(kind: type[Record]) -> str:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str), "every kind of record has a tag"
    return tag
