"""Operations on templates and new VMs: register and deploy (row 2)."""

from __future__ import annotations

import hashlib

from harness.faults.operation import REFUSALS, Operation, Subject, running
from harness.observers import CloudApiError, Json, World
from scenarios import looks, steps

DEPLOY_SECONDS = 6 * 3600.0
"""Longer than `primary.storage.download.wait`."""
FETCH_SECONDS = 3 * 3600.0
FETCHING = ("Downloading", "Not downloaded")
"""Status of a template that may yet become ready."""


def _new_template(world: World) -> Subject:
    return Subject(template_id=str(steps.template(world)["id"]))


def _cached_template(world: World) -> Subject:
    template_id = steps.shared_template(world)
    steps.expunge(world, steps.deploy(world, template_id))
    return Subject(template_id=template_id)


def _nothing(world: World) -> Subject:
    del world
    return Subject()


def _register(world: World, subject: Subject) -> None:
    """Ends when the image has been fetched; raises when it was not."""
    subject.name = world.name("template")
    env = world.environment
    answer = world.cloud.call(
        "registerTemplate",
        name=subject.name,
        displaytext=subject.name,
        format="QCOW2",
        hypervisor="KVM",
        url=env.image_url,
        zoneid=env.zone_id,
        ostypeid=env.os_type_id,
    )
    subject.template_id = str(steps.one(answer, "template")["id"])
    if not _fetched(world, subject):
        raise CloudApiError("registerTemplate", 530, str(_template(world, subject)))


def _registered(world: World, subject: Subject) -> None:
    assert _fetched(world, subject), f"template {subject.name} is not there: {_template(world, subject)}"
    deploy(world, subject)
    deployed(world, subject)


def _not_registered(world: World, subject: Subject) -> None:
    shown = _template(world, subject)
    assert shown is None or shown["status"] not in FETCHING, f"template {subject.name} is {shown}"
    if shown is not None:
        world.cloud.call("deleteTemplate", id=shown["id"])


def _fetched(world: World, subject: Subject) -> bool:
    """Whether the template is ready, once nobody is fetching it any more."""

    def ended() -> bool:
        shown = _template(world, subject)
        return shown is None or bool(shown["isready"]) or shown["status"] not in FETCHING

    world.wait_until(f"template {subject.name} has been fetched or not", ended, FETCH_SECONDS)
    shown = _template(world, subject)
    return shown is not None and bool(shown["isready"])


def _template(world: World, subject: Subject) -> Json | None:
    answer = world.cloud.call("listTemplates", templatefilter="all", name=subject.name, listall=True)
    return next(iter(steps.many(answer, "template")), None)


def deploy(world: World, subject: Subject) -> None:
    _deploy_at_once(world, subject, 1)


def _deploy_two(world: World, subject: Subject) -> None:
    _deploy_at_once(world, subject, 2)


def _deploy_at_once(world: World, subject: Subject, count: int) -> None:
    """Ends when all have ended; raises what the first that failed was told."""
    requests = [steps.deploy_parameters(world, subject.template_id) for _ in range(count)]
    subject.names = tuple(str(parameters["name"]) for parameters in requests)
    jobs: list[str] = []
    refusals: list[Exception] = []
    for parameters in requests:
        try:
            jobs.append(world.cloud.start("deployVirtualMachine", **parameters))
        except REFUSALS as error:
            refusals.append(error)
    for job in jobs:
        try:
            world.cloud.wait(job, DEPLOY_SECONDS)
        except REFUSALS as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def deployed(world: World, subject: Subject) -> None:
    for name in subject.names:
        _has_been_deployed(world, subject, name)


def _has_been_deployed(world: World, subject: Subject, name: str) -> None:
    vm = vm_named(world, name)
    assert vm is not None and vm["state"] != "Error", f"VM {name} was not deployed: {vm}"
    vm = running(world, subject, vm)
    root = steps.root_volume(world, str(vm["id"]))
    looks.fully_attached(world, vm, root)
    size = world.environment.image_size
    content = steps.host_of(world, vm).read_device(str(root["path"]), 0, size)
    seen = hashlib.sha256(content).hexdigest()
    assert seen == world.environment.image_sha256, f"the ROOT volume of {name} differs from the template"


def not_deployed(world: World, subject: Subject) -> None:
    """A VM whose deploy was interrupted is Stopped, as in CloudStack, and can be started; of two one may run."""
    for name in subject.names:
        if brought_up(world, name):
            _has_been_deployed(world, subject, name)


def brought_up(world: World, name: str) -> bool:
    """Whether there is a VM of this name to be used, which is started when its deploy was interrupted."""
    vm = vm_named(world, name)
    if vm is None or vm["state"] in ("Error", "Destroyed"):
        return False
    if vm["state"] == "Stopped":
        steps.start(world, vm)
    return True


def vm_named(world: World, name: str) -> Json | None:
    answer = world.cloud.call("listVirtualMachines", name=name, listall=True)
    return next(iter(steps.many(answer, "virtualmachine")), None)


DEPLOYS: tuple[Operation, ...] = (
    Operation("2.register", "register a template", _nothing, _register, _registered, _not_registered),
    Operation(
        "2.seed", "deploy a VM from a template that the pool has not", _new_template, deploy, deployed, not_deployed
    ),
    Operation(
        "2.two",
        "deploy two VMs at once from a template that the pool has not",
        _new_template,
        _deploy_two,
        deployed,
        not_deployed,
    ),
    Operation("2.clone", "deploy a VM from a cached template", _cached_template, deploy, deployed, not_deployed),
)
