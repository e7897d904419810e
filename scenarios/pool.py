"""Extra `pool`: zone-wide pools are added, accounted for and changed (spec/action-table.md); their end: pool_end.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.observers import CloudApiError, World
from scenarios.looks import attached, fully_attached, gone, on_storpool, refused, reread_volume, serial
from scenarios.pools import (
    CAPACITY,
    await_connected,
    offering_on,
    on_template,
    pool_by_id,
    pool_parameters,
    pool_uri,
    pool_url,
    pools,
    remove_pool,
    spare_pool,
    storpool_template,
    vm_on,
)
from scenarios.registry import scenario
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    booted_vm,
    data_volume,
    detach,
    disk_offering,
    expunge,
    idle_vm,
    many,
    one,
    root_volume,
)

STATS_SECONDS = 180.0
"""A management server asks StorPool for its space a minute after its start."""


@scenario("pool", "happy", "a zone-wide pool is added by either form of URL, connected on every host, and used")
def happy(world: World) -> None:
    token = world.environment.storpool_token
    for url in (pool_url, pool_uri):
        with storpool_template(world) as name:
            wanted = pool_parameters(world, url(world, name), managed=True, capacityiops=1000)
            pool = one(world.cloud.call("createStoragePool", **wanted), "storagepool")
            with world.check("zone-wide, Up, of provider and type StorPool, at /dev/storpool"):
                seen = tuple(pool[key] for key in ("scope", "state", "provider", "type", "path", "zoneid"))
                assert seen == ("ZONE", "Up", "StorPool", "StorPool", "/dev/storpool", world.environment.zone_id), pool
            with world.check("managed is ignored, the pool's name is its tag, capacity is what was given"):
                seen = tuple(pool[key] for key in ("managed", "tags", "capacitybytes", "capacityiops"))
                assert seen == (False, wanted["name"], CAPACITY, 1000), pool
            with world.check("connected on every host"):
                await_connected(world, pool)
            with world.check("no answer shows the token"):
                assert token not in str(pool) + str(pools(world)), "an answer shows the token"
            vm = vm_on(world, pool)
            root = root_volume(world, str(vm["id"]))
            with world.check("its volumes are on its StorPool template"):
                assert root["storageid"] == pool["id"], root
                assert on_storpool(world, root)["templateName"] == name
            attached(world, vm, root)
            with world.check("its IOPS keep no volume from it"):
                many_iops = disk_offering(world, tags=str(pool["tags"]), miniops=2000, maxiops=3000)
                volume = attach(world, data_volume(world, 1, many_iops), vm)
                assert volume["storageid"] == pool["id"], volume
            expunge(world, vm)
            world.cloud.call("deleteVolume", id=volume["id"])
            remove_pool(world, pool)
            with world.check("deleted: nothing is left on its StorPool template"):
                assert on_template(world, name) == []


@scenario("pool", "refusals", "a pool that cannot be used is refused with a reason that holds no token, and not added")
def refusals(world: World) -> None:
    env = world.environment
    taken = env.pools[0].storpool_template
    clusters = many(world.cloud.call("listClusters"), "cluster")
    with storpool_template(world) as name, storpool_template(world, replication=False) as unplaced:
        good = pool_url(world, name)
        cases: tuple[tuple[str, tuple[int, ...], str, dict[str, str | int | bool]], ...] = (
            ("a cluster's pool", (431,), "zone", {"scope": "cluster", "clusterid": str(clusters[0]["id"])}),
            ("a zone-wide pool with a cluster", (431,), "zone", {"clusterid": str(clusters[0]["id"])}),
            ("another provider", (431,), "provider", {"provider": "DefaultPrimary"}),
            ("capacity zero", (431,), "", {"capacitybytes": 0}),
            ("a name that a pool has", (431,), "exists", {"name": env.pools[0].name}),
            ("a zone that does not exist", (431,), "", {"zoneid": MISSING}),
            ("a StorPool template that does not exist", (431,), "no template", {"url": pool_url(world, "no-such")}),
            ("a StorPool template without replication", (431,), "replication", {"url": pool_url(world, unplaced)}),
            ("a StorPool template of another pool", (431,), "serves pool", {"url": pool_url(world, taken)}),
            (
                "the same cluster by another address",
                (431,),
                "serves pool",
                {"url": pool_url(world, taken, endpoints="192.0.2.1:81")},
            ),
            ("a token that is wrong", (431,), "SP_AUTH_TOKEN", {"url": pool_url(world, name, token="9=876543210=")}),
            ("a URL of another kind", (431,), "expected", {"url": "nfs://host/export"}),
            ("a URL without a token", (431,), "SP_AUTH_TOKEN", {"url": good.replace("SP_AUTH_TOKEN", "TOKEN")}),
            ("a URL without a template", (431,), "SP_TEMPLATE", {"url": good.rpartition(";")[0]}),
            ("a URI without a template", (431,), "", {"url": pool_uri(world, name).rpartition("/")[0]}),
            (
                "an API that is not there",
                (530, 533, 534),
                "reached",
                {"url": pool_url(world, name, token="1=2", endpoints="127.0.0.254:81")},
            ),
        )
        for why, codes, word, wrong in cases:
            before = [pool["id"] for pool in pools(world)]
            with refused_quietly(world, why, codes, word):
                world.cloud.call("createStoragePool", **pool_parameters(world, good, **wrong))
            with world.check(f"no pool: {why}"):
                assert [pool["id"] for pool in pools(world)] == before
        without = pool_parameters(world, good)
        del without["capacitybytes"]
        with refused_quietly(world, "no capacity", (431,), "apacity"):
            world.cloud.call("createStoragePool", **without)


@contextmanager
def refused_quietly(world: World, why: str, codes: tuple[int, ...], word: str) -> Iterator[None]:
    """Refused with a text that names what is wrong, and shows no token."""
    with refused(world, why, *codes, saying=word):
        try:
            yield
        except CloudApiError as error:
            for secret in (world.environment.storpool_token, "9=876543210="):
                assert secret not in error.text, "the reason shows the token"
            raise


@scenario("pool", "accounting", "capacity bytes are what may be allocated; real space is reported beside it")
def accounting(world: World) -> None:
    with spare_pool(world, capacitybytes=4 * GIB) as pool:
        offering = offering_on(world, pool)
        vm = idle_vm(world)
        volume = attach(world, data_volume(world, 3, offering), vm)
        with world.check("allocated: the volume's size"):
            seen = pool_by_id(world, pool)
            assert (seen["disksizetotal"], seen["disksizeallocated"]) == (4 * GIB, 3 * GIB), seen
        more = data_volume(world, 3, offering)
        with refused(world, "more than the pool's capacity", 533):
            attach(world, more, vm)
        world.cloud.call("updateStoragePool", id=pool["id"], capacitybytes=8 * GIB)
        more = attach(world, more, vm)
        with world.check("with more capacity it fits, and is accounted for"):
            seen = pool_by_id(world, pool)
            assert (seen["capacitybytes"], seen["disksizeallocated"]) == (8 * GIB, 6 * GIB), seen
        with world.check("listCapacity sums up"):
            rows = {row["type"]: row for row in many(world.cloud.call("listCapacity"), "capacity")}
            total = sum(int(item["capacitybytes"]) for item in pools(world))
            allocated = sum(int(item["disksizeallocated"]) for item in pools(world))
            assert (rows[3]["capacitytotal"], rows[3]["capacityused"]) == (total, allocated), rows
            only = one(world.cloud.call("listCapacity", type=3), "capacity")
            assert only == rows[3], only
        for item in (volume, more):
            world.cloud.call("deleteVolume", id=detach(world, item)["id"])
        with world.check("deleted volumes are not accounted for"):
            assert pool_by_id(world, pool)["disksizeallocated"] == 0
    shared = world.environment.pools[0]

    def told() -> bool:
        return "disksizeused" in pool_by_id(world, {"id": shared.id})

    world.wait_until("StorPool has told of its space", told, STATS_SECONDS)
    with world.check("real space is reported beside the accounting, and is another figure"):
        seen = pool_by_id(world, {"id": shared.id})
        real = {key: int(value) for key, value in seen["storagecustomstats"].items()}
        used, free = real["storpool.usedbytes"], real["storpool.freebytes"]
        assert used + free == real["storpool.capacitybytes"] > 0, seen
        assert (seen["disksizeused"], seen["disksizetotal"]) == (used, seen["capacitybytes"]), seen
        row = one(world.cloud.call("listCapacity", type=2), "capacity")
        assert row["capacityused"] >= used, row


@scenario("pool", "update", "name, tags, capacity and whether it takes new volumes can be changed, its connection not")
def update(world: World) -> None:
    call = world.cloud.call
    with spare_pool(world) as pool:
        vm = booted_vm(world)
        volume = attach(world, data_volume(world, 1, offering_on(world, pool)), vm)
        name, tag = world.name("renamed"), world.name("tag")
        call("updateStoragePool", id=pool["id"], name=name, tags=f"{tag},more", capacitybytes=CAPACITY * 2)
        pool = pool_by_id(world, pool)
        with world.check("name, tags and capacity are the new ones"):
            assert (pool["name"], pool["tags"], pool["capacitybytes"]) == (name, f"{tag},more", CAPACITY * 2), pool
        offering = offering_on(world, {"tags": tag})
        second = data_volume(world, 1, offering)
        call("updateStoragePool", id=pool["id"], enabled=False)
        with refused(world, "a new volume on a disabled pool", 533):
            attach(world, second, vm)
        with world.check("what is there goes on: detached and attached"):
            volume = attach(world, detach(world, volume), vm)
        fully_attached(world, vm, volume)
        call("updateStoragePool", id=pool["id"], enabled=True)
        second = attach(world, second, vm)
        with world.check("enabled again, it takes new volumes, by the new tag"):
            assert second["storageid"] == pool["id"], second
        for why, wrong in (
            ("another token", {"details[0].SP_AUTH_TOKEN": "1"}),
            ("another connection", {"url": pool_url(world, "other")}),
            ("a name that another pool has", {"name": world.environment.pools[0].name}),
            ("capacity zero", {"capacitybytes": 0}),
            ("a pool that does not exist", {"id": MISSING}),
        ):
            with refused(world, why, 430, 431):
                call("updateStoragePool", **{"id": pool["id"], **wrong})
        for item in (volume, second):
            call("deleteVolume", id=detach(world, item)["id"])


@scenario(
    "pool", "connection", "a pool's token and addresses can be changed to others of its own cluster, and no others"
)
def connection(world: World) -> None:
    call, env = world.cloud.call, world.environment
    with spare_pool(world) as pool:
        name = str(pool["storpool_template"])
        vm = idle_vm(world)
        volume = attach(world, data_volume(world, 1, offering_on(world, pool)), vm)
        for why, word, url in (
            ("a token that is wrong", "SP_AUTH_TOKEN", pool_url(world, name, token="9=876543210=")),
            ("an API that is not there", "reached", pool_url(world, name, endpoints="127.0.0.254:81")),
            ("another StorPool template", "template", pool_url(world, env.pools[0].storpool_template)),
            ("a URL of another kind", "expected", "nfs://host/export"),
        ):
            with refused_quietly(world, why, (431, 530, 533, 534), word):
                call("updateStoragePool", id=pool["id"], url=url)
        both = f"{env.storpool_endpoints},127.0.0.254:81"
        shown = one(call("updateStoragePool", id=pool["id"], url=pool_url(world, name, endpoints=both)), "storagepool")
        with world.check("both addresses are the pool's, and no token is shown"):
            assert shown["details"]["SP_API_HTTP_HOST"] == both, shown
            assert env.storpool_token not in str(shown), "the answer shows the token"
        with world.check("the pool is used by them"):
            call("deleteVolume", id=detach(world, volume)["id"])
            gone(world, volume)


@scenario("pool", "providers", "the provider is listed, and volumes are shown with what they really take")
def providers(world: World) -> None:
    with world.check("StorPool is a provider of primary storage"):
        listed = many(world.cloud.call("listStorageProviders", type="primary"), "dataStoreProvider")
        assert "StorPool" in [item["name"] for item in listed], listed
    vm = booted_vm(world)
    volume = attach(world, data_volume(world, 1), vm)
    world.guest(str(vm["id"])).write(serial(volume), 0, b"x" * 4096)
    if not world.real:
        # Where time is real, StorPool may be asked an hour later only.
        world.wait_until("StorPool has told", lambda: "physicalsize" in reread_volume(world, volume), STATS_SECONDS)
    with world.check("a volume has its size, whatever it takes"):
        seen = reread_volume(world, volume)
        assert seen["virtualsize"] == GIB, seen
        assert world.real or 0 < seen["physicalsize"] < GIB, seen
