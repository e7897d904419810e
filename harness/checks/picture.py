"""One look at the whole cloud: CloudStack's records, StorPool's objects, and what every host shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.observers import Cloud, DomainDisk, Json, Pool, World

PATH_PREFIX = "/dev/storpool-byid/"
TEMPLATE_FILES = "template/tmpl/2"
"""Directory of the account's templates on secondary storage."""
CHECK_VOLUME = "check-volume-is-on-host"


@dataclass(frozen=True, slots=True)
class HostPicture:
    name: str
    client_id: int
    cluster_id: str
    """Of its StorPool cluster, where there are several; else empty."""
    devices: Mapping[str, int | None]
    """Size of the device of every global id under /dev/storpool-byid."""
    secrets: tuple[str, ...]
    """Devices whose passphrases libvirt knows."""
    domains: Mapping[str, str]
    disks: Mapping[str, Sequence[DomainDisk]]
    """Disks of every domain that is not shut off."""
    drives: Mapping[str, str | None]
    """Image in the CD drive of each of them."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What `take` saw. Keys of StorPool objects are bare global ids."""

    pools: tuple[Pool, ...]
    volume_records: Mapping[str, Json]
    vm_records: Mapping[str, Json]
    snapshot_records: Mapping[str, Json]
    backed_up: frozenset[str]
    """Ids of snapshots that CloudStack shows on secondary storage."""
    backups: tuple[str, ...]
    """Files of backups on secondary storage."""
    template_ids: frozenset[str]
    pool_records: Mapping[str, Json]
    host_names: Mapping[str, str]
    """CloudStack host id -> name."""
    offering_templates: frozenset[str]
    """StorPool templates that offerings name; not asked for while every volume is on its pool's."""
    clusters: int
    """How many CloudStack clusters have hosts."""
    volumes: Mapping[str, Json]
    snapshots: Mapping[str, Json]
    attachments: tuple[Json, ...]
    hosts: tuple[HostPicture, ...]
    vm_snapshot_records: Mapping[str, Json] = field(default_factory=dict)
    removed_template_ids: frozenset[str] = frozenset()
    template_files: tuple[str, ...] = ()
    """Files of templates on secondary storage."""
    filed: frozenset[str] = frozenset()
    """Ids of templates that CloudStack says are there."""
    volume_files: tuple[str, ...] = ()
    """Files of volumes on the NFS export."""
    copies_recorded: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Where zones have StorPool clusters of their own: state of each snapshot on primary storage, by zone and id."""
    copies: frozenset[tuple[str, str]] = frozenset()
    """There too: zone and id of each snapshot that the zone's StorPool cluster has."""

    def records_by_path(self) -> dict[str, Json]:
        """Volume records that have a StorPool path, by the global id in it."""
        return {path_id(v): v for v in self.volume_records.values() if on_storpool(v)}

    def records_by_file(self) -> dict[str, Json]:
        """Volume records that have another path, by that."""
        return {str(v["path"]): v for v in self.volume_records.values() if "path" in v and not on_storpool(v)}

    def holder(self, attachment: Json) -> tuple[int, str]:
        """The client of an attachment, and its cluster where there are several: each has its own numbers."""
        several = any(host.cluster_id for host in self.hosts)
        return int(attachment["client"]), str(attachment.get("clusterId", "")) if several else ""

    def host_of(self, vm: Json) -> HostPicture | None:
        """The host that a VM record names."""
        name = self.host_names.get(str(vm.get("hostid")))
        return next((host for host in self.hosts if host.name == name), None)

    def running(self) -> list[Json]:
        return [vm for vm in self.vm_records.values() if vm["state"] == "Running"]

    def off_pool(self) -> dict[str, str]:
        """StorPool templates of volumes whose pool is on another one, by global id."""
        return _off_pool(self.pools, self.volume_records, self.volumes)

    def volumes_of(self, vm: Json) -> list[Json]:
        return [v for v in self.volume_records.values() if v.get("virtualmachineid") == vm["id"]]


def on_storpool(volume: Json) -> bool:
    return str(volume.get("path", "")).startswith(PATH_PREFIX)


def path_id(volume: Json) -> str:
    return str(volume["path"]).removeprefix(PATH_PREFIX)


def tags_of(item: Json) -> dict[str, str]:
    """Tags without those that are cleared by an empty value."""
    return {str(key): str(value) for key, value in (item.get("tags") or {}).items() if value != ""}


def object_id(attachment: Json) -> str:
    """Id of what an attachment is of, as `known_id`; older clusters give only the name `~globalId`."""
    name = str(attachment["volume"])
    return name[1:] if name.startswith("~") else str(attachment.get("globalId") or name)


def take(world: World, ignored: frozenset[str] = frozenset()) -> Picture:
    """Look at everything; StorPool objects with these global ids are left out, they were there before us."""
    cloud = world.cloud

    def listed(command: str, key: str, **parameters: str | int | bool) -> dict[str, Json]:
        answer = cloud.call(command, listall=True, **parameters)
        return {str(item["id"]): item for item in answer.get(key, [])}

    templates = listed("listTemplates", "template", templatefilter="all", showremoved=True)
    there = {template_id: item for template_id, item in templates.items() if "removed" not in item}
    there |= listed("listIsos", "iso", isofilter="all")
    stores = cloud.call("listSnapshots", listall=True).get("snapshot", [])
    hosts = listed("listHosts", "host", type="Routing")
    volumes, snapshots = world.storpool.volumes(), world.storpool.snapshots()
    # After a revert a device has two links: by the id that the volume goes by, which is looked at, and by its new one.
    aliases = frozenset(str(item["globalId"]) for item in volumes if known_id(item) != item["globalId"])
    pools, records, by_id = world.environment.pools, listed("listVolumes", "volume"), _by_id(volumes, ignored)
    return Picture(
        pools=pools,
        volume_records=records,
        vm_records=listed("listVirtualMachines", "virtualmachine"),
        snapshot_records={str(item["id"]): item for item in stores},
        backed_up=frozenset(str(item["id"]) for item in stores if item.get("datastoretype") == "Image"),
        backups=tuple(world.secondary.backups()),
        template_ids=frozenset(there),
        pool_records=listed("listStoragePools", "storagepool"),
        host_names={host_id: str(host["name"]) for host_id, host in hosts.items()},
        offering_templates=_offering_templates(cloud) if _off_pool(pools, records, by_id) else frozenset(),
        volumes=by_id,
        clusters=len({str(host.get("clusterid")) for host in hosts.values()}),
        snapshots=_by_id(snapshots, ignored),
        attachments=tuple(a for a in world.storpool.attachments() if object_id(a) not in ignored),
        hosts=tuple(_host(world, index, ignored | aliases) for index in range(len(world.hosts))),
        volume_files=tuple(world.secondary.files("primary")),
        vm_snapshot_records=listed("listVMSnapshot", "vmSnapshot"),
        removed_template_ids=frozenset(templates.keys() - there.keys()),
        template_files=tuple(world.secondary.files(TEMPLATE_FILES)),
        filed=frozenset(key for key, item in there.items() if item["isready"] and not item.get("directdownload")),
        copies_recorded={
            (str(item["zoneid"]), str(item["id"])): str(item["datastorestate"])
            for item in stores
            if item.get("datastoretype") == "Primary" and world.environment.other_zone is not None
        },
        copies=_copies(world, ignored),
    )


def _copies(world: World, ignored: frozenset[str]) -> frozenset[tuple[str, str]]:
    """By zone, where each has a StorPool cluster of its own; a copy has the id of the snapshot that it is of."""
    other = world.environment.other_zone
    if other is None:
        return frozenset()
    zones = (world.environment.zone_id, other.zone_id)
    return frozenset(
        (zone_id, tags_of(item)["uuid"])
        for zone_id, cluster in zip(zones, world.storpools, strict=True)
        for item in cluster.snapshots()
        if tags_of(item).get("cs") == "snapshot" and not item.get("deleted") and item["globalId"] not in ignored
    )


def _off_pool(pools: Sequence[Pool], records: Mapping[str, Json], volumes: Mapping[str, Json]) -> dict[str, str]:
    wanted = {pool.id: pool.storpool_template for pool in pools}
    found = {}
    for record in records.values():
        volume = volumes.get(path_id(record)) if "path" in record else None
        template = wanted.get(str(record.get("storageid")))
        if volume is not None and template not in (None, volume.get("templateName")):
            found[path_id(record)] = str(volume.get("templateName"))
    return found


def _offering_templates(cloud: Cloud) -> frozenset[str]:
    """SP_TEMPLATE of disk offerings, of the system disk offerings of compute offerings, and of these."""
    disks = [item["id"] for item in cloud.call("listDiskOfferings", listall=True).get("diskoffering", [])]
    computes = cloud.call("listServiceOfferings", listall=True).get("serviceoffering", [])
    named = [("DiskOffering", item) for item in (*disks, *(each["diskofferingid"] for each in computes))]
    named += [("ServiceOffering", each["id"]) for each in computes]
    details = [
        cloud.call("listResourceDetails", resourcetype=kind, resourceid=item, key="SP_TEMPLATE") for kind, item in named
    ]
    return frozenset(str(each["value"]) for answer in details for each in answer.get("resourcedetail", []))


def _by_id(items: Sequence[Json], ignored: frozenset[str]) -> dict[str, Json]:
    return {known_id(item): item for item in items if item["globalId"] not in ignored}


def known_id(item: Json) -> str:
    """The id that a StorPool object goes by: after a revert its old one, which is its name."""
    name = str(item["name"])
    return name[1:] if name.startswith("~") else str(item["globalId"])


def _host(world: World, index: int, ignored: frozenset[str]) -> HostPicture:
    host = world.hosts[index]
    domains = dict(host.domains())
    on = [name for name, state in domains.items() if state != "shut off"]
    return HostPicture(
        name=host.name,
        client_id=host.client_id,
        cluster_id=host.cluster_id,
        devices={gid: host.device_size(PATH_PREFIX + gid) for gid in host.devices() if gid not in ignored},
        secrets=tuple(host.secrets()),
        domains=domains,
        disks={name: tuple(host.domain_disks(name)) for name in on},
        drives={name: host.cd_image(name) for name in on},
    )
