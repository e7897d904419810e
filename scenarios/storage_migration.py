"""Migration to other storage: how it is asked for, and what can be seen of it from outside."""

from __future__ import annotations

from harness.observers import Json, Pool, World
from scenarios import looks
from scenarios.looks import PATH_PREFIX, reread_volume
from scenarios.snapshots import BLOCK, PLACES, pattern, write
from scenarios.steps import attach, booted_vm, data_volume, detach, disk_offering, many, one

NFS_TAG = "nfs"
NFS_POOL = "splab-nfs"


def nfs_pool(world: World) -> Json:
    """The NFS pool that cases share: the one that is there already, else a new one."""
    found = many(world.cloud.call("listStoragePools", name=NFS_POOL), "storagepool")
    return found[0] if found else make_nfs_pool(world)


def make_nfs_pool(world: World, **parameters: str | int | bool) -> Json:
    cluster = many(world.cloud.call("listClusters", zoneid=world.environment.zone_id), "cluster")[0]
    chosen: dict[str, str | int | bool] = {
        "name": NFS_POOL,
        "url": world.secondary.primary_url,
        "zoneid": world.environment.zone_id,
        "clusterid": cluster["id"],
        "podid": cluster["podid"],
        "scope": "cluster",
        "tags": NFS_TAG,
    }
    return one(world.cloud.call("createStoragePool", **{**chosen, **parameters}), "storagepool")


def other_pool(world: World) -> Pool:
    """The StorPool pool that volumes do not go to by themselves."""
    return world.environment.pools[1]


def anywhere(world: World, **parameters: str | int | bool) -> str:
    """A disk offering without storage tags."""
    return disk_offering(world, **{"tags": "", **parameters})


def migrate(world: World, volume: Json, pool_id: str, **parameters: str | int | bool) -> Json:
    world.cloud.call("migrateVolume", volumeid=volume["id"], storageid=pool_id, **parameters)
    return reread_volume(world, volume)


def written_volume(world: World, word: str, offering_id: str | None = None) -> tuple[Json, Json]:
    """A running VM, and a DATA volume on the first pool that its guest wrote the word to, and that is detached."""
    vm = booted_vm(world)
    volume = attach(world, data_volume(world, offering_id=offering_id or anywhere(world)), vm)
    write(world, vm, volume, word)
    return vm, detach(world, volume)


def is_on(world: World, volume: Json, pool_id: str) -> None:
    """CloudStack: Ready on that pool, of the size that it had."""
    with world.check("CloudStack: Ready on the new pool"):
        seen = (volume["state"], volume["storageid"])
        assert seen == ("Ready", pool_id), f"should be Ready on pool {pool_id}: {volume}"


def same_on_storpool(world: World, before: Json, volume: Json, pool: Pool) -> None:
    """The StorPool volume is the one that it was, on the other template; attachments and tags are as they were."""
    is_on(world, volume, pool.id)
    with world.check("the same StorPool volume, under the same path: no data was copied"):
        assert volume["path"] == before["path"], (before["path"], volume["path"])
        assert volume["size"] == before["size"], (before["size"], volume["size"])
        assert looks.on_storpool(world, volume)["size"] == looks.device_size(volume), looks.on_storpool(world, volume)
    with world.check("on the StorPool template of the new pool"):
        template = looks.on_storpool(world, volume)["templateName"]
        assert template == pool.storpool_template, template
    one_object(world, volume)


def one_object(world: World, volume: Json) -> None:
    """Exactly one place has the volume's data."""
    with world.check("exactly one StorPool volume, or file, is the volume"):
        named = [v for v in world.storpool.volumes() if (v.get("tags") or {}).get("uuid") == volume["id"]]
        if str(volume["path"]).startswith(PATH_PREFIX):
            assert len(named) == 1, named
        else:
            assert named == [], named
            assert world.secondary.files("primary").count(file_of(volume)) == 1, world.secondary.files("primary")
        temporary = [s for s in world.storpool.snapshots() if (s.get("tags") or {}).get("cs") == "temporary"]
        assert [s for s in temporary if not s.get("deleted")] == [], temporary


def file_of(volume: Json) -> str:
    """The volume's file, relative to the export."""
    path = str(volume["path"])
    assert "/" not in path, f"volume {volume['id']} has path {path}, which is no file of an NFS pool"
    return f"primary/{path}"


def file_holds(world: World, volume: Json, word: str, places: tuple[int, ...] = PLACES) -> None:
    """The volume's file is a qcow2 of its size with the word's patterns."""
    path = file_of(volume)
    size = world.secondary.size(path)
    assert size == volume["size"], f"{path} is a disk of {size} bytes, the volume has {volume['size']}"
    for place in places:
        seen, wanted = world.secondary.read(path, place, BLOCK), pattern(word, place)
        assert seen == wanted, f"{path} at {place}: {seen[:48]!r}, expected {wanted[:48]!r}"


def nothing_on_storpool(world: World, before: Json) -> None:
    """The StorPool volume that it was is gone."""
    looks.gone(world, before)


def migrations_under_way(world: World) -> list[str]:
    return [
        str(v["id"]) for v in many(world.cloud.call("listVolumes", listall=True), "volume") if v["state"] == "Migrating"
    ]
