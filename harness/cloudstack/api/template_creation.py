"""createTemplate: from a volume or a snapshot."""

from __future__ import annotations

from harness.cloudstack.api import templates
from harness.cloudstack.api.command import Command, Created, Json, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import entity, named, optional, owner
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.orchestration.encryption import check_plain
from harness.cloudstack.orchestration.objects import image_store_of
from harness.cloudstack.orchestration.template_creation import FILES, check_snapshot, check_volume
from harness.cloudstack.records.rows import GuestOs, Snapshot, Template, TemplateStore, Volume
from harness.cloudstack.services import Services
from harness.spi.objects import ImageFormat
from harness.spi.states import StoreRefState


def create(services: Services, request: Request) -> Created:
    """Its row, which is not ready; the job fills it."""
    name = named(request)
    uuid, own = services.runtime.uuid(), services.runtime.uuid()
    volume_id, snapshot_id = request.text("volumeid"), request.text("snapshotid")
    if not volume_id and not snapshot_id:
        text = "Failed to create private template record, neither volume ID nor snapshot ID were specified."
        raise ApiError(PARAMETER, text)
    if volume_id and snapshot_id:
        raise ApiError(
            PARAMETER,
            f"Failed to create private template record, please specify only one of volume ID ({volume_id}) and"
            f" snapshot ID ({snapshot_id})",
        )
    with services.records.transaction("template allocated") as tx:
        os_type = entity(tx, GuestOs, request, "ostypeid")
        volume, snapshot = optional(tx, Volume, request, "volumeid"), optional(tx, Snapshot, request, "snapshotid")
        if snapshot is not None:
            check_snapshot(snapshot)
            source = tx.get(Volume, snapshot.volume_id)
        else:
            source = entity(tx, Volume, request, "volumeid") if volume is None else volume
            check_volume(tx, source)
        check_plain(source, "creating a template")
        row = tx.insert(
            Template(
                uuid=uuid,
                name=name,
                display_text=request.text("displaytext") or name,
                format=ImageFormat.QCOW2,
                url="",
                checksum=None,
                size=source.size if snapshot is None else snapshot.size,
                guest_os_id=os_type.id,
                public=request.flag("ispublic"),
                featured=request.flag("isfeatured"),
                extractable=False,
                state="Active",
                created=tx.now,
                source_template_id=source.template_id,
            )
        )
        tx.insert(
            TemplateStore(
                store_id=image_store_of(tx, source.data_center_id).id,
                template_id=row.id,
                state=StoreRefState.ALLOCATED,
                download_state="NOT_DOWNLOADED",
                error_str=None,
                install_path=f"{FILES}/{uuid}.{own}.qcow2",
                size=0,
                physical_size=0,
            )
        )
    return Created(row.id, row.uuid, "Template")


def fill(services: Services, request: Request) -> Json:
    with services.records.read() as tx:
        volume = tx.find(Volume, uuid=request.text("volumeid") or "")
        snapshot = tx.find(Snapshot, uuid=request.text("snapshotid") or "")
    services.template_creation.create(
        request.created,
        volume_id=None if volume is None else volume.id,
        snapshot_id=None if snapshot is None else snapshot.id,
    )
    with services.records.read() as tx:
        return templates.template(tx, tx.get(Template, request.created), owner(tx))


COMMANDS: tuple[Command, ...] = (
    object_job(
        "createTemplate",
        "template",
        "name:string* ostypeid:uuid* volumeid:uuid snapshotid:uuid virtualmachineid:uuid displaytext:string"
        " bits:integer isfeatured:boolean ispublic:boolean requireshvm:boolean"
        " passwordenabled:boolean sshkeyenabled:boolean isdynamicallyscalable:boolean url:string"
        " templatetag:string arch:string details:map zoneid:uuid account:string domainid:uuid projectid:uuid",
        templates.FIELDS,
        fill,
        create,
    ),
)
