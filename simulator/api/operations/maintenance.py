"""Operations on maintenance (spec storpool-api 2.13)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import maintenance as schema
from simulator.api.schema.answers import Ok
from simulator.cluster import maintenance

OPERATIONS = (
    get("maintenanceList", "MaintenanceList", handler=maintenance.maintenance_list, answer=schema.MaintenanceNodes),
    post(
        "maintenanceSet",
        "MaintenanceSet",
        handler=maintenance.maintenance_set,
        request=schema.MaintenanceSetDesc,
        answer=Ok,
        errors=("objectDoesNotExist", "objectExists", "busy"),
    ),
    post(
        "maintenanceComplete",
        "MaintenanceComplete",
        handler=maintenance.maintenance_complete,
        request=schema.MaintenanceCompleteDesc,
        answer=Ok,
        errors=("objectDoesNotExist",),
    ),
)
