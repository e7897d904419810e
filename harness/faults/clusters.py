"""Operations between two StorPool clusters: a volume is attached across, a snapshot copied to another zone."""

from __future__ import annotations

from harness.faults.disks import FORCE_STOP, attach, inherit
from harness.faults.marks import guest_reads, in_memory, mark, stored
from harness.faults.operation import Operation, Subject, running
from harness.observers import CloudApiError, Json, World
from scenarios import looks, multicluster, snapshots, steps
from scenarios import multicluster_zones as zones

TAKEN_BACK_SECONDS = 7200.0
"""In which no export is left of a copy that was made, or given up."""


def _marked(world: World) -> Subject:
    """A volume that was written to at the first host, and is attached nowhere; `vm` runs at the second."""
    owner = multicluster.vm_on(world, world.hosts[0])
    volume = steps.attach(world, steps.data_volume(world), owner)
    mark(world, owner, volume)
    return Subject(vm=multicluster.vm_on(world, world.hosts[1]), volume=volume, owner=owner)


def _free_and_marked(world: World) -> Subject:
    subject = _marked(world)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _taken_by_force(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=FORCE_STOP, value="true")
    return _marked(world)


def _attached(world: World, subject: Subject) -> None:
    volume = looks.reread_volume(world, subject.volume)
    assert volume.get("virtualmachineid") == subject.vm["id"], f"volume is not attached: {volume}"
    vm = running(world, subject, subject.vm)
    multicluster.only_at(world, volume, steps.host_of(world, vm))
    guest_reads(world, vm, volume)


def _free(world: World, subject: Subject) -> None:
    volume = looks.reread_volume(world, subject.volume)
    assert "virtualmachineid" not in volume and volume["state"] == "Ready", volume
    assert multicluster.holders(world, volume) == [], multicluster.holders(world, volume)
    looks.device_nowhere(world, volume)


def _detach(world: World, subject: Subject) -> None:
    """Asked again it may be done by then: what a host could not confirm is confirmed in the background."""
    try:
        world.cloud.call("detachVolume", id=subject.volume["id"])
    except CloudApiError as error:
        if "is not attached to a VM" not in error.text:
            raise


def _attached_across(world: World) -> Subject:
    subject = _free_and_marked(world)
    subject.volume = steps.attach(world, subject.volume, subject.vm)
    return subject


def _detached(world: World, subject: Subject) -> None:
    """And its own cluster's host may have it again."""
    _free(world, subject)
    owner = running(world, subject, subject.owner)
    volume = steps.attach(world, subject.volume, owner)
    multicluster.only_at(world, volume, steps.host_of(world, owner))
    guest_reads(world, owner, volume)
    steps.detach(world, volume)


def _inherited(world: World, subject: Subject) -> None:
    assert looks.reread(world, subject.owner)["state"] == "Destroyed", "the VM that had the volume is not destroyed"
    _attached(world, subject)


def _not_inherited(world: World, subject: Subject) -> None:
    owner, volume = looks.reread(world, subject.owner), looks.reread_volume(world, subject.volume)
    if volume.get("virtualmachineid") != owner["id"]:
        _free(world, subject)
    elif owner["state"] == "Running":
        multicluster.only_at(world, volume, world.hosts[0])
        guest_reads(world, owner, volume)
    else:
        assert multicluster.holders(world, volume) == [], multicluster.holders(world, volume)


def _snapshot(world: World) -> Subject:
    """On primary storage of its zone only; pools of the other zone take copies."""
    zone = zones.other_zone(world)
    settings = ((zones.REPLICATION, "true", zone.pools[0].id), (zones.LOCATION, zone.location, zone.pools[0].id))
    for name, value, pool_id in settings:
        world.cloud.call("updateConfiguration", name=name, value=value, storageid=pool_id)
    world.cloud.call("updateConfiguration", name=snapshots.BACKUP, value="false")
    owner = multicluster.vm_on(world, world.hosts[0])
    volume = steps.attach(world, steps.data_volume(world), owner)
    mark(world, owner, volume)
    return Subject(vm=owner, volume=volume, snapshot=snapshots.take(world, volume))


def _snapshot_and_copy(world: World) -> Subject:
    subject = _snapshot(world)
    _copy(world, subject)
    _no_export(world)
    return subject


def _copy(world: World, subject: Subject) -> None:
    zones.copy(world, subject.snapshot, zones.other_zone(world))


def _no_export(world: World) -> None:
    memory = in_memory(world)
    world.wait_until("no export is left", lambda: not memory.exports(), TAKEN_BACK_SECONDS)


def _copied(world: World, subject: Subject) -> None:
    zone = zones.other_zone(world)
    seen = zones.zones_of(world, subject.snapshot)
    assert seen == sorted([(world.environment.zone_id, "Primary"), (zone.zone_id, "Primary")]), seen
    found = zones.has(world.storpools[1], subject.snapshot)
    assert len(found) == 1, f"the other zone's StorPool has {found}"
    _marked_at(world, 1, found[0])
    _no_export(world)
    made = snapshots.volume_from(world, subject.snapshot, zoneid=zone.zone_id)
    assert made["zoneid"] == zone.zone_id and looks.on_storpool(world, made)["size"] == made["size"], made


def _marked_at(world: World, cluster: int, snapshot: Json) -> None:
    stored(world, str(snapshot["globalId"]), cluster=cluster)


def _not_copied(world: World, subject: Subject) -> None:
    seen = zones.zones_of(world, subject.snapshot)
    assert seen == [(world.environment.zone_id, "Primary")], seen
    (original,) = zones.has(world.storpools[0], subject.snapshot)
    _marked_at(world, 0, original)
    world.wait_until(
        "the other zone's StorPool has no copy",
        lambda: not zones.has(world.storpools[1], subject.snapshot),
        TAKEN_BACK_SECONDS,
    )
    _no_export(world)


def _delete_copy(world: World, subject: Subject) -> None:
    zone = zones.other_zone(world)
    world.cloud.call("deleteSnapshot", id=subject.snapshot["id"], zoneid=zone.zone_id)


def _copy_deleted(world: World, subject: Subject) -> None:
    seen = zones.zones_of(world, subject.snapshot)
    assert seen == [(world.environment.zone_id, "Primary")], seen
    assert zones.has(world.storpools[1], subject.snapshot) == []
    (original,) = zones.has(world.storpools[0], subject.snapshot)
    _marked_at(world, 0, original)


def _copy_not_deleted(world: World, subject: Subject) -> None:
    """Its row stays, perhaps as one that is to go; it may be gone from StorPool already."""
    zone = zones.other_zone(world)
    assert (zone.zone_id, "Primary") in zones.zones_of(world, subject.snapshot)
    (original,) = zones.has(world.storpools[0], subject.snapshot)
    _marked_at(world, 0, original)


def _delete_everywhere(world: World, subject: Subject) -> None:
    snapshots.delete(world, subject.snapshot)


def _deleted_everywhere(world: World, subject: Subject) -> None:
    assert not snapshots.snapshot_exists(world, subject.snapshot), "the snapshot is still listed"
    assert [zones.has(cluster, subject.snapshot) for cluster in world.storpools] == [[], []]
    vm = running(world, subject, subject.vm)
    guest_reads(world, vm, subject.volume)


def _not_deleted_everywhere(world: World, subject: Subject) -> None:
    """What is left of it is there: the copy goes first."""
    assert (world.environment.zone_id, "Primary") in zones.zones_of(world, subject.snapshot)
    (original,) = zones.has(world.storpools[0], subject.snapshot)
    _marked_at(world, 0, original)


CLUSTERS: tuple[Operation, ...] = (
    Operation(
        "multicluster.attach",
        "attach a volume of one StorPool cluster to a VM on a host of the other",
        _free_and_marked,
        attach,
        _attached,
        _free,
        site="clusters",
    ),
    Operation(
        "multicluster.detach",
        "detach it there",
        _attached_across,
        _detach,
        _detached,
        _attached,
        site="clusters",
    ),
    Operation(
        "multicluster.inherit",
        "destroy a VM with force and attach its volume in the other StorPool cluster",
        _taken_by_force,
        inherit,
        _inherited,
        _not_inherited,
        site="clusters",
    ),
    Operation(
        "multicluster.copy", "copy a snapshot to the other zone", _snapshot, _copy, _copied, _not_copied, "zones"
    ),
    Operation(
        "multicluster.delete-copy",
        "delete the copy only",
        _snapshot_and_copy,
        _delete_copy,
        _copy_deleted,
        _copy_not_deleted,
        site="zones",
    ),
    Operation(
        "multicluster.delete",
        "delete a snapshot and its copy",
        _snapshot_and_copy,
        _delete_everywhere,
        _deleted_everywhere,
        _not_deleted_everywhere,
        site="zones",
    ),
)
