"""ISOs: registered from a URL, listed, deleted, attached to VMs and detached. They are templates of format ISO."""

from __future__ import annotations

import functools

from harness.cloudstack.api.command import Command, Json, Shape, job, listing, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import by_uuid, entity, matching, named, owner
from harness.cloudstack.api.parameters import OWNED, Request, declare
from harness.cloudstack.api.templates import FIELDS, FILTERS, check_url, register, template
from harness.cloudstack.api.vm_view import FIELDS as VM_FIELDS
from harness.cloudstack.api.vm_view import virtual_machine
from harness.cloudstack.orchestration.iso import check_changeable, check_in_no_drive
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Template, TemplateStore, Vm
from harness.cloudstack.services import Services
from harness.spi.objects import ImageFormat
from harness.spi.states import StoreRefState


def register_iso(services: Services, request: Request) -> list[Json]:
    """The row at once; the image is fetched in the background, `isready` and `status` tell of it."""
    name, url = named(request), check_url(request.need("url"))
    if not url.lower().endswith(".iso"):
        raise ApiError(PARAMETER, "Please specify a valid ISO: its URL must end in .iso")
    bootable = request.flag("bootable", default=True)
    if bootable and not request.text("ostypeid"):
        raise ApiError(PARAMETER, "Please pass a valid Operating system Id (ostypeid): the ISO is bootable")
    return register(services, request, name, url, ImageFormat.ISO, bootable=bootable)


def list_isos(services: Services, request: Request) -> list[Json]:
    chosen = (request.text("isofilter") or "selfexecutable").lower()
    if chosen not in FILTERS:
        raise ApiError(PARAMETER, f"Invalid isofilter {chosen[:64]}; one of {', '.join(FILTERS)}")
    with services.records.read() as tx:
        common = owner(tx)
        rows = [template(tx, row, common) for row in tx.all(Template, removed=None, format=ImageFormat.ISO)]
    for flag in ("isready", "bootable", "ispublic"):
        if request.text(flag) is not None:
            rows = [row for row in rows if row[flag] == request.flag(flag)]
    if chosen == "featured":
        rows = [row for row in rows if row["isfeatured"]]
    if chosen == "community":
        rows = [row for row in rows if row["ispublic"] and not row["isfeatured"]]
    return matching(rows, request, "id", "name", "zoneid", "account", "domainid")


def delete_iso(services: Services, request: Request) -> None:
    services.template_removal.remove(check_delete(services, request))


def check_delete(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = iso(tx, request, "id")
        check_in_no_drive(tx, row)
    return row.id


def attach_iso(services: Services, request: Request) -> Json:
    vm_id, iso_id = check_attach(services, request)
    services.isos.change(vm_id, iso_id)
    return _show(services, vm_id)


def check_attach(services: Services, request: Request) -> tuple[int, int]:
    with services.records.read() as tx:
        row, vm = iso(tx, request, "id"), entity(tx, Vm, request, "virtualmachineid")
        check_changeable(vm)
        check_ready(tx, row)
    return vm.id, row.id


def detach_iso(services: Services, request: Request) -> Json:
    vm_id = check_detach(services, request)
    services.isos.change(vm_id, None)
    return _show(services, vm_id)


def check_detach(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        vm = entity(tx, Vm, request, "virtualmachineid")
        check_changeable(vm)
    if vm.iso_id is None and not vm.iso_changing:
        raise ApiError(PARAMETER, f"The specified Instance {vm.display_name} has no ISO attached to it.")
    return vm.id


def iso(tx: Transaction, request: Request, parameter: str) -> Template:
    row = by_uuid(tx, Template, request.need(parameter), parameter)
    if row.format is not ImageFormat.ISO:
        raise ApiError(PARAMETER, f"Please specify a valid ISO: {row.name} is a template of format {row.format}")
    return row


def check_ready(tx: Transaction, row: Template) -> None:
    if tx.find(TemplateStore, template_id=row.id, state=StoreRefState.READY) is None:
        raise ApiError(PARAMETER, f"ISO {row.name} is not ready: see status in listIsos")


def _show(services: Services, vm_id: int) -> Json:
    with services.records.read() as tx:
        return virtual_machine(tx, tx.get(Vm, vm_id), owner(tx))


_job = functools.partial(object_job, noun="virtualmachine", fields=VM_FIELDS)

COMMANDS: tuple[Command, ...] = (
    Command(
        "registerIso",
        declare(
            "name:string* url:string* zoneid:uuid* displaytext:string bootable:boolean ostypeid:uuid isfeatured:boolean"
            " ispublic:boolean isextractable:boolean checksum:string directdownload:boolean passwordenabled:boolean"
            " arch:string account:string domainid:uuid projectid:uuid"
        ),
        Shape.LIST,
        "iso",
        FIELDS,
        register_iso,
    ),
    job("deleteIso", "id:uuid* zoneid:uuid", delete_iso, check=check_delete),
    listing(
        "listIsos",
        "iso",
        f"{OWNED} isofilter:string id:uuid name:string zoneid:uuid hypervisor:string isready:boolean bootable:boolean"
        " ispublic:boolean showremoved:boolean",
        FIELDS,
        list_isos,
    ),
    _job("attachIso", parameters="id:uuid* virtualmachineid:uuid* forced:boolean", run=attach_iso, check=check_attach),
    _job("detachIso", parameters="virtualmachineid:uuid* forced:boolean", run=detach_iso, check=check_detach),
)
