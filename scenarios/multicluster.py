"""Extra `multicluster`: two StorPool clusters below one zone (two zones: multicluster_zones.py).

Ids of the clusters are such that one is a part of the other's global ids: whoever compares pieces of text goes wrong.
"""

from __future__ import annotations

from harness.observers import CloudApiError, Host, Json, World
from scenarios import looks, snapshots, steps
from scenarios.registry import scenario

CLUSTER_ID = "sp.cluster.id"


def clusters(world: World) -> dict[str, str]:
    """`sp.cluster.id` of every CloudStack cluster by its id, as the configuration of the cluster says."""
    found = {}
    for cluster in steps.many(world.cloud.call("listClusters"), "cluster"):
        answer = world.cloud.call("listConfigurations", name=CLUSTER_ID, clusterid=cluster["id"])
        found[str(cluster["id"])] = str(steps.one(answer, "configuration")["value"])
    return found


def vm_on(world: World, host: Host) -> Json:
    """A VM whose guest is up, on this host."""
    listed = steps.one(world.cloud.call("listHosts", name=host.name), "host")
    zone_id = str(listed["zoneid"])
    vm = steps.deploy(world, steps.shared_template(world, zone_id), hostid=str(listed["id"]), zoneid=zone_id)
    assert steps.host_of(world, vm).name == host.name, f"VM {vm['id']} runs elsewhere than on {host.name}"
    world.guest(str(vm["id"])).boot_id()
    return vm


def holders(world: World, volume: Json) -> list[tuple[str, int]]:
    """Cluster and client of every attachment of the volume."""
    gid = looks.global_id(volume)
    return sorted(
        (str(item["clusterId"]), int(item["client"]))
        for item in world.storpool.attachments()
        if item.get("globalId") == gid or item["volume"] == f"~{gid}"
    )


def only_at(world: World, volume: Json, host: Host) -> None:
    seen = holders(world, volume)
    assert seen == [(host.cluster_id, host.client_id)], f"{volume['path']} is attached at {seen}, not at {host.name}"
    looks.device_only_on(world, volume, host)


@scenario("multicluster", "cluster-ids", "each CloudStack cluster has the id of its own StorPool cluster", "clusters")
def cluster_ids(world: World) -> None:
    with world.check("sp.cluster.id of each cluster is that of its hosts, whole"):
        seen = clusters(world)
        by_host = {
            str(host["name"]): seen[str(host["clusterid"])]
            for host in steps.many(world.cloud.call("listHosts", type="Routing"), "host")
        }
        assert by_host == {host.name: host.cluster_id for host in world.hosts}, by_host
        assert len(set(seen.values())) == 2, f"the clusters have ids {seen}"
        shown = steps.many(world.cloud.call("listClusters"), "cluster")
        assert {str(item["id"]): item["resourcedetails"].get(CLUSTER_ID) for item in shown} == seen, shown
    with world.check("the setting is of clusters: one that is changed leaves the other, and a zone has none"):
        first, second = seen
        other = str(world.environment.zone_id)
        with steps.setting(world, CLUSTER_ID, "d.n", seen[second], clusterid=second):
            assert clusters(world) == {first: seen[first], second: "d.n"}, clusters(world)
            try:
                world.cloud.call("updateConfiguration", name=CLUSTER_ID, value="d.n", zoneid=other)
            except CloudApiError as error:
                assert "scope" in error.text.lower(), error.text
            else:
                raise AssertionError("a zone was given a StorPool cluster")


@scenario("multicluster", "across", "a volume goes from a host of one StorPool cluster to one of the other", "clusters")
def across(world: World) -> None:
    first, second = world.hosts
    here, there = vm_on(world, first), vm_on(world, second)
    volume = steps.attach(world, steps.data_volume(world), here)
    with world.check("attached in its own cluster, at the exact client of it"):
        only_at(world, volume, first)
        snapshots.write(world, here, volume, "first")
    steps.detach(world, volume)
    with world.check("nobody has it after the detach"):
        assert holders(world, volume) == [], holders(world, volume)
        looks.device_nowhere(world, volume)
    volume = steps.attach(world, volume, there)
    with world.check("the other cluster's host has it, under the same path, with its bytes, tags and size"):
        only_at(world, volume, second)
        looks.fully_attached(world, there, volume)
        looks.has_vm_tags(world, there, volume)
        snapshots.guest_reads(world, there, volume, "first")
        snapshots.write(world, there, volume, "second")
    steps.detach(world, volume)
    volume = steps.attach(world, volume, here)
    with world.check("and back again, with what was written there"):
        only_at(world, volume, first)
        snapshots.guest_reads(world, here, volume, "second")


@scenario("multicluster", "vm-elsewhere", "a VM starts on a host of the other StorPool cluster", "clusters")
def vm_elsewhere(world: World) -> None:
    first, second = world.hosts
    vm = vm_on(world, first)
    volume = steps.attach(world, steps.data_volume(world), vm)
    snapshots.write(world, vm, volume, "before")
    steps.stop(world, vm)
    listed = steps.one(world.cloud.call("listHosts", name=second.name), "host")
    world.cloud.call("startVirtualMachine", id=vm["id"], hostid=listed["id"])
    vm = steps.vm_by_id(world, str(vm["id"]))
    with world.check("both disks are at that host's client only, and boot and hold what they held"):
        assert steps.host_of(world, vm).name == second.name, vm["hostname"]
        world.guest(str(vm["id"])).boot_id()
        for disk in (steps.root_volume(world, str(vm["id"])), volume):
            only_at(world, disk, second)
        snapshots.guest_reads(world, vm, volume, "before")


@scenario("multicluster", "snapshot-elsewhere", "a snapshot is taken and backed up in the volume's cluster", "clusters")
def snapshot_elsewhere(world: World) -> None:
    _, second = world.hosts
    vm = vm_on(world, second)
    volume = steps.attach(world, steps.data_volume(world), vm)
    snapshots.write(world, vm, volume, "kept")
    snapshot = snapshots.take(world, volume)
    with world.check("the backup holds the volume's bytes, and the snapshot is attached nowhere afterwards"):
        snapshots.file_holds(world, snapshot, "kept")
        snapshots.attached_nowhere(world, str(snapshots.on_storpool(world, snapshot)["globalId"]))
    with world.check("one cluster has it"):
        gid = str(snapshots.on_storpool(world, snapshot)["globalId"])
        count = sum(cluster.snapshot(f"~{gid}") is not None for cluster in world.storpools)
        assert count == 1, f"{count} clusters have ~{gid}"
    snapshots.write(world, vm, volume, "later")
    made = snapshots.volume_from(world, snapshot)
    made = steps.attach(world, made, vm)
    with world.check("a volume of it has its bytes and tags"):
        snapshots.guest_reads(world, vm, made, "kept")
        looks.has_vm_tags(world, vm, made)
    steps.detach(world, volume)
    steps.detach(world, made)
    with world.check("deleting it leaves neither the snapshot nor the backup"):
        snapshots.delete(world, snapshot)
        assert snapshots.all_on_storpool(world, snapshot) == [] == snapshots.files_of(world, snapshot)


@scenario("multicluster", "cut-host", "a host cut off from its own StorPool cluster gets no volume", "clusters")
def cut_host(world: World) -> None:
    first, second = world.hosts
    vm = vm_on(world, second)
    volume = steps.attach(world, steps.data_volume(world), vm)
    volume = steps.detach(world, volume)
    with world.check("the error names the host, and nothing is attached anywhere"):
        with second.storpool_api_cut():
            try:
                steps.attach(world, volume, vm)
            except CloudApiError as error:
                assert second.name in error.text and first.name not in error.text, error.text
            else:
                raise AssertionError("attached by a host that does not reach StorPool")
        assert holders(world, volume) == [], holders(world, volume)
    with world.check("with the way open it works"):
        only_at(world, steps.attach(world, volume, vm), second)
