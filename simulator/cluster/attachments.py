"""Attachments: VolumesReassign and VolumesReassignWait (spec storpool-api 5.4 and 7.6).

One call is one change over several objects: either all of its items happen or none.
"""

from __future__ import annotations

import msgspec

from simulator.api import errors
from simulator.api.scalars import MAX_ATTACHMENTS
from simulator.api.schema.answers import AttachmentDesc, Ok
from simulator.api.schema.requests import ReassignItem, ReassignWaitDesc
from simulator.api.schema.transfers import ForeignReassign
from simulator.cluster.effects import Attach, Detach, Effect
from simulator.cluster.plan import Call, Plan, Wait
from simulator.cluster.records import Attachment, Object, Put
from simulator.cluster.remote import client_title, neighbour, neighbours
from simulator.cluster.summary import links
from simulator.ports import FOREIGN, foreign_client

Positions = dict[int, dict[int, int]]


def attachments_list(call: Call) -> list[AttachmentDesc]:
    state = call.state
    shown = []
    for client, positions in sorted(state.positions.items()):
        if client >= FOREIGN and not call.multicluster:
            continue
        for pos, serial in sorted(positions.items()):
            found = state.objects[serial]
            at = found.attachments[client]
            entry = AttachmentDesc(
                volume=found.shown_name,
                globalId=found.global_id,
                snapshot=found.snapshot,
                client=client % FOREIGN,
                rights=at.rights,
                pos=pos,
            )
            if call.multicluster:
                entry.clusterId = at.cluster or call.settings.cluster_id
                home = neighbour(state, f"~{at.cluster}") if at.cluster else None
                entry.cluster = call.settings.cluster_name if home is None else home.name
            shown.append(entry)
    return shown


def foreign_reassign(call: Call, body: ForeignReassign) -> Plan:
    """Attachments of clients of another cluster, whose numbers the items hold; `detach` of all is of everybody."""
    found = neighbour(call.state, f"~{body.cluster}")
    if found is None:
        raise errors.missing("Cluster", f"~{body.cluster}")

    def numbers(clients: list[int]) -> list[int]:
        return [foreign_client(found.record, client) for client in clients]

    items = [
        msgspec.structs.replace(
            item,
            rw=None if item.rw is None else numbers(item.rw),
            ro=None if item.ro is None else numbers(item.ro),
            detach=numbers(item.detach) if isinstance(item.detach, list) else item.detach,
        )
        for item in body.reassign
    ]
    return _reassign(call, items)


def volumes_reassign(call: Call, body: list[ReassignItem]) -> Plan:
    plan = _reassign(call, body)
    plan.wait = None
    return plan


def volumes_reassign_wait(call: Call, body: ReassignWaitDesc | list[ReassignItem]) -> Plan:
    """Answers when the clients have their devices; `attachTimeout` is how long missing clients are waited for."""
    timeout: int | None = None
    if isinstance(body, ReassignWaitDesc):
        timeout = body.attachTimeout
        body = body.reassign
    plan = _reassign(call, body)
    if plan.wait is not None:
        plan.wait = None if timeout == 0 else Wait(plan.wait.clients, None if timeout is None else call.now + timeout)
    return plan


def _reassign(call: Call, items: list[ReassignItem]) -> Plan:
    wanted: dict[int, dict[int, Attachment]] = {}
    forced: dict[tuple[int, int], bool] = {}
    taken: Positions = {}
    for item in items:
        found = _target(call, item)
        _apply_item(call, item, found, wanted.setdefault(found.id, dict(found.attachments)), forced, taken)
    # A position freed by this call is not given away by it, and nobody else gives positions of these clients meanwhile.
    plan = Plan(Ok(), touches=(*wanted, *(f"client {client}" for client in taken)))
    attach: list[Attach] = []
    for serial, after in wanted.items():
        old = call.state.objects[serial]
        if after == old.attachments:
            continue
        plan.events.append(Put(msgspec.structs.replace(old, attachments=after)))
        _detachments(plan.effects, old, after, forced)
        _attachments(attach, old, after)
    missing: dict[int, None] = {}
    for effect in attach:
        if call.state.runs(effect.links.client):
            plan.effects.append(effect)
        else:
            missing[effect.links.client] = None
    if missing:
        plan.wait = Wait(tuple(missing), None)
    return plan


def _target(call: Call, item: ReassignItem) -> Object:
    if (item.volume is None) == (item.snapshot is None):
        raise errors.invalid("An item names either a volume or a snapshot")
    if item.volume is not None:
        return call.state.volume(item.volume)
    assert item.snapshot is not None
    if item.rw is not None:
        raise errors.invalid(f"Snapshot '{item.snapshot}' cannot be attached read-write")
    if item.onRemoteAttached or item.mcMode or item.allowRemoteExported is not None:
        raise errors.invalid("onRemoteAttached, mcMode and allowRemoteExported are for volumes only")
    found = call.state.snapshot(item.snapshot)
    if found.transient and item.ro:
        raise errors.invalid(f"Snapshot '{found.shown_name}' is transient and cannot be attached")
    return found


def _apply_item(
    call: Call,
    item: ReassignItem,
    found: Object,
    after: dict[int, Attachment],
    forced: dict[tuple[int, int], bool],
    taken: Positions,
) -> None:
    rights = dict.fromkeys(item.ro or (), "ro")
    for client in item.rw or ():
        if client in rights:
            raise errors.invalid(
                f"Client {client_title(call.state, client)} is asked for both rw and ro of '{found.shown_name}'"
            )
        rights[client] = "rw"
    detach = list(after) if item.detach == "all" else item.detach or []
    if item.detach != "all":
        both = sorted(set(detach) & set(rights))
        if both:
            title = client_title(call.state, both[0])
            raise errors.invalid(f"Client {title} is asked for both attach and detach of '{found.shown_name}'")
    for client in detach:
        _check_client(call, client)
        if client in after and client not in rights:
            del after[client]
            forced[found.id, client] = item.force
    for client, right in rights.items():
        cluster = _check_client(call, client)
        now = after.get(client) or found.attachments.get(client)
        pos = now.pos if now is not None else -1
        used = taken.setdefault(client, dict(call.state.positions.get(client, ())))
        if pos < 0:
            pos = _free_position(call, client, used)
        used[pos] = found.id
        after[client] = Attachment(pos, right, cluster)


def _check_client(call: Call, client: int) -> str:
    """Id of the client's cluster when that is another one."""
    if client < FOREIGN:
        call.state.client(client)
        return ""
    return next(found.cluster_id for found in neighbours(call.state) if found.record == client // FOREIGN)


def _free_position(call: Call, client: int, used: dict[int, int]) -> int:
    """Of clients of other clusters, which give positions from below themselves, from above."""
    if len(used) >= MAX_ATTACHMENTS:
        raise errors.invalid(
            f"Client {client_title(call.state, client)} has all its {MAX_ATTACHMENTS} attachments in use"
        )
    order = range(MAX_ATTACHMENTS) if client < FOREIGN else reversed(range(MAX_ATTACHMENTS))
    return next(pos for pos in order if pos not in used)


def _detachments(
    effects: list[Effect], old: Object, after: dict[int, Attachment], forced: dict[tuple[int, int], bool]
) -> None:
    for client, at in old.attachments.items():
        if client not in after:
            force = forced.get((old.id, client), False)
            was = (links(old, client, at.cluster), at.rights == "ro")
            effects.append(Detach(old.id, client, force, old.shown_name, was))


def _attachments(effects: list[Attach], old: Object, after: dict[int, Attachment]) -> None:
    for client, at in after.items():
        before = old.attachments.get(client)
        if before is None:
            effects.append(Attach(old.id, links(old, client, at.cluster), at.rights == "ro"))
        elif before.rights != at.rights:
            shown = links(old, client, at.cluster)
            effects.append(Attach(old.id, shown, at.rights == "ro", (shown, before.rights == "ro")))
