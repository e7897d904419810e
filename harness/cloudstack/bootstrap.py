"""What exists before anybody asks: zone, pod, cluster, hosts, image store, OS types, the admin and his keys."""

from __future__ import annotations

from harness.cloudstack import settings
from harness.cloudstack.config import CloudConfig, FurtherCluster
from harness.cloudstack.orchestration.agents import STARTS
from harness.cloudstack.records import Records, Transaction
from harness.cloudstack.records.rows import (
    Account,
    Cluster,
    Domain,
    GuestOs,
    HostRow,
    ImageStore,
    Pod,
    Sequence,
    User,
    Zone,
)
from harness.spi.errors import InvalidParameter
from harness.spi.runtime import Runtime

OS_TYPES = (("Other Linux (64-bit)", "Other"), ("CentOS 7", "CentOS"), ("Debian GNU/Linux 12 (64-bit)", "Debian"))


def bootstrap(runtime: Runtime, records: Records, config: CloudConfig) -> None:
    """Make what is missing; rows of an earlier start stay as they are, keys follow the configuration."""
    unknown = set(config.settings) - settings.SETTINGS.keys()
    if unknown:
        raise InvalidParameter(f"the configuration names settings that do not exist: {', '.join(sorted(unknown))}")
    for name in config.settings:
        if (why := settings.SETTINGS[name].refused) is not None:
            raise InvalidParameter(f"setting {name} of the configuration has no effect: {why}")
    further = sum(4 + len(cluster.hosts) for cluster in config.further_clusters)
    uuids = [runtime.uuid() for _ in range(8 + len(OS_TYPES) + len(config.hosts) + further)]
    with records.transaction("bootstrap") as tx:
        if tx.find(Zone, id=1) is None:
            _make_all(tx, config, uuids)
        _hosts(tx, tx.get(Cluster, 1), config.hosts, uuids)
        for further_cluster in config.further_clusters:
            _hosts(tx, _further_cluster(tx, config, further_cluster, uuids), further_cluster.hosts, uuids)
        settings.show_value(tx, settings.PING_INTERVAL, f"{config.ping_interval:.15g}")
        user = tx.get(User, 1)
        tx.update(user, api_key=config.api_key, secret_key=config.secret_key)
        for store in tx.all(ImageStore):
            tx.update(store, url=config.image_store_url)
        _count_start(tx)
        # Who was Up when the last server died must answer first.
        tx.execute("UPDATE host SET status = 'Connecting'")


def _count_start(tx: Transaction) -> None:
    """Commands of this server come after those of every one before, whatever becomes of its clock or its records.

    A count alone would begin again with records that are restored from a backup, and agents would take every command
    for one that comes late.
    """
    starts = tx.find(Sequence, name=STARTS)
    if starts is None:
        tx.insert(Sequence(name=STARTS, value=int(tx.now)))
    else:
        tx.update(starts, value=max(starts.value + 1, int(tx.now)))


def _make_all(tx: Transaction, config: CloudConfig, uuids: list[str]) -> None:
    zone = tx.insert(Zone(uuid=uuids.pop(), name=config.zone))
    pod = tx.insert(Pod(uuid=uuids.pop(), name=config.pod, data_center_id=zone.id))
    cluster = tx.insert(Cluster(uuid=uuids.pop(), name=config.cluster, pod_id=pod.id, data_center_id=zone.id))
    if config.storpool_cluster_id is not None:
        tx.set_detail("cluster_details", cluster.id, "sp.cluster.id", config.storpool_cluster_id)
    tx.insert(ImageStore(uuid=uuids.pop(), name="secondary1", url=config.image_store_url, data_center_id=zone.id))
    domain = tx.insert(Domain(uuid=uuids.pop(), name="ROOT", path="/"))
    account = tx.insert(Account(uuid=uuids.pop(), account_name="admin", domain_id=domain.id, type=1))
    tx.insert(
        User(
            uuid=uuids.pop(),
            username="admin",
            account_id=account.id,
            firstname="admin",
            lastname="cloud",
            email="admin@localhost",
            created=tx.now,
        )
    )
    for name, category in OS_TYPES:
        tx.insert(GuestOs(uuid=uuids.pop(), display_name=name, category=category))
    for name, value in config.settings.items():
        settings.set_value(tx, name, value)


def _further_cluster(tx: Transaction, config: CloudConfig, wanted: FurtherCluster, uuids: list[str]) -> Cluster:
    """The cluster of this name, made where it is missing, with its zone and pod; a zone has an image store."""
    found = tx.find(Cluster, name=wanted.name)
    if found is not None:
        return found
    zone = tx.find(Zone, name=wanted.zone or config.zone)
    if zone is None:
        zone = tx.insert(Zone(uuid=uuids.pop(), name=wanted.zone or config.zone))
        store = ImageStore(
            uuid=uuids.pop(), name=f"secondary-{zone.name}", url=config.image_store_url, data_center_id=zone.id
        )
        tx.insert(store)
    pod = tx.find(Pod, name=wanted.pod or config.pod)
    if pod is None:
        pod = tx.insert(Pod(uuid=uuids.pop(), name=wanted.pod or config.pod, data_center_id=zone.id))
    if pod.data_center_id != zone.id:
        raise InvalidParameter(f"cluster {wanted.name}: pod {pod.name} is not in zone {zone.name}; name another one")
    cluster = tx.insert(Cluster(uuid=uuids.pop(), name=wanted.name, pod_id=pod.id, data_center_id=zone.id))
    if wanted.storpool_cluster_id is not None:
        tx.set_detail("cluster_details", cluster.id, "sp.cluster.id", wanted.storpool_cluster_id)
    return cluster


def _hosts(tx: Transaction, cluster: Cluster, names: tuple[str, ...], uuids: list[str]) -> None:
    for name in names:
        if tx.find(HostRow, name=name) is None:
            tx.insert(
                HostRow(
                    uuid=uuids.pop(),
                    name=name,
                    status="Connecting",
                    resource_state="Enabled",
                    data_center_id=cluster.data_center_id,
                    pod_id=cluster.pod_id,
                    cluster_id=cluster.id,
                    last_ping=0.0,
                    created=tx.now,
                )
            )
