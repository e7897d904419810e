"""Operations on ISOs: register, deploy a VM from one, change what is in a drive (row 1)."""

from __future__ import annotations

from harness.faults.deploys import DEPLOY_SECONDS, FETCH_SECONDS, brought_up, vm_named
from harness.faults.operation import Operation, Subject, running
from harness.observers import CloudApiError, Json, World
from scenarios import isos, looks, steps


def _nothing(world: World) -> Subject:
    del world
    return Subject()


def _registered_iso(world: World) -> Subject:
    return Subject(template_id=str(isos.iso(world)["id"]), offering_id=steps.disk_offering(world, disksize=1))


def _register(world: World, subject: Subject) -> None:
    """Ends when the image has been fetched; raises when it was not."""
    parameters = isos.iso_parameters(world)
    subject.name = str(parameters["name"])
    world.cloud.call("registerIso", **parameters)
    if not _fetched(world, subject):
        raise CloudApiError("registerIso", 530, str(_iso(world, subject)))


def _registered(world: World, subject: Subject) -> None:
    assert _fetched(world, subject), f"ISO {subject.name} is not there: {_iso(world, subject)}"
    shown = _iso(world, subject) or {}
    assert shown["size"] == world.environment.iso_size, shown
    vm = isos.deploy_from_iso(world, shown)
    assert world.guest(str(vm["id"])).booted_from() == "cdrom", "the guest does not boot it"


def _not_registered(world: World, subject: Subject) -> None:
    shown = _iso(world, subject)
    assert shown is None or isos.iso_is_told(world, str(shown["id"])), f"ISO {subject.name} is {shown}"
    if shown is not None:
        world.cloud.call("deleteIso", id=shown["id"])


def _fetched(world: World, subject: Subject) -> bool:
    """Whether the ISO is ready, once nobody is fetching it any more."""

    def ended() -> bool:
        shown = _iso(world, subject)
        return shown is None or bool(shown["isready"]) or isos.iso_is_told(world, str(shown["id"]))

    world.wait_until(f"ISO {subject.name} has been fetched or not", ended, FETCH_SECONDS)
    shown = _iso(world, subject)
    return shown is not None and bool(shown["isready"])


def _iso(world: World, subject: Subject) -> Json | None:
    answer = world.cloud.call("listIsos", isofilter="all", name=subject.name, listall=True)
    return next(iter(steps.many(answer, "iso")), None)


def _deploy(world: World, subject: Subject) -> None:
    parameters = isos.iso_deploy_parameters(world, {"id": subject.template_id}, subject.offering_id)
    subject.names = (str(parameters["name"]),)
    world.cloud.wait(world.cloud.start("deployVirtualMachine", **parameters), DEPLOY_SECONDS)


def _deployed(world: World, subject: Subject) -> None:
    vm = vm_named(world, subject.names[0])
    assert vm is not None and vm["state"] != "Error", f"VM {subject.names} was not deployed: {vm}"
    vm = running(world, subject, vm)
    root = steps.root_volume(world, str(vm["id"]))
    looks.fully_attached(world, vm, root)
    assert root["size"] == steps.GIB, f"the ROOT volume has {root['size']} bytes"
    assert looks.on_storpool(world, root)["parentName"] == "", "the ROOT volume is made from something"
    isos.has_iso(world, vm, {"id": subject.template_id})
    assert world.guest(str(vm["id"])).booted_from() == "cdrom", "the guest does not boot the ISO"


def _not_deployed(world: World, subject: Subject) -> None:
    if brought_up(world, subject.names[0]):
        _deployed(world, subject)


def _vm_and_iso(world: World) -> Subject:
    return Subject(vm=steps.booted_vm(world), template_id=str(isos.iso(world)["id"]))


def _vm_with_iso(world: World) -> Subject:
    subject = _vm_and_iso(world)
    _attach(world, subject)
    return subject


def _attach(world: World, subject: Subject) -> None:
    world.cloud.call("attachIso", id=subject.template_id, virtualmachineid=subject.vm["id"])


def _detach(world: World, subject: Subject) -> None:
    world.cloud.call("detachIso", virtualmachineid=subject.vm["id"])


def _attached(world: World, subject: Subject) -> None:
    isos.has_iso(world, running(world, subject, subject.vm), {"id": subject.template_id})


def _detached(world: World, subject: Subject) -> None:
    isos.has_iso(world, running(world, subject, subject.vm), None)


ISOS: tuple[Operation, ...] = (
    Operation("1.register", "register an ISO", _nothing, _register, _registered, _not_registered),
    Operation("1.deploy", "deploy a VM from an ISO", _registered_iso, _deploy, _deployed, _not_deployed),
    Operation("1.attach-iso", "put an ISO into the drive of a running VM", _vm_and_iso, _attach, _attached, _detached),
    Operation("1.detach-iso", "empty the drive of a running VM", _vm_with_iso, _detach, _detached, _attached),
)
