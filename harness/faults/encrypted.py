"""Operations on encrypted volumes: deploy, first use, attach, detach, start, stop, grow, snapshot, revert."""

from __future__ import annotations

import hashlib

from harness.faults.deploys import DEPLOY_SECONDS, brought_up, vm_named
from harness.faults.disks import attach, detach, free, start, stop
from harness.faults.marks import AFTER, MARK, PLACE, guest_reads, mark
from harness.faults.operation import Operation, Subject, running
from harness.observers import World
from scenarios import encrypted, looks, snapshots, steps
from scenarios.row14_revert_snapshot import revert


def _cached_template(world: World) -> Subject:
    """A template that the pool has, and an offering that encrypts ROOT volumes."""
    template_id = steps.shared_template(world)
    steps.expunge(world, steps.deploy(world, template_id))
    return Subject(template_id=template_id, offering_id=str(steps.compute_offering(world, encryptroot=True)["id"]))


def _deploy(world: World, subject: Subject) -> None:
    parameters = steps.deploy_parameters(world, subject.template_id, serviceofferingid=subject.offering_id)
    subject.names = (str(parameters["name"]),)
    world.cloud.wait(world.cloud.start("deployVirtualMachine", **parameters), DEPLOY_SECONDS)


def _deployed(world: World, subject: Subject) -> None:
    vm = vm_named(world, subject.names[0]) if subject.names else None
    assert vm is not None and vm["state"] not in ("Error", "Destroyed"), f"it was not deployed: {vm}"
    vm = running(world, subject, vm)
    root = steps.root_volume(world, str(vm["id"]))
    looks.fully_attached(world, vm, root)
    encrypted.is_luks(world, vm, root)
    content = world.guest(str(vm["id"])).read(looks.serial(root), 0, world.environment.image_size)
    assert hashlib.sha256(content).hexdigest() == world.environment.image_sha256, "the guest has not the template"


def _not_deployed(world: World, subject: Subject) -> None:
    if subject.names and brought_up(world, subject.names[0]):
        _deployed(world, subject)


def _first_use(world: World) -> Subject:
    return Subject(vm=steps.booted_vm(world), volume=encrypted.encrypted_data(world))


def _marked(world: World) -> Subject:
    subject = _first_use(world)
    subject.volume = steps.attach(world, subject.volume, subject.vm)
    mark(world, subject.vm, subject.volume)
    return subject


def _marked_and_free(world: World) -> Subject:
    subject = _marked(world)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _encrypted_vm(world: World) -> Subject:
    """Running, with both disks encrypted."""
    vm = encrypted.encrypted_vm(world)
    volume = steps.attach(world, encrypted.encrypted_data(world), vm)
    mark(world, vm, volume)
    return Subject(vm=vm, volume=volume)


def _stopped_encrypted_vm(world: World) -> Subject:
    subject = _encrypted_vm(world)
    subject.vm = steps.stop(world, subject.vm)
    return subject


def _used(world: World, subject: Subject) -> None:
    """On the running VM, encrypted, and its guest can write and read it."""
    volume = looks.reread_volume(world, subject.volume)
    assert volume.get("virtualmachineid") == subject.vm["id"], f"volume is not attached: {volume}"
    vm = running(world, subject, subject.vm)
    looks.fully_attached(world, vm, volume)
    encrypted.is_luks(world, vm, volume)
    guest = world.guest(str(vm["id"]))
    guest.write(looks.serial(volume), PLACE, AFTER)
    assert guest.read(looks.serial(volume), PLACE, len(AFTER)) == AFTER
    encrypted.nowhere_plain_bytes(world, AFTER[:24], MARK[:24])


def _attached(world: World, subject: Subject) -> None:
    _used(world, subject)
    guest_reads(world, subject.vm, subject.volume)


def _detached(world: World, subject: Subject) -> None:
    free(world, subject)
    steps.attach(world, subject.volume, running(world, subject, subject.vm))
    _attached(world, subject)
    steps.detach(world, subject.volume)


def _started(world: World, subject: Subject) -> None:
    vm = running(world, subject, subject.vm)
    root = steps.root_volume(world, str(vm["id"]))
    looks.fully_attached(world, vm, root)
    encrypted.is_luks(world, vm, root)
    _attached(world, subject)


def _not_started(world: World, subject: Subject) -> None:
    vm = looks.reread(world, subject.vm)
    assert vm["state"] == "Stopped", vm
    looks.fully_detached(world, looks.reread_volume(world, subject.volume))


def _stopped(world: World, subject: Subject) -> None:
    _not_started(world, subject)
    steps.start(world, subject.vm)
    _attached(world, subject)


def _grow(world: World, subject: Subject) -> None:
    steps.resize(world, subject.volume, 2)


def _grown(world: World, subject: Subject) -> None:
    size = looks.reread_volume(world, subject.volume)["size"]
    assert size == 2 * steps.GIB, f"it has {size} bytes"
    _attached(world, subject)


def _not_grown(world: World, subject: Subject) -> None:
    size = looks.reread_volume(world, subject.volume)["size"]
    assert size == steps.GIB, f"it has {size} bytes"
    _attached(world, subject)


def _snapshotted(world: World) -> Subject:
    subject = _marked(world)
    with steps.setting(world, snapshots.BYPASS, "true", "false"):
        subject.snapshot = snapshots.take(world, subject.volume)
    world.guest(str(subject.vm["id"])).write(looks.serial(subject.volume), 0, AFTER)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _revert(world: World, subject: Subject) -> None:
    revert(world, subject.snapshot)


def _reads_after(world: World, subject: Subject, wanted: bytes) -> None:
    volume = looks.reread_volume(world, subject.volume)
    assert (volume["state"], volume["size"]) == ("Ready", steps.GIB), volume
    steps.attach(world, volume, running(world, subject, subject.vm))
    _used(world, subject)
    seen = world.guest(str(subject.vm["id"])).read(looks.serial(volume), 0, len(wanted))
    steps.detach(world, volume)
    assert seen == wanted, f"the guest reads {seen[:32]!r}, expected {wanted[:32]!r}"


def _reverted(world: World, subject: Subject) -> None:
    _reads_after(world, subject, MARK)


def _not_reverted(world: World, subject: Subject) -> None:
    _reads_after(world, subject, AFTER)


ENCRYPTED: tuple[Operation, ...] = (
    Operation(
        "encryption.root",
        "deploy a VM with an encrypted ROOT volume",
        _cached_template,
        _deploy,
        _deployed,
        _not_deployed,
    ),
    Operation(
        "encryption.first-use",
        "the first attach of an encrypted DATA volume makes it",
        _first_use,
        attach,
        _used,
        free,
    ),
    Operation(
        "encryption.hot",
        "attach an encrypted volume to a running VM",
        _marked_and_free,
        attach,
        _attached,
        free,
    ),
    Operation(
        "encryption.detach",
        "detach an encrypted volume from a running VM",
        _marked,
        detach,
        _detached,
        _attached,
    ),
    Operation(
        "encryption.start",
        "start a VM with two encrypted disks",
        _stopped_encrypted_vm,
        start,
        _started,
        _not_started,
    ),
    Operation("encryption.stop", "stop a VM with two encrypted disks", _encrypted_vm, stop, _stopped, _attached),
    Operation("encryption.grow", "grow an encrypted volume of a running VM", _marked, _grow, _grown, _not_grown),
    Operation(
        "encryption.revert",
        "revert an encrypted volume to its snapshot",
        _snapshotted,
        _revert,
        _reverted,
        _not_reverted,
    ),
)
