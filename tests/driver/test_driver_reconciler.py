"""The reconciler: drift of tags, limits and attachments, and what it only tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pytest
from driver_rig import POOL, TOKEN, Fault, Rig, image, on_pool, snapshot_of, volume
from reconciler_rig import (
    FOREIGN_CLIENT,
    attach,
    attached,
    both,
    changes,
    gid,
    hold_open,
    kinds,
    lost_volume,
    name_in_detail,
    prepared,
    record,
    recorded,
    retag,
    running,
    take_host_down,
    work_on,
)

from harness.spi.driver import OperationRecord
from harness.spi.errors import Dead
from harness.spi.inventory import FindingKind, HostRecord, SnapshotRecord
from harness.spi.states import SnapshotState, VmState, VolumeState
from harness.storpool import Reply, Request, VolumeUpdateDesc


@pytest.fixture
def rig() -> Rig:
    return prepared()


def test_what_agrees_is_read_with_one_list_of_each_kind_and_left_alone(rig: Rig) -> None:
    vm = running(rig)
    for number in range(3):
        path = recorded(rig, number, vm_uuid=vm.uuid, device_id=number)
        rig.look.volume_update(gid(path), VolumeUpdateDesc(tags={"cvm": vm.uuid, "disk": str(number)}))
        attach(rig, path)
    before = len(rig.cluster.calls)
    assert both(rig) == []
    lists = ["VolumesList", "AttachmentsList", "SnapshotsList", "AttachmentsList"]
    assert rig.cluster.calls[before:] == [f"MultiCluster/{name}" for name in lists]


DRIFT: dict[str, dict[str, str]] = {
    "uuid": {"uuid": "other"},
    "cs": {"cs": ""},
    "vm": {"cvm": "vm-2"},
    "disk": {"disk": ""},
    "policy": {"vc-policy": "hourly"},
    "tier": {"qc": ""},
}


@pytest.mark.parametrize("what", list(DRIFT))
def test_tags_are_mended_to_what_the_records_say(rig: Rig, what: str) -> None:
    rig.records.offerings[3] = {"SP_QOSCLASS": "gold"}
    rig.records.vm_tags["vm-1", "vc-policy"] = "daily"
    running(rig, None, VmState.STOPPED)
    path = recorded(rig, vm_uuid="vm-1", device_id=2, disk_offering_id=3)
    wanted = {"uuid": "vol-1", "cs": "volume", "cvm": "vm-1", "disk": "2", "vc-policy": "daily", "qc": "gold"}
    assert {finding.kind for finding in rig.driver.reconcile_volumes()} == {FindingKind.TAGS}
    assert rig.tags(path) == wanted
    retag(rig, path, by="hand", **DRIFT[what])
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.TAGS, True)]
    assert rig.tags(path) == {**wanted, "by": "hand"}
    assert (rig.driver.reconcile_volumes(), rig.records.open_operations()) == ([], [])


def test_tags_of_a_volume_that_no_vm_has_name_none_and_its_tier_stays_without_an_offering(rig: Rig) -> None:
    path = recorded(rig)
    retag(rig, path, cvm="vm-9", disk="1", **{"vc-policy": "daily", "qc": "kept"})
    assert len(rig.driver.reconcile_volumes()) == 3
    assert rig.tags(path) == {"uuid": "vol-1", "cs": "volume", "qc": "kept"}


@pytest.mark.parametrize(
    ("max_iops", "tier", "expected"), [(500, None, 500), (500, "gold", 77), (None, None, 77), (0, None, 77)]
)
def test_limits_follow_the_record_unless_a_tier_or_the_template_sets_them(
    rig: Rig, max_iops: int | None, tier: str | None, expected: int
) -> None:
    rig.records.offerings[3] = {"SP_QOSCLASS": tier} if tier else {}
    path = recorded(rig, max_iops=max_iops, disk_offering_id=3)
    retag(rig, path, qc=tier or "")
    rig.look.volume_update(gid(path), VolumeUpdateDesc(iops=77))
    expected_findings = [(FindingKind.LIMITS, True)] if expected == 500 else []
    assert kinds(rig.driver.reconcile_volumes()) == expected_findings
    assert rig.look.volume(gid(path)).iops == expected


def test_the_limit_of_a_volume_on_a_template_named_like_a_tier_is_left_to_storpool_qos(rig: Rig) -> None:
    path = recorded(rig, max_iops=500)
    rig.look.volume_update(gid(path), VolumeUpdateDesc(iops=77))
    rig.records.offerings[4] = {"SP_QOSCLASS": "hdd"}
    assert (rig.driver.reconcile_volumes(), rig.look.volume(gid(path)).iops) == ([], 77)


def test_a_limit_that_somebody_sets_back_is_told_and_not_fought_over(rig: Rig) -> None:
    path = recorded(rig, max_iops=500)
    for mended in (True, False, False):
        rig.look.volume_update(gid(path), VolumeUpdateDesc(iops=77, tags={"cvm": "vm-9"}))
        told = {(FindingKind.LIMITS, mended), (FindingKind.TAGS, True)}
        assert set(kinds(rig.driver.reconcile_volumes())) == told
        assert rig.look.volume(gid(path)).iops == (500 if mended else 77)
    rig.look.volume_update(gid(path), VolumeUpdateDesc(iops=88))
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.LIMITS, True)], "that is another drift"


def test_an_attach_during_the_pass_is_not_undone_by_what_the_pass_saw_before_it(rig: Rig) -> None:
    path = recorded(rig)
    retag(rig, path, cvm="vm-9")

    def attach_meanwhile() -> None:
        rig.records.after_inventory = lambda: None
        running(rig)
        record(rig, volume(1, path=path), vm_uuid="vm-1", device_id=1)
        rig.driver.provide_vm_info("vm-1", volume(1, path=path, vm_uuid="vm-1", device_id=1))

    rig.records.after_inventory = attach_meanwhile
    rig.driver.reconcile_volumes()
    assert rig.tags(path) == {"uuid": "vol-1", "cs": "volume", "cvm": "vm-1", "disk": "1"}


@pytest.mark.parametrize("change", [{"state": VolumeState.ATTACHING}, {"plugging": True}], ids=["attaching", "detach"])
def test_a_volume_that_is_being_attached_or_detached_is_left_alone(rig: Rig, change: Mapping[str, object]) -> None:
    path = recorded(rig, **change)
    retag(rig, path, cvm="vm-9")
    attach(rig, path)
    before = len(rig.cluster.calls)
    assert rig.driver.reconcile_volumes() == []
    assert changes(rig, before) == []


@pytest.mark.parametrize("fault", [Fault.REQUEST_LOST, Fault.REQUEST_LATE, Fault.ANSWER_LOST, Fault.ANSWER_CUT])
def test_an_update_of_tags_that_gets_lost_ends_as_the_records_want_it(rig: Rig, fault: Fault) -> None:
    path = recorded(rig, max_iops=300)
    retag(rig, path, cvm="vm-9")
    rig.look.volume_update(gid(path), VolumeUpdateDesc(iops=77))
    rig.cluster.strike(*[fault] * 3, after=3)
    rig.driver.reconcile_volumes()
    rig.settle()
    assert (rig.tags(path), rig.look.volume(gid(path)).iops) == ({"uuid": "vol-1", "cs": "volume"}, 300)
    assert (rig.driver.reconcile_volumes(), rig.records.open_operations()) == ([], [])


WANTED = {
    "runs": VmState.RUNNING,
    "starts": VmState.STARTING,
    "stops": VmState.STOPPING,
    "migrates from elsewhere": VmState.MIGRATING,
}


@pytest.mark.parametrize("why", [*WANTED, "not confirmed"])
def test_an_attachment_that_a_vm_may_need_is_not_leaked(rig: Rig, why: str) -> None:
    state = WANTED.get(why, VmState.STOPPED)
    host = 2 if state is VmState.MIGRATING else 1
    running(rig, host, state, unconfirmed_hosts=frozenset({11} if state is VmState.STOPPED else ()))
    path = recorded(rig, vm_uuid="vm-1", device_id=1)
    retag(rig, path, cvm="vm-1", disk="1")
    attach(rig, path)
    before = len(rig.cluster.calls)
    rig.driver.reconcile_volumes()
    assert (changes(rig, before), attached(rig)) == ([], {(path, 1)})


@pytest.mark.parametrize("up", [True, False])
def test_a_host_that_was_added_again_has_two_rows_and_one_storpool_client(rig: Rig, up: bool) -> None:
    again = HostRecord(id=99, name="kvm-1-again", up=up, storpool_client_id=1)
    rig.records.hosts.insert(0, again)
    running(rig, 1, VmState.STARTING)
    path = recorded(rig, vm_uuid="vm-1", device_id=1)
    retag(rig, path, cvm="vm-1", disk="1")
    attach(rig, path)
    assert (rig.driver.reconcile_volumes(), attached(rig)) == ([], {(path, 1)}), "its VM may need it there"
    running(rig, 2, VmState.RUNNING)
    rig.records.after_inventory = lambda: running(rig, 1, VmState.STARTING)
    assert (rig.driver.reconcile_volumes(), attached(rig)) == ([], {(path, 1)}), "it began to start meanwhile"
    running(rig, None, VmState.STOPPED)
    rig.records.after_inventory = lambda: None
    (finding,) = rig.driver.reconcile_volumes()
    assert (finding.kind, finding.mended, attached(rig)) == (FindingKind.LEAKED_ATTACHMENT, True, set())


def test_a_check_volume_stays_while_any_row_of_its_host_is_asked(rig: Rig) -> None:
    path = a_check_volume(rig)
    attach(rig, path)
    rig.records.hosts.insert(0, HostRecord(id=99, name="kvm-1-again", up=True, storpool_client_id=1))
    work_on(rig, {}, "pool:1/SP_VOLUME_ON_CLUSTER-1/host:11")
    assert (rig.driver.reconcile_volumes(), attached(rig)) == ([], {(path, 1)})


@pytest.mark.parametrize("owner", ["nobody", "stopped", "elsewhere", "gone"])
def test_a_leaked_attachment_is_detached_from_that_host_alone(rig: Rig, owner: str) -> None:
    path = recorded(rig, vm_uuid=None if owner == "nobody" else "vm-1", device_id=None if owner == "nobody" else 1)
    if owner != "nobody":
        retag(rig, path, cvm="vm-1", disk="1")
    if owner in ("stopped", "elsewhere"):
        running(rig, 2, VmState.RUNNING if owner == "elsewhere" else VmState.STOPPED)
    others = {(path, 2), (path, FOREIGN_CLIENT)} if owner == "elsewhere" else {(path, FOREIGN_CLIENT)}
    for _, client in {(path, 1), *others}:
        attach(rig, path, client)
    (finding,) = rig.driver.reconcile_volumes()
    assert (finding.kind, finding.mended, "kvm-1" in finding.text) == (FindingKind.LEAKED_ATTACHMENT, True, True)
    assert (attached(rig), rig.records.open_operations(), rig.driver.reconcile_volumes()) == (others, [], [])


def test_an_attachment_that_is_open_is_told_with_who_holds_it(rig: Rig) -> None:
    path = recorded(rig)
    hold_open(rig, path)
    for _ in range(2):
        (finding,) = rig.driver.reconcile_volumes()
        assert (finding.kind, finding.mended) == (FindingKind.LEAKED_ATTACHMENT, False)
        assert "kvm-1" in finding.text and "is open at client 1" in finding.text
    assert (attached(rig), rig.records.open_operations()) == ({(path, 1)}, [])


def test_an_attachment_to_a_host_that_is_not_up_is_told_and_kept(rig: Rig) -> None:
    path = recorded(rig)
    take_host_down(rig, path)
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.LEAKED_ATTACHMENT, False)]
    assert attached(rig) == {(path, 1)}


def a_check_volume(rig: Rig) -> str:
    path = recorded(rig)
    name_in_detail(rig, path)
    del rig.records.volumes["vol-1"]
    return path


def test_a_check_volume_that_stayed_attached_is_detached_unless_it_is_open_or_its_host_is_asked_now(rig: Rig) -> None:
    path = a_check_volume(rig)
    attach(rig, path)
    attach(rig, path, 2)
    work_on(rig, {}, "pool:1/SP_VOLUME_ON_CLUSTER-1/host:12")
    (finding,) = rig.driver.reconcile_volumes()
    assert (finding.kind, finding.mended, "kvm-1" in finding.text) == (FindingKind.LEAKED_ATTACHMENT, True, True)
    assert attached(rig) == {(path, 2)}


def test_a_check_volume_that_is_open_is_told_and_kept(rig: Rig) -> None:
    path = a_check_volume(rig)
    hold_open(rig, path)
    (finding,) = rig.driver.reconcile_volumes()
    assert (finding.mended, "is open at client 1" in finding.text, attached(rig)) == (False, True, {(path, 1)})


MEANWHILE: dict[str, Callable[[Rig, str], object]] = {
    "being attached": lambda rig, path: record(rig, volume(1, path=path), state=VolumeState.ATTACHING),
    "worked on": lambda rig, _: work_on(rig, {}, "volume:vol-1"),
    "another object": lambda rig, _: record(rig, volume(1, path="/dev/storpool-byid/splab.b.zz")),
}


@pytest.mark.parametrize("what", list(MEANWHILE))
def test_a_volume_that_changes_during_the_pass_is_left_to_the_next(rig: Rig, what: str) -> None:
    path = recorded(rig)
    attach(rig, path)
    retag(rig, path, cvm="vm-9")
    rig.records.after_inventory = lambda: MEANWHILE[what](rig, path)
    before = len(rig.cluster.calls)
    assert rig.driver.reconcile_volumes() == []
    assert (changes(rig, before), attached(rig)) == ([], {(path, 1)})


def test_an_attachment_that_is_wanted_while_it_is_detached_is_there_again(rig: Rig) -> None:
    path = recorded(rig)
    attach(rig, path)
    begin = rig.records.begin_operation

    def attach_begins(operation: OperationRecord) -> OperationRecord:
        record(rig, volume(1, path=path), state=VolumeState.ATTACHING)
        return begin(operation)

    rig.records.begin_operation = attach_begins  # type: ignore[method-assign]
    assert rig.driver.reconcile_volumes() == []
    assert (attached(rig), rig.records.open_operations()) == ({(path, 1)}, [])


@pytest.mark.parametrize("fault", list(Fault))
def test_a_detach_that_anything_befalls_is_made_good_by_a_later_pass(rig: Rig, fault: Fault) -> None:
    path = recorded(rig)
    for call in range(4):
        attach(rig, path)
        rig.cluster.strike(fault, after=call)
        try:
            rig.driver.reconcile_volumes()
        except Dead:
            rig.restart()
        rig.settle()
        assert rig.records.open_operations() == []
        rig.driver.reconcile_volumes()
        assert (attached(rig), rig.volumes()) == (set(), [path]), call


def test_a_running_vms_volume_that_is_not_attached_is_told(rig: Rig) -> None:
    running(rig)
    path = recorded(rig, vm_uuid="vm-1", device_id=1)
    retag(rig, path, cvm="vm-1", disk="1")
    before = len(rig.cluster.calls)
    (finding,) = rig.driver.reconcile_volumes()
    assert (finding.kind, finding.mended, "kvm-1" in finding.text) == (FindingKind.MISSING_ATTACHMENT, False, True)
    assert changes(rig, before) == []
    record(rig, volume(1, path=path, vm_uuid="vm-1", device_id=1), vm_uuid="vm-1", device_id=1, plugging=True)
    rig.time[0] += 1
    assert rig.driver.reconcile_volumes() == [], "it is being detached"
    record(rig, volume(1, path=path), vm_uuid="vm-1", device_id=1)
    assert rig.driver.reconcile_volumes() == [], "it was attached after StorPool was asked"
    rig.time[0] += 1
    assert len(rig.driver.reconcile_volumes()) == 1
    running(rig, changed_at=rig.time[0])
    assert rig.driver.reconcile_volumes() == [], "it began to run after StorPool was asked"


def test_records_of_what_storpool_does_not_have_are_told(rig: Rig) -> None:
    path = recorded(rig)
    taken = rig.driver.take_snapshot(snapshot_of(volume(1, path=path)))
    rig.records.snapshots["snap-9"] = SnapshotRecord(
        uuid="snap-9", state=SnapshotState.BACKED_UP, removed=False, pool_id=POOL.id, path=taken.path
    )
    seeded = rig.driver.copy(image(), on_pool(image()))
    rig.records.templates[5, 1] = str(seeded.path)
    name_in_detail(rig, "/dev/storpool-byid/splab.b.zz")
    rig.settle()
    assert kinds(both(rig)) == [(FindingKind.MISSING_OBJECT, False)], "of the check volume alone"
    rig.look.volume_delete(gid(path))
    rig.look.snapshot_delete(gid(taken.path))
    rig.look.snapshot_delete(gid(seeded.path))
    rig.time[0] += 1000
    findings = both(rig)
    assert kinds(findings) == [(FindingKind.MISSING_OBJECT, False)] * 4
    assert ["vol-1" in findings[0].where, "snap-9" in findings[2].where, "tmpl-5" in findings[3].where] == [True] * 3
    record(rig, volume(1, path=path), state=VolumeState.EXPUNGING)
    assert len(rig.driver.reconcile_volumes()) == 1, "it is being deleted"
    rig.records.after_inventory = lambda: rig.records.templates.clear()
    assert len(rig.driver.reconcile_snapshots()) == 1, "it was evicted during the pass"


def test_one_error_ends_neither_the_pass_nor_the_next_cluster(rig: Rig) -> None:
    paths = [recorded(rig, number) for number in (1, 2)]
    rig.records.details[2] = {"SP_API_HTTP_HOST": "down:81", "SP_AUTH_TOKEN": "9", "SP_TEMPLATE": "hdd"}
    rig.records.details[3] = {"SP_TEMPLATE": "hdd"}
    for path in paths:
        retag(rig, path, cvm="vm-9")
    rig.cluster.strike(*[Fault.NOT_SENT] * 3, after=2)
    findings = rig.driver.reconcile_volumes()
    assert sorted(kinds(findings)) == [*[(FindingKind.NOT_COMPARED, False)] * 3, (FindingKind.TAGS, True)]
    assert "9" not in "".join(finding.text for finding in findings if "pool 2" in finding.where).replace("down:81", "")
    assert rig.tags(paths[1]) == {"uuid": "vol-2", "cs": "volume"}


def test_two_clusters_that_were_given_one_token_are_both_looked_at(rig: Rig) -> None:
    rig.records.details[2] = {"SP_API_HTTP_HOST": "down:81", "SP_AUTH_TOKEN": TOKEN, "SP_TEMPLATE": "hdd"}
    (finding,) = rig.driver.reconcile_volumes()
    assert (finding.kind, finding.where, "down:81" in finding.text) == (FindingKind.NOT_COMPARED, "pool 2", True)


def spoil(rig: Rig, call: str, member: str, value: object, **of: object) -> None:
    """From now on the elements of this list that have the members `of` have one that the API does not declare."""
    serve = rig.cluster.serve

    def spoiled(request: Request, token: str = TOKEN) -> Reply:
        reply = serve(request, token)
        if not request.path.endswith(call):
            return reply
        answer = msgspec.json.decode(reply.body)
        for element in answer["data"]:
            if of.items() <= element.items():
                element[member] = value
        return Reply(reply.status, msgspec.json.encode(answer))

    rig.cluster.serve = spoiled  # type: ignore[method-assign]


def test_an_element_that_cannot_be_read_is_told_and_hides_no_other(rig: Rig) -> None:
    odd, drifted = recorded(rig, 1), recorded(rig, 2)
    retag(rig, drifted, cvm="vm-9")
    lost = lost_volume(rig)
    taken = rig.driver.take_snapshot(snapshot_of(volume(2, path=drifted)))
    rig.records.snapshots["snap-9"] = SnapshotRecord(
        uuid="snap-9", state=SnapshotState.BACKED_UP, removed=False, pool_id=POOL.id, path=taken.path
    )
    spoil(rig, "VolumesList", "size", 0, globalId=gid(odd)[1:])
    spoil(rig, "SnapshotsList", "size", "big", globalId=gid(taken.path)[1:])
    before = len(rig.cluster.calls)
    findings = rig.driver.reconcile_volumes()
    told = [(FindingKind.NOT_COMPARED, False), (FindingKind.TAGS, True), (FindingKind.ORPHAN, True)]
    assert kinds(findings) == told
    assert gid(odd)[1:] in findings[0].text and "size" in findings[0].text
    assert rig.tags(drifted) == {"uuid": "vol-2", "cs": "volume"}
    assert f"MultiCluster/Volume/{gid(odd)}" in rig.cluster.calls[before:], "it is not taken to be lost"
    assert gid(lost) in findings[2].where
    (finding,) = rig.driver.reconcile_snapshots()
    assert (finding.kind, gid(taken.path)[1:] in finding.text) == (FindingKind.NOT_COMPARED, True)


def test_an_attachment_that_cannot_be_read_makes_none_missing_and_no_orphan_unused(rig: Rig) -> None:
    running(rig)
    path = recorded(rig, vm_uuid="vm-1", device_id=1)
    retag(rig, path, cvm="vm-1", disk="1")
    lost = lost_volume(rig)
    for attachment in ((path, 1), (lost, 1), (lost, FOREIGN_CLIENT)):
        attach(rig, *attachment)
    before = attached(rig)
    of_running, of_lost = {"globalId": gid(path)[1:]}, {"globalId": gid(lost)[1:], "client": FOREIGN_CLIENT}
    for of in (of_running, of_lost):
        spoil(rig, "AttachmentsList", "rights", "some", **of)
    assert kinds(rig.driver.reconcile_volumes()) == [(FindingKind.NOT_COMPARED, False)] * 2
    del rig.cluster.serve
    assert attached(rig) == before
