"""Configuration keys: their defaults, scopes and what they mean (spec/cloudstack-plugin.md section 8).

Some are listed and take no value, because here they mean nothing: `Setting.refused`.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.cloudstack.records.inventory import CLUSTER_ID, NOT_SET
from harness.cloudstack.records.rows import Configuration
from harness.cloudstack.records.store import Transaction
from harness.spi.errors import NotFound

BYPASS = "sp.bypass.secondary.storage"
BACKUP = "snapshot.backup.to.secondary"
VOLUME_CHECKUP = "storpool.volume.tags.checkup"
SNAPSHOT_CHECKUP = "storpool.snapshot.tags.checkup"
POOL_STATS = "storpool.storage.stats.interval"
VOLUME_STATS = "storpool.volumes.stats.interval"
WAIT_DETACH_DEVICE = "wait.detach.device"
PING_INTERVAL = "ping.interval"
PING_TIMEOUT = "ping.timeout"


@dataclass(frozen=True, slots=True)
class Setting:
    """`scope` is the narrowest scope that may hold a value: Global, Zone, Cluster or StoragePool."""

    name: str
    default: str | None
    description: str
    scope: str = "Global"
    dynamic: bool = True
    category: str = "Storage"
    kind: str = "String"
    above_zero: bool = False
    """A number that cannot be 0."""
    refused: str | None = None
    """Why nobody may give it a value here: it would change nothing."""


_ALL = (
    Setting(BYPASS, "false", "Keep snapshots on primary storage only", kind="Boolean"),
    Setting(BACKUP, "true", "Back snapshots up to secondary storage", kind="Boolean", category="Snapshots"),
    Setting(CLUSTER_ID, NOT_SET, "StorPool cluster id of the hosts of this cluster", "Cluster"),
    Setting("sp.enable.alternative.endpoint", "false", "Use sp.alternative.endpoint", "StoragePool", kind="Boolean"),
    Setting("sp.alternative.endpoint", "", "Endpoint for disaster recovery", "StoragePool"),
    Setting("sp.cluster.location", None, "StorPool location name of the pool", "StoragePool"),
    Setting("sp.cluster.endpoint", None, "StorPool endpoint of this cluster, for exports", "Cluster"),
    Setting("use.storage.replication", "false", "The pool may receive copied snapshots", "StoragePool", kind="Boolean"),
    Setting(VOLUME_STATS, "3600", "Seconds between volume statistics; 0 is off", dynamic=False),
    Setting(POOL_STATS, "3600", "Seconds between pool statistics; 0 is off", dynamic=False),
    Setting("storpool.delete.after.interval", "0", "Seconds a deleted volume leaves a snapshot", "StoragePool"),
    Setting(
        "storpool.list.snapshots.delete.after.interval",
        "360",
        "Seconds between expiry syncs",
        dynamic=False,
        refused="no record is kept of what a deleted volume leaves, and StorPool removes that by itself",
    ),
    Setting(VOLUME_CHECKUP, "86400", "Seconds between comparing volumes with StorPool; 0 is off", dynamic=False),
    Setting(SNAPSHOT_CHECKUP, "86400", "Seconds between comparing snapshots with StorPool; 0 is off", dynamic=False),
    Setting("storpool.orphans.grace", "86400", "Age in seconds of objects to remove if unknown; 0 only reports them"),
    Setting("storpool.operations.retention", "604800", "Seconds to keep ended operation records; 0 is for ever"),
    Setting("storpool.snapshot.recovery.from.remote.check", "300", "Seconds between checks; 0 is off", dynamic=False),
    Setting("primary.storage.download.wait", "10800", "Seconds to wait for a download to primary storage"),
    Setting("backup.snapshot.wait", "21600", "Seconds to wait for a snapshot backup", category="Snapshots"),
    Setting("copy.volume.wait", "10800", "Seconds to wait for a volume copy"),
    Setting(
        "kvm.storage.online.migration.wait",
        "86400",
        "Seconds to wait for a live storage migration",
        refused="StorPool migrates the volumes of a running VM, with no copy to wait for; migratewait is for the VM",
    ),
    Setting("migratewait", "3600", "Seconds to wait for a VM to be migrated", category="Advanced"),
    Setting("kvm.auto.convergence", "false", "Slow a guest down so that its migration ends", kind="Boolean"),
    Setting("storage.pool.max.waitseconds", "3600", "Seconds to wait for a template's lock on a pool"),
    Setting("backup.retry", "3", "Tries of a snapshot backup", dynamic=False, category="Snapshots"),
    Setting("backup.retry.interval", "300", "Seconds between tries of a backup", dynamic=False, category="Snapshots"),
    Setting("storage.cleanup.enabled", "true", "Run the storage cleanup task", kind="Boolean"),
    Setting("storage.cleanup.interval", "86400", "Seconds between storage cleanups", dynamic=False),
    Setting("storage.cleanup.delay", "86400", "Seconds before a destroyed volume is expunged"),
    Setting("expunge.delay", "86400", "Seconds before a destroyed VM is expunged", category="Advanced"),
    Setting("storage.template.cleanup.enabled", "true", "Evict unused templates from primary storage", kind="Boolean"),
    Setting("template.delete.from.primary.storage", "true", "Evict a template when it is deleted", kind="Boolean"),
    Setting("extract.url.expiration.interval", "14400", "Seconds that a download URL holds"),
    Setting(WAIT_DETACH_DEVICE, "10000", "Milliseconds to wait for a device to leave a running guest", above_zero=True),
    Setting(
        "execute.in.sequence.hypervisor.commands",
        "false",
        "One command at a time on a host",
        kind="Boolean",
        refused="an agent orders the commands for one VM or volume, and those for others never wait for them",
    ),
    Setting("pool.storage.allocated.capacity.disablethreshold", "0.85", "Allocated share that fills a pool", "Zone"),
    Setting("storage.max.volume.size", "2000", "Largest volume in GB"),
    Setting(
        PING_INTERVAL,
        "60",
        "Seconds between pings of an agent",
        dynamic=False,
        category="Advanced",
        refused="it is ping_interval in the management server's configuration file, which is read when it starts",
    ),
    Setting(
        PING_TIMEOUT, "2.5", "Ping intervals without an answer after which a host is Down", "Zone", above_zero=True
    ),
    Setting("wait", "1800", "Seconds to wait for control commands to return", category="Advanced"),
    Setting("vmsnapshot.max", "10", "Most snapshots that a VM may have", category="Advanced"),
    Setting("vm.destroy.forcestop", "false", "Power VMs off instead of asking them when destroyed", kind="Boolean"),
)
SETTINGS = {setting.name: setting for setting in _ALL}


def value(
    tx: Transaction, name: str, *, zone_id: int | None = None, cluster_id: int | None = None, pool_id: int | None = None
) -> str | None:
    """The narrowest scope that has a value, else the global one, else the default; raises `NotFound`."""
    setting = SETTINGS.get(name)
    if setting is None:
        raise NotFound(f"there is no setting {name}")
    if name == BYPASS:
        return _inverse(value(tx, BACKUP))
    for table, scope_id in (
        ("storage_pool_details", pool_id),
        ("cluster_details", cluster_id),
        ("data_center_details", zone_id),
    ):
        if scope_id is not None:
            found = tx.details(table, scope_id).get(name)
            if found is not None:
                return found
    row = tx.find(Configuration, name=name)
    return row.value if row else setting.default


def set_value(tx: Transaction, name: str, text: str, *, table: str | None = None, scope_id: int | None = None) -> None:
    """Store a value globally, or for one resource in its details table. The two backup switches are one."""
    if name == BYPASS:
        name, text = BACKUP, _inverse(text) or "true"
    if table is not None and scope_id is not None:
        tx.set_detail(table, scope_id, name, text)
        return
    row = tx.find(Configuration, name=name)
    if row is None:
        tx.insert(Configuration(name=name, value=text))
    else:
        tx.update(row, value=text)


def show_value(tx: Transaction, name: str, text: str) -> None:
    """Have lists show what is decided elsewhere: the global value is `text`, or the default where that is the same."""
    if value(tx, name) != text:
        set_value(tx, name, text)


def seconds(tx: Transaction, name: str) -> float:
    """A global setting that is a number."""
    return float(value(tx, name) or 0)


def flag(tx: Transaction, name: str) -> bool:
    return (value(tx, name) or "").lower() == "true"


def _inverse(text: str | None) -> str | None:
    return None if text is None else "false" if text.lower() == "true" else "true"
