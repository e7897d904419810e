"""Extra `multicluster`: two zones, each over a StorPool cluster of its own location; snapshots are copied between
them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.observers import CloudApiError, Json, OtherZone, StorPool, World
from scenarios import snapshots, steps
from scenarios.multicluster import only_at, vm_on
from scenarios.registry import scenario

LOCATION = "sp.cluster.location"
REPLICATION = "use.storage.replication"
RECOVERY_CHECK = "storpool.snapshot.recovery.from.remote.check"
RECOVERY_SECONDS = 1200
"""Longer than a copy recovers and the background task takes to see it."""


def other_zone(world: World) -> OtherZone:
    found = world.environment.other_zone
    assert found is not None, "the world of this case has two zones"
    return found


@contextmanager
def replicating(world: World, *, named: bool = True) -> Iterator[OtherZone]:
    """Pools of the other zone take copies; with `named` the locations are configured, too."""
    zone = other_zone(world)
    target, source = zone.pools[0], world.environment.pools[0]
    locations = ((target.id, zone.location), (source.id, world.environment.location)) if named else ()
    world.cloud.call("updateConfiguration", name=RECOVERY_CHECK, value="1")
    world.cloud.call("updateConfiguration", name=REPLICATION, value="true", storageid=target.id)
    for pool_id, location in locations:
        world.cloud.call("updateConfiguration", name=LOCATION, value=location, storageid=pool_id)
    try:
        yield zone
    finally:
        world.cloud.call("updateConfiguration", name=REPLICATION, value="false", storageid=target.id)
        world.cloud.call("updateConfiguration", name=RECOVERY_CHECK, value="300")


def copy(world: World, snapshot: Json, zone: OtherZone) -> Json:
    answer = world.cloud.call("copySnapshot", id=snapshot["id"], destzoneids=zone.zone_id, usestoragereplication=True)
    return steps.one(answer, "snapshot")


def zones_of(world: World, snapshot: Json) -> list[tuple[str, str]]:
    """Zone and kind of store of everything that CloudStack shows of the snapshot."""
    shown = steps.many(world.cloud.call("listSnapshots", id=snapshot["id"], listall=True), "snapshot")
    return sorted((str(item["zoneid"]), str(item["datastoretype"])) for item in shown)


def has(cluster: StorPool, snapshot: Json) -> list[Json]:
    """The snapshots of this uuid that the cluster has, but for those that go already."""
    return [
        item
        for item in cluster.snapshots()
        if (item.get("tags") or {}).get("uuid") == snapshot["id"] and not item.get("deleted")
    ]


def recovering(world: World, snapshot: Json) -> bool:
    """Whether the copy still needs its source."""
    return any(item.get("recoveringFromRemote") for item in has(world.storpools[1], snapshot))


def recovered(world: World, snapshot: Json) -> None:
    world.wait_until("the copy has recovered", lambda: not recovering(world, snapshot), RECOVERY_SECONDS)


def snapshot_of_marked(world: World) -> tuple[Json, Json, Json]:
    """A VM of the first zone, its volume that says `marked`, and a snapshot of it that is on primary storage only."""
    vm = vm_on(world, world.hosts[0])
    volume = steps.attach(world, steps.data_volume(world), vm)
    snapshots.write(world, vm, volume, "marked")
    with steps.setting(world, snapshots.BACKUP, "false", "true"):
        return vm, volume, snapshots.take(world, volume)


@scenario("multicluster", "copy", "a snapshot is copied to the other zone and used there (#9478, #11452)", "zones")
def copy_and_use(world: World) -> None:
    vm, volume, snapshot = snapshot_of_marked(world)
    near, far = world.storpools
    with replicating(world) as zone:
        shown = copy(world, snapshot, zone)
        with world.check("CloudStack shows it in both zones, the answer in the other one"):
            assert shown["zoneid"] == zone.zone_id, shown
            assert zones_of(world, snapshot) == sorted(
                [(world.environment.zone_id, "Primary"), (zone.zone_id, "Primary")]
            ), zones_of(world, snapshot)
        with world.check("the copy has the same global id, its tags, and the StorPool template of its pool"):
            (original,), (made,) = has(near, snapshot), has(far, snapshot)
            assert made["globalId"] == original["globalId"], f"{made['globalId']} is a copy of {original['globalId']}"
            assert made["templateName"] == zone.pools[0].storpool_template, made
            assert (made["tags"]["cs"], made["size"]) == ("snapshot", original["size"]), made
        recovered(world, snapshot)
    snapshots.write(world, vm, volume, "later")
    there = vm_on(world, world.hosts[1])
    made = snapshots.volume_from(world, snapshot, zoneid=zone.zone_id)
    with world.check("a volume of it is in that zone, on its pool, with the bytes of the snapshot"):
        assert (made["zoneid"], made["storageid"]) == (zone.zone_id, zone.pools[0].id), made
        made = steps.attach(world, made, there)
        only_at(world, made, world.hosts[1])
        snapshots.guest_reads(world, there, made, "marked")
    with world.check("a VM of the other zone does not get it"):
        free = steps.detach(world, made)
        _refused(world, "same zone", "attachVolume", id=free["id"], virtualmachineid=vm["id"])
    steps.expunge(world, there)


@scenario("multicluster", "copy-at-once", "createSnapshot with zoneids copies too, locations as StorPool says", "zones")
def copy_at_once(world: World) -> None:
    vm = vm_on(world, world.hosts[0])
    volume = steps.attach(world, steps.data_volume(world), vm)
    snapshots.write(world, vm, volume, "marked")
    with replicating(world, named=False) as zone:
        snapshot = snapshots.take(world, volume, zoneids=zone.zone_id, usestoragereplication=True)
        with world.check("it is backed up in its own zone and copied to the other"):
            assert zones_of(world, snapshot) == sorted(
                [
                    (world.environment.zone_id, "Image"),
                    (world.environment.zone_id, "Primary"),
                    (zone.zone_id, "Primary"),
                ]
            ), zones_of(world, snapshot)
            assert len(has(world.storpools[1], snapshot)) == 1
        recovered(world, snapshot)
    with world.check("deleted everywhere, nothing is left in any zone"):
        snapshots.delete(world, snapshot)
        for cluster in world.storpools:
            assert has(cluster, snapshot) == [], "a snapshot is left"
        assert snapshots.files_of(world, snapshot) == [], "a backup is left"


@scenario(
    "multicluster", "deploy-copy", "a VM of the other zone is made from a ROOT volume's copy (#11351, #11490)", "zones"
)
def deploy_copy(world: World) -> None:
    vm = vm_on(world, world.hosts[0])
    root = steps.root_volume(world, str(vm["id"]))
    with steps.setting(world, snapshots.BACKUP, "false", "true"):
        snapshot = snapshots.take(world, root)
    with world.check("not in the other zone before it was copied there"):
        _refused(
            world,
            "not in zone",
            "deployVirtualMachine",
            **steps.deploy_parameters(world, snapshotid=str(snapshot["id"]), zoneid=other_zone(world).zone_id),
        )
    with replicating(world) as zone:
        copy(world, snapshot, zone)
        recovered(world, snapshot)
    there = steps.deploy(world, snapshotid=str(snapshot["id"]), zoneid=zone.zone_id)
    with world.check("it boots there, from a volume on that zone's pool"):
        assert there["zoneid"] == zone.zone_id and steps.host_of(world, there).name == world.hosts[1].name, there
        world.guest(str(there["id"])).boot_id()
        made = steps.root_volume(world, str(there["id"]))
        assert (made["zoneid"], made["storageid"]) == (zone.zone_id, zone.pools[0].id), made
        only_at(world, made, world.hosts[1])


@scenario("multicluster", "delete-copy", "the copy is deleted in one zone, the snapshot stays in the other", "zones")
def delete_copy(world: World) -> None:
    vm, volume, snapshot = snapshot_of_marked(world)
    with replicating(world) as zone:
        copy(world, snapshot, zone)
        recovered(world, snapshot)
        with world.check("only the other zone's goes"):
            world.cloud.call("deleteSnapshot", id=snapshot["id"], zoneid=zone.zone_id)
            assert zones_of(world, snapshot) == [(world.environment.zone_id, "Primary")], zones_of(world, snapshot)
            assert has(world.storpools[1], snapshot) == [] and len(has(world.storpools[0], snapshot)) == 1
        with world.check("copied again it is there again"):
            copy(world, snapshot, zone)
            assert len(has(world.storpools[1], snapshot)) == 1
        recovered(world, snapshot)
        with world.check("deleted in its own zone the copy stays, and serves"):
            _until_not_exported(world, snapshot)
            assert zones_of(world, snapshot) == [(zone.zone_id, "Primary")], zones_of(world, snapshot)
            assert has(world.storpools[0], snapshot) == [] and len(has(world.storpools[1], snapshot)) == 1
            made = snapshots.volume_from(world, snapshot, zoneid=zone.zone_id)
            assert made["zoneid"] == zone.zone_id, made
            _refused(
                world,
                "not in zone",
                "createVolume",
                name=world.name("nowhere"),
                size=1,
                snapshotid=snapshot["id"],
                zoneid=world.environment.zone_id,
            )
    with world.check("the volume it was of is unharmed"):
        snapshots.guest_reads(world, vm, volume, "marked")


@scenario("multicluster", "delete-early", "a snapshot is deleted before its copy has recovered (#9478)", "zones")
def delete_early(world: World) -> None:
    vm, volume, snapshot = snapshot_of_marked(world)
    with replicating(world) as zone:
        copy(world, snapshot, zone)
        with world.check("its own zone's stays while the copy needs it, and the error says so"):
            try:
                world.cloud.call("deleteSnapshot", id=snapshot["id"], zoneid=world.environment.zone_id)
            except CloudApiError as error:
                assert "still being copied" in error.text, error.text
                assert len(has(world.storpools[0], snapshot)) == 1
            else:
                assert not recovering(world, snapshot), "deleted while its copy still recovers from it"
            assert len(has(world.storpools[1], snapshot)) == 1
    with world.check("deleted everywhere at once, neither is left"):
        snapshots.delete(world, snapshot)
        assert [has(cluster, snapshot) for cluster in world.storpools] == [[], []]
        assert not snapshots.snapshot_exists(world, snapshot)
    with world.check("the volume is unharmed"):
        snapshots.guest_reads(world, vm, volume, "marked")


@scenario("multicluster", "copy-refusals", "copies that cannot be made are refused and leave nothing (#11351)", "zones")
def copy_refusals(world: World) -> None:
    _, volume, snapshot = snapshot_of_marked(world)
    zone = other_zone(world)
    wanted: dict[str, str | int | bool] = {"id": snapshot["id"], "usestoragereplication": True}
    with world.check("no pool of the other zone takes copies"):
        _refused(world, REPLICATION, "copySnapshot", **wanted, destzoneids=zone.zone_id)
    with world.check("a snapshot that would not be copied is not even taken"):
        before = len(snapshots.snapshots_of(world, volume))
        _refused(
            world,
            REPLICATION,
            "createSnapshot",
            volumeid=volume["id"],
            zoneids=zone.zone_id,
            usestoragereplication=True,
        )
        assert len(snapshots.snapshots_of(world, volume)) == before
    with world.check("a volume cannot be made where the snapshot is not: it would be empty, or in the wrong zone"):
        _refused(
            world,
            "not in zone",
            "createVolume",
            name=world.name("elsewhere"),
            size=1,
            snapshotid=snapshot["id"],
            zoneid=zone.zone_id,
        )
    with replicating(world):
        with world.check("no destination, an unknown one, its own zone, and without the storage's replication"):
            _refused(world, "destination zone", "copySnapshot", **wanted)
            _refused(world, "zoneids", "copySnapshot", **wanted, destzoneids=steps.MISSING)
            _refused(world, "destination zone", "copySnapshot", **wanted, destzoneids=world.environment.zone_id)
            _refused(world, "usestoragereplication", "copySnapshot", id=snapshot["id"], destzoneids=zone.zone_id)
        with world.check("a location that StorPool does not know"):
            target = zone.pools[0].id
            with steps.setting(world, LOCATION, "nowhere", zone.location, storageid=target):
                _refused(world, "nowhere", "copySnapshot", **wanted, destzoneids=zone.zone_id)
            assert has(world.storpools[1], snapshot) == []
            assert zones_of(world, snapshot) == [(world.environment.zone_id, "Primary")]
        with world.check("what is there already"):
            copy(world, snapshot, zone)
            _refused(world, "already", "copySnapshot", **wanted, destzoneids=zone.zone_id)
        recovered(world, snapshot)


def _until_not_exported(world: World, snapshot: Json) -> None:
    """Delete it in its own zone; while the copy recovers that is refused."""

    def deleted() -> bool:
        try:
            world.cloud.call("deleteSnapshot", id=snapshot["id"], zoneid=world.environment.zone_id)
        except CloudApiError as error:
            assert "still being copied" in error.text, error.text
            return False
        return True

    world.wait_until("the snapshot can be deleted in its own zone", deleted, RECOVERY_SECONDS)


def _refused(world: World, words: str, command: str, **parameters: str | int | bool) -> None:
    try:
        world.cloud.call(command, **parameters)
    except CloudApiError as error:
        assert words in error.text, f"{command} is refused with {error.text!r}, which does not say {words!r}"
    else:
        raise AssertionError(f"{command} with {parameters} was not refused")
