"""Every invariant sees what is broken, and nothing in a cloud that is well."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from harness.checks import INVARIANTS, take, violations
from harness.observers import Cloud, DomainDisk, Environment, Guest, Host, Json, Pool, Secondary, StorPool, World

GIB = 1 << 30
VM, ROOT, DATA, TEMPLATE = (f"{n}0000000-aaaa-4aaa-8aaa-000000000000" for n in "1234")
HOST_ID = "host-id-1"


@dataclass
class FakeHost:
    name: str
    client_id: int
    sizes: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    disks: dict[str, list[DomainDisk]] = field(default_factory=dict)

    def devices(self) -> Sequence[str]:
        return sorted(self.sizes)

    def device_size(self, path: str) -> int | None:
        return self.sizes.get(path.rpartition("/")[2])

    def read_device(self, path: str, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def domains(self) -> Mapping[str, str]:
        return self.states

    def domain_disks(self, name: str) -> Sequence[DomainDisk]:
        return self.disks.get(name, [])

    def domain_xml(self, name: str) -> str:
        raise NotImplementedError

    def kill_qemu(self, name: str) -> None:
        raise NotImplementedError

    def suspend(self, name: str) -> None:
        raise NotImplementedError

    def resume(self, name: str) -> None:
        raise NotImplementedError

    @contextmanager
    def storpool_api_cut(self) -> Iterator[None]:
        yield


@dataclass
class FakeSecondary:
    files: list[str]

    def backups(self) -> list[str]:
        return self.files

    def read(self, path: str, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def size(self, path: str) -> int:
        raise NotImplementedError

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        yield


@dataclass
class FakeWorld:
    """A cloud as plain data: what every observer shows."""

    records: dict[str, list[Json]]
    """List command's object name -> items."""
    sp_volumes: list[Json]
    sp_snapshots: list[Json]
    sp_attachments: list[Json]
    machines: list[FakeHost]
    real: bool = False
    backup_files: list[str] = field(default_factory=list)

    @property
    def cloud(self) -> Cloud:
        return self

    @property
    def storpool(self) -> StorPool:
        return self

    @property
    def secondary(self) -> Secondary:
        return FakeSecondary(self.backup_files)

    @property
    def hosts(self) -> Sequence[Host]:
        return self.machines

    @property
    def environment(self) -> Environment:
        pools = (Pool("pool-1", "one", "one", "t-one"), Pool("pool-2", "two", "two", "t-two"))
        return Environment("zone", pools, "http://image", 1, "0", "offering", "os")

    def call(self, command: str, /, **parameters: str | int | bool) -> Json:
        del parameters
        key = {"listVirtualMachines": "virtualmachine", "listHosts": "host", "listVMSnapshot": "vmSnapshot"}.get(
            command, command[4:-1].lower()
        )
        found = self.records.get(key, [])
        return {"count": len(found), key: found} if found else {}

    def start(self, command: str, /, **parameters: str | int | bool) -> str:
        raise NotImplementedError

    def wait(self, job_id: str, timeout: float = 600) -> Json:
        raise NotImplementedError

    def volumes(self) -> list[Json]:
        return self.sp_volumes

    def volume(self, name: str) -> Json | None:
        raise NotImplementedError

    def lose_snapshot(self, name: str) -> None:
        raise NotImplementedError

    def snapshots(self) -> list[Json]:
        return self.sp_snapshots

    def snapshot(self, name: str) -> Json | None:
        raise NotImplementedError

    def attachments(self) -> list[Json]:
        return self.sp_attachments

    def calls(self) -> Mapping[str, int]:
        return {}

    def guest(self, vm_id: str) -> Guest:
        raise NotImplementedError

    def name(self, stem: str) -> str:
        return stem

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        del name
        yield

    def wait_until(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        raise NotImplementedError


def sp_volume(gid: str, size: int, template: str = "t-one", **tags: str) -> Json:
    return {"name": f"~{gid}", "globalId": gid, "size": size, "templateName": template, "tags": tags}


def record(volume_id: str, gid: str, slot: int) -> Json:
    return {
        "id": volume_id,
        "state": "Ready",
        "path": f"/dev/storpool-byid/{gid}",
        "size": GIB,
        "storageid": "pool-1",
        "virtualmachineid": VM,
        "deviceid": slot,
    }


def disk(volume_id: str, gid: str, target: str) -> DomainDisk:
    serial = volume_id.replace("-", "")[:20]
    return DomainDisk(f"/dev/storpool-byid/{gid}", target, serial, "raw", "unmap", "none")


@pytest.fixture
def cloud() -> FakeWorld:
    """One VM with a ROOT and a DATA disk on the first of two hosts, from a seeded template; a free volume record."""
    runs = FakeHost(
        "h1",
        1,
        {"a.b.1": GIB, "a.b.2": GIB},
        {"i-2-1-VM": "running", "i-2-8-VM": "shut off"},
        {"i-2-1-VM": [disk(ROOT, "a.b.1", "vda"), disk(DATA, "a.b.2", "vdb")]},
    )
    idle = FakeHost("h2", 2, {})
    return FakeWorld(
        records={
            "virtualmachine": [{"id": VM, "state": "Running", "hostid": HOST_ID, "instancename": "i-2-1-VM"}],
            "host": [{"id": HOST_ID, "name": "h1"}, {"id": "host-id-2", "name": "h2"}],
            "volume": [
                record(ROOT, "a.b.1", 0),
                record(DATA, "a.b.2", 1),
                {"id": "unused", "state": "Allocated", "size": GIB},
            ],
            "template": [{"id": TEMPLATE}],
        },
        sp_volumes=[
            sp_volume("a.b.1", GIB, cs="volume", uuid=ROOT, cvm=VM, disk="0"),
            sp_volume("a.b.2", GIB, cs="volume", uuid=DATA, cvm=VM, disk="1"),
            sp_volume("a.b.9", 512, cs="check-volume-is-on-host"),
        ],
        sp_snapshots=[sp_volume("a.b.5", GIB, cs="template", uuid=TEMPLATE)],
        sp_attachments=[
            {"volume": "~a.b.1", "globalId": "a.b.1", "client": 1, "rights": "rw"},
            {"volume": "~a.b.2", "client": 1, "rights": "rw"},
        ],
        machines=[runs, idle],
    )


def broken(world: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for violation in violations(take(world)):
        found.setdefault(violation.invariant, []).append(f"{violation.where}: {violation.what}")
    return found


def test_a_cloud_that_is_well_violates_nothing(cloud: FakeWorld) -> None:
    assert broken(cloud) == {}


def stuck_attaching(c: FakeWorld) -> None:
    c.records["volume"][2]["state"] = "Attaching"


def stuck_starting(c: FakeWorld) -> None:
    c.records["virtualmachine"].append({"id": "x", "state": "Starting", "instancename": "i-2-9-VM"})


def lost_volume(c: FakeWorld) -> None:
    c.sp_volumes[1] = {**c.sp_volumes[1], "globalId": "a.b.7", "name": "~a.b.7"}


def other_size(c: FakeWorld) -> None:
    c.records["volume"][1]["size"] = 2 * GIB


def other_pool(c: FakeWorld) -> None:
    c.sp_volumes[1]["templateName"] = "t-two"


def ready_without_path(c: FakeWorld) -> None:
    c.records["volume"][2] |= {"state": "Ready", "storageid": c.records["volume"][1]["storageid"]}


def leaked_volume(c: FakeWorld) -> None:
    c.sp_volumes.append(sp_volume("a.b.20", GIB, cs="template", uuid=TEMPLATE))


def leaked_untagged_volume(c: FakeWorld) -> None:
    c.sp_volumes.append(sp_volume("a.b.20", GIB))


def leaked_snapshot(c: FakeWorld) -> None:
    c.sp_snapshots.append(sp_volume("a.b.21", GIB, cs="snapshot", uuid="no such snapshot"))


def snapshot_of_gone_template(c: FakeWorld) -> None:
    c.records["template"] = []


def delayed_without_date(c: FakeWorld) -> None:
    c.sp_snapshots.append(sp_volume("a.b.21", GIB, cs="delayDelete"))


def seeded_twice(c: FakeWorld) -> None:
    c.sp_snapshots.append(sp_volume("a.b.6", GIB, cs="template", uuid=TEMPLATE))


def leaked_attachment(c: FakeWorld) -> None:
    c.sp_attachments.append({"volume": "~a.b.2", "globalId": "a.b.2", "client": 2, "rights": "rw"})
    c.machines[1].sizes["a.b.2"] = GIB


def missing_attachment(c: FakeWorld) -> None:
    del c.sp_attachments[1]
    del c.machines[0].sizes["a.b.2"]


def read_only_attachment(c: FakeWorld) -> None:
    c.sp_attachments[0]["rights"] = "ro"


def leaked_device(c: FakeWorld) -> None:
    c.machines[1].sizes["a.b.1"] = GIB


def missing_device(c: FakeWorld) -> None:
    del c.machines[0].sizes["a.b.2"]


def device_of_other_size(c: FakeWorld) -> None:
    c.machines[0].sizes["a.b.2"] = GIB + 512


def missing_domain(c: FakeWorld) -> None:
    c.machines[0].states["i-2-1-VM"] = "shut off"


def unknown_domain(c: FakeWorld) -> None:
    c.machines[1].states["i-2-1-VM"] = "running"


def missing_disk(c: FakeWorld) -> None:
    del c.machines[0].disks["i-2-1-VM"][1]


def foreign_disk(c: FakeWorld) -> None:
    c.machines[0].disks["i-2-1-VM"].append(disk("other", "a.b.3", "vdc"))


def wrong_serial(c: FakeWorld) -> None:
    disks = c.machines[0].disks["i-2-1-VM"]
    disks[1] = replace(disks[1], serial="x")


def probed_format(c: FakeWorld) -> None:
    disks = c.machines[0].disks["i-2-1-VM"]
    disks[1] = replace(disks[1], driver_type="qcow2")


def stale_cvm(c: FakeWorld) -> None:
    del c.records["volume"][1]["virtualmachineid"]
    c.sp_attachments = [a for a in c.sp_attachments if a["volume"] != "~a.b.2"]
    del c.machines[0].sizes["a.b.2"]
    del c.machines[0].disks["i-2-1-VM"][1]


def wrong_uuid(c: FakeWorld) -> None:
    c.sp_volumes[0]["tags"]["uuid"] = "~a.b.1"


def policy_not_told(c: FakeWorld) -> None:
    c.records["virtualmachine"][0]["tags"] = [{"key": "vc-policy", "value": "daily"}]


def policy_left(c: FakeWorld) -> None:
    c.records["virtualmachine"][0]["tags"] = [{"key": "vc-policy", "value": "no StorPool tag"}]
    c.sp_volumes[0]["tags"]["vc-policy"] = "daily"


def two_check_volumes(c: FakeWorld) -> None:
    c.sp_volumes.append(sp_volume("a.b.10", 512, cs="check-volume-is-on-host"))


def check_volume_left_on_a_host(c: FakeWorld) -> None:
    c.sp_attachments.append({"volume": "~a.b.9", "globalId": "a.b.9", "client": 2, "rights": "rw"})
    c.machines[1].sizes["a.b.9"] = 512


def snapshot_in_error_left_its_object(c: FakeWorld) -> None:
    c.records["snapshot"] = [{"id": "s-1", "state": "Error"}]
    c.sp_snapshots.append(sp_volume("a.b.21", GIB, cs="snapshot", uuid="s-1"))


def snapshot_still_backing_up(c: FakeWorld) -> None:
    c.records["snapshot"] = [{"id": "s-1", "state": "BackingUp", "datastoretype": "Primary"}]


def half_written_backup(c: FakeWorld) -> None:
    c.records["snapshot"] = [{"id": "s-1", "state": "BackedUp", "datastoretype": "Primary"}]
    c.backup_files.append("snapshots/s-1.try.qcow2")


def backup_of_two_tries(c: FakeWorld) -> None:
    c.records["snapshot"] = [{"id": "s-1", "state": "BackedUp", "datastoretype": "Image"}]
    c.backup_files += ["snapshots/s-1.one.qcow2", "snapshots/s-1.two.qcow2"]


def lost_backup(c: FakeWorld) -> None:
    c.records["snapshot"] = [{"id": "s-1", "state": "BackedUp", "datastoretype": "Image"}]


def vm_snapshot(c: FakeWorld, state: str, *snapshots: Json) -> None:
    c.records["vmSnapshot"] = [{"id": "vms", "state": state, "virtualmachineid": VM}]
    c.sp_snapshots += snapshots


def of_group(gid: str, taken_at: int = 5, **tags: str) -> Json:
    tags = {"cs": "group", "uuid": "vms", "cvm": VM, **tags}
    return {**sp_volume(gid, GIB, **tags), "creationTimestamp": taken_at}


def vm_snapshot_of_one_disk(c: FakeWorld) -> None:
    vm_snapshot(c, "Ready", of_group("a.b.30"))


def vm_snapshot_of_two_times(c: FakeWorld) -> None:
    vm_snapshot(c, "Ready", of_group("a.b.30"), of_group("a.b.31", 6))


def vm_snapshot_of_another_vm(c: FakeWorld) -> None:
    vm_snapshot(c, "Ready", of_group("a.b.30"), of_group("a.b.31", cvm="another"))


def leaked_group(c: FakeWorld) -> None:
    c.sp_snapshots.append(of_group("a.b.30"))


def kept_for_a_revert_that_is_over(c: FakeWorld) -> None:
    vm_snapshot(c, "Ready", of_group("a.b.30"), of_group("a.b.31"), of_group("a.b.32", cs="temporary"))


def stuck_reverting(c: FakeWorld) -> None:
    vm_snapshot(c, "Reverting", of_group("a.b.30"), of_group("a.b.31"))


STEADY, HAVE, KNOWN, SNAPSHOTS, GROUPS, BACKUPS, ONCE, ATTACHED, DEVICES, DOMAINS, DISKS, TAGS, CHECKS = (
    i.name for i in INVARIANTS
)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (stuck_attaching, {STEADY}),
        (stuck_starting, {STEADY}),
        (lost_volume, {HAVE, KNOWN, DEVICES}),
        (other_size, {HAVE}),
        (other_pool, {HAVE}),
        (ready_without_path, {HAVE}),
        (leaked_volume, {KNOWN}),
        (leaked_untagged_volume, {KNOWN}),
        (leaked_snapshot, {SNAPSHOTS}),
        (snapshot_of_gone_template, {SNAPSHOTS}),
        (delayed_without_date, {SNAPSHOTS}),
        (snapshot_in_error_left_its_object, {SNAPSHOTS}),
        (snapshot_still_backing_up, {STEADY}),
        (leaked_group, {SNAPSHOTS}),
        (kept_for_a_revert_that_is_over, {SNAPSHOTS}),
        (stuck_reverting, {STEADY}),
        (vm_snapshot_of_one_disk, {GROUPS}),
        (vm_snapshot_of_two_times, {GROUPS}),
        (vm_snapshot_of_another_vm, {GROUPS}),
        (half_written_backup, {BACKUPS}),
        (backup_of_two_tries, {BACKUPS}),
        (lost_backup, {BACKUPS}),
        (seeded_twice, {ONCE}),
        (leaked_attachment, {ATTACHED}),
        (missing_attachment, {ATTACHED}),
        (read_only_attachment, {ATTACHED}),
        (leaked_device, {DEVICES}),
        (missing_device, {DEVICES}),
        (device_of_other_size, {DEVICES}),
        (missing_domain, {DOMAINS}),
        (unknown_domain, {DOMAINS}),
        (missing_disk, {DISKS}),
        (foreign_disk, {DISKS}),
        (wrong_serial, {DISKS}),
        (probed_format, {DISKS}),
        (stale_cvm, {TAGS}),
        (wrong_uuid, {TAGS}),
        (policy_not_told, {TAGS}),
        (policy_left, {TAGS}),
        (two_check_volumes, {CHECKS}),
        (check_volume_left_on_a_host, {ATTACHED}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damage_is_found_by_its_invariant(
    cloud: FakeWorld, damage: Callable[[FakeWorld], None], expected: set[str]
) -> None:
    damage(cloud)
    assert broken(cloud).keys() == expected


def test_objects_that_were_there_before_are_not_judged(cloud: FakeWorld) -> None:
    before = copy.deepcopy(cloud)
    leaked_volume(cloud)
    cloud.sp_attachments.append({"volume": "~a.b.20", "globalId": "a.b.20", "client": 1, "rights": "rw"})
    cloud.machines[0].sizes["a.b.20"] = GIB
    assert violations(take(cloud, frozenset({"a.b.20"}))) == violations(take(before)) == []


def test_a_deleted_snapshot_is_on_its_way_out_and_no_leak(cloud: FakeWorld) -> None:
    leaked_snapshot(cloud)
    cloud.sp_snapshots[-1]["deleted"] = True
    assert broken(cloud) == {}


def test_a_vm_snapshot_of_every_disk_is_well(cloud: FakeWorld) -> None:
    vm_snapshot(cloud, "Ready", of_group("a.b.30"), of_group("a.b.31"))
    assert broken(cloud) == {}
