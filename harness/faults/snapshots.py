"""Operations on volume snapshots: take and back up, make a volume of one, delete (rows 9, 10, 16)."""

from __future__ import annotations

from harness.faults.disks import vm_with_marked_volume
from harness.faults.marks import AFTER, MARK, PLACE, asked_again, guest_reads, in_file, in_memory, stored, use_at_once
from harness.faults.operation import Operation, Subject, running, shorten
from harness.observers import Json, World
from scenarios import looks, snapshots, steps

BACKUP_WAIT = "backup.snapshot.wait"


def _volume(world: World) -> Subject:
    shorten(world, BACKUP_WAIT)
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


def _take(world: World, subject: Subject) -> None:
    subject.name = world.name("snapshot")
    world.cloud.call("createSnapshot", volumeid=subject.volume["id"], name=subject.name)


def _named(world: World, subject: Subject) -> Json | None:
    found = [item for item in snapshots.snapshots_of(world, subject.volume) if item["name"] == subject.name]
    return found[0] if found else None


def _on_primary(world: World, snapshot: Json) -> None:
    """StorPool has it once, with the mark."""
    global_id = str(snapshots.on_storpool(world, snapshot)["globalId"])
    stored(world, global_id)
    snapshots.attached_nowhere(world, global_id)


def _on_secondary(world: World, snapshot: Json) -> None:
    in_file(world, snapshots.backup_file(world, snapshot))


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
    if not subject.offering_id:
        subject.offering_id = steps.disk_offering(world)
    subject.name = world.name("from-snapshot")
    world.cloud.call(
        "createVolume",
        name=subject.name,
        snapshotid=subject.snapshot["id"],
        diskofferingid=subject.offering_id,
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
    guest_reads(world, vm, attached)
    steps.detach(world, attached)
    assert snapshots.state_of(world, subject.snapshot) == "BackedUp"


def _restore(world: World, subject: Subject) -> None:
    _make_volume(world, subject)
    volume = _volume_named(world, subject)
    assert volume is not None
    if use_at_once(world, volume):
        subject.written = "restored"


def _restored(world: World, subject: Subject) -> None:
    _volume_made(world, subject)
    volume = _volume_named(world, subject)
    if subject.written and volume is not None:
        stored(world, looks.global_id(volume), AFTER, PLACE)


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
    guest_reads(world, vm, subject.volume)


def _not_deleted(world: World, subject: Subject) -> None:
    assert snapshots.state_of(world, subject.snapshot) == "BackedUp"
    _on_secondary(world, subject.snapshot)


def _changed_since(world: World) -> Subject:
    """A detached volume that was written to since its snapshot."""
    subject = _snapshot_on_primary(world)
    world.guest(str(subject.vm["id"])).write(looks.serial(subject.volume), 0, AFTER)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _revert(world: World, subject: Subject) -> None:
    """And write to the volume at once, as its next user would: that must survive every request that comes late."""
    world.cloud.call("revertSnapshot", id=subject.snapshot["id"])
    processes = in_memory(world).processes
    newest = max(processes.storpool().object_keys().values())  # a revert makes a new object
    processes.blocks.write(newest, PLACE, AFTER)
    subject.written = "reverted"


def _seen(world: World, subject: Subject) -> tuple[bytes, bytes]:
    """The beginning of the volume, and what is at `PLACE`, as a guest reads them."""
    volume = looks.reread_volume(world, subject.volume)
    assert (volume["state"], volume["path"]) == ("Ready", subject.volume["path"]), volume
    vm = running(world, subject, subject.vm)
    attached = steps.attach(world, volume, vm)
    looks.fully_attached(world, vm, attached)
    guest = world.guest(str(vm["id"]))
    beginning, written = (guest.read(looks.serial(volume), place, len(AFTER)) for place in (0, PLACE))
    steps.detach(world, attached)
    return beginning, written


def _reverted(world: World, subject: Subject) -> None:
    beginning, written = _seen(world, subject)
    assert beginning == MARK, f"the volume holds {beginning[:32]!r}, expected {MARK[:32]!r}"
    if subject.written and not asked_again(world, "volume revert"):
        assert written == AFTER, f"what was written after the revert is lost: {written[:32]!r}"
    _on_primary(world, subject.snapshot)


def _not_reverted(world: World, subject: Subject) -> None:
    beginning, _ = _seen(world, subject)
    assert beginning == AFTER and not subject.written, f"the volume holds {beginning[:32]!r}"
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
        _restore,
        _restored,
        _no_volume_made,
    ),
    Operation("14.revert", "revert a volume to a snapshot", _changed_since, _revert, _reverted, _not_reverted),
    Operation("16.delete", "delete a snapshot and its backup", _snapshot, _delete, _deleted, _not_deleted),
)
