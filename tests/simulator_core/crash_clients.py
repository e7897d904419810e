"""Clients that change their own volumes one call at a time and know what they were told: the measure after a kill.

A call that was answered must be there after a kill; one that was not is there whole or not at all. Nothing else may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

KB = 1 << 10
SIZES = (512 * KB, 1024 * KB, 2048 * KB)
MARK_BYTES = 512
"""Length of what a client writes to the beginning of a volume."""
MOST = 6
"""Objects of one client."""


@dataclass(frozen=True)
class Known:
    """A volume or snapshot as its client knows it."""

    snapshot: bool
    size: int
    turn: str = ""
    """Its tag `turn`."""
    iops: int = 0
    at: int = 0
    """The client of StorPool that it is attached to; 0 for none."""
    mark: bytes = b""
    """What was written to its beginning, without the zeroes around it."""


World = Mapping[str, Known]


@dataclass(frozen=True)
class Order:
    """One call, and what there is once it has been carried out."""

    path: str
    body: Any
    after: World


class Shown(Protocol):
    """A simulator that was started again."""

    def get(self, path: str) -> Any: ...

    def beginning(self, number: int) -> bytes:
        """The first `MARK_BYTES` of the object, past the simulator."""
        ...


class Client:
    """`world` is what is acknowledged, `order` the call that is not answered yet."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.draw = Random(f"{name}{number}")
        self.world: World = {}
        self.order: Order | None = None
        self._turn = 0

    def next(self) -> Order:
        self._turn += 1
        full = len(self.world) >= MOST
        kinds = [kind for kind in _KINDS if len(self._fitting(kind)) >= kind.takes and not (full and kind.makes)]
        kind = self.draw.choice(kinds)
        self.order = kind.order(self, *self.draw.sample(self._fitting(kind), kind.takes))
        return self.order

    def answered(self) -> None:
        assert self.order is not None
        self.world, self.order = self.order.after, None

    def written(self, name: str, mark: bytes) -> None:
        """The mark is on the volume for good."""
        self.world = {**self.world, name: replace(self.world[name], mark=mark)}

    def settle(self, seen: World) -> None:
        """After a kill: what is there is what is acknowledged, with the open call or without it."""
        possible = [self.world] if self.order is None else [self.world, self.order.after]
        assert seen in possible, f"{self.name} after {self.order}:\n{seen}\nis none of\n{possible}"
        self.world, self.order = seen, None

    def fresh(self) -> str:
        return f"{self.name}-{self._turn}"

    @property
    def turn(self) -> int:
        return self._turn

    def _fitting(self, kind: _Kind) -> list[str]:
        return [name for name, known in self.world.items() if kind.fits(known)]


@dataclass(frozen=True)
class _Kind:
    order: Callable[..., Order]
    fits: Callable[[Known], bool]
    takes: int = 1
    makes: bool = False


def _volume(known: Known) -> bool:
    return not known.snapshot


def _create(client: Client) -> Order:
    name, size = client.fresh(), client.draw.choice(SIZES)
    return Order("VolumeCreate", {"name": name, "size": size}, {**client.world, name: Known(False, size)})


def _create_from(client: Client, source: str) -> Order:
    known, name = client.world[source], client.fresh()
    parent = {"parent" if known.snapshot else "baseOn": source}
    made = Known(False, known.size, iops=known.iops, mark=known.mark)
    return Order("VolumeCreate", {"name": name, **parent}, {**client.world, name: made})


def _snapshot(client: Client, volume: str) -> Order:
    name = client.fresh()
    return Order(f"VolumeSnapshot/{volume}", {"name": name}, {**client.world, name: _taken(client.world[volume])})


def _taken(volume: Known) -> Known:
    return replace(volume, snapshot=True, turn="", at=0)


def group(client: Client, *volumes: str) -> Order:
    items = [{"volume": volume, "name": f"{client.fresh()}{at}"} for at, volume in enumerate(volumes)]
    made = {item["name"]: _taken(client.world[item["volume"]]) for item in items}
    return Order("VolumesGroupSnapshot", {"volumes": items}, {**client.world, **made})


def _update(client: Client, name: str, body: Mapping[str, object], **fields: Any) -> Order:
    known = client.world[name]
    path = f"{'Snapshot' if known.snapshot else 'Volume'}Update/{name}"
    return Order(path, body, {**client.world, name: replace(known, **fields)})


def _tag(client: Client, name: str) -> Order:
    turn = str(client.turn)
    return _update(client, name, {"tags": {"turn": turn}}, turn=turn)


def _resize(client: Client, name: str) -> Order:
    size = client.draw.choice(SIZES)
    return _update(client, name, {"size": size, "shrinkOk": True}, size=size)


def limit(client: Client, name: str) -> Order:
    iops = client.draw.choice([0, 500, 900])
    return _update(client, name, {"iops": iops}, iops=iops)


def _rename(client: Client, name: str) -> Order:
    order = _update(client, name, {"rename": client.fresh()})
    known = client.world[name]
    return replace(
        order, after={other: kept for other, kept in client.world.items() if other != name} | {client.fresh(): known}
    )


def attach(client: Client, name: str) -> Order:
    known = client.world[name]
    item = {"snapshot" if known.snapshot else "volume": name, "ro" if known.snapshot else "rw": [client.number]}
    return Order("VolumesReassignWait", [item], {**client.world, name: replace(known, at=client.number)})


def _detach(client: Client, name: str) -> Order:
    known = client.world[name]
    item = {"snapshot" if known.snapshot else "volume": name, "detach": "all"}
    return Order("VolumesReassignWait", [item], {**client.world, name: replace(known, at=0)})


def _revert(client: Client, volume: str) -> Order:
    snapshots = [name for name, known in client.world.items() if known.snapshot]
    if not snapshots:
        return _tag(client, volume)
    source = client.draw.choice(snapshots)
    size, mark = client.world[source].size, client.world[source].mark
    after = {**client.world, volume: replace(client.world[volume], size=size, mark=mark)}
    return Order(f"VolumeRevert/{volume}", {"toSnapshot": source, "revertSize": True}, after)


def delete(client: Client, name: str) -> Order:
    after = {other: known for other, known in client.world.items() if other != name}
    if client.world[name].snapshot:
        return Order(f"SnapshotDelete/{name}", {}, after)
    return Order(f"VolumeDelete/{name}", {"onAttached": "detach"}, after)


_KINDS = [
    _Kind(_create, lambda _known: True, 0, makes=True),
    _Kind(_create_from, lambda _known: True, makes=True),
    _Kind(_snapshot, _volume, makes=True),
    _Kind(group, _volume, 2, makes=True),
    _Kind(_tag, lambda _known: True),
    _Kind(_resize, _volume),
    _Kind(limit, _volume),
    _Kind(_rename, lambda _known: True),
    _Kind(attach, lambda known: not known.at),
    _Kind(attach, _volume),
    _Kind(_detach, lambda known: known.at > 0),
    _Kind(_revert, lambda known: not known.snapshot and not known.at),
    _Kind(delete, lambda known: not (known.snapshot and known.at)),
]


def settle(clients: Iterable[Client], shown: Shown) -> dict[int, dict[str, Any]]:
    """Hold what a simulator shows after a kill to what its clients know. All objects that it lists, by number."""
    listed = shown.get("VolumesAndSnapshotsList")["volumes"]
    places: dict[str, int] = {}
    for attachment in shown.get("AttachmentsList"):
        assert attachment["volume"] not in places, "attached twice"
        places[attachment["volume"]] = attachment["client"]
    living = {entry["name"]: entry for entry in listed if not entry.get("deleted") and not entry.get("transient")}
    seen = {name: _seen(entry, places.pop(name, 0), shown) for name, entry in living.items()}
    for client in clients:
        mine = {name: seen.pop(name) for name in living if name.startswith(f"{client.name}-")}
        client.settle(mine)
    assert not seen and not places, f"nobody made {[*seen, *places]}"
    return {entry["id"]: entry for entry in listed}


def _seen(entry: Mapping[str, Any], at: int, shown: Shown) -> Known:
    return Known(
        snapshot=entry["snapshot"],
        size=entry["size"],
        turn=entry["tags"].get("turn", ""),
        iops=0 if entry["iops"] == "-" else entry["iops"],
        at=at,
        mark=shown.beginning(entry["id"]).strip(b"\0"),
    )
