"""Any sequence of calls, against a model that knows nothing but names, bytes, parents and attachments.

The machine runs on every kind of blocks: a `Subject` is a simulator with what somebody on the machine does and sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import hypothesis.strategies as st
import msgspec
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simulator.inprocess import ApiError, InProcess

PAGE = 4096
NAMES = st.sampled_from(["a", "b", "c", "d"])
SIZES = st.sampled_from([512, PAGE, PAGE + 512, 3 * PAGE])
CLIENTS = st.sampled_from([1, 2, 3])


class Subject(Protocol):
    """Objects are named by their numbers."""

    @property
    def simulator(self) -> InProcess: ...

    def read(self, number: int, length: int) -> bytes:
        """From the beginning; the same whichever way one looks."""
        ...

    def write(self, number: int, offset: int, data: bytes) -> None: ...

    def open(self, number: int, client: int) -> None:
        """The client opens its device."""
        ...

    def release(self, number: int, client: int) -> None:
        """The client closes it, if it has it open and it is still there."""
        ...

    def objects(self) -> set[int]:
        """All that the blocks hold."""
        ...

    def opened(self) -> set[int]:
        """Those of them that are still there because somebody had them open."""
        ...

    def attached(self, client: int) -> Mapping[int, str]:
        """Rights by number, as the client sees them."""
        ...

    def used(self) -> tuple[int, int]:
        """Bytes of the pool that are used, at least and at most."""
        ...

    def stored(self, data: bytes) -> tuple[int, int]:
        """Bytes that an object with this content holds, at least and at most."""
        ...


@dataclass(eq=False)
class Thing:
    """A volume or snapshot as a user knows it."""

    snapshot: bool
    data: bytes
    above: Thing | None = None
    """The parent that it was given; where that is deleted, its own stands for it."""
    tags: dict[str, str] = field(default_factory=dict)
    attached: dict[int, str] = field(default_factory=dict)
    open_at: int = 0
    """Client that has the device open."""
    gone: bool = False

    @property
    def parent(self) -> Thing | None:
        above = self.above
        while above is not None and above.gone:
            above = above.above
        return above

    def shown(self) -> tuple[object, ...]:
        """What a change of it that counts would change."""
        return self.snapshot, len(self.data), id(self.parent), dict(self.tags), dict(self.attached)


class Everything(RuleBasedStateMachine):
    def subject(self) -> Subject:
        """An empty cluster."""
        raise NotImplementedError

    @initialize(grown=st.booleans())
    def start(self, grown: bool) -> None:
        """Grown: with a volume that is attached, on a chain of two snapshots."""
        self.subjected = self.subject()
        self.simulator = self.subjected.simulator
        self.model: dict[str, Thing] = {}
        self.generation = 0
        self.known: dict[str, tuple[object, ...]] = {}
        if grown:
            assert self.try_post("VolumeCreate", {"name": "a", "size": PAGE}, None)
            self.model["a"] = Thing(False, bytes(PAGE))
            for name in ("b", "c"):
                assert self.try_post("VolumeSnapshot/a", {"name": name}, None)
                self.taken_of("a", name)
            assert self.try_post("VolumesReassignWait", [{"volume": "a", "rw": [1]}], None)
            self.model["a"].attached = {1: "rw"}

    def volumes(self) -> list[str]:
        return [name for name, thing in self.model.items() if not thing.snapshot]

    def snapshots(self) -> list[str]:
        return [name for name, thing in self.model.items() if thing.snapshot]

    def number(self, name: str) -> int:
        listed = self.simulator.get("VolumesAndSnapshotsList")["volumes"]
        return int(next(entry["id"] for entry in listed if entry["name"] == name))

    def try_post(self, path: str, body: Any, error: str | None) -> Any:
        """The call must succeed, or be refused with just this error and change nothing."""
        self.simulator.service.tick()
        before = self.simulator.service.encoded_state()
        answer = self.simulator.ask("POST", path, msgspec.json.encode(body))
        try:
            envelope = answer.envelope()
        except ApiError as refused:
            assert refused.name == error, f"{path} {body}: {refused}, expected {error}"
            assert self.simulator.service.encoded_state() == before
            return None
        assert error is None, f"{path} {body} succeeded, expected {error}"
        assert envelope["generation"] >= self.generation
        return envelope["data"]

    def taken(self, name: str) -> str | None:
        return "objectExists" if name in self.model else None

    @rule(name=st.none() | NAMES, size=SIZES)
    def create(self, name: str | None, size: int) -> None:
        answer = self.try_post("VolumeCreate", {"name": name or "", "size": size}, self.taken(name or ""))
        if answer:
            self.model[name or answer["name"]] = Thing(False, bytes(size))

    @precondition(lambda self: self.snapshots())
    @rule(data=st.data(), name=NAMES, size=st.none() | SIZES)
    def create_from_snapshot(self, data: st.DataObject, name: str, size: int | None) -> None:
        parent = self.model[source := data.draw(st.sampled_from(self.snapshots()))]
        error = self.taken(name) or ("invalidParam" if size is not None and size < len(parent.data) else None)
        if self.try_post("VolumeCreate", {"name": name, "parent": source, "size": size}, error):
            self.model[name] = Thing(False, parent.data.ljust(size or 0, b"\0"), parent)

    @precondition(lambda self: self.volumes())
    @rule(data=st.data(), name=NAMES)
    def copy(self, data: st.DataObject, name: str) -> None:
        source = data.draw(st.sampled_from(self.volumes()))
        if self.try_post("VolumeCreate", {"name": name, "baseOn": source}, self.taken(name)):
            self.model[name] = Thing(False, self.model[source].data, self.model[source].above)

    @precondition(lambda self: self.volumes())
    @rule(data=st.data(), name=NAMES)
    def snapshot(self, data: st.DataObject, name: str) -> None:
        source = data.draw(st.sampled_from(self.volumes()))
        if self.try_post(f"VolumeSnapshot/{source}", {"name": name}, self.taken(name)):
            self.taken_of(source, name)

    def taken_of(self, source: str, name: str) -> None:
        volume = self.model[source]
        volume.above = self.model[name] = Thing(True, volume.data, volume.above)

    @precondition(lambda self: len(self.volumes()) > 1)
    @rule(data=st.data(), names=st.lists(NAMES, min_size=2, max_size=2))
    def snapshot_group(self, data: st.DataObject, names: list[str]) -> None:
        sources = data.draw(st.lists(st.sampled_from(self.volumes()), min_size=2, max_size=2, unique=True))
        error = self.taken(names[0]) or self.taken(names[1]) or ("invalidParam" if names[0] == names[1] else None)
        items = [{"volume": source, "name": name} for source, name in zip(sources, names, strict=True)]
        if self.try_post("VolumesGroupSnapshot", {"volumes": items}, error):
            for source, name in zip(sources, names, strict=True):
                self.taken_of(source, name)

    @precondition(lambda self: self.volumes())
    @rule(data=st.data())
    def freeze(self, data: st.DataObject) -> None:
        thing = self.model[name := data.draw(st.sampled_from(self.volumes()))]
        if self.try_post(f"VolumeFreeze/{name}", {}, "busy" if thing.attached else None):
            thing.snapshot = True

    @precondition(lambda self: self.volumes())
    @rule(data=st.data(), byte=st.integers(0, 255), at=st.integers(0, 23))
    def write(self, data: st.DataObject, byte: int, at: int) -> None:
        thing = self.model[name := data.draw(st.sampled_from(self.volumes()))]
        offset = at * 512 % len(thing.data)
        self.subjected.write(self.number(name), offset, bytes([byte]) * 512)
        thing.data = thing.data[:offset] + bytes([byte]) * 512 + thing.data[offset + 512 :]

    @precondition(lambda self: self.volumes())
    @rule(data=st.data(), size=SIZES, shrink=st.booleans())
    def resize(self, data: st.DataObject, size: int, shrink: bool) -> None:
        thing = self.model[name := data.draw(st.sampled_from(self.volumes()))]
        error = "invalidParam" if size < len(thing.data) and not shrink else None
        if self.try_post(f"VolumeUpdate/{name}", {"size": size, "shrinkOk": shrink}, error):
            thing.data = thing.data[:size].ljust(size, b"\0")

    @precondition(lambda self: self.model)
    @rule(data=st.data(), new=NAMES, tags=st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["", "1", "2"])))
    def rename_and_tag(self, data: st.DataObject, new: str, tags: dict[str, str]) -> None:
        thing = self.model[old := data.draw(st.sampled_from(list(self.model)))]
        path = f"{'Snapshot' if thing.snapshot else 'Volume'}Update/{old}"
        if self.try_post(path, {"rename": new, "tags": tags}, None if new == old else self.taken(new)):
            thing.tags = {key: value for key, value in {**thing.tags, **tags}.items() if value}
            self.model[new] = self.model.pop(old)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        thing = self.model[name := data.draw(st.sampled_from(list(self.model)))]
        path = f"{'Snapshot' if thing.snapshot else 'Volume'}Delete/{name}"
        if self.try_post(path, {}, "busy" if thing.attached else None):
            self.model.pop(name).gone = True

    @precondition(lambda self: self.volumes() and self.snapshots())
    @rule(data=st.data(), size_too=st.booleans())
    def revert(self, data: st.DataObject, size_too: bool) -> None:
        thing = self.model[name := data.draw(st.sampled_from(self.volumes()))]
        source = self.model[snapshot := data.draw(st.sampled_from(self.snapshots()))]
        body = {"toSnapshot": snapshot, "revertSize": size_too}
        if self.try_post(f"VolumeRevert/{name}", body, "busy" if thing.attached else None):
            size = len(source.data) if size_too else len(thing.data)
            thing.data, thing.above = source.data[:size].ljust(size, b"\0"), source

    @precondition(lambda self: self.model)
    @rule(data=st.data(), clients=st.sets(CLIENTS), detach=st.sets(CLIENTS) | st.none(), force=st.booleans())
    def reassign(self, data: st.DataObject, clients: set[int], detach: set[int] | None, force: bool) -> None:
        """None detaches everybody else. Two objects at once, so that a refusal has something to undo."""
        names = data.draw(st.lists(st.sampled_from(list(self.model)), min_size=1, max_size=2, unique=True))
        items: list[dict[str, Any]] = []
        after: dict[str, dict[int, str]] = {}
        error = None
        for name in names:
            thing = self.model[name]
            rights = "ro" if thing.snapshot else data.draw(st.sampled_from(["rw", "ro"]))
            attach = clients if detach is None else clients - detach
            gone = set(thing.attached) - attach if detach is None else detach
            if thing.open_at in gone & set(thing.attached) and not force:
                error = "busy"
            if thing.open_at in attach and thing.attached.get(thing.open_at) == "rw" and rights == "ro":
                error = "busy"
            after[name] = {client: at for client, at in thing.attached.items() if client not in gone}
            after[name] |= dict.fromkeys(attach, rights)
            item = {"snapshot" if thing.snapshot else "volume": name, rights: sorted(attach), "force": force}
            items.append({**item, "detach": "all" if detach is None else sorted(detach)})
        for name in names:
            # What a forced detach left open is not the device that it gets now.
            thing = self.model[name]
            if thing.open_at and thing.open_at not in thing.attached:
                self.subjected.release(self.number(name), thing.open_at)
                thing.open_at = 0
        if self.try_post("VolumesReassignWait", items, error):
            for name, attached in after.items():
                self.model[name].attached = attached

    @precondition(lambda self: any(thing.attached for thing in self.model.values()))
    @rule(data=st.data())
    def open_or_close(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, thing in self.model.items() if thing.attached]))
        thing, number = self.model[name], self.number(name)
        if thing.open_at:
            self.subjected.release(number, thing.open_at)
            thing.open_at = 0
        else:
            thing.open_at = data.draw(st.sampled_from(sorted(thing.attached)))
            self.subjected.open(number, thing.open_at)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.simulator.advance(seconds)
        self.simulator.service.tick()

    @rule()
    def killed_and_started_again(self) -> None:
        before = self.simulator.service.encoded_state()
        self.simulator.restart()
        assert self.simulator.service.encoded_state() == before

    @invariant()
    def shows_what_the_model_knows(self) -> None:
        envelope = self.simulator.ask("GET", "VolumesAndSnapshotsList").envelope()
        listed = envelope["data"]["volumes"]
        alive = {entry["name"]: entry for entry in listed if not entry.get("deleted") and not entry.get("transient")}
        assert {name: (thing.snapshot, len(thing.data), thing.tags) for name, thing in self.model.items()} == {
            name: (entry["snapshot"], entry["size"], entry["tags"]) for name, entry in alive.items()
        }
        for name, thing in self.model.items():
            assert self.subjected.read(alive[name]["id"], len(thing.data)) == thing.data, name
        attached = {(e["volume"], e["client"], e["rights"]) for e in self.simulator.get("AttachmentsList")}
        wanted = {
            (name, client, rights) for name, thing in self.model.items() for client, rights in thing.attached.items()
        }
        assert attached == wanted
        for client in (1, 2, 3):
            seen = {
                alive[name]["id"]: thing.attached[client]
                for name, thing in self.model.items()
                if client in thing.attached
            }
            assert self.subjected.attached(client) == seen
        self.counts_changes(envelope["generation"])
        self.tells_the_space(listed, alive)

    def counts_changes(self, generation: int) -> None:
        shown = {name: thing.shown() for name, thing in self.model.items()}
        assert generation > self.generation if shown != self.known else generation >= self.generation
        self.generation, self.known = generation, shown

    def tells_the_space(self, listed: list[Any], alive: dict[str, Any]) -> None:
        """Each object what its content takes, and all of them together at most the sum and at least the largest."""
        for name, thing in self.model.items():
            entry, (least, most) = alive[name], self.subjected.stored(thing.data)
            if not thing.snapshot:
                assert least <= entry["spaceUsed"] <= most
            assert 0 <= entry["storedSize"] <= min(most, entry["size"])
            if not entry["parentVolumeId"]:
                assert least <= entry["storedSize"] <= min(most, entry["size"])
        hidden = [entry["size"] for entry in listed if entry["name"] not in self.model]
        bounds = [self.subjected.stored(thing.data) for thing in self.model.values()]
        least, most = self.subjected.used()
        ceiling = sum(most for _, most in bounds) + sum(-(-size // PAGE) * PAGE for size in hidden)
        assert least <= ceiling or self.subjected.opened()
        assert most >= max((least for least, _ in bounds), default=0)

    @invariant()
    def keeps_a_tree_of_what_is_there_and_nothing_else(self) -> None:
        listed = self.simulator.get("VolumesAndSnapshotsList")["volumes"]
        numbers = {entry["id"]: entry for entry in listed}
        objects = self.subjected.objects()
        assert set(numbers) <= objects <= set(numbers) | self.subjected.opened()
        for entry in listed:
            above: list[str] = []
            seen = {entry["id"]}
            parent = numbers.get(entry["parentVolumeId"])
            assert parent is not None or not entry["parentVolumeId"]
            while parent is not None:
                assert parent["id"] not in seen and parent["snapshot"]
                seen.add(parent["id"])
                if not parent.get("deleted") and not parent.get("transient"):
                    above.append(parent["name"])
                parent = numbers.get(parent["parentVolumeId"])
            thing = self.model.get(entry["name"])
            if thing is not None:
                assert above[:1] == [name for name, other in self.model.items() if other is thing.parent]

    def teardown(self) -> None:
        """Everything deleted and its time over: the pool is empty."""
        if not hasattr(self, "model"):
            return
        for name, thing in list(self.model.items()):
            if thing.open_at:
                self.subjected.release(self.number(name), thing.open_at)
            if thing.attached:
                item = {"snapshot" if thing.snapshot else "volume": name, "detach": "all", "force": True}
                self.simulator.post("VolumesReassignWait", [item])
            self.simulator.post(f"{'Snapshot' if thing.snapshot else 'Volume'}Delete/{name}", {})
        for _ in range(4):
            self.simulator.advance(61)
            self.simulator.service.tick()
        assert self.simulator.get("VolumesAndSnapshotsList")["volumes"] == []
        assert self.subjected.objects() <= self.subjected.opened()
        assert self.subjected.used()[0] == 0 or self.subjected.opened()
