"""Operations on maintenance (spec storpool-api 2.13)."""

from __future__ import annotations

from simulator.api.operation import get, post

OPERATIONS = (
    get("maintenanceList", "MaintenanceList"),
    post("maintenanceSet", "MaintenanceSet"),
    post("maintenanceComplete", "MaintenanceComplete"),
)
