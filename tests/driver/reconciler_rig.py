"""A rig with records of volumes, VMs and hosts, and hands that make them and StorPool disagree."""

from __future__ import annotations

import msgspec
from driver_rig import POOL, Rig, volume

from harness.spi.driver import OperationRecord
from harness.spi.inventory import Finding, FindingKind, HostRecord, VmRecord, VolumeRecord
from harness.spi.objects import VolumeObject, device_path
from harness.spi.states import VmState, VolumeState
from harness.storpool import VolumeReassignDesc, VolumeUpdateDesc

DAY = 86400.0
FOREIGN_CLIENT = 3


def prepared() -> Rig:
    rig = Rig()
    rig.records.settings |= {"storpool.orphans.grace": "86400", "storpool.operations.retention": "604800"}
    rig.records.hosts = [HostRecord(id=10 + n, name=f"kvm-{n}", up=True, storpool_client_id=n) for n in (1, 2)]
    return rig


def gid(path: str | None) -> str:
    assert path is not None
    return "~" + path.rpartition("/")[2]


def record(rig: Rig, made: VolumeObject, **changes: object) -> VolumeRecord:
    """CloudStack has recorded the volume: Ready, attached to nothing."""
    kept = VolumeRecord(
        uuid=made.uuid,
        state=VolumeState.READY,
        removed=False,
        pool_id=POOL.id,
        path=made.path,
        vm_uuid=None,
        device_id=None,
        disk_offering_id=None,
        max_iops=made.max_iops,
        plugging=False,
        changed_at=rig.time[0],
    )
    rig.records.volumes[made.uuid] = msgspec.structs.replace(kept, **changes)
    return rig.records.volumes[made.uuid]


def recorded(rig: Rig, number: int = 1, /, **changes: object) -> str:
    """Path of a volume that is made, recorded, and older than the grace time."""
    made = rig.driver.create(volume(number))
    record(rig, made, **changes)
    rig.settle()
    rig.time[0] += 2 * DAY
    assert made.path is not None
    return made.path


def running(rig: Rig, host: int | None = 1, state: VmState = VmState.RUNNING, **changes: object) -> VmRecord:
    vm = VmRecord(
        uuid="vm-1",
        state=state,
        host_id=None if host is None else 10 + host,
        unconfirmed_hosts=frozenset(),
        changed_at=rig.time[0],
    )
    rig.records.vms["vm-1"] = msgspec.structs.replace(vm, **changes)
    return rig.records.vms["vm-1"]


def lost_volume(rig: Rig, number: int = 7) -> str:
    """A volume of ours that its record, which is there, does not name; older than the grace time."""
    made = rig.driver.create(volume(number))
    record(rig, made, path=None, state=VolumeState.ALLOCATED)
    # As an older driver left it: its operation ended although nothing was recorded.
    for operation in rig.records.open_operations():
        rig.records.end_operation(operation.id, "done")
    rig.time[0] += 2 * DAY
    assert made.path is not None
    return made.path


def attach(rig: Rig, path: str, client: int = 1) -> None:
    rig.look.volumes_reassign_wait([VolumeReassignDesc(volume=gid(path), rw=(client,))])


def attached(rig: Rig) -> set[tuple[str, int]]:
    return {(device_path(str(at.global_id)), at.client) for at in rig.look.attachments_list()}


def changes(rig: Rig, since: int) -> list[str]:
    """Calls after the first `since` ones that are not only looks."""
    looks = ("Volume/", "Snapshot/", "VolumesList", "SnapshotsList", "AttachmentsList")
    return [call for call in rig.cluster.calls[since:] if not call.removeprefix("MultiCluster/").startswith(looks)]


def both(rig: Rig) -> list[Finding]:
    return rig.driver.reconcile_volumes() + rig.driver.reconcile_snapshots()


def kinds(findings: list[Finding]) -> list[tuple[FindingKind, bool]]:
    return [(finding.kind, finding.mended) for finding in findings]


def retag(rig: Rig, path: str, **tags: str) -> None:
    rig.look.volume_update(gid(path), VolumeUpdateDesc(tags=tags))


def hold_open(rig: Rig, path: str) -> None:
    attach(rig, path)
    rig.blocks_of(path, lambda key: rig.cluster.blocks.open(key, 1))


def name_in_detail(rig: Rig, path: str) -> None:
    rig.records.details[1]["SP_VOLUME_ON_CLUSTER-1"] = path


def work_on(rig: Rig, data: dict[str, str], subject: str = "s") -> None:
    rig.records.begin_operation(
        OperationRecord(id="x", kind="later", subject=subject, step="a", data={"pool": "1", **data}, created_at=0.0)
    )


def take_host_down(rig: Rig, path: str) -> None:
    attach(rig, path)
    rig.records.hosts = [msgspec.structs.replace(host, up=False) for host in rig.records.hosts]
