"""What all cases share: a small image of known bytes, a VM whose guest is up, a volume that the guest wrote to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.observers import Host, Json, World
from lab.shell import run
from scenarios.looks import serial
from scenarios.steps import (
    attach,
    data_volume,
    deploy,
    detach,
    disk_offering,
    many,
    one,
    root_volume,
    shared_template,
    start,
    template_by_id,
    vm_by_id,
    volume_by_id,
)

MIB = 1 << 20
IMAGE_SIZE = 4 * MIB
IMAGE_NAME = "small.qcow2"
MARK = b"written before anybody was killed".ljust(4096, b".")
MARK_AT = 512 * MIB
"""Offset on the ROOT disk of the VM, beyond its file system."""
FIELD = hashlib.shake_256(b"bytes of the small image").digest(IMAGE_SIZE)


@dataclass(frozen=True, slots=True)
class Stage:
    host: Host
    """All VMs run here."""
    host_id: str
    image_url: str
    template_id: str
    """Of the small image, cached on the pool already."""
    offering_id: str
    vm_id: str
    used_volume_id: str
    """Holds `MARK` at its beginning."""

    def vm(self, world: World) -> Json:
        return vm_by_id(world, self.vm_id)

    def up(self, world: World) -> Json:
        """The VM, started if it was stopped, with its guest up."""
        vm = self.vm(world)
        if vm["state"] == "Stopped":
            vm = start(world, vm)
        world.guest(self.vm_id).boot_id()
        return vm

    def keeps_its_bytes(self, world: World) -> None:
        """What the VM's guest wrote is on its ROOT disk; the VM runs."""
        path = str(root_volume(world, self.vm_id)["path"])
        seen = self.host.read_device(path, MARK_AT, len(MARK))
        assert seen == MARK, f"{path} has {seen[:40]!r} at {MARK_AT}, not what the guest wrote there"


def make_small_image(directory: Path) -> None:
    """A qcow2 image that boots nothing, of bytes that are known, beside the guest image."""
    raw = directory / "small.raw"
    raw.write_bytes(FIELD)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, directory / IMAGE_NAME])
    raw.unlink()


def small_template(world: World, image_url: str) -> str:
    """Register the small image as a new template, and wait until secondary storage has it."""
    env = world.environment
    name = world.name("small")
    answer = world.cloud.call(
        "registerTemplate",
        name=name,
        displaytext=name,
        format="QCOW2",
        hypervisor="KVM",
        url=image_url,
        zoneid=env.zone_id,
        ostypeid=env.os_type_id,
    )
    template_id = str(one(answer, "template")["id"])
    world.wait_until(f"template {name} is ready", lambda: bool(template_by_id(world, template_id).get("isready")), 60)
    return template_id


def set_stage(world: World) -> Stage:
    """Make it all; the VM's guest is up and has written."""
    host = world.hosts[0]
    host_id = host_ids(world)[host.name]
    image_url = world.environment.image_url.rpartition("/")[0] + f"/{IMAGE_NAME}"
    vm = deploy(world, shared_template(world), hostid=host_id, **{"details[0].rootdisksize": 1})
    offering_id = disk_offering(world)
    template_id = small_template(world, image_url)
    deploy(world, template_id, hostid=host_id)
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    guest.write(serial(root_volume(world, str(vm["id"]))), MARK_AT, MARK)
    volume = attach(world, data_volume(world, offering_id=offering_id), vm)
    guest.write(serial(volume), 0, MARK)
    detach(world, volume)
    return Stage(
        host=host,
        host_id=host_id,
        image_url=image_url,
        template_id=template_id,
        offering_id=offering_id,
        vm_id=str(vm["id"]),
        used_volume_id=str(volume_by_id(world, str(volume["id"]))["id"]),
    )


def host_ids(world: World) -> dict[str, str]:
    listed = many(world.cloud.call("listHosts", type="Routing"), "host")
    return {str(host["name"]): str(host["id"]) for host in listed}
