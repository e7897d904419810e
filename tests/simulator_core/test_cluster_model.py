"""Any sequence of calls, against a model that knows nothing but names, bytes and attachments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simulator.inprocess import ApiError, InProcess

PAGE = 4096
NAMES = st.sampled_from(["a", "b", "c", "d"])
SIZES = st.sampled_from([512, PAGE, PAGE + 512, 3 * PAGE])
CLIENTS = st.sampled_from([1, 2, 3])


@dataclass
class Thing:
    """A volume or snapshot as a user knows it."""

    snapshot: bool
    data: bytes
    tags: dict[str, str] = field(default_factory=dict)
    attached: dict[int, str] = field(default_factory=dict)
    open_at: int = 0
    """Client that has the device open."""


class Everything(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.simulator = InProcess()
        self.model: dict[str, Thing] = {}

    def volumes(self) -> list[str]:
        return [name for name, thing in self.model.items() if not thing.snapshot]

    def snapshots(self) -> list[str]:
        return [name for name, thing in self.model.items() if thing.snapshot]

    def number(self, name: str) -> int:
        listed = self.simulator.get("VolumesAndSnapshotsList")["volumes"]
        return int(next(entry["id"] for entry in listed if entry["name"] == name))

    def try_post(self, path: str, body: Any, error: str | None) -> Any:
        """The call must succeed, or be refused with just this error."""
        try:
            answer = self.simulator.post(path, body)
        except ApiError as refused:
            assert refused.name == error, f"{path} {body}: {refused}, expected {error}"
            return None
        assert error is None, f"{path} {body} succeeded, expected {error}"
        return answer

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
            self.model[name] = Thing(False, parent.data.ljust(size or 0, b"\0"))

    @precondition(lambda self: self.volumes())
    @rule(data=st.data(), name=NAMES)
    def copy(self, data: st.DataObject, name: str) -> None:
        source = data.draw(st.sampled_from(self.volumes()))
        if self.try_post("VolumeCreate", {"name": name, "baseOn": source}, self.taken(name)):
            self.model[name] = Thing(False, self.model[source].data)

    @precondition(lambda self: self.volumes())
    @rule(data=st.data(), name=NAMES)
    def snapshot(self, data: st.DataObject, name: str) -> None:
        source = data.draw(st.sampled_from(self.volumes()))
        if self.try_post(f"VolumeSnapshot/{source}", {"name": name}, self.taken(name)):
            self.model[name] = Thing(True, self.model[source].data)

    @precondition(lambda self: self.volumes())
    @rule(data=st.data(), byte=st.integers(0, 255), at=st.integers(0, 23))
    def write(self, data: st.DataObject, byte: int, at: int) -> None:
        thing = self.model[name := data.draw(st.sampled_from(self.volumes()))]
        offset = at * 512 % len(thing.data)
        self.simulator.blocks.write(self.number(name), offset, bytes([byte]) * 512)
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
            del self.model[name]

    @precondition(lambda self: self.volumes() and self.snapshots())
    @rule(data=st.data(), size_too=st.booleans())
    def revert(self, data: st.DataObject, size_too: bool) -> None:
        thing = self.model[name := data.draw(st.sampled_from(self.volumes()))]
        source = self.model[snapshot := data.draw(st.sampled_from(self.snapshots()))]
        body = {"toSnapshot": snapshot, "revertSize": size_too}
        if self.try_post(f"VolumeRevert/{name}", body, "busy" if thing.attached else None):
            size = len(source.data) if size_too else len(thing.data)
            self.model[name] = replace(thing, data=source.data[:size].ljust(size, b"\0"))

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
        if self.try_post("VolumesReassignWait", items, error):
            for name, attached in after.items():
                self.model[name].attached = attached

    @precondition(lambda self: any(thing.attached for thing in self.model.values()))
    @rule(data=st.data())
    def open_or_close(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, thing in self.model.items() if thing.attached]))
        thing, number = self.model[name], self.number(name)
        if thing.open_at:
            self.simulator.blocks.release(number, thing.open_at)
            thing.open_at = 0
        else:
            thing.open_at = data.draw(st.sampled_from(sorted(thing.attached)))
            self.simulator.blocks.open(number, thing.open_at)

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
        listed = self.simulator.get("VolumesAndSnapshotsList")["volumes"]
        alive = {entry["name"]: entry for entry in listed if not entry.get("deleted") and not entry.get("transient")}
        assert {name: (thing.snapshot, len(thing.data), thing.tags) for name, thing in self.model.items()} == {
            name: (entry["snapshot"], entry["size"], entry["tags"]) for name, entry in alive.items()
        }
        blocks = self.simulator.blocks
        for name, thing in self.model.items():
            assert blocks.read(alive[name]["id"], 0, len(thing.data)) == thing.data
        attached = {(e["volume"], e["client"], e["rights"]) for e in self.simulator.get("AttachmentsList")}
        wanted = {
            (name, client, rights) for name, thing in self.model.items() for client, rights in thing.attached.items()
        }
        assert attached == wanted
        for client in (1, 2, 3):
            numbers = {alive[name]["id"] for name, thing in self.model.items() if client in thing.attached}
            assert set(blocks.links_by_id(client).values()) == numbers

    @invariant()
    def keeps_a_tree_of_what_is_there_and_nothing_else(self) -> None:
        listed = self.simulator.get("VolumesAndSnapshotsList")["volumes"]
        numbers = {entry["id"]: entry for entry in listed}
        open_ones = {number for number in self.simulator.blocks.objects() if self.simulator.blocks.opened(number)}
        assert set(numbers) <= set(self.simulator.blocks.objects()) <= set(numbers) | open_ones
        for entry in listed:
            above = entry["parentVolumeId"]
            seen = {entry["id"]}
            while above:
                assert above in numbers and above not in seen and numbers[above]["snapshot"]
                seen.add(above)
                above = numbers[above]["parentVolumeId"]


TestEverything = Everything.TestCase
TestEverything.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
