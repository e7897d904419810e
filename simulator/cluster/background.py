"""What the server does by itself as time passes: snapshots that are due, bound, transient or deleted (spec 7.2), and
relocations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from simulator.api.schema.answers import Ok
from simulator.cluster import balancer, relocator
from simulator.cluster.effects import Delete
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Drop, Event, Exported, Object, Put
from simulator.cluster.snapshots import deleting
from simulator.cluster.state import State
from simulator.settings import Settings


class Companion(Protocol):
    """A service beside the cluster, such as storpool_qos: it looks at the state now and then, and changes it.

    What it must remember over a restart is in the state.
    """

    def due_at(self, state: State, settings: Settings) -> float | None:
        """Unix seconds at which it looks again; None when it is not configured. Asked after every change."""
        ...

    def due_plans(self, call: Call) -> Iterator[Plan]:
        """What it changes now, if it is due. A plan whose objects are being changed is left out until its next look."""
        ...


def due_at(state: State, settings: Settings, found: Object) -> float | None:
    """Unix seconds at which this snapshot's next step is due; None when nothing but a change of others brings it."""
    if found.leaving_to or found.id in state.exports:
        return None
    if found.gone_at:
        return found.gone_at
    if found.attachments:
        return None
    times: list[float] = []
    if found.transient:
        times.append(found.created + settings.transient_seconds)
    if found.delete_date:
        times.append(found.delete_date)
    if found.bound and found.id not in state.children:
        times.append(0.0)
    return min(times) if times else None


def earliest(state: State, settings: Settings) -> float | None:
    """Unix seconds of the first step that is due."""
    times = [due_at(state, settings, state.objects[serial]) for serial in state.watched]
    times += [relocator.earliest(state, settings), balancer.earliest(state)]
    times += [export.backing_up_until for export in state.table(Exported).values() if export.backing_up_until]
    return min((time for time in times if time is not None), default=None)


def due_plans(call: Call) -> Iterator[Plan]:
    """A plan for each snapshot whose step is due now, then those of relocator and balancer.

    Each plan is made on the state as the one before left it.
    """
    state = call.state
    for export in tuple(state.table(Exported).values()):
        if export.backing_up_until and export.backing_up_until <= call.now:
            yield _backed_up(call, export)
    for serial in tuple(state.watched):
        found = state.objects.get(serial)
        if found is None:
            continue
        due = due_at(state, call.settings, found)
        if due is not None and due <= call.now:
            yield _gone(state, found) if found.gone_at else _start_deleting(call, found)
    yield from relocator.due_plans(call)
    yield from balancer.due_plans(call)


def _backed_up(call: Call, export: Exported) -> Plan:
    """The snapshot was taken for the backup only."""
    found = call.state.objects[export.object]
    events: list[Event] = [Drop("export", export.id)]
    if len(call.state.exports[found.id]) == 1 and not found.attachments and not found.leaving_to and not found.gone_at:
        events.append(Put(deleting(call, found)))
    return Plan(Ok(), events, touches=(found.id, "remote"))


def _start_deleting(call: Call, found: Object) -> Plan:
    return Plan(Ok(), [Put(deleting(call, found))], touches=(found.id,))


def _gone(state: State, found: Object) -> Plan:
    """The children, which hold all their data themselves, move up to the parent."""
    children = tuple(state.children.get(found.id, ()))
    events: list[Event] = [
        Put(msgspec.structs.replace(state.objects[child], parent=found.parent)) for child in children
    ]
    events.append(Drop("object", found.id))
    return Plan(Ok(), events, touches=(found.id, *children), late=[Delete(found.id)])
