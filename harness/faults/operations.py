"""What the matrix strikes at: one request to CloudStack for each way of a row, and what must be true after it.

A request is judged when faults are over and the cloud is at rest. One that CloudStack called a success must be done;
any other is done or undone, and an undone one must succeed when it is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.observers import CloudApiError, Json, World
from harness.worlds.memory.world import MemoryWorld
from scenarios import looks, steps
from scenarios.delayed import delayed_snapshots
from scenarios.table import RowId

MARK = b"written before the fault".ljust(4096, b".")
DELETE_AFTER = "storpool.delete.after.interval"
FORCE_STOP = "vm.destroy.forcestop"
DEPLOY_SECONDS = 6 * 3600.0
"""Longer than `primary.storage.download.wait`."""
FETCH_SECONDS = 3 * 3600.0
FETCHING = ("Downloading", "Not downloaded")
"""Status of a template that may yet become ready."""
REFUSALS = (CloudApiError, ConnectionError)
"""How a request ends that CloudStack did not call a success."""


@dataclass(slots=True)
class Subject:
    """What one case is about. `vm` and `volume` are as CloudStack showed them before the request."""

    vm: Json = field(default_factory=dict)
    volume: Json = field(default_factory=dict)
    owner: Json = field(default_factory=dict)
    """The VM that the request takes the volume from."""
    template_id: str = ""
    name: str = ""
    """Of the template that the request registers."""
    names: tuple[str, ...] = ()
    """Of the VMs that the request makes."""
    guests_ended: bool = False
    """Whether a fault may have powered VMs off."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`done` and `undone` raise `AssertionError` with what was seen."""

    id: str
    """`ROW.name`."""
    title: str
    prepare: Callable[[World], Subject]
    request: Callable[[World, Subject], None]
    """Raises `CloudApiError`, or `ConnectionError` when no answer came."""
    done: Callable[[World, Subject], None]
    undone: Callable[[World, Subject], None]

    @property
    def row(self) -> RowId:
        number = self.id.partition(".")[0]
        return int(number) if number.isdigit() else number


def _with_mark(world: World, vm: Json, volume: Json) -> Json:
    """The volume, attached to the running VM, with `MARK` at its beginning."""
    attached = steps.attach(world, volume, vm)
    world.guest(str(vm["id"])).write(looks.serial(attached), 0, MARK)
    return attached


def _vm_with_marked_volume(world: World) -> Subject:
    vm = steps.booted_vm(world)
    return Subject(vm=vm, volume=_with_mark(world, vm, steps.data_volume(world)))


def _vm_and_marked_volume(world: World) -> Subject:
    subject = _vm_with_marked_volume(world)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _stopped_vm_with_marked_volume(world: World) -> Subject:
    subject = _vm_with_marked_volume(world)
    subject.vm = steps.stop(world, subject.vm)
    return subject


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
    _deploy(world, subject)
    _deployed(world, subject)


def _not_registered(world: World, subject: Subject) -> None:
    shown = _template(world, subject)
    assert shown is None or shown["status"] not in FETCHING, f"template {subject.name} is {shown}"


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


def _deploy(world: World, subject: Subject) -> None:
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


def _deployed(world: World, subject: Subject) -> None:
    for name in subject.names:
        _has_been_deployed(world, subject, name)


def _has_been_deployed(world: World, subject: Subject, name: str) -> None:
    vm = _named(world, name)
    assert vm is not None and vm["state"] != "Error", f"VM {name} was not deployed: {vm}"
    vm = _running(world, subject, vm)
    root = steps.root_volume(world, str(vm["id"]))
    looks.fully_attached(world, vm, root)
    size = world.environment.image_size
    content = steps.host_of(world, vm).read_device(str(root["path"]), 0, size)
    seen = hashlib.sha256(content).hexdigest()
    assert seen == world.environment.image_sha256, f"the ROOT volume of {name} differs from the template"


def _not_deployed(world: World, subject: Subject) -> None:
    """A VM whose deploy was interrupted is Stopped, as in CloudStack, and can be started; of two one may run."""
    for name in subject.names:
        vm = _named(world, name)
        if vm is None or vm["state"] in ("Error", "Destroyed"):
            continue
        if vm["state"] == "Stopped":
            steps.start(world, vm)
        _has_been_deployed(world, subject, name)


def _named(world: World, name: str) -> Json | None:
    answer = world.cloud.call("listVirtualMachines", name=name, listall=True)
    return next(iter(steps.many(answer, "virtualmachine")), None)


def _running(world: World, subject: Subject, vm: Json) -> Json:
    """The VM as it is now, which must run; started again when a fault ended its guest."""
    now = looks.reread(world, vm)
    if now["state"] == "Stopped" and subject.guests_ended:
        return steps.start(world, now)
    assert now["state"] == "Running", f"VM {vm['id']} is {now['state']}"
    return now


def _first_use(world: World) -> Subject:
    return Subject(vm=steps.stop(world, steps.booted_vm(world)), volume=steps.data_volume(world))


def _attach(world: World, subject: Subject) -> None:
    world.cloud.call("attachVolume", id=subject.volume["id"], virtualmachineid=subject.vm["id"])


def _created(world: World, subject: Subject) -> None:
    volume = _on_its_vm(world, subject)
    seen = looks.on_storpool(world, volume)
    assert seen["size"] == volume["size"], f"StorPool made {seen['size']} bytes, CloudStack says {volume['size']}"
    looks.has_vm_tags(world, subject.vm, volume)


def _on_its_vm(world: World, subject: Subject) -> Json:
    volume = looks.reread_volume(world, subject.volume)
    assert volume.get("virtualmachineid") == subject.vm["id"], f"volume is not attached: {volume}"
    return volume


def _attached(world: World, subject: Subject) -> None:
    volume = _on_its_vm(world, subject)
    vm = _running(world, subject, subject.vm)
    looks.fully_attached(world, vm, volume)
    _has_mark(world, vm, volume)


def _has_mark(world: World, vm: Json, volume: Json) -> None:
    seen = world.guest(str(vm["id"])).read(looks.serial(volume), 0, len(MARK))
    assert seen == MARK, f"the guest reads {seen[:32]!r} where {MARK[:32]!r} was written"


def _free(world: World, subject: Subject) -> None:
    volume = looks.reread_volume(world, subject.volume)
    assert "virtualmachineid" not in volume, f"volume is still attached: {volume}"
    assert volume["state"] in ("Ready", "Allocated"), volume
    if "path" in volume:
        looks.fully_detached(world, volume)


def _two_vms_one_marked_volume(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=FORCE_STOP, value="true")
    subject = _vm_with_marked_volume(world)
    subject.owner = subject.vm
    # CloudStack takes the host with the fewest VMs.
    subject.vm = steps.booted_vm(world)
    assert subject.vm["hostid"] != subject.owner["hostid"], "both VMs run on one host"
    return subject


def _inherit(world: World, subject: Subject) -> None:
    """The guest of the VM that is destroyed may run on, if its host did not hear of it."""
    world.cloud.call("destroyVirtualMachine", id=subject.owner["id"])
    world.cloud.call("attachVolume", id=subject.volume["id"], virtualmachineid=subject.vm["id"])


def _inherited(world: World, subject: Subject) -> None:
    assert looks.reread(world, subject.owner)["state"] == "Destroyed", "the VM that had the volume is not destroyed"
    _attached(world, subject)


def _not_inherited(world: World, subject: Subject) -> None:
    owner = looks.reread(world, subject.owner)
    volume = looks.reread_volume(world, subject.volume)
    if volume.get("virtualmachineid") != owner["id"]:
        _free(world, subject)
    elif owner["state"] == "Running":
        looks.fully_attached(world, owner, volume)
        _has_mark(world, owner, volume)
    else:
        looks.fully_detached(world, volume)


def _detach(world: World, subject: Subject) -> None:
    world.cloud.call("detachVolume", id=subject.volume["id"])


def _detached(world: World, subject: Subject) -> None:
    _free(world, subject)
    vm = _running(world, subject, subject.vm)
    _has_mark(world, vm, steps.attach(world, subject.volume, vm))
    steps.detach(world, subject.volume)


def _start(world: World, subject: Subject) -> None:
    world.cloud.call("startVirtualMachine", id=subject.vm["id"])


def _started(world: World, subject: Subject) -> None:
    vm = _running(world, subject, subject.vm)
    looks.fully_attached(world, vm, steps.root_volume(world, str(vm["id"])))
    _attached(world, subject)


def _stop(world: World, subject: Subject) -> None:
    world.cloud.call("stopVirtualMachine", id=subject.vm["id"])


def _stopped(world: World, subject: Subject) -> None:
    vm = looks.reread(world, subject.vm)
    assert vm["state"] == "Stopped", vm
    root = steps.root_volume(world, str(vm["id"]))
    for volume in (root, looks.reread_volume(world, subject.volume)):
        looks.fully_detached(world, volume)
        looks.has_vm_tags(world, vm, volume)
    steps.start(world, vm)
    _attached(world, subject)


def _still_runs(world: World, subject: Subject) -> None:
    assert looks.reread(world, subject.vm)["state"] == "Running", "it does not run"
    _attached(world, subject)


def _not_started(world: World, subject: Subject) -> None:
    vm = looks.reread(world, subject.vm)
    assert vm["state"] == "Stopped", vm
    looks.fully_detached(world, looks.reread_volume(world, subject.volume))


def _expunge(world: World, subject: Subject) -> None:
    world.cloud.call("destroyVirtualMachine", id=subject.vm["id"], expunge=True)


def _vm_with_root(world: World) -> Subject:
    subject = _vm_with_marked_volume(world)
    subject.vm = {**subject.vm, "root": steps.root_volume(world, str(subject.vm["id"]))}
    return subject


def _expunged(world: World, subject: Subject) -> None:
    assert not steps.vm_exists(world, str(subject.vm["id"])), f"VM {subject.vm['id']} is still listed"
    looks.gone(world, subject.vm["root"])
    _free(world, subject)
    looks.has_tags(world, subject.volume, cvm="", disk="")
    other = steps.booted_vm(world)
    _has_mark(world, other, steps.attach(world, subject.volume, other))
    steps.detach(world, subject.volume)


def _not_expunged(world: World, subject: Subject) -> None:
    """A VM can be destroyed and not expunged, or stopped and not destroyed: each is a state of its own."""
    vm = looks.reread(world, subject.vm)
    assert vm["state"] in ("Running", "Stopped", "Destroyed"), vm
    root = steps.root_volume(world, str(vm["id"]))
    assert looks.on_storpool(world, root)["size"] == root["size"], root


def _delete(world: World, subject: Subject) -> None:
    world.cloud.call("deleteVolume", id=subject.volume["id"])


def _deleted(world: World, subject: Subject) -> None:
    assert not steps.volume_exists(world, str(subject.volume["id"])), f"volume {subject.volume['id']} is still listed"
    looks.gone(world, subject.volume)
    assert looks.reread(world, subject.vm)["state"] in ("Running", "Stopped")


def _delayed(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=DELETE_AFTER, value="86400")
    return _vm_and_marked_volume(world)


def _deleted_with_backup(world: World, subject: Subject) -> None:
    _deleted(world, subject)
    kept = delayed_snapshots(world)
    assert kept, "no snapshot of the deleted volume stays"
    assert all(item["size"] == subject.volume["size"] for item in kept), kept
    assert isinstance(world, MemoryWorld), "only there can a snapshot be read that is attached nowhere"
    for item in kept:
        seen = world.stored(str(item["globalId"]), 0, len(MARK))
        assert seen == MARK, f"snapshot ~{item['globalId']} holds {seen[:32]!r} where {MARK[:32]!r} was written"


def _not_deleted(world: World, subject: Subject) -> None:
    """The volume is there with what was written to it."""
    volume = looks.reread_volume(world, subject.volume)
    if volume["state"] == "Destroy":
        return
    _detached(world, subject)


OPERATIONS: tuple[Operation, ...] = (
    Operation("2.register", "register a template", _nothing, _register, _registered, _not_registered),
    Operation(
        "2.seed", "deploy a VM from a template that the pool has not", _new_template, _deploy, _deployed, _not_deployed
    ),
    Operation(
        "2.two",
        "deploy two VMs at once from a template that the pool has not",
        _new_template,
        _deploy_two,
        _deployed,
        _not_deployed,
    ),
    Operation("2.clone", "deploy a VM from a cached template", _cached_template, _deploy, _deployed, _not_deployed),
    Operation("3.first-use", "the first attach of a DATA volume makes it", _first_use, _attach, _created, _free),
    Operation("4.hot", "attach a volume to a running VM", _vm_and_marked_volume, _attach, _attached, _free),
    Operation(
        "4.inherit",
        "destroy a VM with force and attach its volume to a VM on another host",
        _two_vms_one_marked_volume,
        _inherit,
        _inherited,
        _not_inherited,
    ),
    Operation("4.start", "start a VM with two disks", _stopped_vm_with_marked_volume, _start, _started, _not_started),
    Operation("5.hot", "detach a volume from a running VM", _vm_with_marked_volume, _detach, _detached, _attached),
    Operation("5.stop", "stop a VM with two disks", _vm_with_marked_volume, _stop, _stopped, _still_runs),
    Operation("7.expunge", "destroy and expunge a running VM", _vm_with_root, _expunge, _expunged, _not_expunged),
    Operation("8.delete", "delete a DATA volume", _vm_and_marked_volume, _delete, _deleted, _not_deleted),
    Operation(
        "8.delayed",
        "delete a DATA volume that leaves a snapshot",
        _delayed,
        _delete,
        _deleted_with_backup,
        _not_deleted,
    ),
)
BY_ID = {operation.id: operation for operation in OPERATIONS}
