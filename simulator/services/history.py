"""The snapshots that VolumeCare has, as `storpool_vcctl status --json` lists them (spec 9.2)."""

from __future__ import annotations

from msgspec import Struct

from simulator.cluster.records import Object
from simulator.cluster.state import State
from simulator.services import groups
from simulator.services.groups import Group
from simulator.services.policies import VOLUME


class Name(Struct):
    name: str


class Location(Struct):
    location: str
    """Id of the location that has the snapshots."""


class Map(Struct):
    map: dict[str, str]
    """Name of the snapshot by the volume: its tag `id_tag`, else its name, else its first global id with `~`."""


class ExtraInfo(Struct):
    sp: Map


class Entry(Struct):
    create_ts: int
    """Unix seconds."""
    id: Location
    entity_id: Name
    extra_info: ExtraInfo


class Entity(Struct):
    type: str
    """vm, or volume for a volume of no VM."""
    id: Name
    """`tag=value`; `volume=global id`."""
    history: list[Entry]
    """Oldest first."""


def history(state: State, cluster_id: str) -> list[Entity]:
    """Of every VM that has snapshots, also when it is gone itself."""
    return [
        Entity(
            "volume" if entity.tag == VOLUME else "vm",
            Name(entity.name),
            [_entry(state, cluster_id, group) for group in found],
        )
        for entity, found in groups.taken(state).items()
    ]


def _entry(state: State, cluster_id: str, group: Group) -> Entry:
    return Entry(
        group.created,
        Location(cluster_id.partition(".")[0]),
        Name(group.entity.name),
        ExtraInfo(Map({_volume(state, cluster_id, found): found.shown_name for found in group.snapshots})),
    )


def _volume(state: State, cluster_id: str, snapshot: Object) -> str:
    named = snapshot.tags.get(groups.VOLUME_ID)
    if named is not None:
        return named
    serial = state.volumes_by_visible_id.get(snapshot.taken_on)
    if serial is not None:
        return state.objects[serial].shown_name
    return "~" + groups.first_global_id(cluster_id, snapshot.taken_on)
