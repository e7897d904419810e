"""The committed state: tables of records, the indexes over them, and look-ups by name or global id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from simulator.api import errors
from simulator.cluster.records import (
    AnyRecord,
    Client,
    Disk,
    Event,
    Group,
    Object,
    Put,
    Server,
    Snapshot,
    Template,
)

_encoder = msgspec.msgpack.Encoder()


class State:
    """Changed by `apply` only. Dictionaries stand in for ordered sets, so that two runs walk them alike."""

    def __init__(self) -> None:
        self.generation = 0
        self.next_serial = 1
        self.next_id: dict[str, int] = {"template": 1, "group": 1}
        self.objects: dict[int, Object] = {}
        self.templates: dict[int, Template] = {}
        self.groups: dict[int, Group] = {}
        self.disks: dict[int, Disk] = {}
        self.servers: dict[int, Server] = {}
        self.clients: dict[int, Client] = {}
        self.names: dict[str, int] = {}
        self.global_ids: dict[str, int] = {}
        self.volumes_by_visible_id: dict[int, int] = {}
        self.children: dict[int, dict[int, None]] = {}
        self.positions: dict[int, dict[int, int]] = {}
        """By client: object by position."""
        self.watched: dict[int, None] = {}
        """Snapshots that the passing of time concerns: deleted, transient, bound or with a delete date."""
        self.watch_changes = 0
        """Grows whenever something may have changed when the watched snapshots are due."""
        self.templates_by_name: dict[str, int] = {}
        self.groups_by_name: dict[str, int] = {}

    # Events.

    def commit(self, events: Iterable[Event]) -> None:
        """Apply the events of one change and count it."""
        for event in events:
            self.apply(event)
        self.generation += 1

    def apply(self, event: Event) -> None:
        if isinstance(event, Put):
            self._put(event.record)
        elif event.table == "object":
            self._unindex(self.objects.pop(event.id))
        elif event.table == "template":
            del self.templates_by_name[self.templates.pop(event.id).name]
        elif event.table == "group":
            del self.groups_by_name[self.groups.pop(event.id).name]
        else:
            raise ValueError(f"records of table {event.table} are never dropped")

    def _put(self, record: AnyRecord) -> None:
        if isinstance(record, Object):
            old = self.objects.get(record.id)
            if old is not None:
                self._unindex(old)
            elif record.id >= self.next_serial:
                self.next_serial = record.id + 1
            self.objects[record.id] = record
            self._index(record)
        elif isinstance(record, Template):
            self._put_named("template", self.templates, self.templates_by_name, record)
        elif isinstance(record, Group):
            self._put_named("group", self.groups, self.groups_by_name, record)
        elif isinstance(record, Disk):
            self.disks[record.id] = record
        elif isinstance(record, Server):
            self.servers[record.id] = record
        else:
            self.clients[record.id] = record

    def _put_named(
        self, table: str, records: dict[int, Template] | dict[int, Group], names: dict[str, int], new: Template | Group
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
            self.children.setdefault(new.parent, {})[new.id] = None
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
        for client, attachment in old.attachments.items():
            del self.positions[client][attachment.pos]

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

    def client(self, number: int) -> Client:
        found = self.clients.get(number)
        if found is None:
            raise errors.invalid("No such client registered")
        return found

    def ancestors(self, child: Object) -> list[Object]:
        """The chain of parents, nearest first."""
        chain: list[Object] = []
        while child.parent:
            child = self.objects[child.parent]
            chain.append(child)
        return chain

    # The whole.

    def snapshot_record(self) -> Snapshot:
        tables: tuple[Mapping[int, AnyRecord], ...] = (
            self.disks,
            self.servers,
            self.clients,
            self.groups,
            self.templates,
            self.objects,
        )
        records = [table[number] for table in tables for number in sorted(table)]
        return Snapshot(self.generation, self.next_serial, dict(self.next_id), records)

    def encode(self) -> bytes:
        """Equal states give equal bytes, whichever way they came about."""
        return _encoder.encode(self.snapshot_record())

    @classmethod
    def restore(cls, snapshot: Snapshot) -> State:
        state = cls()
        for record in snapshot.records:
            state._put(record)
        state.generation, state.next_serial = snapshot.generation, snapshot.next_serial
        state.next_id = dict(snapshot.next_id)
        return state
