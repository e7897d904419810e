"""Removes through CloudStack's API what a case made, and proves each removal by reading back.

Templates stay: later cases of the same lab use them, and their cached snapshots go only with row 17.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.observers import Cloud, CloudApiError, Json, World

UNSUPPORTED = 432


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that cases make."""

    noun: str
    listing: str
    key: str
    remove: str
    parameters: tuple[tuple[str, str | bool], ...] = ()
    """Of the removal, beside the id."""
    filters: tuple[tuple[str, str | bool], ...] = (("listall", True),)
    must_go: bool = True
    """Whether one that stays is an error. Offerings stay where the cloud cannot delete them yet."""


KINDS = (
    Kind("VM", "listVirtualMachines", "virtualmachine", "destroyVirtualMachine", (("expunge", True),)),
    Kind("volume", "listVolumes", "volume", "deleteVolume"),
    Kind("snapshot", "listSnapshots", "snapshot", "deleteSnapshot"),
    Kind("ISO", "listIsos", "iso", "deleteIso"),
    Kind("storage pool", "listStoragePools", "storagepool", "deleteStoragePool", (("forced", True),)),
    Kind("disk offering", "listDiskOfferings", "diskoffering", "deleteDiskOffering", must_go=False),
)

Inventory = dict[str, frozenset[str]]


def inventory(world: World) -> Inventory:
    """Ids of everything that exists now, by kind."""
    return {kind.noun: frozenset(_listed(world.cloud, kind)) for kind in KINDS}


def tidy(world: World, before: Inventory) -> list[str]:
    """Remove what was made since `before`; a text for each object that should be gone and is not."""
    left: list[str] = []
    for kind in KINDS:
        made = {key: item for key, item in _listed(world.cloud, kind).items() if key not in before[kind.noun]}
        for item_id, item in made.items():
            left += _remove(world, kind, item_id, item)
        remaining = _listed(world.cloud, kind).keys() - before[kind.noun] if made and kind.must_go else set()
        left += [f"{kind.noun} {item_id} is still there after it was removed" for item_id in sorted(remaining)]
    return left


def _remove(world: World, kind: Kind, item_id: str, item: Json) -> list[str]:
    try:
        if kind.noun == "volume" and "virtualmachineid" in item:
            world.cloud.call("detachVolume", id=item_id)
        if kind.noun == "VM" and item["state"] == "Running":
            world.cloud.call("stopVirtualMachine", id=item_id, forced=True)
        if kind.noun == "storage pool" and item["state"] != "Maintenance":
            if item["state"] == "Disabled":
                world.cloud.call("updateStoragePool", id=item_id, enabled=True)
            world.cloud.call("enableStorageMaintenance", id=item_id)
        world.cloud.call(kind.remove, id=item_id, **dict(kind.parameters))
    except CloudApiError as error:
        if error.code == UNSUPPORTED and not kind.must_go:
            return []
        return [f"{kind.noun} {item_id}: {error}"]
    return []


def _listed(cloud: Cloud, kind: Kind) -> dict[str, Json]:
    try:
        answer = cloud.call(kind.listing, **dict(kind.filters))
    except CloudApiError as error:
        if error.code == UNSUPPORTED and not kind.must_go:
            return {}
        raise
    return {str(item["id"]): item for item in answer.get(kind.key, [])}
