"""Quick looks at the explored cloud, past every API: what hosts and StorPool have at this moment."""

from __future__ import annotations

from harness.explore import model
from harness.explore.model import Model, Told
from harness.spi.objects import PATH_PREFIX
from harness.spi.ports import DomainState
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_domain import ModelDomain
from harness.worlds.memory.processes import Processes

REASSIGN = "VolumesReassignWait"
_ON = (DomainState.RUNNING, DomainState.PAUSED)


class Looks:
    def __init__(self, processes: Processes, known: Model) -> None:
        self._machines = tuple(processes.machines.values())
        self._blocks = processes.blocks
        self._storpool = processes.storpool
        self._model = known

    def domain(self, vm: Told) -> tuple[Machine, ModelDomain] | None:
        """The running domain of the VM and its host; in a migration the one that the guest runs in."""
        found = [
            (machine, domain)
            for machine in self._machines
            if (domain := machine.domains.get(vm.instance_name)) is not None and domain.state in _ON
        ]
        return min(found, key=lambda pair: pair[1].inactive, default=None)

    def running(self, vm: Told) -> bool:
        return self.domain(vm) is not None

    def host_of(self, vm: Told) -> int | None:
        """Index of the host that runs the VM."""
        found = self.domain(vm)
        return None if found is None else self._machines.index(found[0])

    def serial(self, vm: Told, volume: Told | None) -> str | None:
        """By which the guest knows the DATA volume, or its ROOT disk."""
        if volume is not None:
            return serial_of(volume.id or "")
        found = self.domain(vm)
        return None if found is None or not found[1].disks else found[1].disks[0].serial

    def wrong(self, vm: Told | None, volume: Told | None) -> str | None:
        """What is not as it must be; None when all is well, or when more than one thing may be true."""
        volumes = [] if volume is None else [volume]
        if vm is not None:
            wrong = self._vm_wrong(vm)
            if wrong is not None:
                return wrong
            volumes += [other for other in self._model.volumes.values() if vm.name in other.register.possible()]
        return next((wrong for each in volumes if (wrong := self._volume_wrong(each)) is not None), None)

    def _vm_wrong(self, vm: Told) -> str | None:
        possible = vm.register.possible()
        if len(possible) != 1 or not vm.instance_name:
            return None
        (state,) = possible
        on = self.domain(vm)
        if state == model.RUNNING and on is None:
            return f"{vm.name} must be running, and no host runs its domain {vm.instance_name}"
        if state != model.RUNNING and on is not None and not vm.unconfirmed:
            return f"{vm.name} must be {state}, and {on[0].name} runs its domain {vm.instance_name}"
        return None

    def _volume_wrong(self, volume: Told) -> str | None:
        possible = volume.register.possible()
        if len(possible) != 1 or not volume.path:
            return None
        (state,) = possible
        global_id = volume.path.removeprefix(PATH_PREFIX)
        attached = [m for m in self._machines if global_id in self._blocks.links_by_id(m.client_id)]
        left = [machine for machine in attached if machine.name not in volume.late_on]
        if state in (model.FREE, model.ABSENT):
            where = ", ".join(machine.name for machine in left)
            if left:
                return f"{volume.name} must be {state}, and is a device on {where}"
            if state == model.ABSENT and global_id in self._storpool().object_keys():
                return f"{volume.name} must be {state}, and StorPool has ~{global_id}"
            return None
        vm = next((vm for vm in self._model.vms.values() if vm.name == state), None)
        if vm is None:
            return None
        if vm.register.possible() == {model.STOPPED} and not vm.unconfirmed and left:
            return f"{volume.name} is of {state}, which must be Stopped, and is a device on {left[0].name}"
        if vm.register.possible() != {model.RUNNING}:
            return None
        on = self.domain(vm)
        if on is None:
            return None
        if on[0] not in attached:
            return f"{volume.name} must be attached to {state}, and is no device on {on[0].name}"
        if not any(disk.source == volume.path and disk.key is not None for disk in on[1].disks):
            return f"{volume.name} must be attached to {state}, and its domain has no disk {volume.path}"
        return None


def serial_of(volume_id: str) -> str:
    return volume_id.replace("-", "")[:20]
