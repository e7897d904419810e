"""Encrypted volumes: how they are asked for, and what can be seen of them from outside."""

from __future__ import annotations

import re

from harness.observers import Json, World
from scenarios.looks import LUKS_HEADER, attached_only_to, device_size, domain_disk, on_storpool, reread_volume, serial
from scenarios.snapshots import pattern
from scenarios.steps import (
    attach,
    booted_vm,
    compute_offering,
    data_volume,
    deploy,
    disk_offering,
    host_of,
    many,
    shared_template,
)

MAGIC = b"LUKS\xba\xbe"
WRONG_KEY = b"not the passphrase of any volume"


def encrypted_data(world: World, size: int = 1) -> Json:
    """A DATA volume of `size` GiB whose offering encrypts; it is Allocated."""
    return data_volume(world, size, disk_offering(world, encrypt=True))


def encrypted_vm(world: World, **parameters: str | int | bool) -> Json:
    """A running VM, whose guest is up, with an encrypted ROOT volume."""
    offering = compute_offering(world, encryptroot=True)
    vm = deploy(world, shared_template(world), serviceofferingid=str(offering["id"]), **parameters)
    world.guest(str(vm["id"])).boot_id()
    return vm


def with_data(world: World, word: str) -> tuple[Json, Json]:
    """A running VM and an encrypted DATA volume of it that its guest wrote the word to."""
    vm = booted_vm(world)
    data = attach(world, encrypted_data(world), vm)
    write(world, vm, data, word)
    return vm, data


def places(volume: Json) -> tuple[int, ...]:
    """Beginning and end of what the guest sees, and between them."""
    size = int(volume["size"])
    return 0, size // 2 // 65536 * 65536, size - 65536


def write(world: World, vm: Json, volume: Json, word: str) -> None:
    guest = world.guest(str(vm["id"]))
    for place in places(volume):
        guest.write(serial(volume), place, pattern(word, place))


def reads(world: World, vm: Json, volume: Json, word: str) -> None:
    """The guest, once it is up, reads what was written of the word."""
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    world.wait_until("the guest has the disk", lambda: serial(volume) in guest.disks())
    with world.check(f"the guest reads what was written ({word})"):
        for place in places(volume):
            seen, wanted = guest.read(serial(volume), place, 65536), pattern(word, place)
            assert seen == wanted, f"the guest reads {seen[:48]!r} at {place}, expected {wanted[:48]!r}"


def is_luks(world: World, vm: Json, volume: Json) -> None:
    """CloudStack says so, and the device of the running VM's host shows it; a wrong key opens nothing."""
    host, path = host_of(world, vm), str(volume["path"])
    with world.check("CloudStack shows it as encrypted, StorPool has room for the header"):
        assert reread_volume(world, volume).get("encryptformat") == "LUKS", reread_volume(world, volume)
        size = on_storpool(world, volume)["size"]
        assert size == int(volume["size"]) + LUKS_HEADER == device_size(volume), f"StorPool has {size} bytes: {volume}"
    with world.check("the device has a LUKS header with the data right behind"):
        header = host.read_device(path, 0, 4096)
        assert header.startswith(MAGIC), f"{path} on {host.name} begins with {header[:16]!r}"
        behind = int.from_bytes(header[104:108], "big") * 512
        assert behind == LUKS_HEADER, f"the header says that data begins at {behind}"
    with world.check("a wrong key is refused"):
        assert not host.unlocks(path, WRONG_KEY), f"{path} is opened by any passphrase"
    with world.check("the disk in the domain is LUKS"):
        disk = domain_disk(host, vm, volume)
        assert disk is not None and disk.encryption == "luks", f"disk {path} is {disk}"
    attached_only_to(world, volume, host)


def nowhere_plain(world: World, *words: str, but: Json | None = None) -> None:
    """What guests wrote stands on no host: on no device, in no file or log, in no command line. See
    `nowhere_plain_bytes`."""
    nowhere_plain_bytes(world, *(pattern(word, 0)[:48] for word in words), but=but)


def nowhere_plain_bytes(world: World, *needles: bytes, but: Json | None = None) -> None:
    """These stand on no host, but on the device of this attached volume, which is not encrypted: that they are found
    there shows that they would be found elsewhere."""
    witness = [] if but is None else [str(but["path"])]
    for needle in needles:
        seen = {host.name: list(host.traces(needle)) for host in world.hosts}
        if witness:
            with world.check("on the volume that is not encrypted it is found"):
                assert any(witness[0] in found for found in seen.values()), f"{needle!r} stands in {seen} only"
        for name, found in seen.items():
            with world.check(f"what the guest has is nowhere readable on {name}"):
                assert [place for place in found if place not in witness] == [], f"{needle!r} stands in {found}"


def samples(world: World, vm: Json, volume: Json, size: int) -> list[bytes]:
    """Pieces of what is on the device of this running VM's volume, at its beginning, middle and end, that can be looked
    for: without zero bytes and ends of lines."""
    blocks = [
        host_of(world, vm).read_device(str(volume["path"]), at, 4096) for at in (0, size // 2 - 4096, size - 4096)
    ]
    pieces = [max(re.split(rb"[\n\0]", block), key=len)[:48] for block in blocks]
    return [piece for piece in pieces if len(piece) >= 24]


def no_passphrase_left(world: World) -> None:
    with world.check("libvirt keeps no passphrase"):
        for host in world.hosts:
            assert list(host.secrets()) == [], f"libvirt on {host.name} knows those of {host.secrets()}"


def await_support(world: World, wanted: dict[str, bool]) -> None:
    """Until CloudStack knows which hosts can encrypt, by name."""

    def seen() -> dict[str, bool]:
        hosts = many(world.cloud.call("listHosts", type="Routing"), "host")
        return {str(host["name"]): bool(host["encryptionsupported"]) for host in hosts}

    world.wait_until("CloudStack knows which hosts can encrypt", lambda: seen() == wanted, 300)
