"""What VolumeCare looks after: VMs, volumes that are of no VM, and the group snapshots that it took of them.

Each snapshot of a group has these tags, by which it is found:

    vc-group   the group: Unix seconds and a serial
    vc-tag     the tag that names the VM; `volume` for a volume of no VM
    vc-id      the VM: the value of that tag; for a volume of no VM, this cluster's id and its visible id, which both
               survive a revert: the global id that it had first, unless it came from another cluster
    vc-by      the policy it was taken by, which says when it goes
    vc-volume  the volume's tag that `id_tag` names, if it has one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from simulator.cluster.records import OWNER, Object
from simulator.cluster.state import State
from simulator.cluster.summary import base36
from simulator.services.policies import VOLUME, Config

GROUP = "vc-group"
TAG = "vc-tag"
ID = "vc-id"
BY = "vc-by"
VOLUME_ID = "vc-volume"
POLICY = "vc-policy"
"""Of volumes; a user's choice."""


class Entity(NamedTuple):
    tag: str
    value: str

    @property
    def name(self) -> str:
        return f"{self.tag}={self.value}"


@dataclass(slots=True)
class Group:
    """Snapshots of one entity of one moment."""

    entity: Entity
    policy: str
    created: int
    """Unix seconds."""
    snapshots: list[Object] = field(default_factory=list)


def first_global_id(cluster_id: str, visible_id: int) -> str:
    """Of the volume with this visible id; reverts give it others."""
    return f"{cluster_id}.{base36(visible_id)}"


def entities(state: State, cluster_id: str, config: Config) -> dict[Entity, list[Object]]:
    """With their volumes."""
    members: dict[Entity, list[Object]] = {}
    for found in state.objects.values():
        if found.snapshot:
            continue
        tag = next((tag for tag in config.vm_tags if tag in found.tags), None)
        value = first_global_id(cluster_id, found.visible_id) if tag is None else found.tags[tag]
        members.setdefault(Entity(tag or VOLUME, value), []).append(found)
    return members


def policy_of(state: State, config: Config, volume: Object) -> str:
    """Its tag, else what its template has, else what all have."""
    template = state.templates[volume.template].name if volume.template else ""
    return volume.tags.get(POLICY) or config.templates.get(template, config.default)


def taken(state: State) -> dict[Entity, list[Group]]:
    """What is there of each group, oldest group first. Copies that came from other clusters have the tags too."""
    groups: dict[tuple[Entity, str, str], Group] = {}
    for found in state.objects.values():
        tags: Mapping[str, str] = found.tags
        if not found.snapshot or found.gone_at or found.state != OWNER or not found.taken_on:
            continue
        if not all(tag in tags for tag in (GROUP, TAG, ID, BY)):
            continue
        entity = Entity(tags[TAG], tags[ID])
        group = groups.setdefault((entity, tags[BY], tags[GROUP]), Group(entity, tags[BY], found.created))
        group.snapshots.append(found)
    by_entity: dict[Entity, list[Group]] = {}
    for group in sorted(groups.values(), key=lambda group: group.created):
        by_entity.setdefault(group.entity, []).append(group)
    return by_entity
