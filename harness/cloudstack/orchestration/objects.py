"""From rows to the data objects that drivers and agents are handed (spec/cloudstack-plugin.md section 2)."""

from __future__ import annotations

from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import (
    ImageStore,
    Nic,
    ResourceTag,
    ServiceOffering,
    Snapshot,
    SnapshotStore,
    StoragePool,
    Template,
    TemplatePool,
    TemplateStore,
    Vm,
    Volume,
    Zone,
)
from harness.spi import objects
from harness.spi.errors import InvalidParameter, NotFound
from harness.spi.objects import (
    DataStore,
    DirectSource,
    Disk,
    ImageFormat,
    SnapshotObject,
    StoreRole,
    TemplateObject,
    VolumeObject,
    is_storpool_path,
)
from harness.spi.states import StoreRefState

MIB = 1 << 20
POLICY_TAG = "vc-policy"
"""Tag of a VM that is on its volumes on StorPool too."""


NFS_POOL = "NetworkFilesystem"


def pool_store(tx: Transaction, pool_id: int) -> DataStore:
    pool = tx.get(StoragePool, pool_id)
    if pool.pool_type == NFS_POOL:
        return DataStore(
            id=pool.id,
            uuid=pool.uuid,
            name=pool.name,
            role=StoreRole.PRIMARY,
            provider=pool.storage_provider_name,
            url=f"nfs://{pool.host_address}{pool.path}",
        )
    template = tx.details("storage_pool_details", pool_id).get("SP_TEMPLATE", pool.name)
    return DataStore(
        id=pool.id,
        uuid=pool.uuid,
        name=pool.name,
        role=StoreRole.PRIMARY,
        provider=pool.storage_provider_name,
        url=f"storpool:{template}",
    )


def image_store(tx: Transaction, store_id: int) -> DataStore:
    store = tx.get(ImageStore, store_id)
    return DataStore(
        id=store.id,
        uuid=store.uuid,
        name=store.name,
        role=StoreRole.IMAGE,
        provider=store.image_provider_name,
        url=store.url,
    )


def image_store_of(tx: Transaction, zone_id: int) -> ImageStore:
    """The one that files of the zone's volumes, snapshots and templates go to; raises `InvalidParameter`."""
    row = tx.find(ImageStore, data_center_id=zone_id)
    if row is None:
        raise InvalidParameter(f"zone {tx.get(Zone, zone_id).name} has no image store")
    return row


def volume_object(tx: Transaction, row: Volume) -> VolumeObject:
    vm_uuid = None if row.instance_id is None else tx.get(Vm, row.instance_id).uuid
    pool_id = row.last_pool_id if row.pool_id is None else row.pool_id
    store = None if pool_id is None else pool_store(tx, pool_id)
    return VolumeObject(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        type=row.volume_type,
        size=row.size,
        store=store,
        path=row.path,
        format=format_on(store, row),
        device_id=row.device_id,
        vm_uuid=vm_uuid,
        max_iops=row.max_iops,
        disk_offering_id=row.disk_offering_id,
        template_id=row.template_id,
        encrypted=row.passphrase_id is not None,
    )


def format_on(store: DataStore | None, row: Volume) -> ImageFormat:
    """StorPool devices are raw, whatever CloudStack's record calls them."""
    return row.format if store is not None and store.url.startswith("nfs://") else ImageFormat.RAW


def template_on_image_store(tx: Transaction, template_id: int) -> TemplateObject:
    """Raises `NotFound` when the template is not Ready on any image store."""
    row = tx.get(Template, template_id)
    ref = tx.find(TemplateStore, template_id=template_id, state=StoreRefState.READY)
    if ref is None:
        raise NotFound(f"template {row.name} is not on secondary storage; wait until it isready, or register it again")
    return TemplateObject(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        format=row.format,
        size=ref.size,
        store=image_store(tx, ref.store_id),
        path=ref.install_path,
        mirror=ref.local_path,
        direct=DirectSource(url=row.url, checksum=row.checksum) if row.direct_download else None,
    )


def template_on_pool(tx: Transaction, entry: TemplatePool) -> TemplateObject:
    row = tx.get(Template, entry.template_id)
    return TemplateObject(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        format=ImageFormat.RAW,
        size=entry.template_size or row.size,
        store=pool_store(tx, entry.pool_id),
        path=entry.local_path,
    )


def snapshot_object(tx: Transaction, row: Snapshot, ref: SnapshotStore) -> SnapshotObject:
    return SnapshotObject(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        volume=volume_object(tx, tx.get(Volume, row.volume_id)),
        size=row.size,
        store=pool_store(tx, ref.store_id) if ref.store_role is StoreRole.PRIMARY else image_store(tx, ref.store_id),
        path=ref.install_path,
    )


def disk(tx: Transaction, row: Volume) -> Disk:
    """The disk as the agent must present it; the volume must be on a pool and have a device id."""
    if row.path is None or row.device_id is None or row.pool_id is None:
        raise NotFound(f"volume {row.name} is not on primary storage yet")
    store = pool_store(tx, row.pool_id)
    encrypted = row.passphrase_id is not None
    return Disk(
        path=row.path if is_storpool_path(row.path) else f"{store.url}/{row.path}",
        serial=objects.disk_serial(row.uuid),
        device_id=row.device_id,
        size=row.size + (objects.LUKS_HEADER if encrypted else 0),
        type=row.volume_type,
        format=format_on(store, row),
        encrypted=encrypted,
    )


def volumes_of(tx: Transaction, vm_id: int) -> list[Volume]:
    """Volumes of a VM that are not removed, by device id."""
    return tx.select(Volume, "instance_id = ? AND removed IS NULL ORDER BY device_id, id", (vm_id,))


def policy_of(tx: Transaction, row: Volume) -> str | None:
    """Tag vc-policy of the VM that has the volume."""
    if row.instance_id is None:
        return None
    vm = tx.get(Vm, row.instance_id)
    tag = tx.find(ResourceTag, resource_type="UserVm", resource_uuid=vm.uuid, key=POLICY_TAG)
    return tag.value if tag else None


def virtual_machine(tx: Transaction, row: Vm) -> objects.VirtualMachine:
    offering = tx.get(ServiceOffering, row.service_offering_id)
    nics = tx.all(Nic, instance_id=row.id, removed=None)
    return objects.VirtualMachine(
        uuid=row.uuid,
        name=row.instance_name,
        cpus=offering.cpu,
        memory=offering.ram_size * MIB,
        disks=tuple(disk(tx, volume) for volume in volumes_of(tx, row.id)),
        iso=None if row.iso_id is None else template_on_image_store(tx, row.iso_id),
        nics=tuple(objects.Nic(mac=nic.mac_address, ip=nic.ip4_address, bridge=nic.bridge) for nic in nics),
    )


def paths_of(tx: Transaction, vm_id: int) -> tuple[str, ...]:
    """Device paths of a VM's volumes that are on a StorPool pool: what a host must let go when the VM is gone."""
    return tuple(row.path for row in volumes_of(tx, vm_id) if row.path and is_storpool_path(row.path))
