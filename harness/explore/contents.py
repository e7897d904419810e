"""Contents of disks and templates, byte for byte: what guests wrote and what the image holds."""

from __future__ import annotations

from collections.abc import Mapping

from harness.checks import Picture
from harness.checks.picture import path_id, tags_of
from harness.explore import model
from harness.explore.asking import Shared
from harness.explore.looks import serial_of
from harness.explore.model import Told
from harness.explore.plan import MAX_CLIENTS
from harness.observers import Json
from harness.worlds.memory.image import guest_image


def wrong_contents(shared: Shared, picture: Picture) -> str | None:
    """What is not as it was written; None when everything is."""
    objects, told_volumes = shared.world.processes.storpool().object_keys(), shared.model.volumes.values()
    volumes = {serial_of(str(v["id"])): v for v in picture.volume_records.values() if "path" in v}
    for (serial, client), text in shared.model.marks.items():
        volume = volumes.get(serial)
        if volume is None:
            # Whether it may be gone is judged by what clients were told.
            continue
        seen = _read(shared, objects, path_id(volume), model.mark_offset(client), len(text))
        if seen != text:
            return f"{_shown(volume)} holds {seen!r} where client {client} wrote {text!r}"
    for wrong in (
        *(_wrong_marks(shared, objects, told, volumes.get(serial_of(told.id or ""))) for told in told_volumes),
        *(_wrong_snapshot(shared, objects, told, picture) for told in shared.model.snapshots.values()),
    ):
        if wrong is not None:
            return wrong
    for volume in volumes.values():
        wrong = _wrong_image(shared, objects, path_id(volume)) if volume["type"] == "ROOT" else None
        if wrong is not None:
            return f"{_shown(volume)}: {wrong}"
    for gid, snapshot in picture.snapshots.items():
        if tags_of(snapshot).get("cs") == "template" and not snapshot.get("deleted"):
            wrong = _wrong_image(shared, objects, gid)
            if wrong is not None:
                return f"snapshot ~{gid} of template {tags_of(snapshot).get('uuid')}: {wrong}"
    return None


def _wrong_marks(shared: Shared, objects: Mapping[str, int], told: Told, volume: Json | None) -> str | None:
    """Whether a DATA volume is there is judged by what clients were told."""
    if volume is None:
        return None
    for client in range(MAX_CLIENTS):
        possible = shared.model.values(told, model.mark_fact(client))
        wrong = _wrong_mark(shared, objects, path_id(volume), client, possible)
        if wrong is not None:
            return f"{_shown(volume)} {wrong}"
    return None


def _wrong_snapshot(shared: Shared, objects: Mapping[str, int], told: Told, picture: Picture) -> str | None:
    """The copy on StorPool holds what the volume held when it was taken."""
    for gid, snapshot in picture.snapshots.items():
        tags = tags_of(snapshot)
        if told.id is None or tags.get("uuid") != told.id or tags.get("cs") != "snapshot" or snapshot.get("deleted"):
            continue
        for client in range(MAX_CLIENTS):
            possible = shared.model.held(told, model.mark_fact(client))
            wrong = _wrong_mark(shared, objects, gid, client, possible)
            if wrong is not None:
                return f"StorPool snapshot ~{gid} of {told.name} {wrong}"
    return None


def _wrong_mark(
    shared: Shared, objects: Mapping[str, int], global_id: str, client: int, possible: set[str]
) -> str | None:
    seen = _read(shared, objects, global_id, model.mark_offset(client), model.MARK_BYTES)
    if seen is None or seen in {text.encode() or bytes(model.MARK_BYTES) for text in possible}:
        return None
    wanted = " or ".join(sorted(repr(text.rstrip("#")) for text in possible))
    return f"holds {seen.rstrip(b'#' + bytes(1))!r} where client {client} writes, and can only hold {wanted}"


def _wrong_image(shared: Shared, objects: Mapping[str, int], global_id: str) -> str | None:
    for offset, data in guest_image().extents:
        seen = _read(shared, objects, global_id, offset, len(data))
        if seen != data:
            return f"its {len(data)} bytes at {offset} are not those of the template's image"
    return None


def _read(shared: Shared, objects: Mapping[str, int], global_id: str, offset: int, length: int) -> bytes | None:
    key = objects.get(global_id)
    return None if key is None else shared.world.processes.blocks.read(key, offset, length)


def _shown(volume: Json) -> str:
    return f"volume {volume['name']} ({volume['path']})"
