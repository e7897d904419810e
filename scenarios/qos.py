"""Tiers of storpool_qos by SP_QOSCLASS of disk offerings. Seen from outside: spec/action-table.md, `qos`."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios.looks import attached, fully_attached, global_id, has_tags, on_storpool, refused, reread_volume, serial
from scenarios.offerings import (
    TEMPLATE,
    TIER,
    compute_with,
    configured,
    details_of,
    in_no_tier,
    in_tier,
    limit_of,
    of_tier,
    on_storpool_template,
    other_template,
    own_template,
    tiers,
    with_detail,
)
from scenarios.registry import scenario
from scenarios.row15_resize import everywhere, has_size
from scenarios.snapshots import take, volume_from
from scenarios.steps import (
    GIB,
    attach,
    booted_vm,
    change_offering,
    compute_offering,
    data_volume,
    deploy,
    detach,
    detail,
    disk_offering,
    host_of,
    idle_template,
    idle_vm,
    resize,
    root_volume,
    running_vm,
    start,
    stop,
)

GOLD, SILVER = 3000, 400
MARK = b"written before the tier changed".ljust(4096, b"=")


def attached_in(world: World, tier: str, vm: Json) -> Json:
    """A DATA volume of 1 GiB in the tier, on the VM."""
    return attach(world, data_volume(world, offering_id=of_tier(world, tier)), vm)


@scenario("qos", "deploy", "a VM's ROOT and DATA volumes are in the tiers of their offerings from the beginning")
def deployed(world: World) -> None:
    with tiers(world, gold=GOLD, silver=SILVER) as named:
        compute = compute_with(world, TIER, named["gold"])
        data_offering = of_tier(world, named["silver"], disksize=1)
        template = idle_template(world)
        vm = deploy(world, template, serviceofferingid=str(compute["id"]), diskofferingid=data_offering)
        answer = world.cloud.call("listVolumes", virtualmachineid=vm["id"], type="DATADISK", listall=True)
        root, (data,) = root_volume(world, str(vm["id"])), answer["volume"]
        in_tier(world, root, named["gold"], GOLD)
        in_tier(world, data, named["silver"], SILVER)
        vm = start(world, stop(world, vm))
        with world.check("the tiers are there after a stop and a start"):
            has_tags(world, root, qc=named["gold"])
            has_tags(world, data, qc=named["silver"])


@scenario("qos", "override", "the offering that overrides a VM's decides the tier of its ROOT volume")
def overridden(world: World) -> None:
    with tiers(world, gold=GOLD, silver=SILVER) as named:
        compute = compute_with(world, TIER, named["gold"])
        override = of_tier(world, named["silver"], disksize=2)
        template = idle_template(world)
        vm = deploy(world, template, serviceofferingid=str(compute["id"]), overridediskofferingid=override)
        in_tier(world, root_volume(world, str(vm["id"])), named["silver"], SILVER)


@scenario("qos", "create", "a DATA volume is made in its offering's tier, keeps it detached, and hands it to no copy")
def created(world: World) -> None:
    with tiers(world, gold=GOLD, silver=SILVER) as named:
        vm = idle_vm(world)
        data = attached_in(world, named["gold"], vm)
        in_tier(world, data, named["gold"], GOLD)
        attached(world, vm, data)
        snapshot = take(world, data)
        in_tier(world, volume_from(world, snapshot, of_tier(world, named["silver"])), named["silver"], SILVER)
        in_no_tier(world, volume_from(world, snapshot))
        detach(world, data)
        in_tier(world, data, named["gold"], GOLD)


@scenario("qos", "attach", "a detail that is set or removed later is followed by the next attach")
def followed_by_attach(world: World) -> None:
    with tiers(world, gold=GOLD) as named:
        vm = idle_vm(world)
        offering = disk_offering(world)
        data = attach(world, data_volume(world, offering_id=offering), vm)
        in_no_tier(world, data)
        detail(world, "DiskOffering", offering, TIER, named["gold"])
        with world.check("CloudStack lists the detail"):
            assert details_of(world, offering) == {TIER: named["gold"]}, details_of(world, offering)
        data = attach(world, detach(world, data), vm)
        in_tier(world, data, named["gold"], GOLD)
        world.cloud.call("removeResourceDetail", resourcetype="DiskOffering", resourceid=offering, key=TIER)
        with world.check("the detail is gone from CloudStack"):
            assert details_of(world, offering) == {}, details_of(world, offering)
        data = attach(world, detach(world, data), vm)
        with world.check("no tag qc any more"):
            has_tags(world, data, qc="")


@scenario("qos", "change", "the tier of a DATA volume changes under a running guest; size, path and contents stay")
def changed(world: World) -> None:
    with tiers(world, gold=GOLD, silver=SILVER) as named:
        vm = booted_vm(world)
        data = attached_in(world, named["gold"], vm)
        in_tier(world, data, named["gold"], GOLD)
        guest = world.guest(str(vm["id"]))
        guest.write(serial(data), 0, MARK)
        silver = of_tier(world, named["silver"], disksize=1)
        now = change_offering(world, data, silver)
        in_tier(world, now, named["silver"], SILVER)
        with world.check("the new offering, the same path, what was written"):
            assert (now["diskofferingid"], global_id(now)) == (silver, global_id(data)), now
            assert guest.read(serial(data), 0, len(MARK)) == MARK
        everywhere(world, vm, now, GIB)
        fully_attached(world, vm, now)


@scenario(
    "qos", "change-and-size", "tier and size change together, larger and smaller, with and without a guest (#8755)"
)
def changed_with_size(world: World) -> None:
    with tiers(world, gold=GOLD, silver=SILVER) as named:
        vm = booted_vm(world)
        gold, silver = of_tier(world, named["gold"]), of_tier(world, named["silver"])
        data = attach(world, data_volume(world, offering_id=gold), vm)
        change_offering(world, data, silver, size=3)
        everywhere(world, vm, data, 3 * GIB)
        in_tier(world, data, named["silver"], SILVER)
        resize(world, data, 4, diskofferingid=gold)
        everywhere(world, vm, data, 4 * GIB)
        in_tier(world, data, named["gold"], GOLD)
        change_offering(world, data, silver, size=2, shrinkok=True)
        everywhere(world, vm, data, 2 * GIB)
        in_tier(world, data, named["silver"], SILVER)
        detach(world, data)
        change_offering(world, data, gold, size=3)
        has_size(world, data, 3 * GIB)
        in_tier(world, data, named["gold"], GOLD)
        fully_attached(world, vm, attach(world, data, vm))


@scenario("qos", "not-running", "the tier changes of a volume that is detached, of a stopped VM, or was never used")
def not_running(world: World) -> None:
    with tiers(world, gold=GOLD, silver=SILVER) as named:
        vm = idle_vm(world)
        gold, silver = of_tier(world, named["gold"], disksize=1), of_tier(world, named["silver"], disksize=1)
        data = attach(world, data_volume(world, offering_id=gold), vm)
        unused = change_offering(world, data_volume(world, offering_id=gold), silver)
        with world.check("one that was never used is only written down anew"):
            seen = (unused["state"], unused["diskofferingid"], unused.get("path"))
            assert seen == ("Allocated", silver, None), seen
        detach(world, data)
        in_tier(world, change_offering(world, data, silver), named["silver"], SILVER)
        attach(world, data, vm)
        vm = stop(world, vm)
        in_tier(world, change_offering(world, data, gold), named["gold"], GOLD)
        in_tier(world, attach(world, unused, vm), named["silver"], SILVER)
        attached(world, start(world, vm), reread_volume(world, data))


@scenario("qos", "root", "the tier of a ROOT volume changes with a system disk offering, running and stopped")
def root_changed(world: World) -> None:
    with tiers(world, gold=GOLD, silver=SILVER) as named:
        vm = idle_vm(world)
        root = root_volume(world, str(vm["id"]))
        gold, silver = compute_with(world, TIER, named["gold"]), compute_with(world, TIER, named["silver"])
        root = change_offering(world, root, str(gold["diskofferingid"]))
        in_tier(world, root, named["gold"], GOLD)
        attached(world, vm, root)
        vm = stop(world, vm)
        root = change_offering(world, root, str(silver["diskofferingid"]))
        in_tier(world, root, named["silver"], SILVER)
        vm = start(world, vm)
        root = change_offering(world, root, str(compute_offering(world)["diskofferingid"]))
        in_no_tier(world, root)
        attached(world, vm, root)


@scenario("qos", "left", "leaving a tier clears its tag and its limit; the new offering's comes instead (weakness 40)")
def left(world: World) -> None:
    with tiers(world, gold=GOLD) as named:
        vm = idle_vm(world)
        gold = of_tier(world, named["gold"], disksize=1)
        data = attach(world, data_volume(world, offering_id=gold), vm)
        in_tier(world, data, named["gold"], GOLD)
        limited = disk_offering(world, disksize=1, miniops=100, maxiops=700)
        in_no_tier(world, change_offering(world, data, limited), 700)
        in_tier(world, change_offering(world, data, gold), named["gold"], GOLD)
        in_no_tier(world, change_offering(world, data, disk_offering(world, disksize=1)))
        attached(world, vm, reread_volume(world, data))


@scenario("qos", "wins", "of an offering with both details SP_QOSCLASS counts, when it is made, changed and attached")
def wins(world: World) -> None:
    with tiers(world, gold=GOLD) as named:
        vm = idle_vm(world)
        both = of_tier(world, named["gold"], disksize=1)
        detail(world, "DiskOffering", both, TEMPLATE, other_template(world))
        data = attach(world, data_volume(world, offering_id=both), vm)
        on_storpool_template(world, data, own_template(world))
        in_tier(world, data, named["gold"], GOLD)
        other = attach(world, data_volume(world), vm)
        on_storpool_template(world, change_offering(world, other, both), own_template(world))
        in_tier(world, other, named["gold"], GOLD)


@scenario("qos", "again", "the same change asked for twice does the same (#13741)")
def again(world: World) -> None:
    with tiers(world, gold=GOLD) as named:
        vm = booted_vm(world)
        gold = of_tier(world, named["gold"])
        data = attach(world, data_volume(world), vm)
        for _ in range(2):
            change_offering(world, data, gold, size=2)
            everywhere(world, vm, data, 2 * GIB)
            in_tier(world, data, named["gold"], GOLD)
        fully_attached(world, vm, reread_volume(world, data))


@scenario("qos", "by-hand", "limits that somebody changed by hand are put back within a minute; others are left alone")
def by_hand(world: World) -> None:
    with tiers(world, gold=GOLD) as named:
        vm = running_vm(world)
        data, other = attached_in(world, named["gold"], vm), attach(world, data_volume(world), vm)
        in_tier(world, data, named["gold"], GOLD)
        for volume in (data, other):
            world.storpool.update_volume("~" + global_id(volume), iops=77)
        in_tier(world, data, named["gold"], GOLD)
        with world.check("a volume in no tier keeps what somebody gave it"):
            assert limit_of(world, other) == 77, on_storpool(world, other)


@scenario("qos", "unknown", "a tier that storpool_qos does not know yet makes no volume fail, and counts once it does")
def unknown(world: World) -> None:
    vm = idle_vm(world)
    tier = world.name("tier")
    data = attached_in(world, tier, vm)
    attached(world, vm, data)
    with world.check("the tag, and no limit"):
        has_tags(world, data, qc=tier)
        assert limit_of(world, data) == "-", on_storpool(world, data)
    with configured(world, {tier: GOLD}):
        in_tier(world, data, tier, GOLD)


@scenario("qos", "refusals", "a change that cannot be is refused with CloudStack's text, and nothing changes")
def refusals(world: World) -> None:
    with tiers(world, gold=GOLD) as named:
        vm = running_vm(world)
        data = attached_in(world, named["gold"], vm)
        root = root_volume(world, str(vm["id"]))
        in_tier(world, data, named["gold"], GOLD)
        custom, fixed = of_tier(world, named["gold"]), of_tier(world, named["gold"], disksize=1)
        compute = compute_with(world, TIER, named["gold"])
        odd = with_detail(world, TIER, "of gold", disksize=1)
        with refused(
            world, "an offering of customised size without a size", 431, saying="requires that a size be specified"
        ):
            change_offering(world, data, custom)
        with refused(world, "a size with an offering of fixed size", 431):
            change_offering(world, data, fixed, size=2)
        with refused(world, "a system disk offering for a DATA volume", 431):
            change_offering(world, data, str(compute["diskofferingid"]))
        with refused(world, "a plain disk offering for a ROOT volume", 431):
            change_offering(world, root, fixed)
        resize(world, data, 2, diskofferingid=custom)
        with refused(world, "a smaller size without asking for it", 431):
            change_offering(world, data, fixed)
        with refused(world, "a tier that cannot be a StorPool tag", 431, 530, saying="of gold"):
            change_offering(world, data, odd, shrinkok=True)
        unused = data_volume(world, offering_id=odd)
        with refused(world, "a volume of a tier that cannot be a StorPool tag", 431, 530, 533):
            attach(world, unused, vm)
        in_tier(world, data, named["gold"], GOLD)


@scenario("qos", "obeyed", "a host's device obeys the limit of its tier, and a new one at once")
def obeyed(world: World) -> None:
    low = 200
    with tiers(world, low=low) as named:
        vm = running_vm(world)
        data = attach(world, data_volume(world), vm)
        host, path = host_of(world, vm), str(data["path"])
        free = disk_offering(world, disksize=1)
        free_rate = host.reads_a_second(path, 3) if world.real else 0.0
        change_offering(world, data, of_tier(world, named["low"], disksize=1))
        in_tier(world, data, named["low"], low)
        if world.real:
            with world.check(f"fio gets no more than {low} IOPS, and got many more before"):
                rate = host.reads_a_second(path, 6)
                assert rate <= 1.2 * low, f"fio read {rate:.0f} times a second, the tier allows {low}"
                assert free_rate > 2 * low, f"without a limit fio read {free_rate:.0f} times a second only"
        in_no_tier(world, change_offering(world, data, free))
        if world.real:
            with world.check("without a limit it is fast again"):
                rate = host.reads_a_second(path, 3)
                assert rate > 2 * low, f"fio read {rate:.0f} times a second"
