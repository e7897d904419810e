"""Objects that nothing knows: which are removed, which are only told of, and which are never touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from driver_rig import POOL, TOKEN, Fault, Rig, image, on_pool, snapshot_of, volume
from reconciler_rig import (
    DAY,
    FOREIGN_CLIENT,
    attach,
    attached,
    both,
    gid,
    hold_open,
    kinds,
    lost_volume,
    name_in_detail,
    prepared,
    record,
    recorded,
    retag,
    take_host_down,
    work_on,
)

from harness.spi.errors import Dead
from harness.spi.inventory import FindingKind, SnapshotRecord
from harness.spi.objects import Host, device_path
from harness.spi.states import SnapshotState, VolumeState
from harness.storpool import Request, VolumeCreateDesc, VolumeSnapshotDesc, VolumeUpdateDesc


@pytest.fixture
def rig() -> Rig:
    return prepared()


def test_a_volume_that_nothing_knows_is_removed_once_it_is_old(rig: Rig) -> None:
    path = lost_volume(rig)
    rig.time[0] -= 1.5 * DAY
    assert (both(rig), rig.volumes()) == ([], [path])
    rig.time[0] += 1.5 * DAY
    (finding,) = rig.driver.reconcile_volumes()
    assert (finding.kind, finding.mended, gid(path) in finding.where) == (FindingKind.ORPHAN, True, True)
    assert (rig.volumes(), rig.records.open_operations(), both(rig)) == ([], [], [])


def test_snapshots_that_nothing_knows_are_removed_and_those_that_expire_are_not(rig: Rig) -> None:
    source = recorded(rig)
    rig.records.outcomes["seeded"] = "done"
    rig.records.snapshots["snap-9"] = SnapshotRecord(
        uuid="snap-9", state=SnapshotState.ERROR, removed=True, pool_id=None, path=None
    )
    rig.look.snapshot_create(gid(source), VolumeSnapshotDesc(tags={"cs": "snapshot", "uuid": "snap-9"}))
    seeded = VolumeSnapshotDesc(name="cs-seeded-snapshot", tags={"cs": "template", "uuid": "tmpl-5"})
    rig.look.snapshot_create(gid(source), seeded)
    expiring = VolumeSnapshotDesc(delete_after=int(30 * DAY), tags={"cs": "delayDelete"})
    kept = rig.look.snapshot_create(gid(source), expiring).snapshot_global_id
    rig.time[0] += 2 * DAY
    assert kinds(rig.driver.reconcile_snapshots()) == [(FindingKind.ORPHAN, True)] * 2
    assert rig.snapshots() == [device_path(kept)]
    assert rig.look.snapshots_list()[0].deleted, "it is still there until its data is merged"
    assert rig.driver.reconcile_snapshots() == []


def test_a_second_object_of_a_record_is_removed_while_the_first_is_there(rig: Rig) -> None:
    path = recorded(rig)
    taken = rig.look.snapshot_create(gid(path), VolumeSnapshotDesc(tags={"cs": "other"})).snapshot_global_id
    own, twin = {"cs": "snapshot", "uuid": "snap-9"}, {"cs": "volume", "uuid": "vol-1"}
    rig.records.outcomes["spare"] = "done"
    rig.look.volume_create(VolumeCreateDesc(name="cs-spare-volume", size=4096, template="hdd", tags=twin))
    desc = VolumeSnapshotDesc(name="cs-spare-snapshot", tags=own)
    spare = rig.look.snapshot_create(gid(path), desc).snapshot_global_id
    rig.records.snapshots["snap-9"] = SnapshotRecord(
        uuid="snap-9", state=SnapshotState.BACKED_UP, removed=False, pool_id=1, path="/dev/storpool-byid/splab.b.zz"
    )
    rig.time[0] += 2 * DAY
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.ORPHAN, True)]
    assert rig.volumes() == [path]
    both_kinds = {FindingKind.MISSING_OBJECT, FindingKind.UNATTRIBUTED}
    assert {finding.kind for finding in rig.driver.reconcile_snapshots()} == both_kinds, "it may be the record's"
    kept = msgspec.structs.replace(rig.records.snapshots["snap-9"], path=device_path(taken))
    rig.records.snapshots["snap-9"] = kept
    assert (FindingKind.ORPHAN, True) in kinds(rig.driver.reconcile_snapshots())
    assert device_path(spare) not in rig.snapshots() and device_path(taken) in rig.snapshots()


SINCE_THE_BACKUP: dict[str, VolumeState | None] = {
    "not yet made": VolumeState.ALLOCATED,
    "not yet known": None,
    "with another one": VolumeState.READY,
}


@pytest.mark.parametrize("then", list(SINCE_THE_BACKUP))
def test_restored_records_do_not_cost_a_volume_that_was_made_since_the_backup(rig: Rig, then: str) -> None:
    path = recorded(rig)
    rig.records.outcomes.clear()
    state = SINCE_THE_BACKUP[then]
    if state is None:
        rig.records.volumes.clear()
    else:
        record(rig, volume(1), state=VolumeState.ALLOCATED)
    if state is VolumeState.READY:
        # Its user attaches it again, which makes a new one.
        assert recorded(rig) != path
    assert kinds(both(rig)) == [(FindingKind.UNATTRIBUTED, False)]
    assert path in rig.volumes()


def test_restored_records_do_not_cost_snapshots_that_were_made_since_the_backup(rig: Rig) -> None:
    path = recorded(rig)
    taken = rig.driver.take_snapshot(snapshot_of(volume(1, path=path))).path
    seeded = rig.driver.copy(image(), on_pool(image())).path
    rig.settle()
    assert rig.records.open_operations() == []
    rig.records.outcomes.clear()
    rig.records.known_templates = {"tmpl-5"}
    rig.records.snapshots["snap-9"] = SnapshotRecord(
        uuid="snap-9", state=SnapshotState.ERROR, removed=False, pool_id=None, path=None
    )
    rig.time[0] += 2 * DAY
    assert kinds(both(rig)) == [(FindingKind.UNATTRIBUTED, False)] * 2
    assert set(rig.snapshots()) == {taken, seeded}


def test_a_check_volume_that_no_pool_names_is_removed_while_its_operation_is_remembered(rig: Rig) -> None:
    for _ in range(2):
        rig.records.details[1].pop("SP_VOLUME_ON_CLUSTER-1", None)
        rig.provider.host_listener.host_connected(Host(id=1, uuid="h", name="kvm-1", cluster_id=1), POOL)
    rig.time[0] += 2 * DAY
    assert len(rig.volumes()) == 2
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.ORPHAN, True)]
    assert rig.volumes() == [rig.records.details[1]["SP_VOLUME_ON_CLUSTER-1"]]


@dataclass
class Left:
    """A change that keeps an orphan where it is, and what is told of it."""

    change: Callable[[Rig, str], object]
    told: FindingKind | None = None


def work_on_attached(rig: Rig, path: str) -> None:
    work_on(rig, {}, "volume:vol-7")
    attach(rig, path, FOREIGN_CLIENT)


def restore_older_records(rig: Rig, path: str) -> None:
    retag(rig, path, uuid="made-since")
    rig.records.outcomes.clear()


LEFT = {
    "no tag": Left(lambda rig, path: retag(rig, path, cs="")),
    "record in Destroy": Left(lambda rig, path: record(rig, volume(7, path=path), state=VolumeState.DESTROY)),
    "record being changed": Left(lambda rig, _: record(rig, volume(7), state=VolumeState.CREATING)),
    "detail": Left(name_in_detail),
    "operation on its record": Left(lambda rig, _: work_on(rig, {}, "volume:vol-7")),
    "operation on its record, and attached elsewhere": Left(work_on_attached),
    "operation with its id": Left(lambda rig, path: work_on(rig, {"volume.id": gid(path)[1:]})),
    "somebody's name": Left(
        lambda rig, path: rig.look.volume_update(gid(path), VolumeUpdateDesc(rename="precious")),
        FindingKind.UNATTRIBUTED,
    ),
    "no trace in the records": Left(restore_older_records, FindingKind.UNATTRIBUTED),
    "record without its object": Left(
        lambda rig, _: record(rig, volume(7, path="/dev/storpool-byid/splab.b.zz")), FindingKind.UNATTRIBUTED
    ),
    "record that lost its path": Left(lambda rig, _: record(rig, volume(7)), FindingKind.UNATTRIBUTED),
    "another driver's kind": Left(lambda rig, path: retag(rig, path, cs="temporary"), FindingKind.UNATTRIBUTED),
    "another cloud's template": Left(
        lambda rig, path: rig.look.volume_update(
            gid(path), VolumeUpdateDesc(template="ssd", rename="", tags={"uuid": "other"})
        )
    ),
    "attached elsewhere": Left(lambda rig, path: attach(rig, path, FOREIGN_CLIENT), FindingKind.ORPHAN),
    "attached to a host that is down": Left(take_host_down, FindingKind.ORPHAN),
    "open": Left(hold_open, FindingKind.ORPHAN),
    "no grace time": Left(
        lambda rig, _: rig.records.settings.update({"storpool.orphans.grace": "0"}), FindingKind.ORPHAN
    ),
    "grace time that is none": Left(
        lambda rig, _: rig.records.settings.update({"storpool.orphans.grace": "1d"}), FindingKind.NOT_COMPARED
    ),
    "alternative endpoint": Left(
        lambda rig, _: rig.records.settings.update(
            {
                "sp.enable.alternative.endpoint": "true",
                "sp.alternative.endpoint": f"storpool://{TOKEN}@sp:81/hdd",
            }
        ),
        FindingKind.NOT_COMPARED,
    ),
}


@pytest.mark.parametrize("why", list(LEFT))
def test_what_may_not_be_removed_stays_as_it_is(rig: Rig, why: str) -> None:
    path = lost_volume(rig)
    LEFT[why].change(rig, path)
    before = (rig.look.volumes_list(), attached(rig))
    told = [finding.kind for finding in rig.driver.reconcile_volumes()]
    told = [kind for kind in told if kind is not FindingKind.MISSING_OBJECT]
    assert told == ([LEFT[why].told] if LEFT[why].told else [])
    assert (rig.look.volumes_list(), attached(rig)) == before


def test_a_volume_on_an_offerings_template_is_ours_too(rig: Rig) -> None:
    path = lost_volume(rig)
    rig.look.volume_update(gid(path), VolumeUpdateDesc(template="ssd", rename=""))
    record(rig, volume(7), removed=True, state=VolumeState.EXPUNGED)
    assert (rig.driver.reconcile_volumes(), rig.volumes()) == ([], [path])
    rig.records.offerings[1] = {"SP_TEMPLATE": "ssd"}
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.ORPHAN, True)]


def test_an_orphan_that_is_attached_to_a_host_and_not_open_is_removed(rig: Rig) -> None:
    attach(rig, lost_volume(rig))
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.ORPHAN, True)]
    assert (rig.volumes(), attached(rig)) == ([], set())


MEANWHILE: dict[str, Callable[[Rig, str], object]] = {
    "recorded": lambda rig, path: record(rig, volume(7, path=path)),
    "being created": lambda rig, _: record(rig, volume(7), state=VolumeState.CREATING),
    "worked on": lambda rig, _: work_on(rig, {}, "volume:vol-7"),
    "named": lambda rig, path: rig.look.volume_update(gid(path), VolumeUpdateDesc(rename="precious")),
}


@pytest.mark.parametrize("what", list(MEANWHILE))
def test_an_orphan_that_finds_an_owner_during_the_pass_is_kept(rig: Rig, what: str) -> None:
    path = lost_volume(rig)
    rig.records.after_inventory = lambda: MEANWHILE[what](rig, path)
    assert (rig.driver.reconcile_volumes(), rig.volumes()) == ([], [path])


def test_a_removal_without_an_answer_stays_open_until_recovery_has_looked(rig: Rig) -> None:
    lost_volume(rig)
    rig.cluster.strike(*[Fault.REQUEST_LOST] * 6, after=3)
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.ORPHAN, False)]
    assert [operation.kind for operation in rig.records.open_operations()] == ["remove-orphan"]
    assert "not carried out" in rig.driver.recover()[0]
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.ORPHAN, True)]


def test_a_volume_that_was_reverted_goes_by_its_old_id(rig: Rig) -> None:
    path = recorded(rig)
    taken = rig.look.snapshot_create(gid(path), VolumeSnapshotDesc(tags={"by": "hand"})).snapshot_global_id
    desc = msgspec.json.encode({"toSnapshot": f"~{taken}"})
    assert rig.cluster.serve(Request("POST", f"VolumeRevert/{gid(path)}", desc, 60)).status == 200
    (reverted,) = rig.look.volumes_list()
    assert (reverted.name, reverted.global_id != gid(path)[1:]) == (gid(path), True)
    rig.time[0] += 2 * DAY
    assert both(rig) == []
    retag(rig, path, cvm="vm-9")
    attach(rig, path)
    told = [(FindingKind.TAGS, True), (FindingKind.LEAKED_ATTACHMENT, True)]
    assert kinds(rig.driver.reconcile_volumes()) == told
    assert [found.global_id for found in rig.look.volumes_list()] == [reverted.global_id]


@pytest.mark.parametrize("fault", list(Fault))
def test_a_removal_that_anything_befalls_is_made_good_by_a_later_pass(rig: Rig, fault: Fault) -> None:
    for call in range(5):
        path = lost_volume(rig)
        rig.cluster.strike(fault, after=call)
        try:
            rig.driver.reconcile_volumes()
        except Dead:
            rig.restart()
        rig.settle()
        assert rig.records.open_operations() == []
        rig.driver.reconcile_volumes()
        assert rig.volumes() == [], (call, path)
