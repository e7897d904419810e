"""A VM with encrypted volumes is migrated. Seen from outside: spec/action-table.md, `encryption`."""

from __future__ import annotations

from harness.observers import World
from scenarios.encrypted import encrypted_vm, is_luks, no_passphrase_left, nowhere_plain, reads, with_data
from scenarios.looks import fails, fully_attached, reread, reread_volume
from scenarios.migrating import migrate, other_host
from scenarios.registry import scenario
from scenarios.steps import host_of, root_volume, start, stop


@scenario("encryption", "migrate", "a VM with an encrypted volume is migrated live and back, then stopped and started")
def migrated(world: World) -> None:
    """Users' reports 7539 and 8255: a migration failed because the secret was missing at the destination."""
    vm, volume = with_data(world, "moved")
    source, destination = host_of(world, vm), other_host(world, vm)
    boot = world.guest(str(vm["id"])).boot_id()
    for host in (destination, source):
        vm = migrate(world, vm, host)
        fully_attached(world, vm, volume)
        is_luks(world, vm, volume)
        reads(world, vm, volume, "moved")
        no_passphrase_left(world)
    with world.check("the guest was never down"):
        assert world.guest(str(vm["id"])).boot_id() == boot
    nowhere_plain(world, "moved")
    vm = start(world, stop(world, vm))
    reads(world, vm, reread_volume(world, volume), "moved")
    no_passphrase_left(world)


@scenario("encryption", "migrate-root", "a VM with an encrypted ROOT volume is migrated live")
def root_migrated(world: World) -> None:
    vm = encrypted_vm(world)
    boot = world.guest(str(vm["id"])).boot_id()
    vm = migrate(world, vm, other_host(world, vm))
    fully_attached(world, vm, root_volume(world, str(vm["id"])))
    with world.check("the guest was never down"):
        assert world.guest(str(vm["id"])).boot_id() == boot
    no_passphrase_left(world)


@scenario("encryption", "not-migrated", "a migration that libvirt refuses leaves no passphrase at the destination")
def not_migrated(world: World) -> None:
    vm, volume = with_data(world, "stays")
    source, destination = host_of(world, vm), other_host(world, vm)
    with destination.libvirt_cut():
        fails(lambda: migrate(world, vm, destination))
    with world.check("it runs where it was"):
        assert reread(world, vm)["hostname"] == source.name
    fully_attached(world, vm, volume)
    reads(world, vm, volume, "stays")
    no_passphrase_left(world)
