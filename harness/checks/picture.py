"""One look at the whole cloud: CloudStack's records, StorPool's objects, and what every host shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.observers import DomainDisk, Json, Pool, World

PATH_PREFIX = "/dev/storpool-byid/"
CHECK_VOLUME = "check-volume-is-on-host"


@dataclass(frozen=True, slots=True)
class HostPicture:
    name: str
    client_id: int
    cluster_id: str
    """Of its StorPool cluster, where there are several; else empty."""
    devices: Mapping[str, int | None]
    """Size of the device of every global id under /dev/storpool-byid."""
    domains: Mapping[str, str]
    disks: Mapping[str, Sequence[DomainDisk]]
    """Disks of every domain that is not shut off."""


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
    host_names: Mapping[str, str]
    """CloudStack host id -> name."""
    clusters: int
    """How many CloudStack clusters have hosts."""
    volumes: Mapping[str, Json]
    snapshots: Mapping[str, Json]
    attachments: tuple[Json, ...]
    hosts: tuple[HostPicture, ...]
    copies_recorded: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Where zones have StorPool clusters of their own: state of each snapshot on primary storage, by zone and id."""
    copies: frozenset[tuple[str, str]] = frozenset()
    """There too: zone and id of each snapshot that the zone's StorPool cluster has."""

    def records_by_path(self) -> dict[str, Json]:
        """Volume records that have a path, by the global id in it."""
        return {path_id(v): v for v in self.volume_records.values() if "path" in v}

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

    def volumes_of(self, vm: Json) -> list[Json]:
        return [v for v in self.volume_records.values() if v.get("virtualmachineid") == vm["id"]]


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

    stores = cloud.call("listSnapshots", listall=True).get("snapshot", [])
    hosts = listed("listHosts", "host", type="Routing")
    volumes, snapshots = world.storpool.volumes(), world.storpool.snapshots()
    # After a revert a device has two links: by the id that the volume goes by, which is looked at, and by its new one.
    aliases = frozenset(str(item["globalId"]) for item in volumes if known_id(item) != item["globalId"])
    return Picture(
        pools=world.environment.pools,
        volume_records=listed("listVolumes", "volume"),
        vm_records=listed("listVirtualMachines", "virtualmachine"),
        snapshot_records={str(item["id"]): item for item in stores},
        backed_up=frozenset(str(item["id"]) for item in stores if item.get("datastoretype") == "Image"),
        backups=tuple(world.secondary.backups()),
        template_ids=frozenset(listed("listTemplates", "template", templatefilter="all")),
        host_names={host_id: str(host["name"]) for host_id, host in hosts.items()},
        clusters=len({str(host.get("clusterid")) for host in hosts.values()}),
        volumes=_by_id(volumes, ignored),
        snapshots=_by_id(snapshots, ignored),
        attachments=tuple(a for a in world.storpool.attachments() if object_id(a) not in ignored),
        hosts=tuple(_host(world, index, ignored | aliases) for index in range(len(world.hosts))),
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


def _by_id(items: Sequence[Json], ignored: frozenset[str]) -> dict[str, Json]:
    return {known_id(item): item for item in items if item["globalId"] not in ignored}


def known_id(item: Json) -> str:
    """The id that a StorPool object goes by: after a revert its old one, which is its name."""
    name = str(item["name"])
    return name[1:] if name.startswith("~") else str(item["globalId"])


def _host(world: World, index: int, ignored: frozenset[str]) -> HostPicture:
    host = world.hosts[index]
    domains = dict(host.domains())
    return HostPicture(
        name=host.name,
        client_id=host.client_id,
        cluster_id=host.cluster_id,
        devices={gid: host.device_size(PATH_PREFIX + gid) for gid in host.devices() if gid not in ignored},
        domains=domains,
        disks={name: tuple(host.domain_disks(name)) for name, state in domains.items() if state != "shut off"},
    )
