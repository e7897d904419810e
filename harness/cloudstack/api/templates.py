"""Templates: registered from a URL, listed, deleted."""

from __future__ import annotations

from urllib.parse import urlsplit

from harness.cloudstack.api.command import Command, Json, Shape, job, listing
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, matching, named, optional, owner, tags_of, time, zone
from harness.cloudstack.api.parameters import OWNED, Request, declare
from harness.cloudstack.orchestration.objects import image_store_of
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import GuestOs, ImageStore, Template, TemplateStore, Vm, Zone
from harness.cloudstack.services import Services
from harness.spi.objects import ImageFormat
from harness.spi.states import StoreRefState

FILTERS = ("featured", "self", "selfexecutable", "sharedexecutable", "executable", "community", "all", "shared")
_SCHEMES = ("http", "https", "file")
_STATUS = {
    "DOWNLOADED": "Download Complete",
    "DOWNLOAD_IN_PROGRESS": "Downloading",
    "NOT_DOWNLOADED": "Not downloaded",
    "BYPASSED": "Bypassed Secondary Storage",
}


def register_template(services: Services, request: Request) -> list[Json]:
    """The row at once; the image is fetched in the background, `isready` and `status` tell of it."""
    name, url = named(request), check_url(request.need("url"))
    if request.need("format").upper() != ImageFormat.QCOW2:
        raise ApiError(PARAMETER, f"Unsupported format {request.need('format')[:64]}: KVM templates here are QCOW2")
    if request.need("hypervisor").upper() != "KVM":
        raise ApiError(PARAMETER, f"Unsupported hypervisor {request.need('hypervisor')[:64]}: KVM only")
    direct = request.flag("directdownload")
    size = services.templates.direct_size(_direct_url(url)) if direct else 0
    return register(services, request, name, url, ImageFormat.QCOW2, size=size, direct=direct)


def register(
    services: Services,
    request: Request,
    name: str,
    url: str,
    image_format: ImageFormat,
    *,
    bootable: bool = True,
    size: int = 0,
    direct: bool = False,
) -> list[Json]:
    """Record the template, or ISO, and begin to fetch it; a `direct` one is fetched by the hosts that need it."""
    uuid = services.runtime.uuid()
    with services.records.transaction("template registered") as tx:
        place = optional(tx, Zone, request, "zoneid") or zone(tx)
        os_type = optional(tx, GuestOs, request, "ostypeid") or tx.get(GuestOs, 1)
        store = image_store_of(tx, place.id)
        row = tx.insert(
            Template(
                uuid=uuid,
                name=name,
                display_text=request.text("displaytext") or name,
                format=image_format,
                bootable=bootable,
                url=url,
                checksum=request.text("checksum"),
                size=size,
                guest_os_id=os_type.id,
                public=request.flag("ispublic"),
                featured=request.flag("isfeatured"),
                extractable=request.flag("isextractable"),
                state="Active",
                created=tx.now,
                direct_download=direct,
            )
        )
        tx.insert(
            TemplateStore(
                store_id=store.id,
                template_id=row.id,
                state=StoreRefState.READY if direct else StoreRefState.ALLOCATED,
                download_state="BYPASSED" if direct else "NOT_DOWNLOADED",
                error_str=None,
                install_path="" if direct else f"template/tmpl/2/{row.id}/{uuid}.{image_format.lower()}",
                size=size,
                physical_size=0,
            )
        )
        shown = template(tx, row, owner(tx))
    if not direct:
        services.jobs.background(f"download of template {row.id}", lambda: services.templates.fetch(row.id))
    return [shown]


def delete_template(services: Services, request: Request) -> None:
    services.template_removal.remove(_deletable(services, request))


def list_templates(services: Services, request: Request) -> list[Json]:
    chosen = request.need("templatefilter").lower()
    if chosen not in FILTERS:
        raise ApiError(PARAMETER, f"Invalid templatefilter {chosen[:64]}; one of {', '.join(FILTERS)}")
    with services.records.read() as tx:
        common = owner(tx)
        shown = tx.all(Template) if request.flag("showremoved") else tx.all(Template, removed=None)
        rows = [template(tx, row, common) for row in shown if row.format is not ImageFormat.ISO]
    if chosen == "featured":
        rows = [row for row in rows if row["isfeatured"]]
    if chosen == "community":
        rows = [row for row in rows if row["ispublic"] and not row["isfeatured"]]
    if chosen in ("selfexecutable", "sharedexecutable", "executable"):
        rows = [row for row in rows if row["isready"]]
    if request.text("isready") is not None:
        rows = [row for row in rows if row["isready"] == request.flag("isready")]
    ids = request.items("ids")
    rows = [row for row in rows if not ids or row["id"] in ids]
    return matching(rows, request, "id", "name", "zoneid", "account", "domainid", "hypervisor", "templatetype")


def template(tx: Transaction, row: Template, common: Json) -> Json:
    ref = tx.find(TemplateStore, template_id=row.id)
    place = zone(tx) if ref is None else tx.get(Zone, tx.get(ImageStore, ref.store_id).data_center_id)
    os_type = tx.get(GuestOs, row.guest_os_id)
    ready = ref is not None and ref.state is StoreRefState.READY
    status = None if ref is None else ref.error_str or _STATUS.get(ref.download_state, ref.download_state)
    return common | clean(
        id=row.uuid,
        name=row.name,
        displaytext=row.display_text,
        format=row.format.value,
        hypervisor=None if row.format is ImageFormat.ISO else "KVM",
        bootable=row.bootable if row.format is ImageFormat.ISO else None,
        ispublic=row.public,
        isfeatured=row.featured,
        isextractable=row.extractable,
        isready=ready,
        status=status,
        templatetype="USER",
        crossZones=False,
        size=row.size or None,
        physicalsize=ref.physical_size if ref and ref.physical_size else None,
        checksum=row.checksum,
        ostypeid=os_type.uuid,
        ostypename=os_type.display_name,
        zoneid=place.uuid,
        zonename=place.name,
        created=time(row.created),
        removed=time(row.removed),
        directdownload=row.direct_download,
        sourcetemplateid=_source_template(tx, row),
        tags=tags_of(tx, "Template", row.uuid),
    )


def _source_template(tx: Transaction, row: Template) -> str | None:
    source = None if row.source_template_id is None else tx.find(Template, id=row.source_template_id)
    return source.uuid if source else None


def _deletable(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = entity(tx, Template, request, "id")
        if row.format is ImageFormat.ISO:
            raise ApiError(PARAMETER, f"Please specify a valid template: {row.name} is an ISO")
        users = tx.all(Vm, vm_template_id=row.id, removed=None)
    if users and not request.flag("forced"):
        names = ", ".join(vm.instance_name for vm in users[:10])
        raise ApiError(
            PARAMETER, f"Unable to delete template with id: {row.uuid} as VM instances: [{names}] are using it"
        )
    return row.id


def _direct_url(url: str) -> str:
    """Hosts have no directories that a file URL could name."""
    if urlsplit(url).scheme.lower() == "file":
        raise ApiError(
            PARAMETER, "Unsupported scheme for url of a direct download: http://host/path, https://host/path"
        )
    return url


def check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme.lower() not in _SCHEMES or (parts.scheme != "file" and not parts.hostname) or not parts.path:
        raise ApiError(PARAMETER, "Unsupported scheme for url: http://host/path, https://host/path or file:///path")
    return url


FIELDS = (
    "id:string name:string displaytext:string format:string hypervisor:string ispublic:boolean isfeatured:boolean"
    " isextractable:boolean isready:boolean bootable:boolean status:string templatetype:string crossZones:boolean"
    " size:long physicalsize:long checksum:string ostypeid:string ostypename:string zoneid:string zonename:string"
    " created:date removed:date sourcetemplateid:string directdownload:boolean"
    " account:string domain:string domainid:string tags:set"
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "registerTemplate",
        declare(
            "name:string* format:string* hypervisor:string* url:string* displaytext:string ostypeid:uuid zoneid:uuid"
            " zoneids:list bits:integer isfeatured:boolean ispublic:boolean isextractable:boolean requireshvm:boolean"
            " passwordenabled:boolean checksum:string details:map directdownload:boolean account:string domainid:uuid"
        ),
        Shape.LIST,
        "template",
        FIELDS,
        register_template,
    ),
    job("deleteTemplate", "id:uuid* zoneid:uuid forced:boolean issystem:boolean", delete_template, check=_deletable),
    listing(
        "listTemplates",
        "template",
        f"{OWNED} templatefilter:string* id:uuid ids:list name:string zoneid:uuid hypervisor:string showremoved:boolean"
        " templatetype:string isready:boolean",
        FIELDS,
        list_templates,
    ),
)
