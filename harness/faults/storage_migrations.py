"""Operations that give volumes another pool (row 18)."""

from __future__ import annotations

from harness.faults.marks import AFTER, PLACE, guest_reads, in_file, mark, stored, use_at_once
from harness.faults.operation import Operation, Subject, running, shorten
from harness.observers import Json, World
from scenarios import looks, steps
from scenarios import storage_migration as migration

WAITS = ("copy.volume.wait", "primary.storage.download.wait")


def _detached(world: World) -> Subject:
    """A marked volume on the first pool that may go anywhere, of no VM."""
    shorten(world, *WAITS)
    migration.nfs_pool(world)
    vm = steps.booted_vm(world)
    volume = steps.attach(world, steps.data_volume(world, offering_id=migration.anywhere(world)), vm)
    mark(world, vm, volume)
    return Subject(vm=vm, volume=steps.detach(world, volume))


def _on_nfs(world: World) -> Subject:
    subject = _detached(world)
    subject.volume = migration.migrate(world, subject.volume, _nfs(world))
    return subject


def _of_running_vm(world: World) -> Subject:
    subject = _detached(world)
    subject.volume = steps.attach(world, subject.volume, subject.vm)
    return subject


def _stopped_vm(world: World) -> Subject:
    """A stopped VM with two volumes that may go anywhere."""
    subject = _detached(world)
    vm = steps.deploy(
        world, steps.shared_template(world), serviceofferingid=steps.compute_offering(world, tags="")["id"]
    )
    world.guest(str(vm["id"])).boot_id()
    subject.owner = subject.vm
    subject.volume = steps.attach(world, subject.volume, vm)
    subject.vm = steps.stop(world, vm)
    return subject


def _nfs(world: World) -> str:
    return str(migration.nfs_pool(world)["id"])


def _to_nfs(world: World, subject: Subject) -> None:
    migration.migrate(world, subject.volume, _nfs(world))


def _to_other_pool(world: World, subject: Subject) -> None:
    migration.migrate(world, subject.volume, migration.other_pool(world).id)


def _from_nfs(world: World, subject: Subject) -> None:
    volume = migration.migrate(world, subject.volume, migration.other_pool(world).id)
    if use_at_once(world, volume):
        subject.written = "moved"


def _came_from_nfs(world: World, subject: Subject) -> None:
    volume = _settled(world, subject, migration.other_pool(world).id)
    _holds_mark(world, subject, volume)
    if subject.written:
        stored(world, looks.global_id(volume), AFTER, PLACE)


def _live(world: World, subject: Subject) -> None:
    migration.migrate(world, subject.volume, migration.other_pool(world).id, livemigrate=True)


def _vm_to_nfs(world: World, subject: Subject) -> None:
    world.cloud.call("migrateVirtualMachine", virtualmachineid=subject.vm["id"], storageid=_nfs(world))


def _settled(world: World, subject: Subject, pool_id: str) -> Json:
    """Ready on that pool, which alone has it."""
    volume = looks.reread_volume(world, subject.volume)
    assert (volume["state"], volume["storageid"]) == ("Ready", pool_id), volume
    migration.one_object(world, volume)
    return volume


def _holds_mark(world: World, subject: Subject, volume: Json) -> None:
    """As a guest reads it; what is written then stays, whatever comes late."""
    vm = running(world, subject, subject.vm)
    attached = volume if "virtualmachineid" in volume else steps.attach(world, volume, vm)
    guest_reads(world, vm, attached)
    if "virtualmachineid" not in volume:
        steps.detach(world, attached)


def _is_on_nfs(world: World, subject: Subject) -> None:
    volume = _settled(world, subject, _nfs(world))
    in_file(world, migration.file_of(volume))
    _holds_mark(world, subject, volume)


def _is_on_first_pool(world: World, subject: Subject) -> None:
    _holds_mark(world, subject, _settled(world, subject, world.environment.pools[0].id))


def _is_on_other_pool(world: World, subject: Subject) -> None:
    _holds_mark(world, subject, _settled(world, subject, migration.other_pool(world).id))


def _vm_is_on_nfs(world: World, subject: Subject) -> None:
    _vm_boots(world, subject, {_nfs(world)})


def _vm_is_not_on_nfs(world: World, subject: Subject) -> None:
    """Perhaps with one of its volumes there: CloudStack moves one after the other."""
    _vm_boots(world, subject, {_nfs(world), world.environment.pools[0].id})


def _vm_boots(world: World, subject: Subject, pool_ids: set[str]) -> None:
    vm = looks.reread(world, subject.vm)
    assert vm["state"] == "Stopped", f"VM {vm['id']} is {vm['state']}"
    listed = steps.many(world.cloud.call("listVolumes", virtualmachineid=vm["id"], listall=True), "volume")
    assert len(listed) == 2, listed
    for volume in listed:
        assert volume["state"] == "Ready" and volume["storageid"] in pool_ids, volume
        migration.one_object(world, volume)
    vm = steps.start(world, vm)
    world.guest(str(vm["id"])).boot_id()
    guest_reads(world, vm, subject.volume)
    steps.stop(world, vm)


STORAGE_MIGRATIONS: tuple[Operation, ...] = (
    Operation("18.to-nfs", "migrate a volume from StorPool to NFS", _detached, _to_nfs, _is_on_nfs, _is_on_first_pool),
    Operation("18.from-nfs", "migrate a volume from NFS to StorPool", _on_nfs, _from_nfs, _came_from_nfs, _is_on_nfs),
    Operation(
        "18.offline",
        "migrate a detached volume between StorPool pools",
        _detached,
        _to_other_pool,
        _is_on_other_pool,
        _is_on_first_pool,
    ),
    Operation(
        "18.live",
        "migrate a volume of a running VM between StorPool pools",
        _of_running_vm,
        _live,
        _is_on_other_pool,
        _is_on_first_pool,
    ),
    Operation(
        "18.vm",
        "migrate the volumes of a stopped VM to NFS",
        _stopped_vm,
        _vm_to_nfs,
        _vm_is_on_nfs,
        _vm_is_not_on_nfs,
    ),
)
