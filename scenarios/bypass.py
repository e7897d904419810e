"""Bypass of secondary storage, switched with snapshots of both kinds around. Seen from outside: action-table.md."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios.registry import scenario
from scenarios.row09_volume_snapshot import on_primary_only, used_volume
from scenarios.row10_volume_from_snapshot import copied, has_its_bytes, starts_from
from scenarios.row14_revert_snapshot import revert
from scenarios.row16_delete_snapshot import gone
from scenarios.snapshots import (
    BACKUP,
    BYPASS,
    archive,
    delete,
    file_holds,
    on_storpool,
    stores,
    take,
    volume_from,
    write,
)
from scenarios.steps import detach, many, setting


def value(world: World, name: str) -> str:
    found = many(world.cloud.call("listConfigurations", name=name), "configuration")
    return str(next(item["value"] for item in found if item["name"] == name))


def one_switch(world: World, *, bypassed: bool) -> None:
    with world.check(f"both names say that secondary storage is {'bypassed' if bypassed else 'used'}"):
        seen = (value(world, BYPASS), value(world, BACKUP))
        assert seen == (str(bypassed).lower(), str(not bypassed).lower()), seen


def both_kinds(world: World, volume: Json) -> tuple[Json, Json]:
    """A snapshot that bypassed secondary storage, and one that was backed up."""
    with setting(world, BYPASS, "true", "false"):
        bypassed = take(world, volume)
    return bypassed, take(world, volume)


@scenario("bypass", "switched", "switched by either name, with snapshots of both kinds around (#4433, #5349)")
def switched(world: World) -> None:
    vm, volume = used_volume(world, "both")
    one_switch(world, bypassed=False)
    before = take(world, volume)
    with setting(world, BYPASS, "true", "false"):
        one_switch(world, bypassed=True)
        old_name = take(world, volume)
    one_switch(world, bypassed=False)
    with setting(world, BACKUP, "false", "true"):
        one_switch(world, bypassed=True)
        new_name = take(world, volume)
        with world.check("what was backed up before stays so"):
            assert stores(world, before) == ["Image", "Primary"], stores(world, before)
            file_holds(world, before, "both")
    after = take(world, volume)
    write(world, vm, volume, "later")
    for snapshot in (old_name, new_name):
        on_primary_only(world, snapshot)
    with world.check("switched back, snapshots are backed up again"):
        file_holds(world, after, "both")
    with world.check("all four are on StorPool"):
        for snapshot in (before, old_name, new_name, after):
            assert on_storpool(world, snapshot)["size"] == volume["size"]


@scenario("bypass", "used", "snapshots of both kinds serve whichever way the switch stands")
def used(world: World) -> None:
    vm, volume = used_volume(world, "old")
    bypassed, backed_up = both_kinds(world, volume)
    write(world, vm, volume, "new")
    for state in ("true", "false"):
        with setting(world, BYPASS, state, "false"):
            for snapshot in (bypassed, backed_up):
                made = volume_from(world, snapshot)
                starts_from(world, made, snapshot)
                has_its_bytes(world, vm, made, "old")
    detach(world, volume)
    with setting(world, BYPASS, "true", "false"):
        revert(world, backed_up)
    revert(world, bypassed)
    has_its_bytes(world, vm, volume, "old")


@scenario("bypass", "deleted", "snapshots of both kinds are deleted whichever way the switch stands")
def deleted(world: World) -> None:
    _, volume = used_volume(world, "old")
    first, second = both_kinds(world, volume), both_kinds(world, volume)
    with setting(world, BYPASS, "true", "false"):
        for snapshot in first:
            delete(world, snapshot)
            gone(world, snapshot)
    for snapshot in second:
        delete(world, snapshot)
        gone(world, snapshot)


@scenario("bypass", "archived", "archiving really copies, also while secondary storage is bypassed")
def archived(world: World) -> None:
    vm, volume = used_volume(world, "old")
    bypassed, _ = both_kinds(world, volume)
    write(world, vm, volume, "new")
    with setting(world, BYPASS, "true", "false"):
        archive(world, bypassed)
    with world.check("it is on secondary storage, and only there, with its bytes"):
        assert stores(world, bypassed) == ["Image"], stores(world, bypassed)
        file_holds(world, bypassed, "old")
    made = volume_from(world, bypassed)
    copied(world, made)
    with world.check("a volume of it has them, too"):
        has_its_bytes(world, vm, made, "old")
