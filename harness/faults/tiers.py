"""Operations that change tier, StorPool template or limit of a volume (spec/cloudstack-plugin.md 4.26)."""

from __future__ import annotations

from harness.faults.marks import guest_reads, mark
from harness.faults.operation import Operation, Subject, running
from harness.observers import Json, World
from scenarios import looks, snapshots, steps
from scenarios.offerings import (
    BUCKET,
    CONFIG,
    compute_with,
    has_limit,
    in_no_tier,
    in_tier,
    of_tier,
    on_storpool_template,
    on_template,
    other_template,
    own_template,
)

GOLD, SILVER = ("gold", 3000), ("silver", 400)
LIMIT = 700


def _configured(world: World) -> None:
    known = ", ".join(f'"{name}": {{"max_iops": {limit}}}' for name, limit in (GOLD, SILVER))
    world.storpool.keep(BUCKET, CONFIG, f'{{"tiers": {{{known}}}}}')


def _volume_with(world: World, offering: str) -> Subject:
    """On a running VM whose guest has written to it."""
    vm = steps.booted_vm(world)
    volume = steps.attach(world, steps.data_volume(world, offering_id=offering), vm)
    mark(world, vm, volume)
    return Subject(vm=vm, volume=volume)


def _in_gold(world: World) -> Subject:
    _configured(world)
    subject = _volume_with(world, of_tier(world, GOLD[0]))
    subject.offering_id = of_tier(world, SILVER[0])
    return subject


def _in_gold_to_leave(world: World) -> Subject:
    subject = _in_gold(world)
    subject.offering_id = steps.disk_offering(world, disksize=1, miniops=100, maxiops=LIMIT)
    return subject


def _on_own_template(world: World) -> Subject:
    subject = _volume_with(world, steps.disk_offering(world, disksize=1))
    subject.offering_id = on_template(world, other_template(world), disksize=1)
    return subject


def _limited(world: World) -> Subject:
    subject = _volume_with(world, steps.disk_offering(world, disksize=1, miniops=100, maxiops=LIMIT))
    subject.offering_id = steps.disk_offering(world, disksize=1)
    return subject


def _stopped_root(world: World) -> Subject:
    _configured(world)
    vm = steps.stop(world, steps.booted_vm(world))
    offering = compute_with(world, "SP_QOSCLASS", GOLD[0])
    return Subject(vm=vm, volume=steps.root_volume(world, str(vm["id"])), offering_id=str(offering["diskofferingid"]))


def _limited_snapshot(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=snapshots.BACKUP, value="false")
    subject = _limited(world)
    subject.snapshot = snapshots.take(world, subject.volume)
    return subject


def _change(world: World, subject: Subject) -> None:
    steps.change_offering(world, subject.volume, subject.offering_id)


def _change_with_size(world: World, subject: Subject) -> None:
    steps.change_offering(world, subject.volume, subject.offering_id, size=2)


def _clone(world: World, subject: Subject) -> None:
    """Into the one offering that there is without a limit."""
    subject.name = world.name("from-snapshot")
    world.cloud.call(
        "createVolume", name=subject.name, snapshotid=subject.snapshot["id"], diskofferingid=subject.offering_id
    )


def _cloned(world: World, subject: Subject) -> Json | None:
    found = steps.many(world.cloud.call("listVolumes", name=subject.name, listall=True), "volume")
    return found[0] if found else None


def _is_silver_and_large(world: World, subject: Subject) -> None:
    in_tier(world, subject.volume, *SILVER)
    _is_used(world, subject, 2)


def _is_gold_and_small(world: World, subject: Subject) -> None:
    in_tier(world, subject.volume, *GOLD)
    _is_used(world, subject, 1)


def _has_left(world: World, subject: Subject) -> None:
    in_no_tier(world, subject.volume, LIMIT)
    _is_used(world, subject, 1)


def _is_elsewhere(world: World, subject: Subject) -> None:
    on_storpool_template(world, subject.volume, other_template(world))
    _is_used(world, subject, 1)


def _is_where_it_was(world: World, subject: Subject) -> None:
    on_storpool_template(world, subject.volume, own_template(world))
    _is_used(world, subject, 1)


def _is_free(world: World, subject: Subject) -> None:
    has_limit(world, subject.volume, None)
    _is_used(world, subject, 1)


def _is_limited(world: World, subject: Subject) -> None:
    has_limit(world, subject.volume, LIMIT)
    _is_used(world, subject, 1)


def _root_is_gold(world: World, subject: Subject) -> None:
    in_tier(world, subject.volume, *GOLD)
    _starts(world, subject)


def _root_is_in_no_tier(world: World, subject: Subject) -> None:
    in_no_tier(world, subject.volume)
    _starts(world, subject)


def _starts(world: World, subject: Subject) -> None:
    vm = steps.start(world, subject.vm)
    looks.fully_attached(world, vm, steps.root_volume(world, str(vm["id"])))
    steps.stop(world, vm)


def _is_used(world: World, subject: Subject, size: int) -> None:
    """The guest has it, of so many GiB, with what was written."""
    volume = looks.reread_volume(world, subject.volume)
    assert (volume["state"], volume["size"]) == ("Ready", size << 30), f"state and size: {volume}"
    vm = running(world, subject, subject.vm)
    looks.fully_attached(world, vm, volume)
    guest_reads(world, vm, volume)


def _clone_is_free(world: World, subject: Subject) -> None:
    made = _cloned(world, subject)
    assert made is not None and made["state"] == "Ready", f"volume {subject.name} is {made}"
    has_limit(world, made, None)
    vm = running(world, subject, subject.vm)
    looks.fully_attached(world, vm, steps.attach(world, made, vm))
    steps.detach(world, made)
    _is_limited(world, subject)


def _not_cloned(world: World, subject: Subject) -> None:
    made = _cloned(world, subject)
    assert made is None or made["state"] in ("Allocated", "Destroy"), made
    _is_limited(world, subject)


TIERS: tuple[Operation, ...] = (
    Operation(
        "qos.change",
        "give a volume of a running VM another tier and size",
        _in_gold,
        _change_with_size,
        _is_silver_and_large,
        _is_gold_and_small,
    ),
    Operation(
        "qos.leave",
        "take a volume of a running VM out of its tier, to an offering with a limit",
        _in_gold_to_leave,
        _change,
        _has_left,
        _is_gold_and_small,
    ),
    Operation(
        "qos.root",
        "give the ROOT volume of a stopped VM a tier",
        _stopped_root,
        _change,
        _root_is_gold,
        _root_is_in_no_tier,
    ),
    Operation(
        "offering-template.move",
        "move a volume of a running VM to another StorPool template",
        _on_own_template,
        _change,
        _is_elsewhere,
        _is_where_it_was,
    ),
    Operation(
        "iops.remove",
        "take its limit from a volume of a running VM",
        _limited,
        _change,
        _is_free,
        _is_limited,
    ),
    Operation(
        "iops.clone",
        "make a volume without a limit from a snapshot of one with a limit",
        _limited_snapshot,
        _clone,
        _clone_is_free,
        _not_cloned,
    ),
)
