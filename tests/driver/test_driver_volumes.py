"""Rows 2, 3, 7 and 8: volumes and templates on StorPool, as StorPool shows them afterwards."""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import MIB, POOL, Fault, Rig, image, on_pool, snapshot_of, volume

from harness.spi.commands import Answer, AnyCommand, StorPoolDownloadTemplateCommand
from harness.spi.errors import Conflict, Error, ErrorClass, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import StoreRole, TemplateObject, VolumeObject
from harness.storpool import Request, VolumeCreateDesc, VolumeReassignDesc, VolumeUpdateDesc


@pytest.fixture
def rig() -> Rig:
    return Rig()


def seeded(rig: Rig, number: int = 5) -> TemplateObject:
    made = rig.driver.copy(image(number), on_pool(image(number)))
    assert isinstance(made, TemplateObject)
    return made


def cloned(rig: Rig, template: TemplateObject, of: VolumeObject) -> VolumeObject:
    made = rig.driver.copy(template, of)
    assert isinstance(made, VolumeObject)
    return made


def attach(rig: Rig, path: str | None, client: int = 1) -> None:
    assert path is not None
    rig.look.volumes_reassign_wait([VolumeReassignDesc(volume="~" + path.rpartition("/")[2], rw=(client,))])


def test_a_data_volume_has_size_template_limits_and_tags_and_no_name(rig: Rig) -> None:
    rig.records.offerings[3] = {"SP_QOSCLASS": "gold", "SP_TEMPLATE": "ssd"}
    rig.records.vm_tags["vm-1", "vc-policy"] = "daily"

    made = rig.driver.create(volume(size=4 * MIB, vm_uuid="vm-1", device_id=2, max_iops=500, disk_offering_id=3))

    assert made.path is not None
    rig.settle()
    shown = rig.look.volume("~" + made.path.rpartition("/")[2])
    assert rig.volumes() == [made.path]
    assert (shown.name, shown.size) == (f"~{shown.global_id}", made.size)
    assert (shown.template_name, shown.iops) == ("hdd", "-")  # SP_QOSCLASS wins over SP_TEMPLATE and max IOPS
    assert shown.tags == {
        "uuid": "vol-1", "cs": "volume", "cvm": "vm-1", "disk": "2", "vc-policy": "daily", "qc": "gold",
    }  # fmt: skip
    assert rig.unfinished() == []


def test_an_offering_may_place_a_volume_by_its_own_template(rig: Rig) -> None:
    rig.records.offerings[3] = {"SP_TEMPLATE": "ssd"}
    rig.driver.create(volume(disk_offering_id=3))
    assert [v.template_name for v in rig.look.volumes_list()] == ["ssd"]


@pytest.mark.parametrize(("max_iops", "iops"), [(None, 250), (700, 700)])
def test_a_clone_has_no_limit_of_the_volume_that_its_snapshot_is_of(rig: Rig, max_iops: int | None, iops: int) -> None:
    source = rig.driver.create(volume())
    rig.look.volume_update("~" + str(source.path).rpartition("/")[2], VolumeUpdateDesc(iops=900, bw=50))
    snapshot = rig.driver.take_snapshot(snapshot_of(source))
    rig.cluster.serve(Request("POST", "VolumeTemplateUpdate/hdd", b'{"iops": 250}', 1))
    made = rig.driver.copy(snapshot, volume(2, max_iops=max_iops))
    assert isinstance(made, VolumeObject)
    found = rig.look.volume("~" + str(made.path).rpartition("/")[2])
    assert (found.iops, found.bw) == (iops, "-")


def test_a_size_between_sectors_is_rounded_up_and_no_size_is_refused(rig: Rig) -> None:
    assert rig.driver.create(volume(size=513)).size == 1024
    with pytest.raises(InvalidParameter):
        rig.driver.create(volume(2, size=0))


def test_a_definite_refusal_leaves_nothing_open(rig: Rig) -> None:
    rig.records.offerings[3] = {"SP_TEMPLATE": "nowhere"}
    with pytest.raises(InvalidParameter, match="no template nowhere"):
        rig.driver.create(volume(disk_offering_id=3))
    assert (rig.volumes(), rig.unfinished()) == ([], [])


def test_seeding_makes_one_snapshot_with_the_images_bytes_and_nothing_else(rig: Rig) -> None:
    made = seeded(rig)

    assert rig.snapshots() == [made.path]
    assert rig.volumes() == []
    assert made.size == 8 * MIB
    assert made.path is not None
    assert rig.look.snapshot("~" + made.path.rpartition("/")[2]).tags == {"uuid": "tmpl-5", "cs": "template"}
    one = cloned(rig, made, volume(1, size=4 * MIB, template_id=5))
    assert one.path is not None
    assert rig.read(one.path, 7) == b"guest-5"


def test_a_clone_copies_nothing_takes_limits_and_is_never_smaller_than_the_template(rig: Rig) -> None:
    template = seeded(rig)
    commands = len(rig.agent.commands)

    small = cloned(rig, template, volume(1, size=4 * MIB, max_iops=700))
    large = cloned(rig, template, volume(2, size=16 * MIB))

    assert (small.size, large.size) == (8 * MIB, 16 * MIB)
    shown = {f"/dev/storpool-byid/{v.global_id}": v for v in rig.look.volumes_list()}
    assert {p: v.size for p, v in shown.items()} == {small.path: 8 * MIB, large.path: 16 * MIB}
    assert shown[str(small.path)].iops == 700
    assert len({v.parent_name for v in shown.values()}) == 1
    assert len(rig.agent.commands) == commands


def test_a_clone_of_a_snapshot_has_its_bytes(rig: Rig) -> None:
    source = cloned(rig, seeded(rig), volume(1))
    taken = rig.driver.take_snapshot(snapshot_of(source))
    assert taken.path in rig.snapshots()

    made = rig.driver.copy(taken, volume(2, size=MIB))

    assert made.path is not None and made.path != source.path
    assert rig.read(made.path, 7) == b"guest-5"
    assert made.size == source.size


def test_a_template_that_storpool_lost_says_that_it_must_be_copied_again(rig: Rig) -> None:
    template = seeded(rig)
    assert template.path is not None
    rig.look.snapshot_delete("~" + template.path.rpartition("/")[2])
    with pytest.raises(NotFound, match="again"):
        cloned(rig, template, volume(1))
    assert (rig.volumes(), rig.unfinished()) == ([], [])

    again = cloned(rig, seeded(rig), volume(1))
    assert rig.volumes() == [again.path]


def test_a_template_without_a_path_is_found_in_the_cache_records(rig: Rig) -> None:
    template = seeded(rig)
    assert template.path is not None
    rig.records.templates[5, 1] = template.path
    assert cloned(rig, on_pool(image(5)), volume(1)).size == template.size


def test_which_copies_the_driver_makes(rig: Rig) -> None:
    other = msgspec.structs.replace(POOL, id=77)
    nfs = msgspec.structs.replace(POOL, provider="NFS")
    assert rig.driver.can_copy(image(), on_pool(image()))
    assert rig.driver.can_copy(on_pool(image()), volume())
    assert rig.driver.can_copy(snapshot_of(volume()), volume(2))
    assert not rig.driver.can_copy(image(), volume())
    assert not rig.driver.can_copy(on_pool(image()), volume(store=other))
    assert not rig.driver.can_copy(image(), msgspec.structs.replace(on_pool(image()), store=nfs))
    assert not rig.driver.can_copy(volume(), volume(2))
    with pytest.raises(InvalidParameter):
        rig.driver.copy(volume(), volume(2))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(ErrorClass.TRANSIENT, Unavailable), (ErrorClass.CONFLICT, Conflict), (ErrorClass.PERMANENT, Error)],
)
def test_a_copy_that_failed_on_the_host_leaves_nothing_and_can_be_tried_again(
    rig: Rig, kind: ErrorClass, expected: type[Error]
) -> None:
    def fail(command: AnyCommand) -> Answer:
        del command
        return Answer(result=False, details="qemu-img: no such file", error_class=kind)

    rig.agent.answer = fail
    with pytest.raises(expected, match="qemu-img: no such file"):
        seeded(rig)
    assert (rig.volumes(), rig.snapshots(), rig.unfinished()) == ([], [], [])

    rig.agent.answer = None
    assert seeded(rig).path in rig.snapshots()


def test_an_agent_that_was_not_reached_leaves_nothing(rig: Rig) -> None:
    rig.agent.faults = [Fault.NOT_SENT]
    with pytest.raises(Unavailable):
        seeded(rig)
    assert (rig.volumes(), rig.snapshots(), rig.unfinished()) == ([], [], [])


def test_a_copy_of_unknown_outcome_keeps_its_volume_until_nobody_uses_it(rig: Rig) -> None:
    rig.agent.faults = [Fault.ANSWER_LOST]
    with pytest.raises(Unknown):
        seeded(rig)
    (doubtful,) = rig.volumes()
    attach(rig, doubtful)  # qemu-img goes on

    made = seeded(rig)

    assert rig.snapshots() == [made.path]
    assert rig.volumes() == [doubtful], "the volume that a host may be writing was taken away"
    destinations = [c.destination.path for c in rig.agent.commands if isinstance(c, StorPoolDownloadTemplateCommand)]
    assert destinations[0] == doubtful != destinations[1]
    assert "in use by StorPool client 1" in " ".join(rig.driver.recover())
    assert rig.volumes() == [doubtful]
    rig.look.volumes_reassign_wait([VolumeReassignDesc(volume="~" + doubtful.rpartition("/")[2], detach=(1,))])
    rig.driver.recover()
    assert (rig.volumes(), rig.unfinished()) == ([], [])


def test_a_temporary_volume_that_stays_does_not_replace_the_result(rig: Rig) -> None:
    def hold(command: AnyCommand) -> Answer:
        done = rig.agent.carry_out(command)
        attach(rig, rig.volumes()[0])
        return done

    rig.agent.answer = hold
    made = seeded(rig)
    assert made.path in rig.snapshots()
    rig.settle()
    assert (rig.volumes(), rig.unfinished()) == ([], [])


def test_delete_takes_an_unused_attachment_away_and_is_done_when_the_volume_is_gone(rig: Rig) -> None:
    made = rig.driver.create(volume())
    attach(rig, made.path)
    rig.driver.delete(made)
    assert rig.volumes() == []
    rig.driver.delete(made)
    rig.driver.delete(volume(7))
    assert rig.unfinished() == []


def test_delete_of_a_volume_in_use_names_the_client_and_changes_nothing(rig: Rig) -> None:
    made = rig.driver.create(volume())
    attach(rig, made.path)
    assert made.path is not None
    rig.blocks_of(made.path, rig.cluster.blocks.open)

    with pytest.raises(Conflict, match="client 1"):
        rig.driver.delete(made)

    assert rig.volumes() == [made.path]
    assert len(rig.look.attachments("~" + made.path.rpartition("/")[2])) == 1
    assert rig.unfinished() == []


def test_deleted_volumes_leave_a_snapshot_that_expires_when_the_pool_says_so(rig: Rig) -> None:
    rig.records.settings["storpool.delete.after.interval"] = "300"
    made = rig.driver.create(volume())
    rig.driver.delete(made)
    (kept,) = (s for s in rig.look.snapshots_list() if not s.deleted)
    assert rig.volumes() == []
    assert kept.tags == {"cs": "delayDelete"}
    assert kept.target_delete_date == pytest.approx(rig.time[0] + 300, abs=5)
    rig.driver.delete(made)
    assert len(rig.snapshots()) == 1


def test_without_its_backup_a_volume_is_not_deleted(rig: Rig) -> None:
    rig.records.settings["storpool.delete.after.interval"] = "300"
    made = rig.driver.create(volume())
    rig.cluster.calls.clear()
    rig.cluster.faults = dict.fromkeys(range(2, 5), Fault.NOT_SENT)  # look, let go, VolumeSnapshot
    with pytest.raises(Unavailable):
        rig.driver.delete(made)
    assert rig.cluster.calls[2].startswith("MultiCluster/VolumeSnapshot")
    assert (rig.volumes(), rig.snapshots(), rig.unfinished()) == ([made.path], [], [])


def test_deleting_a_volume_that_was_never_finished_undoes_its_creation(rig: Rig) -> None:
    rig.cluster.faults = dict.fromkeys(range(12), Fault.ANSWER_LOST)
    with pytest.raises(Unknown):
        rig.driver.create(volume())
    assert len(rig.volumes()) == 1
    rig.cluster.faults.clear()
    rig.driver.delete(volume())
    rig.settle()
    assert (rig.volumes(), rig.unfinished()) == ([], [])


def test_a_cached_template_and_a_snapshot_can_be_deleted_twice(rig: Rig) -> None:
    template = seeded(rig)
    made = cloned(rig, template, volume(1))
    taken = rig.driver.take_snapshot(snapshot_of(made))
    for _ in range(2):
        rig.driver.delete(template)
        rig.driver.delete(taken)
    assert rig.snapshots() == []
    assert made.path is not None and rig.read(made.path, 7) == b"guest-5"


def test_attach_and_detach_change_their_tags_and_no_others(rig: Rig) -> None:
    rig.records.offerings.update({3: {"SP_QOSCLASS": "gold"}, 4: {}})
    rig.records.vm_tags["vm-1", "vc-policy"] = "daily"
    made = rig.driver.create(volume(disk_offering_id=3))
    base = {"uuid": "vol-1", "cs": "volume"}
    before = rig.look.volumes_list()[0].template_name

    attached = msgspec.structs.replace(made, vm_uuid="vm-1", device_id=1)
    rig.driver.provide_vm_info("vm-1", attached)
    assert rig.tags(made.path) == {**base, "cvm": "vm-1", "disk": "1", "vc-policy": "daily", "qc": "gold"}

    rig.records.vm_tags.clear()
    rig.driver.provide_vm_tags("vm-1", attached, "vc-policy")
    rig.driver.provide_vm_tags("vm-1", attached, "other")
    assert "vc-policy" not in rig.tags(made.path)

    rig.driver.revoke_access(made)
    assert rig.tags(made.path) == {**base, "qc": "gold"}

    rig.driver.provide_vm_info("vm-2", msgspec.structs.replace(attached, disk_offering_id=4))
    assert rig.tags(made.path) == {**base, "cvm": "vm-2", "disk": "1"}
    assert rig.look.volumes_list()[0].template_name == before


def test_tags_of_a_volume_that_is_gone(rig: Rig) -> None:
    made = rig.driver.create(volume())
    rig.driver.delete(made)
    with pytest.raises(NotFound):
        rig.driver.provide_vm_info("vm-1", made)
    rig.driver.revoke_access(made)
    rig.driver.provide_vm_tags("vm-1", volume(3), "vc-policy")
    assert rig.unfinished() == []


def test_a_late_attach_update_does_not_outlive_the_detach(rig: Rig) -> None:
    made = rig.driver.create(volume())
    attached = msgspec.structs.replace(made, vm_uuid="vm-1", device_id=1)
    rig.cluster.faults = {len(rig.cluster.calls): Fault.REQUEST_LATE}
    rig.driver.provide_vm_info("vm-1", attached)
    rig.driver.revoke_access(made)
    assert rig.cluster.late
    rig.settle()
    assert rig.tags(made.path) == {"uuid": "vol-1", "cs": "volume"}
    assert rig.unfinished() == []


def test_objects_of_other_providers_are_refused(rig: Rig) -> None:
    with pytest.raises(InvalidParameter, match="not on a StorPool pool"):
        rig.driver.create(volume(store=None))
    with pytest.raises(InvalidParameter):
        rig.driver.create(volume(store=msgspec.structs.replace(POOL, role=StoreRole.IMAGE)))


@pytest.mark.parametrize("path", ["db", "/dev/storpool-byid/", "/dev/storpool-byid/../x", "/mnt/nfs/db"])
def test_a_path_that_is_not_storpools_is_refused_not_taken_for_a_name_or_for_gone(rig: Rig, path: str) -> None:
    rig.look.volume_create(VolumeCreateDesc(name="db", size=MIB, template="hdd"))
    with pytest.raises(InvalidParameter, match="not a path of a StorPool object"):
        rig.driver.delete(volume(path=path))
    assert len(rig.volumes()) == 1 and rig.records.operations == {}
    rig.driver.delete(volume(path="/dev/storpool/db"))
    assert rig.volumes() == []


@pytest.mark.parametrize("value", ["every day", "x" * 200, 'a"b'])
def test_a_policy_that_storpool_cannot_hold_keeps_no_volume_from_its_vm(rig: Rig, value: str) -> None:
    rig.records.vm_tags["vm-1", "vc-policy"] = value
    made = rig.driver.create(volume(vm_uuid="vm-1"))
    assert rig.tags(made.path) == {"uuid": "vol-1", "cs": "volume", "cvm": "vm-1"}
    other = rig.driver.create(volume(2))
    rig.driver.provide_vm_info("vm-1", msgspec.structs.replace(other, device_id=4))
    assert rig.tags(other.path) == {"uuid": "vol-2", "cs": "volume", "cvm": "vm-1", "disk": "4"}
    with pytest.raises(InvalidParameter, match="tag vc-policy"):
        rig.driver.provide_vm_tags("vm-1", other, "vc-policy")
