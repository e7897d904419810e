"""What is true of a cloud at rest: records = StorPool objects = attachments = host devices = domains.

Each invariant is a function of one `Picture` that yields what is wrong and where.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from harness.checks.picture import CHECK_VOLUME, HostPicture, Picture, object_id, on_storpool, path_id, tags_of
from harness.observers import Json


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.where}: {self.what}"


Found = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Invariant:
    name: str
    find: Callable[[Picture], Found]


LUKS_HEADER = 2 << 20
"""Bytes that an encrypted volume has on StorPool beside those that its guest sees."""
STORPOOL_TAG = re.compile(r"[A-Za-z0-9_\-.:]{0,199}")
"""What StorPool takes as the value of a tag."""
STEADY_VOLUME_STATES = {"Allocated", "Ready", "Destroy", "Expunged"}
STEADY_SNAPSHOT_STATES = {"BackedUp", "Error"}
STEADY_VM_SNAPSHOT_STATES = {"Ready", "Error"}
STEADY_POOL_STATES = {"Up", "Disabled", "Maintenance", "ErrorInMaintenance"}
STEADY_VM_STATES = {"Running", "Stopped", "Destroyed", "Error"}


def nothing_in_between(picture: Picture) -> Found:
    """No record is in a state that only a running operation may show."""
    for volume in picture.volume_records.values():
        if volume["state"] not in STEADY_VOLUME_STATES:
            yield f"volume {volume['id']}", f"is {volume['state']}"
    for snapshot in picture.snapshot_records.values():
        if snapshot["state"] not in STEADY_SNAPSHOT_STATES:
            yield f"snapshot {snapshot['id']}", f"is {snapshot['state']}"
    for group in picture.vm_snapshot_records.values():
        if group["state"] not in STEADY_VM_SNAPSHOT_STATES:
            yield f"VM snapshot {group['id']}", f"is {group['state']}"
    for vm in picture.vm_records.values():
        if vm["state"] not in STEADY_VM_STATES:
            yield f"VM {vm['id']}", f"is {vm['state']}"
    for pool in picture.pool_records.values():
        if pool["state"] not in STEADY_POOL_STATES:
            yield f"storage pool {pool['id']}", f"is {pool['state']}"


def records_have_volumes(picture: Picture) -> Found:
    """Every volume record with a path has its StorPool volume, of the same size, on its pool's StorPool template.

    Or on one that an offering names: a volume keeps it when its offering changes by a resize.
    """
    for gid, record in picture.records_by_path().items():
        where = f"volume {record['id']} ({record['path']})"
        found = picture.volumes.get(gid)
        if found is None:
            yield where, "StorPool has no such volume"
            continue
        wanted_size = record["size"] + (LUKS_HEADER if "encryptformat" in record else 0)
        if found["size"] != wanted_size:
            yield where, f"CloudStack says {record['size']} bytes, StorPool {found['size']} and not {wanted_size}"
    for gid, template in picture.off_pool().items():
        if template not in picture.offering_templates:
            yield f"StorPool volume ~{gid}", f"is on template {template}, which neither its pool nor an offering names"
    for record in picture.volume_records.values():
        # On no pool: it was never made. CloudStack calls it Ready when its VM was destroyed and recovered.
        if record["state"] == "Ready" and "storageid" in record and "path" not in record:
            yield f"volume {record['id']}", "is Ready on a pool and has no path"


def volumes_have_records(picture: Picture) -> Found:
    """Every StorPool volume is a record's, or the check volume; seeding and copying leave none behind."""
    known = picture.records_by_path()
    for gid, volume in picture.volumes.items():
        kind = tags_of(volume).get("cs", "no cs tag")
        if gid not in known and kind != CHECK_VOLUME:
            yield f"StorPool volume ~{gid}", f"belongs to no record (cs={kind}, name {volume['name']})"


def snapshots_are_known(picture: Picture) -> Found:
    """Every StorPool snapshot is a template's, a snapshot's whose record is not in Error, or has a date to go."""
    for gid, snapshot in picture.snapshots.items():
        if snapshot.get("deleted") or snapshot.get("transient"):
            continue
        tags = tags_of(snapshot)
        kind, uuid = tags.get("cs"), tags.get("uuid")
        if kind == "template":
            # A copy that volumes start from waits for the collector when the template is gone.
            waits = uuid in picture.removed_template_ids and not is_mirror(snapshot)
            known = uuid in picture.template_ids or waits
        elif kind == "delayDelete":
            known = bool(snapshot.get("targetDeleteDate"))
        elif kind == "group":
            # One in Error may be one whose deletion failed: it has what is left, until it is deleted again.
            known = uuid in picture.vm_snapshot_records
        else:
            record = picture.snapshot_records.get(uuid or "")
            known = record is not None and record["state"] != "Error"
        if not known:
            yield f"StorPool snapshot ~{gid}", f"belongs to nothing (cs={kind}, uuid={uuid})"


def vm_snapshots_are_whole(picture: Picture) -> Found:
    """A Ready VM snapshot has a StorPool snapshot of each disk that its VM has, all of one moment, with the VM's tag.

    While there is one CloudStack attaches no disk to the VM; a destruction that failed may have detached some.
    """
    groups: dict[str, list[Json]] = {}
    for snapshot in picture.snapshots.values():
        tags = tags_of(snapshot)
        if tags.get("cs") == "group" and not snapshot.get("deleted"):
            groups.setdefault(tags.get("uuid", ""), []).append(snapshot)
    for uuid, record in picture.vm_snapshot_records.items():
        if record["state"] != "Ready":
            continue
        found, vm_id = groups.get(uuid, []), str(record["virtualmachineid"])
        disks = [v for v in picture.volume_records.values() if v.get("virtualmachineid") == vm_id]
        if len(found) < len(disks):
            yield f"VM snapshot {uuid}", f"has {len(found)} StorPool snapshots, its VM has {len(disks)} disks"
        if any(tags_of(snapshot).get("cvm") != vm_id for snapshot in found):
            yield f"VM snapshot {uuid}", f"has StorPool snapshots without the tag cvm={vm_id}"
        if len({snapshot.get("creationTimestamp") for snapshot in found}) > 1:
            yield f"VM snapshot {uuid}", "has StorPool snapshots of different times"


def copies_are_where_the_records_say(picture: Picture) -> Found:
    """A snapshot is on StorPool in each zone whose primary storage CloudStack says has it, and in no other."""
    for zone, uuid in sorted(picture.copies - picture.copies_recorded.keys()):
        if uuid in picture.snapshot_records:
            yield f"snapshot {uuid}", f"is on StorPool of zone {zone}, where CloudStack has none"
    ready = {place for place, state in picture.copies_recorded.items() if state == "Ready"}
    for zone, uuid in sorted(ready - picture.copies):
        yield f"snapshot {uuid}", f"is not on StorPool of zone {zone}, where CloudStack has it"


def backups_are_known(picture: Picture) -> Found:
    """Every snapshot on secondary storage has one file there, and every file is one of these; nothing half written."""
    files = Counter(path.rpartition("/")[2].partition(".")[0] for path in picture.backups)
    for uuid, count in files.items():
        if uuid not in picture.backed_up:
            yield f"{count} files of snapshot {uuid} on secondary storage", "are no backup that CloudStack knows"
        elif count > 1:
            yield f"snapshot {uuid}", f"has {count} files on secondary storage"
    for uuid in sorted(picture.backed_up - files.keys()):
        yield f"snapshot {uuid}", "has no file on secondary storage, where CloudStack says it is"


def volume_files_are_known(picture: Picture) -> Found:
    """Every volume on an NFS pool has its file, and every file its volume."""
    known = picture.records_by_file()
    seen = {path.rpartition("/")[2] for path in picture.volume_files}
    for name in sorted(seen - known.keys()):
        yield f"file {name} on the NFS pool", "belongs to no volume record"
    for name in sorted(known.keys() - seen):
        yield f"volume {known[name]['id']}", f"has no file {name} on the NFS pool"


def is_mirror(snapshot: Json) -> bool:
    """Whether it is what a template was made as, and not a copy that volumes start from."""
    return tags_of(snapshot).get("vc-policy") == "no"


def template_files_are_known(picture: Picture) -> Found:
    """Every template on secondary storage has one file there, and every file is one of these."""
    files = Counter(path.rpartition("/")[2].partition(".")[0] for path in picture.template_files)
    for uuid, count in files.items():
        if uuid not in picture.template_ids:
            yield f"{count} files of template {uuid} on secondary storage", "are of none that CloudStack knows"
        elif count > 1:
            yield f"template {uuid}", f"has {count} files on secondary storage"
    for uuid in sorted(picture.filed - files.keys()):
        yield f"template {uuid}", "has no file on secondary storage, where CloudStack says it is"


def templates_seeded_once(picture: Picture) -> Found:
    """At most one cached snapshot of a template on a pool, and one that it was made as."""
    seeded: Counter[tuple[str, str]] = Counter()
    for snapshot in picture.snapshots.values():
        tags = tags_of(snapshot)
        if tags.get("cs") == "template" and not snapshot.get("deleted"):
            place = "secondary storage" if is_mirror(snapshot) else str(snapshot.get("templateName"))
            seeded[tags.get("uuid", ""), place] += 1
    for (template, pool), count in seeded.items():
        if count > 1:
            yield f"template {template} on {pool}", f"has {count} StorPool snapshots"


def attachments_follow_running_vms(picture: Picture) -> Found:
    """A volume is attached, read-write, exactly where its VM runs; nothing else is attached."""
    wanted: set[tuple[str, tuple[int, str]]] = set()
    for vm in picture.running():
        host = picture.host_of(vm)
        if host is None:
            yield f"VM {vm['id']}", f"is Running on unknown host {vm.get('hostid')}"
            continue
        own = (host.client_id, host.cluster_id)
        wanted |= {(path_id(v), own) for v in picture.volumes_of(vm) if on_storpool(v)}
    seen: set[tuple[str, tuple[int, str]]] = set()
    for attachment in picture.attachments:
        gid, client = object_id(attachment), picture.holder(attachment)
        seen.add((gid, client))
        if (gid, client) in wanted and attachment["rights"] != "rw":
            yield _where(gid, client), f"is attached {attachment['rights']}"
    for gid, client in sorted(seen - wanted):
        yield _where(gid, client), "is attached, but no VM that runs there has it"
    for gid, client in sorted(wanted - seen):
        yield _where(gid, client), "is not attached, but a VM that runs there has it"


def _where(gid: str, client: tuple[int, str]) -> str:
    number, cluster = client
    return f"~{gid} at client {number}" + (f" of cluster {cluster}" if cluster else "")


def devices_follow_attachments(picture: Picture) -> Found:
    """Every host has a device for each of its attachments, of the right size, and no other."""
    sizes = {gid: item["size"] for gid, item in {**picture.snapshots, **picture.volumes}.items()}
    for host in picture.hosts:
        own = (host.client_id, host.cluster_id)
        wanted = {object_id(a) for a in picture.attachments if picture.holder(a) == own}
        for gid in sorted(host.devices.keys() - wanted):
            yield f"device {gid} on {host.name}", "is there without an attachment"
        for gid in sorted(wanted - host.devices.keys()):
            yield f"device {gid} on {host.name}", "is missing though attached"
        for gid in sorted(wanted & host.devices.keys()):
            if host.devices[gid] != sizes.get(gid):
                yield f"device {gid} on {host.name}", f"has {host.devices[gid]} bytes, StorPool says {sizes.get(gid)}"


def no_secret_is_left(picture: Picture) -> Found:
    """libvirt is lent the passphrase of a volume while a disk is opened, and at rest it knows none."""
    for host in picture.hosts:
        for device in host.secrets:
            yield f"libvirt on {host.name}", f"still knows the passphrase of {device}"


def domains_follow_vms(picture: Picture) -> Found:
    """A Running VM has a running domain on its host, no other, and no host runs a domain that no record knows."""
    wanted = {(h.name, str(vm["instancename"])) for vm in picture.running() if (h := picture.host_of(vm))}
    seen = {(host.name, name) for host in picture.hosts for name, state in host.domains.items() if state == "running"}
    for host, name in sorted(wanted - seen):
        yield f"domain {name} on {host}", "does not run, but CloudStack says it does"
    for host, name in sorted(seen - wanted):
        yield f"domain {name} on {host}", "runs, but CloudStack does not say so"


def disks_follow_records(picture: Picture) -> Found:
    """A running domain has exactly its VM's volumes, raw, each with its serial."""
    for vm in picture.running():
        host = picture.host_of(vm)
        if host is not None and str(vm["instancename"]) in host.disks:
            yield from _disks_of(picture, host, vm)


def _disks_of(picture: Picture, host: HostPicture, vm: Json) -> Found:
    name = str(vm["instancename"])
    records = [v for v in picture.volumes_of(vm) if "path" in v]
    wanted = {str(v["path"]): str(v["id"]).replace("-", "")[:20] for v in records}
    encryption = {str(v["path"]): "luks" if "encryptformat" in v else None for v in records}
    files = picture.records_by_file()
    # A file's path is its name on the pool.
    seen = {_recorded(disk.source, files): disk for disk in host.disks[name]}
    where = f"domain {name} on {host.name}"
    for path in sorted(wanted.keys() - seen.keys()):
        yield where, f"lacks disk {path}"
    for path in sorted(seen.keys() - wanted.keys()):
        yield where, f"has disk {path}, which is not its VM's"
    for path in sorted(wanted.keys() & seen.keys()):
        disk = seen[path]
        if disk.serial != wanted[path]:
            yield where, f"disk {path} has serial {disk.serial}, expected {wanted[path]}"
        if disk.encryption != encryption[path]:
            yield where, f"disk {path} is given as {disk.encryption or 'not encrypted'}, not {encryption[path] or 'so'}"
        if disk.driver_type != ("qcow2" if path in files else "raw"):
            yield where, f"disk {path} is read as {disk.driver_type}, never to be probed or anything but raw"


def _recorded(source: str, files: Mapping[str, Json]) -> str:
    name = source.rpartition("/")[2]
    return name if name in files else source


def drives_follow_records(picture: Picture) -> Found:
    """The CD drive of a running domain has its VM's ISO, or nothing."""
    for vm in picture.running():
        host, name = picture.host_of(vm), str(vm["instancename"])
        if host is None or name not in host.drives:
            continue
        wanted = f"{vm['isoid']}.iso" if "isoid" in vm else None
        if host.drives[name] != wanted:
            yield f"domain {name} on {host.name}", f"has {host.drives[name]} in its CD drive, expected {wanted}"


def tags_follow_records(picture: Picture) -> Found:
    """Tags `uuid`, `cs`, `cvm`, `disk` and `vc-policy` of a StorPool volume say what CloudStack's records say."""
    for gid, record in picture.records_by_path().items():
        volume = picture.volumes.get(gid)
        if volume is None:
            continue
        wanted = {
            "cs": "volume",
            "uuid": str(record["id"]),
            "cvm": str(record.get("virtualmachineid", "")),
            "disk": str(record["deviceid"]) if "virtualmachineid" in record else "",
            "vc-policy": _policy(picture, record),
        }
        tags = tags_of(volume)
        for key, value in wanted.items():
            if tags.get(key, "") != value:
                yield f"StorPool volume ~{gid}", f"tag {key} is {tags.get(key, '')!r}, expected {value!r}"


def _policy(picture: Picture, record: Json) -> str:
    """Of the volume's VM, unless a StorPool tag cannot hold it."""
    vm = picture.vm_records.get(str(record.get("virtualmachineid", "")), {})
    values = [str(tag["value"]) for tag in vm.get("tags", []) if tag["key"] == "vc-policy"]
    return values[0] if values and STORPOOL_TAG.fullmatch(values[0]) else ""


def one_check_volume_a_pool(picture: Picture) -> Found:
    """At most one check volume a pool and CloudStack cluster, attached nowhere, as follows from the attachments."""
    kinds = Counter(
        str(volume.get("templateName"))
        for volume in picture.volumes.values()
        if tags_of(volume).get("cs") == CHECK_VOLUME
    )
    for template, count in kinds.items():
        if count > picture.clusters:
            yield f"StorPool template {template}", f"has {count} check volumes"


INVARIANTS: tuple[Invariant, ...] = (
    Invariant("no record is between two states", nothing_in_between),
    Invariant("every volume record has its StorPool volume", records_have_volumes),
    Invariant("every StorPool volume has its record", volumes_have_records),
    Invariant("every StorPool snapshot is known", snapshots_are_known),
    Invariant("a VM snapshot has a snapshot of every disk", vm_snapshots_are_whole),
    Invariant("backups on secondary storage are known", backups_are_known),
    Invariant("templates on secondary storage are known", template_files_are_known),
    Invariant("files of volumes on an NFS pool are known", volume_files_are_known),
    Invariant("a template is seeded once a pool", templates_seeded_once),
    Invariant("attachments follow running VMs", attachments_follow_running_vms),
    Invariant("host devices follow attachments", devices_follow_attachments),
    Invariant("domains follow VMs", domains_follow_vms),
    Invariant("domain disks follow records", disks_follow_records),
    Invariant("CD drives follow records", drives_follow_records),
    Invariant("StorPool tags follow records", tags_follow_records),
    Invariant("a pool has one check volume", one_check_volume_a_pool),
    Invariant("no passphrase is left with libvirt", no_secret_is_left),
    Invariant("copies of snapshots are in their zones", copies_are_where_the_records_say),
)


def violations(picture: Picture) -> list[Violation]:
    """What is wrong in the picture, in the order of `INVARIANTS`."""
    return [Violation(i.name, where, what) for i in INVARIANTS for where, what in i.find(picture)]
