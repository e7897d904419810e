"""An object changes its cluster: what each of the two does of it (spec storpool-api 7.8).

The new cluster leads: it numbers the attempt, the old one marks the objects as leaving, the new one copies and commits
them in its `Arrival`, the old one drops them, the new one forgets the arrival. That record alone decides whose they
are: a cluster that does not know how it ended asks, and what neither arrived nor is on its way stays. Messages may
come late or twice, so each has the number, and a number that is over is not begun again.
"""

from __future__ import annotations

import msgspec

from simulator.api import errors
from simulator.api.schema.answers import Ok
from simulator.api.schema.transfers import (
    Answered,
    ArriveDesc,
    BeginDesc,
    Begun,
    DepartDesc,
    Departure,
    Moved,
    Offer,
)
from simulator.cluster import policy
from simulator.cluster.effects import Delete, Effect, Fetch
from simulator.cluster.exports import offer
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import COPY, NO_PARENT, OWNER, Arrival, Drop, Event, Object, Put, RemoteCluster
from simulator.cluster.remote import neighbours
from simulator.cluster.state import State
from simulator.cluster.volumes import check_no_target, detach_all


def begin(call: Call, body: BeginDesc) -> Plan:
    """Number an attempt, durably, so that no later one has the number too: also not after a reset."""
    move = max(call.state.next_id["arrival"], int(call.now * 1000))
    return Plan(Begun(move=move), [Put(Arrival(id=move, source=body.source))], touches=("arrivals",))


def depart(call: Call, body: DepartDesc) -> Plan:
    """Mark the object, and those of its ancestors that only it needs, as leaving; detach it if that was asked for."""
    state = call.state
    found = state.find(body.object)
    if found is None:
        raise errors.missing("Volume", body.object)
    if body.move < found.move or any(body.move <= one.last_move for one in _neighbours(state, body.to)):
        raise errors.invalid(f"Move {body.move} of cluster {body.to} is over")
    moving = [found, *_own_ancestors(state, found)]
    if found.leaving_to == body.to:
        # What is on record of an attempt that the other cluster gave up without saying so.
        again: list[Event] = [Put(msgspec.structs.replace(one, leaving_to=body.to, move=body.move)) for one in moving]
        return Plan(_departure(state, found, moving), again, touches=tuple(one.id for one in moving), moves=True)
    _check_may_leave(call, found)
    effects: list[Effect] = []
    if found.attachments:
        if body.onAttached not in ("detach", "detachForce"):
            raise errors.busy(f"'{found.shown_name}' is attached in cluster {call.settings.cluster_id}")
        effects.extend(detach_all(found, force=body.onAttached == "detachForce"))
    events: list[Event] = [
        Put(msgspec.structs.replace(one, leaving_to=body.to, move=body.move, attachments={})) for one in moving
    ]
    touches = tuple(one.id for one in moving)
    return Plan(_departure(state, found, moving), events, effects, touches)


def _check_may_leave(call: Call, found: Object) -> None:
    if found.leaving_to:
        raise errors.busy(f"'{found.shown_name}' is moving to cluster {found.leaving_to}")
    if call.now < found.recovering_until:
        raise errors.busy(f"'{found.shown_name}' is still recovering from remote")
    if found.transient or (found.snapshot and found.state != OWNER):
        raise errors.invalid(f"'{found.shown_name}' is transient or a copy, which does not move")
    if found.snapshot and found.id in call.state.children:
        raise errors.busy(f"Snapshot '{found.shown_name}' has children here")
    if call.state.exports.get(found.id) and found.snapshot:
        raise errors.busy(f"Snapshot '{found.shown_name}' is exported")
    if any(found.global_id in arrival.global_ids for arrival in call.state.table(Arrival).values()):
        text = f"'{found.shown_name}' is still known to the cluster that it came from"
        raise errors.Refused("busy", text, transient=True)
    if not found.snapshot:
        check_no_target(call, found)


def _own_ancestors(state: State, found: Object) -> list[Object]:
    """Nearest first, as far as nothing else here needs them."""
    own = []
    for one in state.ancestors(found):
        needed = len(state.children[one.id]) > 1 or one.attachments or one.id in state.exports
        if needed or one.gone_at or one.transient or one.state != OWNER:
            break
        own.append(one)
    return own


def _departure(state: State, found: Object, moving: list[Object]) -> Departure:
    """Ancestors that stay are told too, for the other cluster to copy: contents are shared with them."""
    serials = {one.id for one in moving}
    chain = [one for one in state.ancestors(found) if not one.gone_at and not one.transient]
    return Departure(members=[offer(state, one, moves=one.id in serials) for one in (*reversed(chain), found)])


def arrive(call: Call, body: ArriveDesc) -> Plan:
    """Copies of all, oldest first; those that move are owned here from the commit on."""
    state = call.state
    if body.move not in state.table(Arrival):
        raise errors.invalid(f"Move {body.move} was not begun")
    policy.check_space(call)
    serial = state.next_serial
    effects: list[Effect] = []
    events: list[Event] = []
    uses: list[int | str] = []
    touches: list[int | str] = []
    parent: Object | None = None
    known = {member.globalId: state.find("~" + member.globalId) for member in body.members}
    coming = [member for member in body.members if known[member.globalId] is None]
    visible = {member.visibleId: serial + at for at, member in enumerate(coming)}
    for member in body.members:
        here = known[member.globalId]
        touches.append("~" + member.globalId)
        if here is not None:
            if here.snapshot != member.snapshot:
                raise errors.exists("~" + member.globalId)
            if member.moves and here.state != OWNER:
                touches.append(here.id)
                events.append(Put(msgspec.structs.replace(here, state=OWNER)))
            parent = here
            continue
        new = _arrived(call, member, serial, parent, visible)
        if new.name:
            touches.append(new.name)
        uses.extend(policy.uses(policy.of_source(new)))
        ancestor = NO_PARENT if parent is None else parent.id
        if parent is not None and parent.id in state.objects:
            uses.append(parent.id)
        events.append(Put(new))
        effects.append(Fetch(serial, member.size, body.source, member.globalId, ancestor))
        parent = new
        serial += 1
    moved = tuple(member.globalId for member in body.members if member.moves)
    events.append(Put(Arrival(id=body.move, source=body.source, global_ids=moved)))
    serials = serial - state.next_serial
    return Plan(Ok(), events, effects, tuple(touches), tuple(dict.fromkeys(uses)), serials=serials)


def _arrived(call: Call, member: Offer, serial: int, parent: Object | None, visible: dict[int, int]) -> Object:
    """Templates and groups are those of the same names here."""
    state = call.state
    name = member.name
    if name in state.names:
        if not member.autoName and member.moves:
            raise errors.exists(name)
        name = ""
    template = state.template(member.template).id if member.template else 0
    placement = policy.Placement(
        template=template,
        place_all=state.group(member.placeAll).id,
        place_tail=state.group(member.placeTail).id,
        place_head=state.group(member.placeHead).id,
        replication=member.replication,
        bw=member.bw,
        iops=member.iops,
        limit_type=member.limitType,
        reuse_server=None,
    )
    policy.check_servers(call, placement)
    ancestor = NO_PARENT if parent is None else parent.id
    return Object(
        id=serial,
        name=name if member.moves else "",
        global_id=member.globalId,
        snapshot=member.snapshot,
        size=member.size,
        created=member.created,
        visible_id=serial,
        parent=ancestor,
        original_parent=ancestor,
        tags=member.tags,
        taken_on=visible.get(member.takenOn, 0),
        auto_name=member.snapshot and (member.autoName or not member.moves),
        bound=member.bound,
        delete_date=member.deleteDate if member.moves else 0,
        state=OWNER if member.moves else COPY,
        backup_of=member.backupOf,
        backup_of_visible=member.backupOfVisible,
        vag=policy.allocation_group(parent, placement) if parent is not None else 0,
        **placement,
    )


def departed(call: Call, body: Moved) -> Plan:
    """The other cluster has them: drop what is left here. May be repeated."""
    gone = _leaving(call.state, body)
    events: list[Event] = [Drop("export", export.id) for one in gone for export in call.state.exported(one.id)]
    events += [Drop("object", one.id) for one in gone]
    events += [
        Put(msgspec.structs.replace(one, last_move=body.move))
        for one in _neighbours(call.state, body.cluster)
        if one.last_move < body.move
    ]
    touches: tuple[int | str, ...] = (*(one.id for one in gone), "remote")
    return Plan(Ok(), events, touches=touches, late=[Delete(one.id) for one in gone], moves=True)


def stay(call: Call, body: Moved) -> Plan:
    """The other cluster does not take them."""
    kept = _leaving(call.state, body)
    events: list[Event] = [Put(msgspec.structs.replace(one, leaving_to="", move=0)) for one in kept]
    return Plan(Ok(), events, touches=tuple(one.id for one in kept), moves=True)


def _leaving(state: State, body: Moved) -> list[Object]:
    found = [state.objects[serial] for serial in state.leaving]
    return [one for one in found if (one.leaving_to, one.move) == (body.cluster, body.move)]


def _neighbours(state: State, cluster_id: str) -> list[RemoteCluster]:
    """The record of the cluster, if it is registered."""
    return [state.table(RemoteCluster)[one.record] for one in neighbours(state) if one.cluster_id == cluster_id]


def settled(call: Call, body: Moved) -> Plan:
    """The old cluster has dropped them, or never will."""
    known = body.move in call.state.table(Arrival)
    return Plan(Ok(), [Drop("arrival", body.move)] if known else [], touches=("arrivals",))


def arrived(call: Call, body: Moved) -> Answered:
    """`yes`: they came here from the asking cluster. `until` is not 0 while that is not decided."""
    if body.move in call.under_way.values():
        return Answered(until=call.now + call.settings.transfer_check_seconds)
    found = call.state.table(Arrival).get(body.move)
    return Answered(yes=found is not None and found.source == body.cluster and bool(found.global_ids))
