"""Volume templates (spec storpool-api 7.7)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from simulator.api import errors
from simulator.api.schema.answers import Ok, SpaceEstimate, SpaceInternal, TemplateDesc, TemplateSpace, TemplateStatus
from simulator.api.schema.requests import TemplateCreateDesc, TemplateFields, TemplateUpdateDesc
from simulator.cluster import policy, relocator, usage
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Drop, Event, Object, Put, Template
from simulator.cluster.summary import or_dash


def templates_list(call: Call) -> list[TemplateDesc]:
    return [_describe(call, template) for template in call.state.templates.values()]


def template_describe(call: Call) -> TemplateDesc:
    return _describe(call, call.state.template(call.args[0]))


def _describe(call: Call, template: Template) -> TemplateDesc:
    groups = call.state.groups
    return TemplateDesc(
        id=template.id,
        name=template.name,
        parentName=template.parent,
        placeAll=groups[template.place_all].name,
        placeTail=groups[template.place_tail].name,
        placeHead=groups[template.place_head].name,
        size=or_dash(template.size),
        replication=or_dash(template.replication),
        bw=or_dash(template.bw),
        iops=or_dash(template.iops),
        limitType=template.limit_type or UNSET,
        reuseServer=UNSET if template.reuse_server is None else template.reuse_server,
    )


def template_create(call: Call, body: TemplateCreateDesc) -> Plan:
    state = call.state
    if body.name in state.templates_by_name:
        raise errors.exists(body.name)
    chosen = _chosen(call, body)
    everywhere = chosen.setdefault("place_all", None)
    if everywhere is None:
        everywhere = chosen["place_all"] = policy.default_group(call)
    chosen.setdefault("place_tail", everywhere)
    chosen.setdefault("place_head", everywhere)
    template = Template(id=state.next_id["template"], name=body.name, **chosen)
    return Plan(Ok(), [Put(template)])


def _chosen(call: Call, body: TemplateFields) -> dict[str, Any]:
    """Fields of a `Template` (Any: each has its own type) that the request sets."""
    chosen: dict[str, Any] = policy.chosen(call, body)
    if body.parent is not None:
        call.state.snapshot(body.parent)
        chosen["parent"] = body.parent
    if body.size is not None:
        chosen["size"] = body.size
    if body.tags:
        chosen["tags"] = policy.merge_tags({}, body.tags)
    return chosen


def template_update(call: Call, body: TemplateUpdateDesc) -> Plan:
    """Objects made with the template change only with `propagate`."""
    state = call.state
    old = state.template(call.args[0])
    changed = _chosen(call, body)
    if "tags" in changed:
        changed["tags"] = policy.merge_tags(old.tags, body.tags)
    if body.rename is not None and body.rename != old.name:
        if body.rename in state.templates_by_name:
            raise errors.exists(body.rename)
        changed["name"] = body.rename
    new = msgspec.structs.replace(old, **changed)
    events: list[Event] = [] if new == old else [Put(new)]
    touches: list[int | str] = [f"template {old.id}"]
    if body.propagate:
        taken: dict[str, Any] = policy.of_template(new)
        for found in _users(call, old.id):
            touches.append(found.id)
            changed_user = msgspec.structs.replace(found, **taken)
            events += [Put(changed_user), *relocator.moved(call, found, changed_user)]
    return Plan(Ok(), events, touches=tuple(touches))


def template_delete(call: Call) -> Plan:
    old = call.state.template(call.args[0])
    users = _users(call, old.id)
    if users and call.settings.template_in_use == "refuse":
        raise errors.busy(f"Template '{old.name}' is used by {len(users)} volumes and snapshots")
    events: list[Event] = [Put(msgspec.structs.replace(found, template=0)) for found in users]
    return Plan(
        Ok(), [*events, Drop("template", old.id)], touches=(f"template {old.id}", *(found.id for found in users))
    )


def _users(call: Call, template: int) -> list[Object]:
    """Volumes and snapshots of the template, those being deleted included."""
    return [found for found in call.state.objects.values() if found.template == template]


def templates_status(call: Call) -> list[TemplateStatus]:
    used = usage.used_by_disk(call)
    return [_status(call, template, used) for template in call.state.templates.values()]


def _status(call: Call, template: Template, used: dict[int, int]) -> TemplateStatus:
    users = _users(call, template.id)
    volumes = [found for found in users if not found.snapshot]
    snapshots = [found for found in users if found.snapshot]
    parents = [found for found in snapshots if found.id in call.state.children]
    stored = sum(usage.own(call, found) for found in users)
    copies = max(template.replication, 1)
    size = sum(found.size for found in volumes)
    whole = usage.of_template(call, template, used)
    everywhere, tail, head = (
        usage.of_place(call, template, group, used)
        for group in (template.place_all, template.place_tail, template.place_head)
    )
    groups = call.state.groups
    return TemplateStatus(
        id=template.id,
        name=template.name,
        placeAll=groups[template.place_all].name,
        placeTail=groups[template.place_tail].name,
        placeHead=groups[template.place_head].name,
        replication=or_dash(template.replication),
        volumesCount=len(volumes),
        snapshotsCount=len(snapshots),
        removingSnapshotsCount=sum(1 for found in snapshots if found.gone_at),
        size=size,
        totalSize=sum(found.size * found.replication for found in volumes),
        storedSize=stored,
        onDiskSize=stored * copies,
        volumesSize=size,
        snapshotsWithoutChildrenSize=sum(found.size for found in snapshots) - sum(found.size for found in parents),
        snapshotsWithChildrenSize=sum(found.size for found in parents),
        availablePlaceAll=everywhere.free,
        availablePlaceTail=tail.free,
        availablePlaceHead=head.free,
        capacityPlaceAll=everywhere.capacity,
        capacityPlaceTail=tail.capacity,
        capacityPlaceHead=head.capacity,
        stored=TemplateSpace(
            capacity=whole.capacity,
            free=whole.free,
            internal=_internal(whole),
            placeAll=_estimate(everywhere),
            placeTail=_estimate(tail),
            placeHead=_estimate(head),
        ),
    )


def _estimate(fill: usage.Fill) -> SpaceEstimate:
    return SpaceEstimate(capacity=fill.capacity, free=fill.free, internal=_internal(fill))


def _internal(fill: usage.Fill) -> SpaceInternal:
    return SpaceInternal(u1=fill.capacity, u2=fill.capacity, u3=fill.free)
