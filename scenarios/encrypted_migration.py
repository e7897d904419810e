"""A VM with encrypted volumes is migrated. Seen from outside: spec/action-table.md, `encryption`."""

from __future__ import annotations

from harness.observers import World
from scenarios.encrypted import (
    await_support,
    encrypted_data,
    encrypted_vm,
    is_luks,
    no_passphrase_left,
    nowhere_plain,
    reads,
    with_data,
    write,
)
from scenarios.looks import fails, fully_attached, reread, reread_volume
from scenarios.migrating import Counter, migrate, other_host, start_migrating
from scenarios.registry import scenario
from scenarios.steps import attach, detach, host_of, root_volume, start, stop


@scenario(
    "encryption", "migrate", "a VM with an encrypted volume is migrated live and back, then stopped and started (#8255)"
)
def migrated(world: World) -> None:
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


@scenario("encryption", "migrate-load", "a VM whose disks are all encrypted is migrated live under load, and back")
def migrated_under_load(world: World) -> None:
    vm = encrypted_vm(world)
    data = attach(world, encrypted_data(world), vm)
    write(world, vm, data, "moved")
    boot = world.guest(str(vm["id"])).boot_id()
    source, destination = host_of(world, vm), other_host(world, vm)
    counter = Counter(world, vm, data)
    counter.write()
    job = start_migrating(world, vm, destination)
    counter.write_until_ended(job)
    world.cloud.wait(job)
    for host in (destination, source):
        vm = reread(world, vm)
        if host is source:
            vm = migrate(world, vm, source)
        with world.check(f"it runs on {host.name}, and was never down"):
            assert host_of(world, vm).name == host.name, vm
            assert world.guest(str(vm["id"])).boot_id() == boot
        for volume in (root_volume(world, str(vm["id"])), data):
            fully_attached(world, vm, volume)
            is_luks(world, vm, volume)
        with world.check("what it wrote before and during is there"):
            counter.is_there()
        reads(world, vm, data, "moved")
        world.wait_until("passphrases are taken back", lambda: not any(each.secrets() for each in world.hosts), 300)
    nowhere_plain(world, "moved")
    with world.check("encrypted disks can be taken from it and given to it there"):
        data = attach(world, detach(world, data), vm)
        reads(world, vm, data, "moved")


@scenario("encryption", "migrate-refused", "a VM with encrypted disks is not migrated to a host that cannot encrypt")
def migrate_refused(world: World) -> None:
    vm = encrypted_vm(world)
    source, destination = host_of(world, vm), other_host(world, vm)
    with destination.without_encryption():
        await_support(world, {source.name: True, destination.name: False})
        error = fails(lambda: migrate(world, vm, destination))
        with world.check("refused with the reason, and it runs where it was"):
            assert "encrypt" in error.text, error.text
            assert host_of(world, reread(world, vm)).name == source.name
            fully_attached(world, vm, root_volume(world, str(vm["id"])))
    await_support(world, {source.name: True, destination.name: True})
