"""Several StorPool clusters: whom a call is made at, whose client is meant, and copies of snapshots elsewhere.

Cluster ids are such that one is a part of the other's global ids.
"""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import POOL, SETTLE, TOKEN, FakeRecords, Rig, snapshot_of, volume
from driver_rig import Agent as RigAgent

from harness.driver import StorPoolProvider
from harness.driver.pools import Pool, cluster_of
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, InvalidParameter, NotFound
from harness.spi.inventory import Client, HostRecord, SnapshotCopy, SnapshotRecord
from harness.spi.objects import Host, SnapshotObject
from harness.spi.states import SnapshotState, StoreRefState
from harness.storpool import Connection, Reply, Request, RetryPolicy, StorPoolClient, VolumeReassignDesc
from simulator.inprocess import TOKEN as SIMULATOR_TOKEN
from simulator.inprocess import InProcess, connected
from simulator.settings import KnownCluster

HOME = KnownCluster(cluster_id="aa.b", name="home", location="sofia")
SIDE = KnownCluster(cluster_id="aa.bc", name="side", location="sofia")
FAR = KnownCluster(cluster_id="z.aa", name="far", location="varna")
FAR_POOL = msgspec.structs.replace(POOL, id=2, uuid="far", name="far")
GIB = 1 << 30


class Wire:
    """To one cluster; notes what was asked."""

    def __init__(self, cluster: InProcess, calls: list[str]) -> None:
        self.cluster = cluster
        self.calls = calls

    def call(self, request: Request) -> Reply:
        self.calls.append(request.path)
        asked = self.cluster.ask(request.verb, request.path, request.body or b"", SIMULATOR_TOKEN)
        while asked.reply is None:
            self.cluster.advance(1.0)
            self.cluster.service.tick()
        return Reply(asked.reply.status, asked.reply.body)


class Records(FakeRecords):
    """With two pools, and what the pool of the other location has of snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.details = {
            1: _details("home", "aa.b.1"),
            2: _details("far", "z.aa.1"),
        }
        self.copies: dict[tuple[str, int], SnapshotCopy] = {}
        self.endpoints: dict[str, str] = {}

    def snapshot_copy(self, uuid: str, pool_id: int) -> SnapshotCopy | None:
        return self.copies.get((uuid, pool_id))

    def cluster_of(self, storpool_cluster_id: str) -> int | None:
        return 7 if storpool_cluster_id in self.endpoints else None

    def setting(self, name: str, *, pool_id: int | None = None, cluster_id: int | None = None) -> str | None:
        if name == "sp.cluster.endpoint":
            return next(iter(self.endpoints.values()), None) if cluster_id == 7 else None
        return super().setting(name, pool_id=pool_id, cluster_id=cluster_id)


def _details(host: str, check_volume: str) -> dict[str, str]:
    return {
        "SP_API_HTTP_HOST": f"{host}:81",
        "SP_AUTH_TOKEN": TOKEN,
        "SP_TEMPLATE": "hdd",
        "SP_VOLUME_ON_CLUSTER-1": f"/dev/storpool-byid/{check_volume}",
    }


class Clouds:
    """Three clusters, and a driver of pools at the first and the last."""

    def __init__(self) -> None:
        self.home, self.side, self.far = connected(HOME, SIDE, FAR)
        self.calls: dict[str, list[str]] = {"home": [], "side": [], "far": []}
        self.records = Records()
        self.records.settings["storpool.snapshot.recovery.from.remote.check"] = "1"
        self.runtime = ThreadRuntime("management")
        for cluster in (self.home, self.side, self.far):
            cluster.post("VolumeTemplateCreate", {"name": "hdd", "placeAll": "hdd", "replication": 3})
        clusters = {"home": self.home, "side": self.side, "far": self.far}

        def connect(connection: Connection) -> StorPoolClient:
            host = connection.endpoints[0].partition(":")[0]
            return StorPoolClient(Wire(clusters[host], self.calls[host]), self.runtime, RetryPolicy(attempts=1))

        self.provider = StorPoolProvider(self.runtime, self.records, RigAgent(Rig()), connect, SETTLE)
        self.driver = self.provider.driver

    def snapshot(self, at: InProcess) -> SnapshotObject:
        made = at.post("VolumeCreate", {"size": GIB, "template": "hdd"})
        taken = at.post(f"VolumeSnapshot/{made['name']}", {"tags": {"uuid": "snap-9", "cs": "snapshot"}})
        path = f"/dev/storpool-byid/{taken['snapshotGlobalId']}"
        return msgspec.structs.replace(snapshot_of(volume()), path=path, size=GIB)

    def copied(self, source: SnapshotObject) -> SnapshotObject:
        self.records.copies[source.uuid, 2] = SnapshotCopy(
            snapshot_uuid=source.uuid, pool_id=2, state=StoreRefState.CREATING, path=None
        )
        made = self.driver.copy(source, msgspec.structs.replace(source, store=FAR_POOL, path=None))
        assert isinstance(made, SnapshotObject)
        return made

    def record(self, made: SnapshotObject) -> None:
        self.records.copies[made.uuid, 2] = SnapshotCopy(
            snapshot_uuid=made.uuid, pool_id=2, state=StoreRefState.READY, path=made.path
        )


@pytest.fixture
def clouds() -> Clouds:
    return Clouds()


def exports(cluster: InProcess) -> list[str]:
    return [str(one["globalId"]) for one in cluster.get("ExportsList")["exports"]]


def gid(snapshot: SnapshotObject) -> str:
    return str(snapshot.path).rpartition("/")[2]


def test_the_cluster_of_an_object_is_the_first_two_parts_of_its_id_and_nothing_else() -> None:
    assert cluster_of("/dev/storpool-byid/aa.bc.12") == "aa.bc"
    assert cluster_of("/dev/storpool/volume") is None


def test_a_client_is_that_of_its_cluster_whose_id_is_compared_as_a_whole() -> None:
    host = HostRecord(id=1, name="h", up=True, storpool_client_id=1, storpool_cluster_id="aa.b")
    assert host.is_client(Client(1, "aa.b")) and host.is_client(Client(1))
    assert not host.is_client(Client(1, "aa.bc")) and not host.is_client(Client(2, "aa.b"))
    assert msgspec.structs.replace(host, storpool_cluster_id=None).is_client(Client(1, "aa.bc"))


def test_a_call_is_handed_to_exactly_the_cluster_that_is_meant(clouds: Clouds) -> None:
    pool = Pool(1, "hdd", StorPoolClient(Wire(clouds.home, clouds.calls["home"]), clouds.runtime), "aa.b")
    assert pool.at(None) is pool.client and pool.at("aa.b") is pool.client
    made = clouds.side.post("VolumeCreate", {"size": GIB, "template": "hdd"})
    pool.at("aa.bc").volumes_reassign_wait([VolumeReassignDesc(volume=made["name"], rw=(1,))])
    assert clouds.calls["home"] == ["RemoteCommand/~aa.bc/MultiCluster/VolumesReassignWait"]
    (attached,) = clouds.home.get("MultiCluster/AttachmentsList")
    assert (attached["client"], attached["clusterId"]) == (1, "aa.bc")
    with pytest.raises(InvalidParameter, match="not a cluster id"):
        pool.client.at("aa.b/../x")


def test_what_is_taken_from_a_fenced_host_stays_at_the_client_of_another_cluster_with_its_number(
    clouds: Clouds,
) -> None:
    made = clouds.side.post("VolumeCreate", {"size": GIB, "template": "hdd"})
    clouds.side.post("VolumesReassignWait", {"reassign": [{"volume": made["name"], "rw": [1]}]})
    path = f"/dev/storpool-byid/{made['globalId']}"
    has = msgspec.structs.replace(volume(), path=path)
    for cluster_id, asked in (("aa.b", []), ("aa.bc", ["RemoteCommand/~aa.bc/MultiCluster/VolumesReassignWait"])):
        clouds.records.settings["sp.cluster.id"] = cluster_id
        clouds.driver.release_fenced(has, Host(id=4, uuid="h", name="kvm-1", cluster_id=2, storpool_client_id=1))
        assert [call for call in clouds.calls["home"] if "Reassign" in call] == asked
        assert len(clouds.side.get("AttachmentsList")) == 1 - len(asked)


@pytest.mark.parametrize("where", ["home", "side"])
def test_a_snapshot_is_exported_by_the_cluster_that_has_it_and_found_under_its_id(clouds: Clouds, where: str) -> None:
    origin = clouds.home if where == "home" else clouds.side
    source = clouds.snapshot(origin)
    made = clouds.copied(source)
    assert (made.path, made.size, made.store) == (source.path, GIB, FAR_POOL)
    found = clouds.far.get(f"Snapshot/~{gid(source)}")[0]
    assert (found["tags"]["uuid"], found["tags"]["cs"], found["templateName"]) == ("snap-9", "snapshot", "hdd")
    assert exports(origin) == [gid(source)]
    clouds.record(made)
    clouds.far.advance(60)
    lines = settle(clouds)
    assert exports(origin) == [], lines
    assert not clouds.records.open_operations()


def test_a_copy_that_was_deleted_is_made_again_while_the_first_is_still_looked_after(clouds: Clouds) -> None:
    source = clouds.snapshot(clouds.home)
    clouds.record(clouds.copied(source))
    clouds.far.advance(60)
    soon = str(clouds.runtime.now() + SETTLE / 2)
    for operation in clouds.records.open_operations():
        clouds.records.step_operation(operation.id, "answered", "answered", {"check": "1", "settles": soon})
    clouds.driver.recover()
    assert exports(clouds.home) == [] and clouds.records.open_operations(), "it is to be open without its export"
    clouds.far.post(f"SnapshotDelete/~{gid(source)}")
    clouds.far.advance(60)
    clouds.far.service.tick()
    assert clouds.copied(source).path == source.path


def settle(clouds: Clouds) -> list[str]:
    operations = clouds.records.open_operations()
    for operation in operations:
        clouds.records.step_operation(
            operation.id, operation.step, operation.step, {"answered": "1", "check": "1", "settles": "0"}
        )
    return clouds.driver.recover()


def test_an_endpoint_of_the_cluster_is_used_in_place_of_the_pools(clouds: Clouds) -> None:
    source = clouds.snapshot(clouds.side)
    clouds.records.endpoints["aa.bc"] = f"SP_API_HTTP=side:81;SP_AUTH_TOKEN={TOKEN}"
    clouds.copied(source)
    assert clouds.calls["side"] == ["SnapshotExport"]
    assert not [call for call in clouds.calls["home"] if "SnapshotExport" in call]


def test_a_copy_that_is_there_already_is_the_copy_and_a_foreign_one_is_not(clouds: Clouds) -> None:
    source = clouds.snapshot(clouds.home)
    first = clouds.copied(source)
    clouds.record(first)
    clouds.far.advance(60)
    settle(clouds)
    assert clouds.copied(source).path == first.path
    other = msgspec.structs.replace(clouds.snapshot(clouds.home), uuid="snap-10")
    clouds.home.post("SnapshotExport", {"snapshot": f"~{gid(other)}", "location": "varna"})
    clouds.far.post("SnapshotFromRemote", {"remoteLocation": "sofia", "remoteId": gid(other), "template": "hdd"})
    with pytest.raises(Conflict, match="objectExists"):
        clouds.copied(other)
    assert clouds.far.get(f"Snapshot/~{gid(other)}"), "a copy that is not ours was removed"


def test_what_cannot_be_copied_leaves_neither_an_export_nor_a_copy(clouds: Clouds) -> None:
    source = clouds.snapshot(clouds.home)
    gone = msgspec.structs.replace(source, path="/dev/storpool-byid/aa.b.zz9")
    with pytest.raises(NotFound, match="gone from StorPool"):
        clouds.copied(gone)
    clouds.records.details[2]["SP_TEMPLATE"] = "none"
    with pytest.raises(NotFound, match="none"):
        clouds.copied(source)
    clouds.records.details[2] = _details("side", "aa.bc.1")
    with pytest.raises(InvalidParameter, match="both in StorPool location sofia"):
        clouds.copied(source)
    assert exports(clouds.home) == [] and not clouds.records.open_operations()
    assert not [item for item in clouds.far.get("SnapshotsList") if item["globalId"] == gid(source)]


def test_a_snapshot_is_deleted_only_once_its_copy_needs_it_no_more(clouds: Clouds) -> None:
    source = clouds.snapshot(clouds.home)
    clouds.record(clouds.copied(source))
    with pytest.raises(Conflict, match="still being copied"):
        clouds.driver.delete(source)
    assert clouds.home.get(f"Snapshot/~{gid(source)}") and exports(clouds.home) == [gid(source)]
    clouds.far.advance(60)
    clouds.driver.delete(source)
    left = clouds.home.get("SnapshotsList")
    assert not [item for item in left if item["globalId"] == gid(source) and not item["deleted"]]
    assert clouds.far.get(f"Snapshot/~{gid(source)}"), "the copy went with it"


@pytest.mark.parametrize("removed", [1, 2])
def test_a_copy_is_looked_after_no_more_when_one_of_its_pools_was_removed(clouds: Clouds, removed: int) -> None:
    clouds.record(clouds.copied(clouds.snapshot(clouds.home)))
    del clouds.records.details[removed]
    (line,) = clouds.driver.recover()
    assert f"given up, because pool {removed} was removed" in line and not clouds.records.open_operations()


def test_a_copy_that_is_given_up_goes_with_its_export(clouds: Clouds) -> None:
    source = clouds.snapshot(clouds.home)
    clouds.copied(source)
    del clouds.records.copies[source.uuid, 2]
    clouds.records.snapshots[source.uuid] = clouds.records.snapshots.get(source.uuid) or _record(source)
    lines = settle(clouds)
    assert exports(clouds.home) == [], lines
    left = clouds.far.get("SnapshotsList")
    assert not [item for item in left if item["globalId"] == gid(source) and not item["deleted"]], lines


def _record(source: SnapshotObject) -> SnapshotRecord:
    return SnapshotRecord(uuid=source.uuid, state=SnapshotState.BACKED_UP, removed=False, pool_id=1, path=source.path)


@pytest.mark.parametrize(("configured", "fits"), [(None, True), ("n/a", True), ("splab.b", True), ("splab", False)])
def test_a_host_of_another_storpool_cluster_than_its_cluster_says_is_refused(
    configured: str | None, fits: bool
) -> None:
    rig = Rig()
    if configured is not None:
        rig.records.settings["sp.cluster.id"] = configured
    host = Host(id=4, uuid="h", name="kvm-1", cluster_id=2)
    if fits:
        assert rig.provider.host_listener.host_connected(host, POOL).storpool_cluster_id == "splab.b"
        return
    with pytest.raises(InvalidParameter, match=r"kvm-1 is a client of StorPool cluster splab\.b, but sp\.cluster\.id"):
        rig.provider.host_listener.host_connected(host, POOL)
