"""The snapshot that stays for a while after its volume was deleted (`storpool.delete.after.interval`)."""

from __future__ import annotations

from harness.observers import Json, World

DELETE_AFTER = "storpool.delete.after.interval"


def delayed_snapshots(world: World) -> list[Json]:
    return [
        s
        for s in world.storpool.snapshots()
        if (s.get("tags") or {}).get("cs") == "delayDelete" and not s.get("deleted")
    ]


def expires(world: World, volume: Json, before: set[str]) -> None:
    """One snapshot of the volume's size has appeared since `before`, has a date, and goes at that date."""
    with world.check("one snapshot of the volume stays, with a date to go"):
        new = [s for s in delayed_snapshots(world) if s["globalId"] not in before]
        assert len(new) == 1, f"new delayed snapshots: {new}"
        assert new[0]["size"] == volume["size"], new[0]
        assert int(new[0].get("targetDeleteDate") or 0) > 0, f"no date on {new[0]}"
    kept = str(new[0]["globalId"])
    with world.check("it expires"):
        world.wait_until(
            f"snapshot ~{kept} has expired",
            lambda: all(s["globalId"] != kept for s in delayed_snapshots(world)),
            120,
        )
