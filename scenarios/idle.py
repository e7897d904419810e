"""VMs of the idle image: what they show. They never write, so their ROOT volumes keep the image's bytes."""

from __future__ import annotations

import hashlib

from harness.observers import Json, World
from scenarios.steps import host_of, root_volume, template_by_id

BLOCK = 4096


def idle_boots(world: World, *vms: Json) -> None:
    """These VMs of one template boot, from its bytes."""
    with world.check("the guest boots"):
        for vm in vms:
            world.guest(str(vm["id"])).ready()
    same_bytes(world, *vms)


def same_bytes(world: World, *vms: Json) -> None:
    """ROOT volumes of running VMs of one template have its bytes: all that the first one has are looked at, of the
    others the last block and one in the middle, for a read of a whole disk is dear."""
    wanted = world.environment.idle_image_sha256
    if not wanted:
        with world.check("the bytes of ROOT are not looked at: the lab file does not tell the sha256 of an idle image"):
            return
    first, *others = vms
    size = int(template_by_id(world, str(first["templateid"]))["size"])
    whole = _read(world, first, 0, size)
    with world.check("ROOT has the template's bytes"):
        seen = hashlib.sha256(whole).hexdigest()
        assert seen == wanted, f"the first {size} bytes have sha256 {seen}, the image has {wanted}"
    for vm in others:
        with world.check("ROOT of another VM has them too: its last block, and one in the middle"):
            for end in (size // 2, size):
                found = _read(world, vm, end - BLOCK, BLOCK)
                assert found == whole[end - BLOCK : end], f"other bytes in the block that ends at {end}"


def _read(world: World, vm: Json, offset: int, length: int) -> bytes:
    path = str(root_volume(world, str(vm["id"]))["path"])
    return host_of(world, vm).read_device(path, offset, length)
