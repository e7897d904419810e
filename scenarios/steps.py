"""Steps that many scenarios share: what is asked of CloudStack's API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.observers import CloudApiError, Host, Json, Pool, World

GIB = 1 << 30

MISSING = "00000000-0000-4000-8000-000000000000"
"""A well-formed id that nothing has."""


def one(answer: Json, key: str) -> Json:
    """The object an answer carries; registerTemplate and list commands carry it in a list of one."""
    found = answer[key]
    if isinstance(found, list):
        assert len(found) == 1, f"expected one {key}, got {len(found)}: {found}"
        found = found[0]
    assert isinstance(found, dict), f"{key} is not an object: {found!r}"
    return found


def many(answer: Json, key: str) -> list[Json]:
    """The objects of a list answer; CloudStack leaves the key out when there are none."""
    return list(answer.get(key, []))


def template(world: World, name: str = "", zone_id: str = "", url: str = "") -> Json:
    """Register an image as a new template, and wait until it is ready: the guest image, and the first zone, unless told
    otherwise."""
    env = world.environment
    zone_id = zone_id or env.zone_id
    name = name or world.name("template")
    answer = world.cloud.call(
        "registerTemplate",
        name=name,
        displaytext=name,
        format="QCOW2",
        hypervisor="KVM",
        url=url or env.image_url,
        zoneid=zone_id,
        ostypeid=env.os_type_id,
    )
    template_id = str(one(answer, "template")["id"])
    world.wait_until(
        f"template {name} is ready", lambda: bool(template_by_id(world, template_id, zone_id)["isready"]), 120
    )
    return template_by_id(world, template_id, zone_id)


def new_idle_template(world: World) -> Json:
    """A new template, of an image with no system."""
    return template(world, url=world.environment.idle_image_url)


SHARED_TEMPLATE, IDLE_TEMPLATE = "splab-guest", "splab-idle"


def shared_template(world: World, zone_id: str = "") -> str:
    """Id of a template of the guest image that cases share: the one that the zone has already, else a new one."""
    return _shared(world, SHARED_TEMPLATE, zone_id, world.environment.image_url)


def idle_template(world: World, zone_id: str = "") -> str:
    """The same, of an image with no system."""
    url = world.environment.idle_image_url
    return _shared(world, IDLE_TEMPLATE, zone_id, url) if url else shared_template(world, zone_id)


def _shared(world: World, name: str, zone_id: str, url: str) -> str:
    zone_id = zone_id or world.environment.zone_id
    answer = world.cloud.call("listTemplates", templatefilter="all", name=name, zoneid=zone_id, listall=True)
    ready = [item for item in many(answer, "template") if item.get("isready")]
    return str(ready[0]["id"] if ready else template(world, name, zone_id, url)["id"])


def template_by_id(world: World, template_id: str, zone_id: str = "") -> Json:
    zone_id = zone_id or world.environment.zone_id
    answer = world.cloud.call("listTemplates", templatefilter="all", id=template_id, zoneid=zone_id, listall=True)
    return one(answer, "template")


def deploy(world: World, template_id: str | None = None, **parameters: str | int | bool) -> Json:
    """Deploy a VM and give it back as `listVirtualMachines` shows it."""
    answer = world.cloud.call("deployVirtualMachine", **deploy_parameters(world, template_id, **parameters))
    return vm_by_id(world, str(one(answer, "virtualmachine")["id"]))


def deploy_parameters(
    world: World, template_id: str | None = None, **parameters: str | int | bool
) -> dict[str, str | int | bool]:
    env = world.environment
    name = world.name("vm")
    chosen: dict[str, str | int | bool] = {
        "serviceofferingid": env.service_offering_id,
        "zoneid": env.zone_id,
        "name": name,
        "displayname": name,
        "hypervisor": "KVM",
    }
    if template_id is not None:
        chosen["templateid"] = template_id
    return {**chosen, **parameters}


def running_vm(world: World) -> Json:
    """A running VM with no system. What it boots may not be there yet to let a disk go or hear its power button."""
    return deploy(world, idle_template(world))


def idle_vm(world: World) -> Json:
    """A running VM with no system, which lets disks go and hears its power button."""
    vm = running_vm(world)
    world.guest(str(vm["id"])).ready()
    return vm


def booted_vm(world: World) -> Json:
    """A running VM whose guest is up, to be looked into."""
    vm = deploy(world, shared_template(world))
    world.guest(str(vm["id"])).boot_id()
    return vm


def vm_by_id(world: World, vm_id: str) -> Json:
    return one(world.cloud.call("listVirtualMachines", id=vm_id, listall=True), "virtualmachine")


def vm_exists(world: World, vm_id: str) -> bool:
    return exists(world, "listVirtualMachines", "virtualmachine", vm_id)


def exists(world: World, command: str, key: str, item_id: str) -> bool:
    """Whether a list command still shows the id; an answer 431 means that it is unknown."""
    try:
        return bool(many(world.cloud.call(command, id=item_id, listall=True), key))
    except CloudApiError as error:
        if error.code == 431:
            return False
        raise


def volume_by_id(world: World, volume_id: str) -> Json:
    return one(world.cloud.call("listVolumes", id=volume_id, listall=True), "volume")


def volume_exists(world: World, volume_id: str) -> bool:
    return exists(world, "listVolumes", "volume", volume_id)


def root_volume(world: World, vm_id: str) -> Json:
    answer = world.cloud.call("listVolumes", virtualmachineid=vm_id, type="ROOT", listall=True)
    return one(answer, "volume")


def disk_offering(world: World, **parameters: str | int | bool) -> str:
    """Create a disk offering, of customised size unless `disksize` (GiB) is given, for the first pool."""
    name = world.name("disk-offering")
    chosen: dict[str, str | int | bool] = {
        "name": name,
        "displaytext": name,
        "tags": world.environment.pools[0].tag,
    }
    if "disksize" not in parameters:
        chosen["customized"] = True
    answer = world.cloud.call("createDiskOffering", **{**chosen, **parameters})
    return str(one(answer, "diskoffering")["id"])


def data_volume(world: World, size: int = 1, offering_id: str | None = None) -> Json:
    """Create a DATA volume of `size` GiB; it stays Allocated until its first use."""
    answer = world.cloud.call(
        "createVolume",
        name=world.name("data"),
        zoneid=world.environment.zone_id,
        diskofferingid=offering_id or disk_offering(world),
        size=size,
    )
    return volume_by_id(world, str(one(answer, "volume")["id"]))


def tag_vm(world: World, *vms: Json, **tags: str) -> None:
    """Set tags of VMs, in one request; `_` in a key stands for `-`."""
    world.cloud.call("createTags", **_tag_parameters(vms, tags))


def untag_vm(world: World, *vms: Json, **tags: str) -> None:
    """Delete tags of VMs, in one request: with an empty value whatever value they have, without tags all of them."""
    world.cloud.call("deleteTags", **_tag_parameters(vms, tags))


def _tag_parameters(vms: Sequence[Json], tags: Mapping[str, str]) -> dict[str, str]:
    parameters = {"resourcetype": "UserVm", "resourceids": ",".join(str(vm["id"]) for vm in vms)}
    for index, (key, value) in enumerate(tags.items()):
        parameters[f"tags[{index}].key"] = key.replace("_", "-")
        if value:
            parameters[f"tags[{index}].value"] = value
    return parameters


def tags_of_vm(world: World, vm: Json) -> dict[str, str]:
    """As CloudStack shows them."""
    return {str(tag["key"]): str(tag["value"]) for tag in vm_by_id(world, str(vm["id"]))["tags"]}


def resize(world: World, volume: Json, size: int | None = None, **parameters: str | int | bool) -> Json:
    """resizeVolume; `size` in GiB."""
    if size is not None:
        parameters["size"] = size
    world.cloud.call("resizeVolume", id=volume["id"], **parameters)
    return volume_by_id(world, str(volume["id"]))


def change_offering(world: World, volume: Json, offering_id: str, **parameters: str | int | bool) -> Json:
    world.cloud.call("changeOfferingForVolume", id=volume["id"], diskofferingid=offering_id, **parameters)
    return volume_by_id(world, str(volume["id"]))


def detail(world: World, kind: str, resource_id: str, key: str, value: str) -> None:
    """Set a detail of an offering; `kind` is DiskOffering or ServiceOffering."""
    world.cloud.call(
        "addResourceDetail",
        **{"resourcetype": kind, "resourceid": resource_id, "details[0].key": key, "details[0].value": value},
    )


def compute_offering(world: World, **parameters: str | int | bool) -> Json:
    """Create a small compute offering whose ROOT disks go to the first pool."""
    name = world.name("compute-offering")
    chosen: dict[str, str | int | bool] = {
        "name": name,
        "displaytext": name,
        "cpunumber": 1,
        "cpuspeed": 500,
        "memory": 128,
        "tags": world.environment.pools[0].tag,
    }
    return one(world.cloud.call("createServiceOffering", **{**chosen, **parameters}), "serviceoffering")


def attach(world: World, volume: Json, vm: Json) -> Json:
    world.cloud.call("attachVolume", id=volume["id"], virtualmachineid=vm["id"])
    return volume_by_id(world, str(volume["id"]))


def detach(world: World, volume: Json) -> Json:
    world.cloud.call("detachVolume", id=volume["id"])
    return volume_by_id(world, str(volume["id"]))


def stop(world: World, vm: Json) -> Json:
    world.cloud.call("stopVirtualMachine", id=vm["id"])
    return vm_by_id(world, str(vm["id"]))


def start(world: World, vm: Json) -> Json:
    world.cloud.call("startVirtualMachine", id=vm["id"])
    return vm_by_id(world, str(vm["id"]))


def expunge(world: World, vm: Json) -> None:
    world.cloud.call("destroyVirtualMachine", id=vm["id"], expunge=True)


def host_of(world: World, vm: Json) -> Host:
    """The host that CloudStack says the VM runs on."""
    listed = one(world.cloud.call("listHosts", id=vm["hostid"]), "host")
    return next(host for host in world.hosts if host.name == listed["name"])


def pool_of(world: World, volume: Json) -> Pool:
    return next(pool for pool in world.environment.pools if pool.id == volume["storageid"])


@contextmanager
def setting(world: World, name: str, value: str, default: str, **scope: str | int | bool) -> Iterator[None]:
    """A configuration key changed for the block, put back to `default` after it."""
    world.cloud.call("updateConfiguration", name=name, value=value, **scope)
    try:
        yield
    finally:
        world.cloud.call("updateConfiguration", name=name, value=default, **scope)
