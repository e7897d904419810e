"""What a client does to what a volume is and holds: snapshots, size and offering."""

from __future__ import annotations

from harness.explore import model
from harness.explore.asking import Asking, Request
from harness.explore.model import Register, Told
from harness.explore.plan import MAX_CLIENTS, Action

GIB = 1 << 30


class VolumeActions(Asking):
    """Each gives how it ended, or None when there was nothing to act on."""

    def snapshot(self, action: Action) -> str | None:
        volume, slot = self._volume(action), action.snapshot
        if volume is None or slot is None or slot in self._model.snapshots:
            return None
        snapshot = self._model.snapshots[slot] = Told(f"snapshot{slot}", asked=True, origin=volume)
        request = Request("createSnapshot", {"volumeid": volume.id or "", "name": snapshot.name})
        self._writes(request, snapshot.register, model.ABSENT, model.BROKEN, model.BACKED_UP)
        snapshot.taken = request.writes[0][1]
        how, result = self._send(request)
        if result is not None:
            snapshot.id = str(result["snapshot"]["id"])
        return how

    def clone(self, action: Action) -> str | None:
        snapshot, slot = self._snapshot(action), action.volume
        if snapshot is None or slot is None or slot in self._model.volumes:
            return None
        offering = self._shared.disk_offerings[0]
        volume = self._model.volumes[slot] = Told(f"volume{slot}", asked=True, origin=snapshot)
        volume.facts[model.OFFERING] = Register(offering)
        request = Request(
            "createVolume",
            {"name": volume.name, "snapshotid": snapshot.id or "", "diskofferingid": offering, "size": 1},
        )
        self._writes(request, volume.register, model.ABSENT, model.DELETING, model.FREE)
        how, result = self._send(request)
        if result is not None:
            volume.id = str(result["volume"]["id"])
            volume.path = str(result["volume"].get("path", ""))
        return how

    def revert(self, action: Action) -> str | None:
        """All that the volume holds is as the snapshot holds it."""
        snapshot = self._snapshot(action)
        if snapshot is None or snapshot.origin is None:
            return None
        request = Request("revertSnapshot", {"id": snapshot.id or ""})
        for fact in (model.SIZE, *map(model.mark_fact, range(MAX_CLIENTS))):
            self._writes(request, snapshot.origin.fact(fact), model.FROM + snapshot.name)
        return self._send(request)[0]

    def delete_snapshot(self, action: Action) -> str | None:
        snapshot = self._snapshot(action)
        if snapshot is None:
            return None
        request = Request("deleteSnapshot", {"id": snapshot.id or ""})
        self._writes(request, snapshot.register, model.ABSENT)
        return self._send(request)[0]

    def resize(self, action: Action) -> str | None:
        volume = self._volume(action)
        if volume is None:
            return None
        request = Request("resizeVolume", {"id": volume.id or "", "size": action.size, "shrinkok": True})
        self._writes(request, volume.fact(model.SIZE), str(action.size * GIB))
        return self._send(request)[0]

    def change_offering(self, action: Action) -> str | None:
        volume = self._volume(action)
        if volume is None:
            return None
        offering = self._shared.disk_offerings[action.offering]
        request = Request(
            "changeOfferingForVolume",
            {"id": volume.id or "", "diskofferingid": offering, "size": action.size, "shrinkok": True},
        )
        self._writes(request, volume.fact(model.SIZE), str(action.size * GIB))
        self._writes(request, volume.fact(model.OFFERING), offering)
        return self._send(request)[0]


def new_volume(volume: Told, offering: str) -> None:
    """What is true of a volume that was made from nothing."""
    volume.facts[model.SIZE] = Register(str(GIB))
    volume.facts[model.OFFERING] = Register(offering)
