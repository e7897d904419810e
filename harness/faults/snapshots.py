"""Operations on volume snapshots: take and back up, make a volume of one, delete (rows 9, 10, 16)."""

from __future__ import annotations

from collections.abc import Callable

from harness.faults.disks import MARK, vm_with_marked_volume
from harness.faults.operation import Operation, Subject, running
from harness.observers import Json, World
from harness.worlds.memory.world import MemoryWorld
from scenarios import looks, snapshots, steps

LATE_SECONDS = 1000.0
"""After which nothing comes late any more."""
BACKUP_WAIT = "backup.snapshot.wait"
BACKUP_SECONDS = "1800"
"""Shorter than CloudStack's six hours: what a late copy of a request writes is looked for when that is over."""


def _volume(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=BACKUP_WAIT, value=BACKUP_SECONDS)
    return vm_with_marked_volume(world)


def _volume_on_primary(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=snapshots.BACKUP, value="false")
    return _volume(world)


def _snapshot(world: World) -> Subject:
    subject = _volume(world)
    subject.snapshot = snapshots.take(world, subject.volume)
    return subject


def _snapshot_on_primary(world: World) -> Subject:
    subject = _volume_on_primary(world)
    subject.snapshot = snapshots.take(world, subject.volume)
    return subject


def _archived_snapshot(world: World) -> Subject:
    subject = _snapshot(world)
    subject.snapshot = snapshots.archive(world, subject.snapshot)
    return subject


def _after(world: World, seconds: float) -> Callable[[], bool]:
    assert isinstance(world, MemoryWorld), "virtual time costs nothing"
    main = world.simulation.main
    until = main.monotonic() + seconds
    return lambda: main.monotonic() >= until


def _take(world: World, subject: Subject) -> None:
    subject.name = world.name("snapshot")
    world.cloud.call("createSnapshot", volumeid=subject.volume["id"], name=subject.name)


def _named(world: World, subject: Subject) -> Json | None:
    found = [item for item in snapshots.snapshots_of(world, subject.volume) if item["name"] == subject.name]
    return found[0] if found else None


def _on_primary(world: World, snapshot: Json) -> None:
    """StorPool has it once, with the mark."""
    assert isinstance(world, MemoryWorld), "only there can a snapshot be read that is attached nowhere"
    found = snapshots.on_storpool(world, snapshot)
    seen = world.stored(str(found["globalId"]), 0, len(MARK))
    assert seen == MARK, f"snapshot ~{found['globalId']} holds {seen[:32]!r} where {MARK[:32]!r} was written"
    snapshots.attached_nowhere(world, str(found["globalId"]))


def _on_secondary(world: World, snapshot: Json) -> None:
    path = snapshots.backup_file(world, snapshot)
    seen = world.secondary.read(path, 0, len(MARK))
    assert seen == MARK, f"{path} holds {seen[:32]!r} where {MARK[:32]!r} was written"


def _taken(world: World, subject: Subject) -> None:
    snapshot = _named(world, subject)
    assert snapshot is not None and snapshot["state"] == "BackedUp", f"snapshot {subject.name} is {snapshot}"
    _on_primary(world, snapshot)
    assert looks.reread_volume(world, subject.volume)["state"] == "Ready"
    looks.fully_attached(world, running(world, subject, subject.vm), looks.reread_volume(world, subject.volume))


def _backed_up(world: World, subject: Subject) -> None:
    _taken(world, subject)
    snapshot = _named(world, subject)
    assert snapshot is not None
    assert snapshots.stores(world, snapshot) == ["Image", "Primary"], snapshots.stores(world, snapshot)
    _on_secondary(world, snapshot)


def _not_taken(world: World, subject: Subject) -> None:
    """None, or one in Error that left nothing, or one that is on primary storage only."""
    snapshot = _named(world, subject)
    if snapshot is None:
        return
    if snapshot["state"] == "Error":
        assert snapshots.all_on_storpool(world, snapshot) == [], f"snapshot {subject.name} is in Error and on StorPool"
        return
    assert snapshot["state"] == "BackedUp", snapshot
    _on_primary(world, snapshot)


def _make_volume(world: World, subject: Subject) -> None:
    if not subject.template_id:
        subject.template_id = steps.disk_offering(world)
    subject.name = world.name("from-snapshot")
    world.cloud.call(
        "createVolume",
        name=subject.name,
        snapshotid=subject.snapshot["id"],
        diskofferingid=subject.template_id,
        size=2,
    )


def _volume_named(world: World, subject: Subject) -> Json | None:
    answer = world.cloud.call("listVolumes", name=subject.name, listall=True)
    return next(iter(steps.many(answer, "volume")), None)


def _volume_made(world: World, subject: Subject) -> None:
    volume = _volume_named(world, subject)
    assert volume is not None and volume["state"] == "Ready", f"volume {subject.name} is {volume}"
    assert looks.on_storpool(world, volume)["size"] == volume["size"] == 2 * steps.GIB, volume
    vm = running(world, subject, subject.vm)
    attached = steps.attach(world, volume, vm)
    seen = world.guest(str(vm["id"])).read(looks.serial(attached), 0, len(MARK))
    assert seen == MARK, f"the new volume holds {seen[:32]!r} where {MARK[:32]!r} was written"
    steps.detach(world, attached)
    assert snapshots.state_of(world, subject.snapshot) == "BackedUp"


def _no_volume_made(world: World, subject: Subject) -> None:
    volume = _volume_named(world, subject)
    assert volume is None or volume["state"] in ("Allocated", "Destroy"), volume
    assert snapshots.state_of(world, subject.snapshot) == "BackedUp"


def _delete(world: World, subject: Subject) -> None:
    snapshots.delete(world, subject.snapshot)


def _deleted(world: World, subject: Subject) -> None:
    snapshot = subject.snapshot
    assert not snapshots.snapshot_exists(world, snapshot), f"snapshot {snapshot['id']} is still listed"
    assert snapshots.all_on_storpool(world, snapshot) == [], f"snapshot {snapshot['id']} is still on StorPool"
    assert snapshots.files_of(world, snapshot) == [], world.secondary.backups()
    vm = running(world, subject, subject.vm)
    seen = world.guest(str(vm["id"])).read(looks.serial(subject.volume), 0, len(MARK))
    assert seen == MARK, f"the volume holds {seen[:32]!r} where {MARK[:32]!r} was written"


def _not_deleted(world: World, subject: Subject) -> None:
    assert snapshots.state_of(world, subject.snapshot) == "BackedUp"
    _on_secondary(world, subject.snapshot)


AFTER = b"written after the snapshot".ljust(4096, b".")


def _changed_since(world: World) -> Subject:
    """A detached volume that was written to since its snapshot."""
    subject = _snapshot_on_primary(world)
    world.guest(str(subject.vm["id"])).write(looks.serial(subject.volume), 0, AFTER)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _revert(world: World, subject: Subject) -> None:
    world.cloud.call("revertSnapshot", id=subject.snapshot["id"])


def _holds(world: World, subject: Subject, wanted: bytes) -> None:
    """The volume does, as a guest reads it; what that guest writes then stays."""
    volume = looks.reread_volume(world, subject.volume)
    assert (volume["state"], volume["path"]) == ("Ready", subject.volume["path"]), volume
    vm = running(world, subject, subject.vm)
    attached = steps.attach(world, volume, vm)
    looks.fully_attached(world, vm, attached)
    guest = world.guest(str(vm["id"]))
    seen = guest.read(looks.serial(volume), 0, len(wanted))
    try:
        assert seen == wanted, f"the volume holds {seen[:32]!r}, expected {wanted[:32]!r}"
        guest.write(looks.serial(volume), 8192, AFTER)
        world.wait_until("late requests have come", _after(world, LATE_SECONDS), 2 * LATE_SECONDS)
        kept = guest.read(looks.serial(volume), 8192, len(AFTER))
        assert kept == AFTER, f"what was written after the revert is lost: {kept[:32]!r}"
    finally:
        steps.detach(world, attached)


def _reverted(world: World, subject: Subject) -> None:
    _holds(world, subject, MARK)
    _on_primary(world, subject.snapshot)


def _not_reverted(world: World, subject: Subject) -> None:
    _holds(world, subject, AFTER)
    _on_primary(world, subject.snapshot)


SNAPSHOTS: tuple[Operation, ...] = (
    Operation("9.take", "take a snapshot that stays on StorPool", _volume_on_primary, _take, _taken, _not_taken),
    Operation("9.backup", "take a snapshot and back it up", _volume, _take, _backed_up, _not_taken),
    Operation(
        "10.clone",
        "make a volume of a snapshot on StorPool",
        _snapshot_on_primary,
        _make_volume,
        _volume_made,
        _no_volume_made,
    ),
    Operation(
        "10.restore",
        "make a volume of a snapshot on secondary storage",
        _archived_snapshot,
        _make_volume,
        _volume_made,
        _no_volume_made,
    ),
    Operation("14.revert", "revert a volume to a snapshot", _changed_since, _revert, _reverted, _not_reverted),
    Operation("16.delete", "delete a snapshot and its backup", _snapshot, _delete, _deleted, _not_deleted),
)
