"""The operations that are struck: how each is asked for, whether it was done or undone, and asked for again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.observers import Cloud, Json, World
from harness.worlds.local.steps.stage import FIELD, IMAGE_SIZE, MARK, Stage, small_template
from scenarios.looks import global_id, serial, template_snapshots
from scenarios.steps import (
    attach,
    data_volume,
    deploy,
    deploy_parameters,
    detach,
    many,
    root_volume,
    start,
    vm_by_id,
    vm_exists,
    volume_by_id,
    volume_exists,
)
from scenarios.table import RowId


class Attempt(Protocol):
    """One operation on objects of its own."""

    def ask(self, cloud: Cloud) -> None:
        """Ask for it and wait for the answer, in a thread of its own: nothing but `cloud` may be used."""
        ...

    def vm_name(self) -> str | None:
        """Name of the domain whose QEMU the operation is about."""
        ...

    def done(self) -> bool:
        """At rest: whether it was done; False means undone, everything as before. Neither is an `AssertionError`."""
        ...

    def again(self) -> None:
        """Ask for it again after it was undone; it must succeed."""
        ...

    def check(self) -> None:
        """It is done, and every byte is where it should be."""
        ...


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    row: RowId
    title: str
    prepare: Callable[[Stage, World], Attempt]


class Deploy:
    """A VM from a template that the pool does not have yet."""

    def __init__(self, stage: Stage, world: World) -> None:
        self._stage = stage
        self._world = world
        self._template_id = small_template(world, stage.image_url)
        self._others = frozenset(stage.host.domains())
        self._parameters = deploy_parameters(world, self._template_id, hostid=stage.host_id)

    def ask(self, cloud: Cloud) -> None:
        cloud.call("deployVirtualMachine", **self._parameters)

    def vm_name(self) -> str | None:
        found = [name for name, state in self._stage.host.domains().items() if state == "running"]
        return next((name for name in found if name not in self._others), None)

    def done(self) -> bool:
        vm = self._vm()
        return vm is not None and vm["state"] == "Running"

    def again(self) -> None:
        vm = self._vm()
        if vm is not None and vm["state"] == "Stopped":
            start(self._world, vm)
            return
        if vm is not None:
            self._world.cloud.call("destroyVirtualMachine", id=vm["id"], expunge=True)
        self._parameters = deploy_parameters(self._world, self._template_id, hostid=self._stage.host_id)
        self.ask(self._world.cloud)

    def check(self) -> None:
        vm = self._vm()
        assert vm is not None and vm["state"] == "Running", f"after the deploy the VM is {vm}"
        path = str(root_volume(self._world, str(vm["id"]))["path"])
        assert self._stage.host.read_device(path, 0, IMAGE_SIZE) == FIELD, f"{path} has not the template's bytes"
        seeded = template_snapshots(self._world, self._template_id)
        assert len(seeded) == 1, f"the template has {len(seeded)} StorPool snapshots: {seeded}"

    def _vm(self) -> Json | None:
        answer = self._world.cloud.call("listVirtualMachines", listall=True)
        return next((vm for vm in many(answer, "virtualmachine") if vm["name"] == self._parameters["name"]), None)


class Attach:
    """A DATA volume to a running VM."""

    def __init__(self, stage: Stage, world: World, volume: Json, contents: bytes | None) -> None:
        """`contents` is what the volume has at its beginning; None for one that is used the first time."""
        self._stage = stage
        self._world = world
        stage.up(world)
        self._volume_id = str(volume["id"])
        self._contents = contents

    @staticmethod
    def new(stage: Stage, world: World) -> Attach:
        return Attach(stage, world, data_volume(world, offering_id=stage.offering_id), None)

    @staticmethod
    def used(stage: Stage, world: World) -> Attach:
        volume = volume_by_id(world, stage.used_volume_id)
        if "virtualmachineid" in volume:
            volume = detach(world, volume)
        return Attach(stage, world, volume, MARK)

    def ask(self, cloud: Cloud) -> None:
        cloud.call("attachVolume", id=self._volume_id, virtualmachineid=self._stage.vm_id)

    def vm_name(self) -> str | None:
        return running(self._stage, str(self._stage.vm(self._world)["instancename"]))

    def done(self) -> bool:
        return self._volume().get("virtualmachineid") == self._stage.vm_id

    def again(self) -> None:
        self.ask(self._world.cloud)

    def check(self) -> None:
        assert self.done(), f"after the attach the volume is {self._volume()}"
        self._stage.up(self._world)
        volume, guest = self._volume(), self._world.guest(self._stage.vm_id)
        name = serial(volume)
        self._world.wait_until(f"the guest sees disk {name}", lambda: name in guest.disks())
        if self._contents is None:
            guest.write(name, 0, MARK)
        seen = guest.read(name, 0, len(MARK))
        assert seen == MARK, f"the guest reads {seen[:40]!r} from {volume['path']}"
        seen = self._stage.host.read_device(str(volume["path"]), 0, len(MARK))
        assert seen == MARK, f"{volume['path']} has {seen[:40]!r}"
        self._stage.keeps_its_bytes(self._world)

    def _volume(self) -> Json:
        return volume_by_id(self._world, self._volume_id)


class DeleteVm:
    """A running VM with its ROOT volume."""

    def __init__(self, stage: Stage, world: World) -> None:
        self._stage = stage
        self._world = world
        self._vm = deploy(world, stage.template_id, hostid=stage.host_id)
        self._root = root_volume(world, str(self._vm["id"]))

    def ask(self, cloud: Cloud) -> None:
        cloud.call("destroyVirtualMachine", id=self._vm["id"], expunge=True)

    def vm_name(self) -> str | None:
        return running(self._stage, str(self._vm["instancename"]))

    def done(self) -> bool:
        if not vm_exists(self._world, str(self._vm["id"])):
            return True
        vm = vm_by_id(self._world, str(self._vm["id"]))
        if vm["state"] == "Running":
            path = str(self._root["path"])
            assert self._stage.host.read_device(path, 0, IMAGE_SIZE) == FIELD, f"{path} has lost the template's bytes"
        return False

    def again(self) -> None:
        self.ask(self._world.cloud)

    def check(self) -> None:
        assert not vm_exists(self._world, str(self._vm["id"])), f"VM {self._vm['id']} is still there"
        assert_no_volume(self._world, self._root)


class DeleteVolume:
    """A DATA volume that was used and is detached."""

    def __init__(self, stage: Stage, world: World) -> None:
        self._stage = stage
        self._world = world
        vm = stage.up(world)
        volume = attach(world, data_volume(world, offering_id=stage.offering_id), vm)
        world.guest(stage.vm_id).write(serial(volume), 0, MARK)
        self._volume = detach(world, volume)

    def ask(self, cloud: Cloud) -> None:
        cloud.call("deleteVolume", id=self._volume["id"])

    def vm_name(self) -> str | None:
        return None

    def done(self) -> bool:
        if not volume_exists(self._world, str(self._volume["id"])):
            return True
        volume = volume_by_id(self._world, str(self._volume["id"]))
        if volume["state"] == "Ready":
            self._has_its_bytes(volume)
        return False

    def again(self) -> None:
        self.ask(self._world.cloud)

    def check(self) -> None:
        assert not volume_exists(self._world, str(self._volume["id"])), f"volume {self._volume['id']} is still there"
        assert_no_volume(self._world, self._volume)

    def _has_its_bytes(self, volume: Json) -> None:
        attach(self._world, volume, self._stage.vm(self._world))
        seen = self._stage.host.read_device(str(volume["path"]), 0, len(MARK))
        assert seen == MARK, f"{volume['path']} has {seen[:40]!r}, not what the guest wrote"
        detach(self._world, volume)


def running(stage: Stage, name: str) -> str | None:
    return name if stage.host.domains().get(name) == "running" else None


def assert_no_volume(world: World, volume: Json) -> None:
    found = world.storpool.volume("~" + global_id(volume))
    assert found is None, f"StorPool still has ~{global_id(volume)}: {found}"


OPERATIONS = (
    Operation("deploy", 2, "deploy of a VM from a template that the pool does not have yet", Deploy),
    Operation("attach-used", 4, "hot attach of a DATA volume with bytes on it", Attach.used),
    Operation("attach-new", 4, "hot attach of a DATA volume that was never used", Attach.new),
    Operation("delete-vm", 7, "destroy with expunge of a running VM", DeleteVm),
    Operation("delete-volume", 8, "delete of a DATA volume", DeleteVolume),
)
