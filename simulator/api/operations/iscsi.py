"""Operations on iSCSI (spec storpool-api 2.11)."""

from __future__ import annotations

from simulator.api.operation import get, post

OPERATIONS = (
    get("iSCSIConfig", "iSCSIConfig"),
    post("iSCSIConfigChange", "iSCSIConfig"),
    get("iSCSISessionsInfo", "iSCSISessionsInfo"),
    get("iSCSInterfacesInfo", "iSCSInterfacesInfo"),
)
