"""VM snapshots in the driver: one moment for all disks, all reverted or none, nothing left; struck at every call."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from driver_rig import POOL, TOKEN, Fault, Rig, volume
from reconciler_rig import DAY, gid, kinds, prepared, record, recorded

from harness.spi.driver import ResizePayload
from harness.spi.errors import Conflict, Dead, Error, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.inventory import FindingKind, VmSnapshotRecord
from harness.spi.objects import VolumeObject
from harness.spi.states import VmSnapshotState
from harness.spi.vm_snapshots import VmSnapshotObject
from harness.storpool import Reply, Request, SnapshotReassignDesc, VolumeUpdateDesc

THEN, NOW, LATER = b"then", b"now!", b"next"
DISKS = (1, 2, 3)


@pytest.fixture
def rig() -> Rig:
    return prepared()


def disk(rig: Rig, number: int) -> VolumeObject:
    return volume(number, path=recorded(rig, number), vm_uuid="vm-1")


def vm_snapshot(rig: Rig, **changes: object) -> VmSnapshotObject:
    """Of a VM whose disks are all written with `THEN`."""
    disks = tuple(disk(rig, number) for number in DISKS)
    for each in disks:
        rig.write(str(each.path), THEN)
    plain = VmSnapshotObject(id=4, uuid="vms-4", name="four", vm_uuid="vm-1", volumes=disks)
    return msgspec.structs.replace(plain, **changes)


def known(rig: Rig, snapshot: VmSnapshotObject, state: VmSnapshotState, *, removed: bool = False) -> None:
    """CloudStack has this recorded."""
    rig.records.vm_snapshots[snapshot.uuid] = VmSnapshotRecord(
        uuid=snapshot.uuid,
        state=state,
        removed=removed,
        pool_id=snapshot.pool_id,
        paths=tuple(snapshot.paths.values()),
    )


def taken(rig: Rig) -> VmSnapshotObject:
    """Taken and recorded; the disks have `NOW` since."""
    made = rig.driver.vm_snapshots.take(vm_snapshot(rig))
    known(rig, made, VmSnapshotState.READY)
    rig.settle()
    for each in made.volumes:
        rig.write(str(each.path), NOW)
    return made


def contents(rig: Rig, snapshot: VmSnapshotObject) -> list[bytes]:
    return [rig.read(str(each.path), len(THEN)) for each in snapshot.volumes]


def left(rig: Rig, kind: str) -> list[str]:
    return [s.name for s in rig.look.snapshots_list() if s.tags.get("cs") == kind and not s.deleted]


def refuse(rig: Rig, wanted: Callable[[Request], bool], error: str = "busy") -> None:
    """The cluster answers these requests so."""
    serve = rig.cluster.serve

    def refusing(request: Request, token: str = TOKEN) -> Reply:
        if wanted(request):
            return Reply(409, b'{"error": {"name": "%s", "descr": "no"}}' % error.encode())
        return serve(request, token)

    rig.cluster.serve = refusing  # type: ignore[method-assign]


def ask_until_over(rig: Rig, snapshot: VmSnapshotObject) -> str:
    """As CloudStack does: it asks again as long as it does not know the outcome."""
    known(rig, snapshot, VmSnapshotState.REVERTING)
    interrupted = False
    for _ in range(12):
        try:
            rig.driver.vm_snapshots.revert(snapshot)
        except Unknown:
            interrupted = True
        except Dead:
            interrupted = True
            rig.restart()
        except Unavailable:
            if not interrupted:
                return "failed"
        except Error:
            return "failed"
        else:
            return "reverted"
        rig.driver.recover()
        rig.time[0] += 60
    raise AssertionError("it never ends")


def struck(rig: Rig, snapshot: VmSnapshotObject, fault: Fault, number: int) -> bool:
    """Whether there is a call of this number; then the revert, struck there, is judged."""
    calls = len(rig.cluster.calls)
    rig.cluster.strike(fault, after=number)
    outcome = ask_until_over(rig, snapshot)
    reached = len(rig.cluster.calls) > calls + number
    where = f"{fault.value} at {rig.cluster.calls[calls + number] if reached else 'no call'}: {outcome}"
    known(rig, snapshot, VmSnapshotState.READY)
    assert contents(rig, snapshot) == [THEN if outcome == "reverted" else NOW] * len(DISKS), where
    for each in snapshot.volumes:
        rig.write(str(each.path), LATER)
    rig.settle()
    assert contents(rig, snapshot) == [LATER] * len(DISKS), f"{where}: what came late undid what was written"
    assert left(rig, "temporary") == [] and rig.unfinished() == [], (where, left(rig, "temporary"), rig.unfinished())
    assert len(left(rig, "group")) == len(DISKS), where
    assert all(s.name.endswith("-snapshot") for s in rig.look.snapshots_list() if s.tags.get("cs") == "group"), where
    return reached


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("refused", [False, True], ids=["forward", "back"])
def test_a_revert_struck_at_any_call_ends_with_every_disk_at_one_moment(fault: Fault, refused: bool) -> None:
    """Back: the third disk cannot be reverted, so those that were are put back."""
    number = 0
    while True:
        rig = prepared()
        snapshot = taken(rig)
        if refused:
            third = f"VolumeRevert/{gid(snapshot.volumes[2].path)}"
            refuse(rig, lambda r, end=third: r.path.endswith(end) and b"-target" in (r.body or b""))  # type: ignore[misc]
        if not struck(rig, snapshot, fault, number):
            break
        number += 1
    assert number > 20


def test_disks_that_are_put_back_say_why(rig: Rig) -> None:
    snapshot = taken(rig)
    third = f"VolumeRevert/{gid(snapshot.volumes[2].path)}"
    refuse(rig, lambda r: r.path.endswith(third) and b"-target" in (r.body or b""))
    with pytest.raises(Error, match="every disk is as it was before"):
        rig.driver.vm_snapshots.revert(snapshot)
    assert contents(rig, snapshot) == [NOW] * 3


def test_all_disks_are_snapshotted_with_one_request(rig: Rig) -> None:
    before = len(rig.cluster.calls)
    made = rig.driver.vm_snapshots.take(vm_snapshot(rig))
    assert [call for call in rig.cluster.calls[before:] if "Snapshot" in call and "Snapshot/" not in call] == [
        "MultiCluster/VolumesGroupSnapshot"
    ]
    assert set(made.paths) == {each.uuid for each in made.volumes} and set(made.paths.values()) == set(rig.snapshots())
    for found in rig.look.snapshots_list():
        assert found.tags == {"uuid": "vms-4", "cvm": "vm-1", "cs": "group"}
    assert rig.driver.vm_snapshots.take(made) == made, "asked again it is the same"


@pytest.mark.parametrize("fault", list(Fault))
def test_a_taking_that_is_struck_is_one_group_for_whoever_asks_again_and_nothing_for_nobody(fault: Fault) -> None:
    for wanted in (True, False):
        for number in range(4):
            rig = prepared()
            snapshot = vm_snapshot(rig)
            known(rig, snapshot, VmSnapshotState.CREATING)
            rig.cluster.strike(fault, after=number)
            made = None
            try:
                made = rig.driver.vm_snapshots.take(snapshot)
            except Error:
                pass
            except Dead:
                rig.restart()
            if wanted:
                made = made or rig.driver.vm_snapshots.take(snapshot)
                known(rig, made, VmSnapshotState.READY)
            else:
                known(rig, snapshot, VmSnapshotState.ERROR)
            rig.settle()
            assert len(left(rig, "group")) == (len(DISKS) if wanted else 0), (fault, number, wanted)
            assert rig.unfinished() == [], (fault, number, wanted)


def test_what_cannot_be_snapshotted_at_one_time_is_told(rig: Rig) -> None:
    strategy, snapshot = rig.driver.vm_snapshots, vm_snapshot(rig)
    assert strategy.why_not(snapshot.volumes, memory=False) is None
    assert "not the memory" in str(strategy.why_not(snapshot.volumes, memory=True))
    rig.records.details[3] = {"SP_API_HTTP_HOST": "other:81", "SP_AUTH_TOKEN": "99", "SP_TEMPLATE": "hdd"}
    store = msgspec.structs.replace(POOL, id=3)
    apart = (msgspec.structs.replace(snapshot.volumes[0], store=store), *snapshot.volumes[1:])
    with pytest.raises(InvalidParameter, match="different StorPool clusters"):
        strategy.take(msgspec.structs.replace(snapshot, volumes=apart))
    nfs = msgspec.structs.replace(store, provider="NFS")
    assert "not on a StorPool pool" in str(
        strategy.why_not([msgspec.structs.replace(snapshot.volumes[0], store=nfs)], memory=False)
    )
    assert rig.snapshots() == []


def test_a_lost_volume_is_named_and_nothing_is_left(rig: Rig) -> None:
    snapshot = vm_snapshot(rig)
    rig.look.volume_delete(gid(snapshot.volumes[1].path))
    with pytest.raises(NotFound, match="DATA-2"):
        rig.driver.vm_snapshots.take(snapshot)
    rig.settle()
    assert (rig.snapshots(), rig.unfinished()) == ([], [])


def test_disks_that_came_or_went_since_keep_a_revert_from_beginning(rig: Rig) -> None:
    snapshot = taken(rig)
    fourth = disk(rig, 4)
    for volumes, name in (((*snapshot.volumes, fourth), "DATA-4"), (snapshot.volumes[:2], "vol-3")):
        before = len(rig.cluster.calls)
        with pytest.raises(InvalidParameter, match=name):
            rig.driver.vm_snapshots.revert(msgspec.structs.replace(snapshot, volumes=volumes))
        assert rig.cluster.calls[before:] == [], "nothing was asked of StorPool"
    assert contents(rig, snapshot) == [NOW] * 3


def test_disks_that_came_or_went_since_do_not_matter_to_a_deletion(rig: Rig) -> None:
    snapshot = taken(rig)
    rig.look.snapshot_delete(gid(snapshot.paths["vol-2"]))
    rig.driver.vm_snapshots.delete(msgspec.structs.replace(snapshot, volumes=(disk(rig, 4),)))
    assert (rig.snapshots(), rig.unfinished()) == ([], [])


def test_a_deletion_that_stopped_at_the_second_snapshot_is_ended_by_the_next_call(rig: Rig) -> None:
    """What #13972, #9369 and #5297 report: some of its StorPool snapshots are gone, and it can be deleted."""
    snapshot = taken(rig)
    held = list(snapshot.paths.values())[1]
    rig.look.volumes_reassign_wait([SnapshotReassignDesc(snapshot=gid(held), ro=(1,))])
    rig.blocks_of(held, lambda key: rig.cluster.blocks.open(key, 1))
    with pytest.raises(Conflict, match="in use by StorPool client 1"):
        rig.driver.vm_snapshots.delete(snapshot)
    assert len(rig.snapshots()) == len(DISKS) - 1
    rig.blocks_of(held, lambda key: rig.cluster.blocks.release(key, 1))
    rig.driver.vm_snapshots.delete(snapshot)
    assert (rig.snapshots(), rig.unfinished()) == ([], [])


def test_a_size_that_changed_is_reverted_too(rig: Rig) -> None:
    snapshot = taken(rig)
    second = snapshot.volumes[1]
    rig.look.volume_update(gid(second.path), VolumeUpdateDesc(size=2 * second.size))
    sizes = rig.driver.vm_snapshots.revert(snapshot)
    assert sizes == {each.uuid: each.size for each in snapshot.volumes}
    assert rig.look.volume(gid(second.path)).size == second.size


def test_while_a_resize_may_arrive_late_no_revert_is_begun(rig: Rig) -> None:
    snapshot = taken(rig)
    second = snapshot.volumes[1]
    rig.cluster.strike(Fault.REQUEST_LATE, after=1)
    rig.cluster.lateness = [100]
    rig.driver.resize(second, ResizePayload(size=2 * second.size))
    with pytest.raises(Conflict, match="would set another size"):
        rig.driver.vm_snapshots.revert(snapshot)
    assert rig.look.volume(gid(second.path)).size == 2 * second.size
    rig.settle()
    assert rig.driver.vm_snapshots.revert(snapshot)[second.uuid] == second.size
    assert rig.unfinished() == []


def test_comparing_knows_vm_snapshots(rig: Rig) -> None:
    snapshot = taken(rig)
    rig.time[0] += 2 * DAY
    assert rig.driver.reconcile_snapshots() == []
    rig.look.snapshot_delete(gid(snapshot.paths["vol-2"]))
    rig.settle()
    assert kinds(rig.driver.reconcile_snapshots()) == [(FindingKind.MISSING_OBJECT, False)]
    known(rig, snapshot, VmSnapshotState.READY, removed=True)
    assert kinds(rig.driver.reconcile_snapshots()) == [(FindingKind.ORPHAN, True)] * 2, "they are nobody's now"
    assert rig.snapshots() == []


def test_one_that_a_vm_snapshot_in_doubt_may_need_is_only_told_of(rig: Rig) -> None:
    """The records name another snapshot of that VM snapshot, which StorPool does not have."""
    snapshot = taken(rig)
    other = msgspec.structs.replace(snapshot, paths={**snapshot.paths, "vol-1": "/dev/storpool-byid/a.b.zz"})
    known(rig, other, VmSnapshotState.READY)
    rig.time[0] += 2 * DAY
    found = kinds(rig.driver.reconcile_snapshots())
    assert (FindingKind.UNATTRIBUTED, False) in found and (FindingKind.ORPHAN, True) not in found
    assert len(rig.snapshots()) == 3


def test_a_new_name_of_a_volume_is_given_away_before_it_is_reverted(rig: Rig) -> None:
    """A volume that was made a moment ago has a name, and would go by another path after a revert."""
    made = rig.driver.create(volume(8))
    record(rig, made)
    fresh = msgspec.structs.replace(made, vm_uuid="vm-1")
    snapshot = rig.driver.vm_snapshots.take(vm_snapshot(rig, volumes=(fresh,)))
    known(rig, snapshot, VmSnapshotState.READY)
    rig.driver.vm_snapshots.revert(snapshot)
    assert rig.look.volume(gid(made.path)).name == gid(made.path)


def test_what_comes_late_of_a_vm_snapshot_that_was_deleted_since_goes_too(rig: Rig) -> None:
    rig.cluster.lateness = [1000]
    wanted = vm_snapshot(rig)
    rig.cluster.strike(Fault.REQUEST_LATE)
    made = rig.driver.vm_snapshots.take(wanted)
    known(rig, made, VmSnapshotState.READY)
    rig.driver.vm_snapshots.delete(made)
    known(rig, msgspec.structs.replace(made, paths={}), VmSnapshotState.REMOVED, removed=True)
    assert rig.cluster.late and left(rig, "group") == []
    rig.cluster.serve(rig.cluster.late.pop()[1])
    assert len(left(rig, "group")) == len(DISKS), "the names are free, so it is carried out"
    rig.settle()
    assert left(rig, "group") == [] and rig.unfinished() == []
