"""extractVolume: a URL that a volume can be downloaded from."""

from __future__ import annotations

from harness.cloudstack.api.command import Command, Json, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, time
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.orchestration.extraction import check_extractable
from harness.cloudstack.records.rows import Account, Volume, Zone
from harness.cloudstack.services import Services

MODE = "HTTP_DOWNLOAD"


def extract_volume(services: Services, request: Request) -> Json:
    volume_id = _extractable(services, request)
    url = services.extractions.extract(volume_id)
    with services.records.read() as tx:
        row, place, account = tx.get(Volume, volume_id), entity(tx, Zone, request, "zoneid"), tx.find(Account)
        return clean(
            id=row.uuid,
            name=row.name,
            accountid=account and account.uuid,
            created=time(tx.now),
            state="DOWNLOAD_URL_CREATED",
            extractMode=MODE,
            storagetype="secondary",
            url=url,
            zoneid=place.uuid,
            zonename=place.name,
        )


def _extractable(services: Services, request: Request) -> int:
    if request.need("mode").upper() != MODE:
        raise ApiError(PARAMETER, f"Please specify a valid extract Mode: {MODE}")
    with services.records.read() as tx:
        entity(tx, Zone, request, "zoneid")
        row = entity(tx, Volume, request, "id")
        check_extractable(tx, row)
    return row.id


COMMANDS: tuple[Command, ...] = (
    object_job(
        "extractVolume",
        "volume",
        "id:uuid* zoneid:uuid* mode:string* url:string",
        "id:string name:string extractId:string accountid:string state:string extractMode:string url:string"
        " resultstring:string zoneid:string zonename:string storagetype:string status:string created:date"
        " uploadpercentage:integer",
        extract_volume,
        check=_extractable,
    ),
)
