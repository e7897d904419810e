"""ISOs: registered, put into VMs' drives, and what can be seen of them."""

from __future__ import annotations

from harness.observers import CloudApiError, Json, World
from scenarios.steps import deploy_parameters, disk_offering, exists, host_of, one, vm_by_id


def iso_parameters(world: World, **parameters: str | int | bool) -> dict[str, str | int | bool]:
    env, name = world.environment, world.name("iso")
    chosen: dict[str, str | int | bool] = {
        "name": name,
        "displaytext": name,
        "url": env.iso_url,
        "zoneid": env.zone_id,
        "ostypeid": env.os_type_id,
    }
    return {**chosen, **parameters}


def iso(world: World, **parameters: str | int | bool) -> Json:
    """Register the environment's ISO and wait until secondary storage has it."""
    answer = world.cloud.call("registerIso", **iso_parameters(world, **parameters))
    iso_id = str(one(answer, "iso")["id"])
    world.wait_until(f"ISO {iso_id} is ready", lambda: bool(iso_by_id(world, iso_id).get("isready")), 120)
    return iso_by_id(world, iso_id)


def iso_by_id(world: World, iso_id: str) -> Json:
    return one(world.cloud.call("listIsos", id=iso_id, isofilter="all", listall=True), "iso")


def iso_exists(world: World, iso_id: str) -> bool:
    return exists(world, "listIsos", "iso", iso_id)


def iso_deploy_parameters(
    world: World, shown: Json, offering_id: str | None = None, **parameters: str | int | bool
) -> dict[str, str | int | bool]:
    """Of a VM that is deployed from the ISO, with a ROOT disk of that offering; without one, of 1 GiB."""
    chosen: dict[str, str | int | bool] = {
        "diskofferingid": offering_id or disk_offering(world, disksize=1),
        "hypervisor": "KVM",
    }
    return deploy_parameters(world, str(shown["id"]), **{**chosen, **parameters})


def deploy_from_iso(world: World, shown: Json, offering_id: str | None = None, **parameters: str | int | bool) -> Json:
    answer = world.cloud.call("deployVirtualMachine", **iso_deploy_parameters(world, shown, offering_id, **parameters))
    return vm_by_id(world, str(one(answer, "virtualmachine")["id"]))


def attach_iso(world: World, shown: Json, vm: Json) -> Json:
    world.cloud.call("attachIso", id=shown["id"], virtualmachineid=vm["id"])
    return vm_by_id(world, str(vm["id"]))


def detach_iso(world: World, vm: Json) -> Json:
    world.cloud.call("detachIso", virtualmachineid=vm["id"])
    return vm_by_id(world, str(vm["id"]))


def has_iso(world: World, vm: Json, shown: Json | None) -> None:
    """CloudStack says so, and so does the drive of a running VM's domain; None: the drive is empty."""
    vm = vm_by_id(world, str(vm["id"]))
    wanted = None if shown is None else str(shown["id"])
    assert vm.get("isoid") == wanted, f"VM {vm['id']} has ISO {vm.get('isoid')}, expected {wanted}"
    if vm["state"] == "Running":
        found = host_of(world, vm).cd_image(str(vm["instancename"]))
        file = None if wanted is None else f"{wanted}.iso"
        assert found == file, f"the drive of {vm['instancename']} has {found}, expected {file}"


def iso_status(world: World, iso_id: str) -> str:
    try:
        return str(iso_by_id(world, iso_id).get("status", ""))
    except CloudApiError:
        return ""


def iso_is_told(world: World, iso_id: str) -> bool:
    """Whether what became of the download is known."""
    return iso_status(world, iso_id) not in ("", "Creating", "Downloading", "Not downloaded")


def await_download(world: World, iso_id: str) -> None:
    world.wait_until(f"the download of ISO {iso_id} has ended", lambda: iso_is_told(world, iso_id), 120)
