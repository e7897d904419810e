"""Volumes: list, create, update, delete (spec storpool-api 7.1 to 7.3)."""

from __future__ import annotations

from typing import Any

import msgspec

from simulator.api import errors
from simulator.api.scalars import SECTOR
from simulator.api.schema.answers import Ok, Summary, VolumeCreated
from simulator.api.schema.requests import VolumeCreateDesc, VolumeDeleteDesc, VolumeUpdateDesc
from simulator.cluster import iscsi, policy, relocator
from simulator.cluster.effects import Attach, Clone, Create, Delete, Detach, Effect, Resize
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import NO_PARENT, NOT_SET, Drop, Event, Object, Put, Template
from simulator.cluster.remote import client_title
from simulator.cluster.summary import base36, links, summary

NAME_BYTES = 199


def volumes_list(call: Call) -> list[Summary]:
    return [summary(call, found) for found in call.state.objects.values() if not found.snapshot]


def volume_list(call: Call) -> list[Summary]:
    return [summary(call, call.state.volume(call.args[0]))]


def global_id(call: Call, serial: int) -> str:
    return f"{call.settings.cluster_id}.{base36(serial)}"


def check_name_free(call: Call, name: str | None) -> None:
    if name and name in call.state.names:
        raise errors.exists(name)


def generated_name(source: Object, serial: int) -> str:
    """`volume@serial`; an unnamed volume's id stands for its name, without the `~` that may not stand before `@`."""
    tail = f"@{serial}"
    return (source.name.lstrip("~#") or source.global_id)[: NAME_BYTES - len(tail)] + tail


def volume_create(call: Call, body: VolumeCreateDesc) -> Plan:
    """Empty, on top of a snapshot (`parent`), or as a copy of a volume through a transient snapshot (`baseOn`)."""
    state = call.state
    check_name_free(call, body.name)
    if body.parent and body.baseOn:
        raise errors.invalid("Give either parent or baseOn, not both")
    template = state.template(body.template) if body.template else None
    if body.baseOn:
        return _create_copy(call, body, template, state.volume(body.baseOn))
    parent = None
    if body.parent:
        parent = state.snapshot(body.parent)
        check_not_transient(parent)
    elif template is not None and template.parent and body.parent is None:
        parent = state.snapshot(template.parent)
    size = _size(call, body.size, template, parent)
    placement = policy.resolve(call, body, template, parent)
    policy.check_space(call)
    volume = _new_volume(call, body, state.next_serial, size, parent, placement)
    effect: Effect = Clone(parent.id, volume.id, size) if parent else Create(volume.id, size)
    uses: tuple[int | str, ...] = policy.uses(placement)
    if parent is not None:
        uses = (parent.id, *uses)
    return Plan(_created(volume), [Put(volume)], [effect], (body.name or "",), uses, serials=1)


def check_not_transient(found: Object) -> None:
    if found.transient:
        raise errors.invalid(f"Snapshot '{found.shown_name}' is transient")


def _create_copy(call: Call, body: VolumeCreateDesc, template: Template | None, source: Object) -> Plan:
    size = _size(call, body.size, template, source)
    placement = policy.resolve(call, body, template, source)
    policy.check_space(call)
    serial = call.state.next_serial
    middle = Object(
        id=serial,
        name=generated_name(source, serial),
        global_id=global_id(call, serial),
        snapshot=True,
        size=source.size,
        created=int(call.now),
        visible_id=serial,
        parent=source.parent,
        original_parent=source.parent,
        taken_on=source.visible_id,
        auto_name=True,
        transient=True,
        vag=source.allocation_group,
        abandoned=source.abandoned,
        **policy.of_source(source),
    )
    check_name_free(call, middle.name)
    volume = _new_volume(call, body, serial + 1, size, middle, placement)
    answer = _created(volume)
    answer.autoName = middle.name
    return Plan(
        answer,
        [
            Put(middle),
            *relocator.inherited(call, source, middle),
            Put(msgspec.structs.replace(source, parent=middle.id)),
            Put(volume),
        ],
        [Clone(source.id, middle.id, source.size), Clone(middle.id, volume.id, size)],
        (source.id, middle.name, body.name or ""),
        policy.uses(placement),
        serials=2,
    )


def _size(call: Call, asked: int | None, template: Template | None, source: Object | None) -> int:
    if asked is None:
        if source is not None:
            return source.size
        if template is not None and template.size != NOT_SET:
            return template.size
        raise errors.invalid("size is missing: give size, parent, baseOn or a template with a size")
    if source is not None and asked < source.size and call.settings.smaller_than_parent == "refuse":
        raise errors.invalid(f"size {asked} is smaller than the {source.size} bytes of '{source.shown_name}'")
    return asked


def _new_volume(
    call: Call, body: VolumeCreateDesc, serial: int, size: int, parent: Object | None, placement: policy.Placement
) -> Object:
    return Object(
        id=serial,
        name=body.name or "",
        global_id=global_id(call, serial),
        size=size,
        created=int(call.now),
        visible_id=serial,
        parent=parent.id if parent else NO_PARENT,
        original_parent=parent.id if parent else NO_PARENT,
        vag=policy.allocation_group(parent, placement) if parent else 0,
        tags=policy.merge_tags({}, body.tags),
        **placement,
    )


def _created(volume: Object) -> VolumeCreated:
    answer = VolumeCreated(globalId=volume.global_id)
    if not volume.name:
        answer.name = volume.shown_name
    return answer


def volume_update(call: Call, body: VolumeUpdateDesc) -> Plan:
    """Rename, resize, switch template, change limits and tags, in one change."""
    old = call.state.volume(call.args[0])
    changed: dict[str, Any] = {}
    if body.template is not None:
        changed.update(policy.of_template(call.state.template(body.template)))
    changed.update(policy.chosen(call, body))
    effects: list[Effect] = []
    new_size = _resized(body, old)
    if new_size != old.size:
        if new_size > old.size:
            policy.check_space(call)
        changed["size"] = new_size
        effects.append(Resize(old.id, new_size, old.size))
    touches: tuple[int | str, ...] = (old.id,)
    if body.rename is not None and body.rename != old.name:
        check_name_free(call, body.rename)
        changed["name"] = body.rename
        touches = (old.id, body.rename)
    if body.tags:
        changed["tags"] = policy.merge_tags(old.tags, body.tags)
    if not changed:
        return Plan(Ok(), touches=touches)
    new = msgspec.structs.replace(old, **changed)
    if "replication" in changed or "place_all" in changed or "place_tail" in changed or "place_head" in changed:
        policy.check_servers(call, policy.of_source(new))
    effects.extend(relink(call, old, new))
    uses = policy.uses(policy.of_source(new))
    events = [Put(new), *relocator.moved(call, old, new)]
    return Plan(Ok(), events, effects, touches, uses, forward=new_size < old.size)


def _resized(body: VolumeUpdateDesc, old: Object) -> int:
    if body.size is not None and body.sizeAdd is not None:
        raise errors.invalid("Give either size or sizeAdd, not both")
    size = old.size if body.size is None else body.size
    size += body.sizeAdd or 0
    if size > 1 << 60:
        raise errors.invalid(f"size {size} is more than a volume can have")
    if size < old.size and not body.shrinkOk:
        raise errors.invalid(f"size {size} is smaller than the {old.size} bytes of '{old.shown_name}'; set shrinkOk")
    return size // SECTOR * SECTOR


def relink(call: Call, old: Object, new: Object) -> list[Effect]:
    """A rename shows in the directories of every client that has the object."""
    if old.name == new.name:
        return []
    return [
        Attach(
            new.id,
            links(new, client, at.cluster),
            at.rights == "ro",
            (links(old, client, at.cluster), at.rights == "ro"),
        )
        for client, at in old.attachments.items()
        if call.state.runs(client)
    ]


def volume_delete(call: Call, body: VolumeDeleteDesc | None) -> Plan:
    """Refused with `busy` while attached, unless `onAttached` says to detach first."""
    old = call.state.volume(call.args[0])
    check_no_target(call, old)
    on_attached = body.onAttached if body is not None else None
    effects: list[Effect] = []
    if old.attachments:
        if on_attached not in ("detach", "detachForce"):
            clients = ", ".join(client_title(call.state, client) for client in sorted(old.attachments))
            raise errors.busy(f"Volume '{old.shown_name}' is attached to client {clients}")
        effects.extend(detach_all(old, force=on_attached == "detachForce"))
    events: list[Event] = [Drop("export", export.id) for export in call.state.exported(old.id)]
    return Plan(Ok(), [*events, Drop("object", old.id)], effects, (old.id,), late=[Delete(old.id)])


def check_no_target(call: Call, volume: Object) -> None:
    if iscsi.is_target(call.state, volume.visible_id):
        raise errors.busy(f"Volume '{volume.shown_name}' is an iSCSI target")


def detach_all(old: Object, *, force: bool) -> list[Effect]:
    return [
        Detach(old.id, client, force, old.shown_name, (links(old, client, at.cluster), at.rights == "ro"))
        for client, at in old.attachments.items()
    ]
