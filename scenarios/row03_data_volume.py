"""Row 3: create DATA volume. Seen from outside: spec/action-table.md row 3."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios.looks import fully_attached, has_vm_tags, on_storpool, refused
from scenarios.registry import scenario
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    booted_vm,
    data_volume,
    disk_offering,
    many,
    one,
    running_vm,
    volume_by_id,
)


def of_this_volume(world: World, volume: Json) -> list[Json]:
    return [v for v in world.storpool.volumes() if (v.get("tags") or {}).get("uuid") == volume["id"]]


@scenario(3, "allocated", "a DATA volume is a row in Allocated until its first use")
def allocated_until_first_use(world: World) -> None:
    before = len(world.storpool.volumes())
    volume = data_volume(world, size=2)
    with world.check("CloudStack: Allocated, of that size, without path, pool or VM"):
        assert (volume["state"], volume["size"], volume["type"]) == ("Allocated", 2 * GIB, "DATADISK"), volume
        present = {"path", "storageid", "virtualmachineid", "deviceid"} & volume.keys()
        assert not present, f"an unused volume shows {present}"
    with world.check("StorPool: nothing"):
        assert of_this_volume(world, volume) == []
        assert len(world.storpool.volumes()) == before
    vm = running_vm(world)
    used = attach(world, volume, vm)
    with world.check("after its first use: Ready, one StorPool volume of that size"):
        assert used["state"] == "Ready", used
        assert len(of_this_volume(world, volume)) == 1
        assert on_storpool(world, used)["size"] == 2 * GIB
    with world.check("it is blank: no parent"):
        assert on_storpool(world, used)["parentName"] == ""
    with world.check("placed by the pool's StorPool template"):
        seen = on_storpool(world, used)["templateName"]
        assert seen == world.environment.pools[0].storpool_template, f"placed by {seen}"
    with world.check("tags cs, uuid, cvm, disk"):
        has_vm_tags(world, vm, used)


@scenario(3, "fixed-size", "a DATA volume of an offering with a size has that size")
def fixed_size(world: World) -> None:
    offering = disk_offering(world, disksize=3)
    answer = world.cloud.call(
        "createVolume", name=world.name("data"), zoneid=world.environment.zone_id, diskofferingid=offering
    )
    volume = volume_by_id(world, str(one(answer, "volume")["id"]))
    with world.check("the offering's size in CloudStack"):
        assert volume["size"] == 3 * GIB, volume
    vm = booted_vm(world)
    used = attach(world, volume, vm)
    with world.check("the offering's size on StorPool"):
        assert on_storpool(world, used)["size"] == 3 * GIB
    fully_attached(world, vm, used)


@scenario(3, "blank", "a new DATA volume reads as zeros")
def blank(world: World) -> None:
    vm = running_vm(world)
    volume = attach(world, data_volume(world), vm)
    host = next(h for h in world.hosts if h.device_size(str(volume["path"])) is not None)
    with world.check("first and last 64 KiB are zeros"):
        for offset in (0, GIB - 65536):
            assert host.read_device(str(volume["path"]), offset, 65536) == bytes(65536), f"data at {offset}"


@scenario(3, "many-at-once", "volumes created at the same time are each their own")
def many_at_once(world: World) -> None:
    offering = disk_offering(world)
    env = world.environment
    jobs = [
        world.cloud.start(
            "createVolume", name=world.name(f"data{i}"), zoneid=env.zone_id, diskofferingid=offering, size=1
        )
        for i in range(3)
    ]
    ids = {str(one(world.cloud.wait(job), "volume")["id"]) for job in jobs}
    with world.check("three volumes"):
        assert len(ids) == 3, ids
    vm = running_vm(world)
    attaching = [world.cloud.start("attachVolume", id=volume_id, virtualmachineid=vm["id"]) for volume_id in ids]
    for job in attaching:
        world.cloud.wait(job)
    volumes = [volume_by_id(world, volume_id) for volume_id in ids]
    with world.check("each has its own StorPool volume and slot"):
        assert len({v["path"] for v in volumes}) == 3, volumes
        assert len({v["deviceid"] for v in volumes}) == 3, volumes
        for volume in volumes:
            assert len(of_this_volume(world, volume)) == 1
    with world.check("tags name the slot"):
        for volume in volumes:
            has_vm_tags(world, vm, volume)


@scenario(3, "refusals", "what cannot be a volume is refused with a reason, and nothing is made")
def refusals(world: World) -> None:
    env = world.environment
    customised, fixed = disk_offering(world), disk_offering(world, disksize=1)
    base: dict[str, str | int | bool] = {"zoneid": env.zone_id, "name": world.name("data")}
    wrong: tuple[tuple[str, tuple[int, ...], dict[str, str | int | bool]], ...] = (
        ("a negative size", (431,), {"diskofferingid": customised, "size": -1}),
        ("size zero", (431,), {"diskofferingid": customised, "size": 0}),
        ("a size that is no number", (430, 431), {"diskofferingid": customised, "size": "1.5"}),
        ("no size, and none in the offering", (431,), {"diskofferingid": customised}),
        ("a size no pool can have", (431,), {"diskofferingid": customised, "size": 1 << 40}),
        ("an offering that does not exist", (431,), {"diskofferingid": MISSING, "size": 1}),
        ("no offering and no snapshot", (431,), {"size": 1}),
        ("a zone that does not exist", (431,), {"diskofferingid": fixed, "zoneid": MISSING}),
        ("a name of 256 characters", (431,), {"diskofferingid": fixed, "name": "n" * 256}),
    )
    for why, codes, parameters in wrong:
        wanted = {**base, **parameters}
        with refused(world, why, *codes):
            world.cloud.call("createVolume", **wanted)
    with world.check("no volume of that name in CloudStack"):
        names = [v["name"] for v in many(world.cloud.call("listVolumes", listall=True), "volume")]
        assert base["name"] not in names, names
