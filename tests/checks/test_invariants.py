"""Every invariant sees what is broken, and nothing in a cloud that is well."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
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
    cluster_id: str = ""
    known: list[str] = field(default_factory=list)
    """Devices whose passphrases libvirt knows."""

    def unlocks(self, path: str, passphrase: bytes) -> bool:
        raise NotImplementedError

    def secrets(self) -> Sequence[str]:
        return self.known

    def traces(self, text: bytes) -> Sequence[str]:
        raise NotImplementedError

    @contextmanager
    def without_encryption(self) -> Iterator[None]:
        yield

    drives: dict[str, str] = field(default_factory=dict)

    def devices(self) -> Sequence[str]:
        return sorted(self.sizes)

    def device_size(self, path: str) -> int | None:
        return self.sizes.get(path.rpartition("/")[2])

    def read_device(self, path: str, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def domains(self) -> Mapping[str, str]:
        return self.states

    def disk_capacity(self, name: str, target: str) -> int:
        raise NotImplementedError

    def domain_disks(self, name: str) -> Sequence[DomainDisk]:
        return self.disks.get(name, [])

    def cd_image(self, name: str) -> str | None:
        return self.drives.get(name)

    def domain_xml(self, name: str) -> str:
        raise NotImplementedError

    def reads_a_second(self, path: str, seconds: int) -> float:
        raise NotImplementedError

    def kill_qemu(self, name: str) -> None:
        raise NotImplementedError

    def suspend(self, name: str) -> None:
        raise NotImplementedError

    def resume(self, name: str) -> None:
        raise NotImplementedError

    def kill_agent(self) -> None:
        raise NotImplementedError

    def start_agent(self) -> None:
        raise NotImplementedError

    def power_cut(self) -> None:
        raise NotImplementedError

    def power_on(self) -> None:
        raise NotImplementedError

    def copies(self) -> Sequence[str]:
        raise NotImplementedError

    def slow_copies(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def slow_migration(self, name: str) -> None:
        raise NotImplementedError

    @contextmanager
    def libvirt_cut(self) -> Iterator[None]:
        yield

    @contextmanager
    def storpool_conf(self, **settings: str) -> Iterator[None]:
        del settings
        yield

    @contextmanager
    def devices_late(self) -> Iterator[None]:
        yield

    @contextmanager
    def storpool_api_cut(self) -> Iterator[None]:
        yield


@dataclass
class FakeSecondary:
    backup_files: list[str]
    template_files: list[str]
    volume_files: list[str] = field(default_factory=list)
    primary_url: str = "nfs://s/export/primary"

    def backups(self) -> list[str]:
        return self.backup_files

    def files(self, directory: str) -> list[str]:
        return {"template/tmpl/2": self.template_files, "primary": self.volume_files}[directory]

    def download(self, url: str, offset: int, length: int) -> bytes | None:
        raise NotImplementedError

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
    template_files: list[str] = field(default_factory=list)
    volume_files: list[str] = field(default_factory=list)

    @property
    def cloud(self) -> Cloud:
        return self

    @property
    def storpool(self) -> StorPool:
        return self

    @property
    def storpools(self) -> Sequence[StorPool]:
        return (self,)

    @property
    def secondary(self) -> Secondary:
        return FakeSecondary(self.backup_files, self.template_files, self.volume_files)

    @property
    def hosts(self) -> Sequence[Host]:
        return self.machines

    @property
    def environment(self) -> Environment:
        pools = (Pool("pool-1", "one", "one", "t-one"), Pool("pool-2", "two", "two", "t-two"))
        return Environment("zone", pools, "http://image", 1, "0", "http://iso", 1, "offering", "os", "api:81", "token")

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

    def make_template(self, name: str, like: str, *, replication: bool = True) -> None:
        raise NotImplementedError

    def remove_template(self, name: str) -> bool:
        raise NotImplementedError

    def lose_snapshot(self, name: str) -> None:
        raise NotImplementedError

    def snapshots(self) -> list[Json]:
        return self.sp_snapshots

    def snapshot(self, name: str) -> Json | None:
        raise NotImplementedError

    def attachments(self) -> list[Json]:
        return self.sp_attachments

    def update_volume(self, name: str, **changes: object) -> None:
        raise NotImplementedError

    def kept(self, bucket: str, key: str) -> str:
        raise NotImplementedError

    def keep(self, bucket: str, key: str, value: str) -> None:
        raise NotImplementedError

    def refusing(self, call: str, name: str, *, for_good: bool = False) -> AbstractContextManager[None]:
        raise NotImplementedError

    def calls(self) -> Mapping[str, int]:
        return {}

    def guest(self, vm_id: str) -> Guest:
        raise NotImplementedError

    def kill_management(self) -> None:
        raise NotImplementedError

    def start_management(self) -> None:
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
            "template": [{"id": TEMPLATE, "isready": True}],
        },
        sp_volumes=[
            sp_volume("a.b.1", GIB, cs="volume", uuid=ROOT, cvm=VM, disk="0"),
            sp_volume("a.b.2", GIB, cs="volume", uuid=DATA, cvm=VM, disk="1"),
            sp_volume("a.b.9", 512, cs="check-volume-is-on-host"),
        ],
        sp_snapshots=[
            sp_volume("a.b.5", GIB, cs="template", uuid=TEMPLATE),
            sp_volume("a.b.7", GIB, **{"cs": "template", "uuid": TEMPLATE, "vc-policy": "no"}),
        ],
        template_files=[f"template/tmpl/2/1/{TEMPLATE}.qcow2"],
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


def test_a_volume_may_be_on_the_storpool_template_of_an_offering(cloud: FakeWorld) -> None:
    other_pool(cloud)
    assert [*broken(cloud)] == [HAVE]
    cloud.records["diskoffering"] = [{"id": "offering"}]
    cloud.records["resourcedetail"] = [{"key": "SP_TEMPLATE", "value": "t-two"}]
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


def on_nfs(c: FakeWorld) -> None:
    """The VM's DATA disk is a file."""
    c.records["volume"][1] |= {"path": "file-2", "storageid": "nfs"}
    c.sp_volumes = [v for v in c.sp_volumes if v["globalId"] != "a.b.2"]
    c.sp_attachments = c.sp_attachments[:1]
    host = c.machines[0]
    del host.sizes["a.b.2"]
    source = "nfs://s/export/primary/file-2"
    host.disks["i-2-1-VM"][1] = DomainDisk(source, "vdb", DATA.replace("-", "")[:20], "qcow2", "unmap", "none")
    c.volume_files = ["primary/file-2"]


def leaked_file(c: FakeWorld) -> None:
    on_nfs(c)
    c.volume_files.append("primary/file-3")


def lost_file(c: FakeWorld) -> None:
    on_nfs(c)
    c.volume_files.clear()


def file_read_as_raw(c: FakeWorld) -> None:
    on_nfs(c)
    wrong = c.machines[0].disks["i-2-1-VM"]
    wrong[1] = replace(wrong[1], driver_type="raw")


def given_in_the_clear(c: FakeWorld) -> None:
    """An encrypted volume without room for its header, whose device a guest has as it is."""
    next(v for v in c.records["volume"] if "virtualmachineid" in v)["encryptformat"] = "LUKS"


def passphrase_left(c: FakeWorld) -> None:
    c.machines[0].known.append("/dev/storpool-byid/a.b.1")


def made_twice(c: FakeWorld) -> None:
    c.sp_snapshots.append(sp_volume("a.b.8", GIB, **{"cs": "template", "uuid": TEMPLATE, "vc-policy": "no"}))


def removed(c: FakeWorld) -> None:
    """The template is removed, and its file; what it was made as stays."""
    c.records["template"] = [{"id": TEMPLATE, "isready": False, "removed": "2026-11-30T00:00:00+0000"}]
    c.template_files.clear()


def half_written_template(c: FakeWorld) -> None:
    c.template_files.append("template/tmpl/2/other.try.qcow2")


def template_of_two_tries(c: FakeWorld) -> None:
    c.template_files.append(f"template/tmpl/2/{TEMPLATE}.try.qcow2")


def template_without_file(c: FakeWorld) -> None:
    c.template_files.clear()


def iso_not_ejected(c: FakeWorld) -> None:
    c.machines[0].drives["i-2-1-VM"] = "iso-1.iso"


def iso_not_in_drive(c: FakeWorld) -> None:
    c.records["virtualmachine"][0]["isoid"] = "iso-1"


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


(
    STEADY,
    HAVE,
    KNOWN,
    SNAPSHOTS,
    GROUPS,
    BACKUPS,
    FILES,
    VOLUME_FILES,
    ONCE,
    ATTACHED,
    DEVICES,
    DOMAINS,
    DISKS,
    DRIVES,
    TAGS,
    CHECKS,
    SECRETS,
    COPIES,
) = (i.name for i in INVARIANTS)


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
        (snapshot_of_gone_template, {SNAPSHOTS, FILES}),
        (removed, {SNAPSHOTS}),
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
        (half_written_template, {FILES}),
        (template_of_two_tries, {FILES}),
        (template_without_file, {FILES}),
        (on_nfs, set()),
        (leaked_file, {VOLUME_FILES}),
        (lost_file, {VOLUME_FILES}),
        (file_read_as_raw, {DISKS}),
        (seeded_twice, {ONCE}),
        (made_twice, {ONCE}),
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
        (iso_not_ejected, {DRIVES}),
        (iso_not_in_drive, {DRIVES}),
        (stale_cvm, {TAGS}),
        (wrong_uuid, {TAGS}),
        (policy_not_told, {TAGS}),
        (policy_left, {TAGS}),
        (given_in_the_clear, {HAVE, DISKS}),
        (passphrase_left, {SECRETS}),
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


def two_clusters(c: FakeWorld) -> None:
    """Both hosts are client 1, of a cluster each."""
    for machine, cluster in zip(c.machines, ("a.b", "a.bc"), strict=True):
        machine.client_id, machine.cluster_id = 1, cluster
    for attachment in c.sp_attachments:
        attachment["clusterId"] = "a.b"


def test_clients_of_one_number_in_two_clusters_are_told_apart(cloud: FakeWorld) -> None:
    two_clusters(cloud)
    assert broken(cloud) == {}
    cloud.sp_attachments[0]["clusterId"] = "a.bc"
    found = broken(cloud)
    assert any("~a.b.1 at client 1 of cluster a.bc" in text for text in found[ATTACHED]), found
    assert any("~a.b.1 at client 1 of cluster a.b:" in text for text in found[ATTACHED]), found


def test_copies_of_a_snapshot_are_in_the_zones_that_cloudstack_names(cloud: FakeWorld) -> None:
    def copies(recorded: dict[tuple[str, str], str], seen: set[tuple[str, str]]) -> list[str]:
        uuid = "snapshot-1"
        picture = dataclasses.replace(
            take(cloud),
            snapshot_records={uuid: {"id": uuid, "state": "BackedUp"}},
            copies_recorded={(zone, uuid): state for (zone, _), state in recorded.items()},
            copies=frozenset((zone, uuid) for zone, _ in seen),
        )
        return [found.what for found in violations(picture) if found.invariant == COPIES]

    near, far = ("near", "s"), ("far", "s")
    assert copies({near: "Ready", far: "Ready"}, {near, far}) == []
    assert copies({near: "Ready", far: "Destroying"}, {near}) == []
    assert copies({near: "Ready"}, {near, far}) == ["is on StorPool of zone far, where CloudStack has none"]
    assert copies({near: "Ready", far: "Ready"}, {near}) == ["is not on StorPool of zone far, where CloudStack has it"]


def test_a_deleted_snapshot_is_on_its_way_out_and_no_leak(cloud: FakeWorld) -> None:
    leaked_snapshot(cloud)
    cloud.sp_snapshots[-1]["deleted"] = True
    assert broken(cloud) == {}


def test_a_copy_of_a_removed_template_waits_for_the_collector(cloud: FakeWorld) -> None:
    removed(cloud)
    cloud.sp_snapshots = [item for item in cloud.sp_snapshots if "vc-policy" not in item["tags"]]
    assert broken(cloud) == {}


def test_a_vm_snapshot_of_every_disk_is_well(cloud: FakeWorld) -> None:
    vm_snapshot(cloud, "Ready", of_group("a.b.30"), of_group("a.b.31"))
    assert broken(cloud) == {}
