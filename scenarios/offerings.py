"""Tiers, StorPool templates and limits of offerings: how they are asked for, and what can be seen of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from harness.observers import Json, World
from scenarios.looks import global_id, has_tags, on_storpool, reread_volume
from scenarios.steps import compute_offering, detail, disk_offering

TIER, TEMPLATE = "SP_QOSCLASS", "SP_TEMPLATE"
BUCKET, CONFIG = "storpool_qos", "config"
MINUTE = 75
"""Seconds within which storpool_qos, which looks once a minute, has put a limit back."""


@contextmanager
def tiers(world: World, **limits: int) -> Iterator[dict[str, str]]:
    """For the block storpool_qos has these tiers, of so many IOPS each; gives the names that they have there."""
    names = {stem: world.name(stem) for stem in limits}
    with configured(world, {names[stem]: limit for stem, limit in limits.items()}):
        yield names


@contextmanager
def configured(world: World, limits: Mapping[str, int]) -> Iterator[None]:
    """As `tiers`, by their names in storpool_qos; those of others stay."""
    before = world.storpool.kept(BUCKET, CONFIG)
    known = json.loads(before)["tiers"] if before else {}
    added = {name: {"max_iops": limit} for name, limit in limits.items()}
    world.storpool.keep(BUCKET, CONFIG, json.dumps({"tiers": {**known, **added}}))
    try:
        yield
    finally:
        world.storpool.keep(BUCKET, CONFIG, before)


def of_tier(world: World, tier: str, **parameters: str | int | bool) -> str:
    """A disk offering of customised size, or of `disksize`, in the tier."""
    return with_detail(world, TIER, tier, **parameters)


def on_template(world: World, template: str, **parameters: str | int | bool) -> str:
    """As `of_tier`, on the StorPool template."""
    return with_detail(world, TEMPLATE, template, **parameters)


def with_detail(world: World, key: str, value: str, **parameters: str | int | bool) -> str:
    offering = disk_offering(world, **parameters)
    detail(world, "DiskOffering", offering, key, value)
    return offering


def compute_with(world: World, key: str, value: str, **parameters: str | int | bool) -> Json:
    """A compute offering whose system disk offering has the detail."""
    offering = compute_offering(world, **parameters)
    detail(world, "DiskOffering", str(offering["diskofferingid"]), key, value)
    return offering


def details_of(world: World, offering_id: str) -> dict[str, str]:
    answer = world.cloud.call("listResourceDetails", resourcetype="DiskOffering", resourceid=offering_id)
    return {str(item["key"]): str(item["value"]) for item in answer.get("resourcedetail", [])}


def limit_of(world: World, volume: Json) -> object:
    """IOPS that StorPool allows the volume; `-` without a limit."""
    return on_storpool(world, volume)["iops"]


def has_limit(world: World, volume: Json, limit: int | None) -> None:
    """CloudStack's record and StorPool say so, at once."""
    with world.check(f"limit: {limit or 'none'}"):
        seen = (reread_volume(world, volume).get("maxiops"), limit_of(world, volume))
        assert seen == (limit, limit or "-"), f"CloudStack's and StorPool's limit: {seen}"


def in_tier(world: World, volume: Json, tier: str, limit: int) -> None:
    """The tag is there at once, the limit within a minute."""
    with world.check(f"in tier {tier}: tag qc, and within a minute its {limit} IOPS"):
        has_tags(world, volume, qc=tier)
        world.wait_until(f"{volume['path']} has {limit} IOPS", lambda: limit_of(world, volume) == limit, MINUTE)


def in_no_tier(world: World, volume: Json, limit: int | None = None) -> None:
    """No tag, and at once the limit of the offering, or none."""
    with world.check("in no tier: no tag qc"):
        has_tags(world, volume, qc="")
    has_limit(world, volume, limit)


def on_storpool_template(world: World, volume: Json, template: str) -> None:
    with world.check(f"on StorPool template {template}"):
        seen = on_storpool(world, volume)["templateName"]
        assert seen == template, f"~{global_id(volume)} is on StorPool template {seen}, expected {template}"


def other_template(world: World) -> str:
    """A StorPool template that is not the one of the first pool."""
    return world.environment.pools[1].storpool_template


def own_template(world: World) -> str:
    return world.environment.pools[0].storpool_template
