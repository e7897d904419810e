"""What every client does: it asks CloudStack, writes down what that may change, and what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.explore.looks import Looks
from harness.explore.model import Model, Register, Told, Write
from harness.explore.plan import Action
from harness.explore.requests import JobFailed, listed, wait
from harness.observers import CloudApiError, Json
from harness.worlds.memory.world import MemoryWorld

DONE = "done"
"""How an action ended of which CloudStack said that it was a success."""


@dataclass(slots=True)
class Shared:
    """What the clients of one run share."""

    world: MemoryWorld
    model: Model
    looks: Looks
    templates: tuple[str, ...]
    """Ids, by the plan's number."""
    disk_offerings: tuple[str, ...]
    """Ids, by the plan's number."""
    performed: list[tuple[int, Action, str]] = field(default_factory=list)
    """Client, action, and how it ended; what was skipped is not here."""


@dataclass(slots=True)
class Request:
    """One request to CloudStack's API, and what it writes."""

    command: str
    parameters: dict[str, str | int | bool]
    writes: list[tuple[Register, Write]] = field(default_factory=list)
    sync: bool = False


class Asking:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._world = shared.world
        self._model = shared.model

    def _writes(self, request: Request, register: Register, *values: str) -> None:
        request.writes.append((register, self._model.begin(register, *values)))

    def _send(self, request: Request) -> tuple[str, Json | None]:
        """How the request ended, and its result if it succeeded."""
        cloud = self._world.cloud
        try:
            if request.sync:
                result = cloud.call(request.command, **request.parameters)
            else:
                result = wait(
                    self._world,
                    cloud.start(request.command, **request.parameters),
                    f"{request.command} {request.parameters.get('name') or request.parameters.get('id')}",
                )
        except JobFailed as error:
            self._model.tick()
            return f"failed: {error}", None
        except CloudApiError as error:
            if request.sync:
                self._model.tick()
                return f"failed: {error}", None
            for register, write in request.writes:
                self._model.refused(request.command, register, write)
            return f"refused: {error}", None
        except ConnectionRefusedError as error:
            for register, write in request.writes:
                self._model.refused(request.command, register, write)
            return f"not sent: {error}", None
        except ConnectionError as error:
            self._model.tick()
            return f"unknown: {error}", None
        self._model.done(request.command, *(write for _, write in request.writes))
        return DONE, result

    def _vm(self, action: Action) -> Told | None:
        vm = self._model.vms.get(-1 if action.vm is None else action.vm)
        if vm is None:
            return None
        if vm.id is None:
            found = self._find("listVirtualMachines", "virtualmachine", vm.name)
            if found is not None:
                self._learn_vm(vm, found)
        return None if vm.id is None else vm

    def _volume(self, action: Action) -> Told | None:
        volume = self._model.volumes.get(-1 if action.volume is None else action.volume)
        if volume is None:
            return None
        if volume.id is None:
            found = self._find("listVolumes", "volume", volume.name)
            volume.id = None if found is None else str(found["id"])
        return None if volume.id is None else volume

    def _snapshot(self, action: Action) -> Told | None:
        snapshot = self._model.snapshots.get(-1 if action.snapshot is None else action.snapshot)
        if snapshot is None:
            return None
        if snapshot.id is None:
            found = self._find("listSnapshots", "snapshot", snapshot.name)
            snapshot.id = None if found is None else str(found["id"])
        return None if snapshot.id is None else snapshot

    def _find(self, command: str, key: str, name: str) -> Json | None:
        return next((item for item in listed(self._world, command, key, name=name) if item["name"] == name), None)

    def _learn_vm(self, vm: Told, shown: Json) -> None:
        vm.id = str(shown["id"])
        vm.instance_name = str(shown["instancename"])
