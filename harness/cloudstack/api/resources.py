"""Tags and details of resources, and the configuration."""

from __future__ import annotations

from harness.cloudstack import settings
from harness.cloudstack.api.command import Command, Json, job, listing, sync
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import by_uuid, clean, matching, optional, owner, shown_value, visible
from harness.cloudstack.api.parameters import LIST, OWNED, Request
from harness.cloudstack.orchestration import objects
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import (
    Cluster,
    DiskOffering,
    ResourceTag,
    Row,
    ServiceOffering,
    Snapshot,
    StoragePool,
    Template,
    Vm,
    Volume,
    Zone,
)
from harness.cloudstack.services import Services
from harness.cloudstack.settings import SETTINGS, Setting

_KINDS: dict[str, tuple[type[Row], str]] = {
    "uservm": (Vm, "user_vm_details"),
    "volume": (Volume, "volume_details"),
    "snapshot": (Snapshot, "snapshot_details"),
    "template": (Template, "vm_template_details"),
    "diskoffering": (DiskOffering, "disk_offering_details"),
    "serviceoffering": (ServiceOffering, "service_offering_details"),
    "storage": (StoragePool, "storage_pool_details"),
    "storagepool": (StoragePool, "storage_pool_details"),
    "cluster": (Cluster, "cluster_details"),
    "zone": (Zone, "data_center_details"),
}
_NAMES = {
    "uservm": "UserVm",
    "diskoffering": "DiskOffering",
    "serviceoffering": "ServiceOffering",
    "storagepool": "Storage",
}


def create_tags(services: Services, request: Request) -> None:
    tags, kind = _tags(request), _type_name(request)
    if not tags:
        raise ApiError(PARAMETER, "tags[0].key and tags[0].value are required")
    rows = _resources(services, request)
    uuids = {(uuid, key): services.runtime.uuid() for uuid in rows for key in tags}
    with services.records.transaction("tags created") as tx:
        for uuid in rows:
            for key, value in tags.items():
                if tx.find(ResourceTag, resource_type=kind, resource_uuid=uuid, key=key):
                    raise ApiError(PARAMETER, f"tag {key} already on {kind} with id {uuid}")
                tag = ResourceTag(uuid=uuids[uuid, key], resource_type=kind, resource_uuid=uuid, key=key, value=value)
                tx.insert(tag)
    _tell_volumes(services, kind, rows, set(tags))


def delete_tags(services: Services, request: Request) -> None:
    """Without tags, all tags of the resources; with a value, only a tag that has it."""
    wanted, kind = _tags(request), _type_name(request)
    rows = _resources(services, request)
    gone = set()
    with services.records.transaction("tags deleted") as tx:
        for uuid in rows:
            for tag in tx.all(ResourceTag, resource_type=kind, resource_uuid=uuid):
                if not wanted or (tag.key in wanted and wanted[tag.key] in ("", tag.value)):
                    tx.delete(tag)
                    gone.add(tag.key)
        if wanted and not gone:
            raise ApiError(PARAMETER, "Unable to find any tags which conform to specified delete parameters.")
    _tell_volumes(services, kind, rows, gone)


def list_tags(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        common = owner(tx)
        rows = [
            {"key": t.key, "value": t.value, "resourcetype": t.resource_type, "resourceid": t.resource_uuid, **common}
            for t in tx.all(ResourceTag)
        ]
    kind = request.text("resourcetype")
    if kind is not None:
        rows = [row for row in rows if row["resourcetype"].lower() == kind.lower()]
    return matching(rows, request, "resourceid", "key", "value")


def add_resource_detail(services: Services, request: Request) -> None:
    details = request.pairs("details")
    if not details:
        raise ApiError(PARAMETER, "details[0].key and details[0].value are required")
    with services.records.transaction("resource detail") as tx:
        table, row = _resource(tx, request, request.need("resourceid"))
        for key, value in details.items():
            tx.set_detail(table, row.id, key, value)


def remove_resource_detail(services: Services, request: Request) -> None:
    with services.records.transaction("resource detail removed") as tx:
        table, row = _resource(tx, request, request.need("resourceid"))
        for key in [request.text("key")] if request.text("key") else list(tx.details(table, row.id)):
            tx.set_detail(table, row.id, key or "", None)


def list_resource_details(services: Services, request: Request) -> list[Json]:
    kind = _type_name(request)
    with services.records.read() as tx:
        if not request.text("resourceid"):
            raise ApiError(PARAMETER, "resourceid is required")
        table, row = _resource(tx, request, request.need("resourceid"))
        details = tx.details(table, row.id)
    rows = [
        {"key": key, "value": value, "resourcetype": kind, "resourceid": request.need("resourceid")}
        for key, value in visible(details).items()
    ]
    return matching(rows, request, "key", "value")


def update_configuration(services: Services, request: Request) -> Json:
    name, value = request.need("name"), request.text("value")
    setting = SETTINGS.get(name)
    if setting is None:
        raise ApiError(PARAMETER, f"Config parameter with name {name[:255]} doesn't exist")
    if setting.refused is not None:
        raise ApiError(PARAMETER, f"Unable to update {name}: a value has no effect here, because {setting.refused}")
    if value is None:
        raise ApiError(PARAMETER, f"Unable to update {name}: value is missing")
    if setting.kind == "Boolean" and value.lower() not in ("true", "false"):
        raise ApiError(PARAMETER, f"Invalid value {value[:255]} for {name}: true or false")
    if _is_number(setting.default) and not _is_number(value):
        raise ApiError(PARAMETER, f"Invalid value {value[:255]} for {name}: a number that is not negative")
    if setting.above_zero and float(value) == 0:
        raise ApiError(PARAMETER, f"Invalid value {value[:255]} for {name}: a number above 0")
    with services.records.transaction("configuration") as tx:
        table, scope_id = _scope(tx, request, setting)
        settings.set_value(tx, name, value, table=table, scope_id=scope_id)
        return _setting(tx, setting, table, scope_id)


def list_configurations(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = []
        for setting in SETTINGS.values():
            if request.text("name") in (None, setting.name):
                table, scope_id = _scope(tx, request, setting, strict=False)
                rows.append(_setting(tx, setting, table, scope_id))
    return matching(rows, request, "name", "category")


def _tags(request: Request) -> dict[str, str]:
    tags = request.pairs("tags")
    if any(not key or len(key) > 255 or len(value) > 255 for key, value in tags.items()):
        raise ApiError(PARAMETER, "keys of tags have 1 to 255 characters, values at most 255")
    return tags


def _type_name(request: Request) -> str:
    kind = request.need("resourcetype")
    if kind.lower() not in _KINDS:
        raise ApiError(PARAMETER, f"Invalid resource type {kind[:255]}")
    return _NAMES.get(kind.lower(), kind.lower().capitalize())


def _resources(services: Services, request: Request) -> list[str]:
    uuids = list(dict.fromkeys(request.items("resourceids")))
    with services.records.read() as tx:
        for uuid in uuids:
            _resource(tx, request, uuid)
    return uuids


def _resource(tx: Transaction, request: Request, uuid: str) -> tuple[str, Row]:
    kind, table = _KINDS[_type_name(request).lower()]
    return table, by_uuid(tx, kind, uuid, "resourceid")


def _tell_volumes(services: Services, kind: str, uuids: list[str], keys: set[str]) -> None:
    """A VM's vc-policy goes to its volumes; as in CloudStack the tag stands when that fails."""
    if kind != "UserVm" or objects.POLICY_TAG not in keys:
        return
    with services.records.read() as tx:
        vms = [by_uuid(tx, Vm, uuid, "resourceid") for uuid in uuids]
        rows = [row for vm in vms for row in objects.volumes_of(tx, vm.id)]
    for row in rows:
        services.volumes.tell_policy(row)


def _scope(tx: Transaction, request: Request, setting: Setting, strict: bool = True) -> tuple[str | None, int | None]:
    """The details table and row of the scope that was asked for; None is global."""
    for parameter, kind, table, scope in (
        ("storageid", StoragePool, "storage_pool_details", "StoragePool"),
        ("clusterid", Cluster, "cluster_details", "Cluster"),
        ("zoneid", Zone, "data_center_details", "Zone"),
    ):
        row: Row | None = optional(tx, kind, request, parameter)
        if row is None:
            continue
        if setting.scope == scope:
            return table, row.id
        if strict:
            raise ApiError(
                PARAMETER, f"Invalid scope id provided for the parameter {setting.name}: it is {setting.scope}"
            )
    return None, None


def _setting(tx: Transaction, setting: Setting, table: str | None, scope_id: int | None) -> Json:
    ids = {"storage_pool_details": "pool_id", "cluster_details": "cluster_id", "data_center_details": "zone_id"}
    scope = {ids[table]: scope_id} if table else {}
    return clean(
        name=setting.name,
        value=shown_value(setting.name, settings.value(tx, setting.name, **scope)),
        defaultvalue=setting.default,
        description=setting.description + (f" (no effect here: {setting.refused})" if setting.refused else ""),
        category=setting.category,
        scope=setting.scope if table else "Global",
        isdynamic=setting.dynamic,
        type=setting.kind,
    )


def _is_number(text: str | None) -> bool:
    return text is not None and len(text) < 20 and text.replace(".", "", 1).isdigit() and text.isascii()


_TAG = "key:string value:string resourcetype:string resourceid:string account:string domain:string domainid:string"
_DETAIL = "key:string value:string resourcetype:string resourceid:string"
_CONFIG = (
    "name:string value:string defaultvalue:string description:string category:string scope:string isdynamic:boolean"
    " type:string"
)
_SCOPES = "zoneid:uuid clusterid:uuid storageid:uuid accountid:uuid domainid:uuid imagestoreuuid:uuid"


COMMANDS: tuple[Command, ...] = (
    job("createTags", "tags:map* resourcetype:string* resourceids:list* customer:string", create_tags),
    job("deleteTags", "tags:map resourcetype:string* resourceids:list*", delete_tags),
    listing(
        "listTags", "tag", f"{OWNED} resourcetype:string resourceid:string key:string value:string", _TAG, list_tags
    ),
    job(
        "addResourceDetail",
        "details:map* resourcetype:string* resourceid:string* fordisplay:boolean",
        add_resource_detail,
    ),
    job("removeResourceDetail", "key:string resourcetype:string* resourceid:string*", remove_resource_detail),
    listing(
        "listResourceDetails",
        "resourcedetail",
        f"{OWNED} resourcetype:string* resourceid:string key:string value:string fordisplay:boolean",
        _DETAIL,
        list_resource_details,
    ),
    sync("updateConfiguration", "configuration", f"name:string* value:string {_SCOPES}", _CONFIG, update_configuration),
    listing(
        "listConfigurations",
        "configuration",
        f"{LIST} category:string name:string {_SCOPES}",
        _CONFIG,
        list_configurations,
    ),
)
