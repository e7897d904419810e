"""One client of the explored cloud: carries out its actions one after the other and keeps what it was told."""

from __future__ import annotations

from collections.abc import Callable

from harness.explore import model
from harness.explore.asking import DONE, Request, Shared
from harness.explore.model import Register, Told
from harness.explore.plan import Action
from harness.explore.violation import Violation, ViolationFound
from harness.explore.volume_actions import VolumeActions, new_volume
from harness.faults.kinds import HOST_DOWN
from harness.faults.points import AGENT
from harness.worlds.memory.model_guest import ModelGuest
from simulator.ports import OutOfSpace

POWEROFF_SECONDS = 10.0
"""A guest that heard its power button is off after this."""


class Client(VolumeActions):
    def __init__(self, shared: Shared, number: int, actions: tuple[Action, ...]) -> None:
        super().__init__(shared)
        self._number = number
        self._actions = actions
        self._marks = 0

    def run(self) -> None:
        for action in self._actions:
            if action.pause:
                self._world.simulation.main.sleep(action.pause)
            self._act(action)

    def _act(self, action: Action) -> None:
        main = self._world.simulation.main
        main.simulation.note(f"client {self._number}", "action", str(action))
        how = _ACTIONS[action.kind](self, action)
        if how is None:
            return
        main.simulation.note(f"client {self._number}", "outcome", f"{action}: {how}")
        self._shared.performed.append((self._number, action, how))
        if how == DONE:
            self._check(action)
            if action.write and action.vm is not None:
                self._write(action)

    # Actions. Each gives how it ended, or None when there was nothing to act on.

    def deploy(self, action: Action) -> str | None:
        slot = action.vm
        if slot is None or slot in self._model.vms:
            return None
        env = self._world.environment
        vm = self._model.vms[slot] = Told(f"vm{slot}", asked=True)
        request = Request(
            "deployVirtualMachine",
            {
                "serviceofferingid": env.service_offering_id,
                "zoneid": env.zone_id,
                "name": vm.name,
                "displayname": vm.name,
                "hypervisor": "KVM",
                "templateid": self._shared.templates[action.template],
            },
        )
        self._writes(request, vm.register, model.ABSENT, model.STOPPED, model.ERROR, model.RUNNING)
        how, result = self._send(request)
        if result is not None:
            self._learn_vm(vm, result["virtualmachine"])
        elif how != DONE:
            # A VM whose first start failed gives back what others attached to it meanwhile.
            self._model.release(vm)
        return how

    def create(self, action: Action) -> str | None:
        slot = action.volume
        if slot is None or slot in self._model.volumes:
            return None
        volume = self._model.volumes[slot] = Told(f"volume{slot}", asked=True)
        request = Request(
            "createVolume",
            {
                "name": volume.name,
                "zoneid": self._world.environment.zone_id,
                "diskofferingid": self._shared.disk_offerings[0],
                "size": 1,
            },
        )
        self._writes(request, volume.register, model.ABSENT, model.FREE)
        new_volume(volume, self._shared.disk_offerings[0])
        how, result = self._send(request)
        if result is not None:
            volume.id = str(result["volume"]["id"])
        return how

    def attach(self, action: Action) -> str | None:
        vm, volume = self._vm(action), self._volume(action)
        if vm is None or volume is None:
            return None
        request = Request("attachVolume", {"id": volume.id or "", "virtualmachineid": vm.id or ""})
        self._writes(request, volume.register, vm.name)
        volume.register.writes += [release for release in vm.releases if release.ended is None]
        how, result = self._send(request)
        if result is not None:
            volume.path = str(result["volume"].get("path", ""))
        return how

    def detach(self, action: Action) -> str | None:
        volume = self._volume(action)
        if volume is None:
            return None
        request = Request("detachVolume", {"id": volume.id or ""})
        self._writes(request, volume.register, model.FREE)
        return self._send(request)[0]

    def delete(self, action: Action) -> str | None:
        volume = self._volume(action)
        if volume is None:
            return None
        request = Request("deleteVolume", {"id": volume.id or ""}, sync=True)
        self._writes(request, volume.register, model.DELETING, model.ABSENT)
        return self._send(request)[0]

    def stop(self, action: Action) -> str | None:
        return self._vm_request(action, "stopVirtualMachine", model.STOPPED)

    def force_stop(self, action: Action) -> str | None:
        vm = self._vm(action)
        if vm is not None:
            vm.unconfirmed = True
        return self._vm_request(action, "stopVirtualMachine", model.STOPPED, forced=True)

    def start(self, action: Action) -> str | None:
        vm = self._vm(action)
        if vm is None:
            return None
        request = Request("startVirtualMachine", {"id": vm.id or ""})
        self._writes(request, vm.register, model.STOPPED, model.RUNNING)
        how, result = self._send(request)
        if result is not None:
            self._learn_vm(vm, result["virtualmachine"])
            vm.unconfirmed = False
        return how

    def migrate(self, action: Action) -> str | None:
        """To a host that CloudStack takes; that the VM runs there is all that it writes."""
        vm = self._vm(action)
        if vm is None:
            return None
        request = Request("migrateVirtualMachine", {"virtualmachineid": vm.id or "", "autoselect": True})
        self._writes(request, vm.register, model.RUNNING)
        # The host that it left, or does not come to, may keep its disks until it answers, or looks by itself.
        vm.unconfirmed = True
        for volume in self._model.volumes.values():
            if vm.name in volume.register.possible():
                volume.late_on.update(host.name for host in self._world.hosts)
        how, _ = self._send(request)
        if how != DONE:
            vm.register.writes = [write for write in vm.register.writes if write is not request.writes[0][1]]
        return how

    def destroy(self, action: Action) -> str | None:
        return self._vm_request(action, "destroyVirtualMachine", model.STOPPED, model.DESTROYED, releases=True)

    def destroy_expunge(self, action: Action) -> str | None:
        values = (model.STOPPED, model.DESTROYED, model.EXPUNGING, model.ABSENT)
        return self._vm_request(action, "destroyVirtualMachine", *values, releases=True, expunge=True)

    def expunge(self, action: Action) -> str | None:
        values = (model.EXPUNGING, model.ABSENT)
        return self._vm_request(action, "expungeVirtualMachine", *values, releases=True)

    def recover(self, action: Action) -> str | None:
        return self._vm_request(action, "recoverVirtualMachine", model.STOPPED, sync=True)

    def power_off(self, action: Action) -> str | None:
        vm = self._vm(action)
        if vm is None or not self._shared.looks.running(vm):
            return None
        write = self._model.begin(vm.register, model.STOPPED)
        try:
            self._guest(vm).poweroff()
        except TimeoutError:
            return "the guest was not up"
        self._world.simulation.main.sleep(POWEROFF_SECONDS)
        write.ended = self._model.tick()
        return "asked"

    def kill_qemu(self, action: Action) -> str | None:
        vm = self._vm(action)
        host = None if vm is None else self._shared.looks.host_of(vm)
        if vm is None or host is None:
            return None
        write = self._model.begin(vm.register, model.STOPPED)
        self._world.hosts[host].kill_qemu(vm.instance_name)
        write.ended = self._model.tick()
        return "asked"

    def agent_down(self, action: Action) -> str | None:
        """The agent of the VM's host is away for a while, and its guests run on."""
        vm = self._vm(action)
        host = None if vm is None else self._shared.looks.host_of(vm)
        if host is None:
            return None
        self._world.faults.kill(f"{AGENT}{self._world.hosts[host].name}", HOST_DOWN)
        return "asked"

    # How.

    def _vm_request(
        self,
        action: Action,
        command: str,
        *values: str,
        sync: bool = False,
        releases: bool = False,
        **parameters: str | bool,
    ) -> str | None:
        vm = self._vm(action)
        if vm is None:
            return None
        request = Request(command, {"id": vm.id or "", **parameters}, sync=sync)
        self._writes(request, vm.register, *values)
        release = self._model.release(vm) if releases else None
        how, _ = self._send(request)
        if release is None or command in self._model.disturbed:
            return how
        if how == DONE:
            release.ended = self._model.tick()
        elif how.startswith("refused"):
            self._model.keep(vm, release)
        return how

    def _guest(self, vm: Told) -> ModelGuest:
        machines = tuple(self._world.processes.machines.values())
        return ModelGuest(self._world.simulation.main, machines, lambda: vm.instance_name)

    def _check(self, action: Action) -> None:
        """A request that succeeded has had its effect, unless something else may have happened since."""
        vm = self._model.vms.get(-1 if action.vm is None else action.vm)
        volume = self._model.volumes.get(-1 if action.volume is None else action.volume)
        wrong = self._shared.looks.wrong(vm, volume)
        if wrong is not None:
            raise ViolationFound(Violation("acknowledged, but not so", f"after {action}: {wrong}"))

    def _write(self, action: Action) -> None:
        """Write a mark to the volume that was attached, or to the ROOT disk."""
        vm = self._model.vms[action.vm or 0]
        volume = None if action.volume is None else self._model.volumes[action.volume]
        guest = self._guest(vm)
        register = Register() if volume is None else volume.fact(model.mark_fact(self._number))
        before = list(register.writes)
        try:
            guest.boot_id()
            serial = self._shared.looks.serial(vm, volume)
            if serial is None:
                return
            self._marks += 1
            text = model.mark(serial, self._number, self._marks)
            write = self._model.begin(register, text.decode())
            guest.write(serial, model.mark_offset(self._number), text)
        except OutOfSpace:
            # The guest sees an I/O error, and nothing was written.
            register.writes = before
            return
        except (TimeoutError, FileNotFoundError):
            # It was stopped, or the disk detached, meanwhile; whether that may be is judged by the look that follows.
            register.writes = before
            self._check(action)
            return
        write.certain, write.ended = True, self._model.tick()
        if volume is None:
            self._model.marks[serial, self._number] = text


_ACTIONS: dict[str, Callable[[Client, Action], str | None]] = {
    "deploy": Client.deploy,
    "create": Client.create,
    "attach": Client.attach,
    "detach": Client.detach,
    "delete": Client.delete,
    "stop": Client.stop,
    "force-stop": Client.force_stop,
    "start": Client.start,
    "migrate": Client.migrate,
    "destroy": Client.destroy,
    "destroy-expunge": Client.destroy_expunge,
    "expunge": Client.expunge,
    "recover": Client.recover,
    "power-off": Client.power_off,
    "kill-qemu": Client.kill_qemu,
    "agent-down": Client.agent_down,
    "snapshot": Client.snapshot,
    "clone": Client.clone,
    "revert": Client.revert,
    "delete-snapshot": Client.delete_snapshot,
    "resize": Client.resize,
    "change-offering": Client.change_offering,
}
