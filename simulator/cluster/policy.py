"""Where placement and limits come from: the request, else the template, else the source, else the default."""

from __future__ import annotations

from itertools import combinations
from typing import TypedDict

import msgspec

from simulator.api import errors
from simulator.api.schema.requests import Policy
from simulator.cluster.plan import Call
from simulator.cluster.records import NOT_SET, UNLIMITED, Object, Template


class Placement(TypedDict):
    """Fields of an `Object`."""

    template: int
    place_all: int
    place_tail: int
    place_head: int
    replication: int
    bw: int
    iops: int
    limit_type: str
    reuse_server: bool | None


def limit(wire: int | str) -> int:
    """`-` is unlimited; numbers may come as strings."""
    return UNLIMITED if wire == "-" else int(wire)


def merge_tags(old: dict[str, str], new: dict[str, str] | None) -> dict[str, str]:
    """Per key; an empty value removes the key (spec 0.3 item 8)."""
    if not new:
        return old
    merged = {**old, **new}
    return {key: value for key, value in merged.items() if value}


def chosen(call: Call, body: Policy) -> dict[str, object]:
    """Fields of an `Object` or `Template` that the request itself sets."""
    fields: dict[str, object] = {}
    for field, name in (("place_all", body.placeAll), ("place_tail", body.placeTail), ("place_head", body.placeHead)):
        if name is not None:
            fields[field] = call.state.group(name).id
    if body.replication is not None:
        fields["replication"] = body.replication
    if body.bw is not None:
        fields["bw"] = limit(body.bw)
    if body.iops is not None:
        fields["iops"] = limit(body.iops)
    if body.limitType is not None:
        fields["limit_type"] = body.limitType
    if body.reuseServer is not None:
        fields["reuse_server"] = body.reuseServer
    return fields


def of_template(template: Template) -> dict[str, object]:
    """What an object takes over from a template; what is not set there is left out."""
    fields: dict[str, object] = {
        "template": template.id,
        "place_all": template.place_all,
        "place_tail": template.place_tail,
        "place_head": template.place_head,
    }
    for field in ("replication", "bw", "iops"):
        value: int = getattr(template, field)
        if value != NOT_SET:
            fields[field] = value
    if template.limit_type:
        fields["limit_type"] = template.limit_type
    if template.reuse_server is not None:
        fields["reuse_server"] = template.reuse_server
    return fields


def default_group(call: Call) -> int:
    name = call.settings.default_placement_group
    found = call.state.groups_by_name.get(name)
    if found is None:
        raise errors.invalid("placeAll is missing: give placeAll or a template")
    return found


def of_source(source: Object) -> Placement:
    """What a volume takes over from the snapshot or volume it is made from."""
    return Placement(
        template=source.template,
        place_all=source.place_all,
        place_tail=source.place_tail,
        place_head=source.place_head,
        replication=source.replication,
        bw=source.bw,
        iops=source.iops,
        limit_type=source.limit_type,
        reuse_server=source.reuse_server,
    )


def allocation_group(source: Object, placement: Placement) -> int:
    """What is made from a source is in its allocation group; with another placement it has one of its own, 0."""
    taken = (placement["place_head"], placement["place_all"], placement["place_tail"], placement["replication"])
    return source.allocation_group if taken == source.placement else 0


def resolve(call: Call, body: Policy, template: Template | None, source: Object | None) -> Placement:
    """Placement of a new object; refused when the groups have too few servers for the replication."""
    wanted = chosen(call, body)
    if template is not None:
        wanted = {**of_template(template), **wanted}
    if source is not None:
        placement = of_source(source)
    else:
        everywhere = wanted.get("place_all")
        group = everywhere if isinstance(everywhere, int) else default_group(call)
        placement = Placement(
            template=0,
            place_all=group,
            place_tail=group,
            place_head=group,
            replication=call.settings.default_replication,
            bw=UNLIMITED,
            iops=UNLIMITED,
            limit_type="",
            reuse_server=None,
        )
    if wanted:
        placement = msgspec.convert({**placement, **wanted}, Placement)
    check_servers(call, placement)
    return placement


def places(head: int, everywhere: int, tail: int, replication: int) -> list[int]:
    """The group of each copy, that of the tail last; a single copy is the tail."""
    return [head, *[everywhere] * max(0, replication - 2), tail][-replication:]


def check_servers(call: Call, placement: Placement) -> None:
    """Each copy wants a disk of its group, on a server of its own unless servers may be reused."""
    state, copies = call.state, placement["replication"]
    groups = places(placement["place_head"], placement["place_all"], placement["place_tail"], copies)
    servers = [{state.disks[disk].server for disk in state.groups[group].disks} for group in groups]
    if all(len(each) >= copies for each in servers):
        return
    some = range(1, 2 if placement["reuse_server"] else copies + 1)
    # Hall's condition: any n copies together have n servers to choose from.
    if not all(len(set().union(*chosen)) >= n for n in some for chosen in combinations(servers, n)):
        text = f"Not enough servers or fault sets for replication {copies}"
        raise errors.scarce(text)


def uses(placement: Placement) -> tuple[str, ...]:
    """Names, for `Plan.uses`, of what must not be deleted before the object is there."""
    groups = {placement["place_all"]: None, placement["place_tail"]: None, placement["place_head"]: None}
    return (f"template {placement['template']}", *(f"group {group}" for group in groups))


def check_space(call: Call) -> None:
    """Refused when the pool is full."""
    free = call.capacity[1]
    if free <= call.settings.minimum_free_bytes:
        raise errors.scarce(f"Not enough free space: {free} bytes left in the pool")
