"""Operations on iSCSI (spec storpool-api 2.11)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import iscsi as schema
from simulator.api.schema.answers import Ok
from simulator.cluster import iscsi

OPERATIONS = (
    get("iSCSIConfig", "iSCSIConfig", handler=iscsi.config, answer=schema.Config),
    post(
        "iSCSIConfigChange",
        "iSCSIConfig",
        handler=iscsi.config_change,
        request=schema.ConfigChange,
        answer=Ok,
        errors=("objectDoesNotExist", "objectExists"),
    ),
    get(
        "iSCSISessionsInfo",
        "iSCSISessionsInfo",
        handler=iscsi.sessions,
        request=schema.ControllersQuery,
        answer=schema.Sessions,
    ),
    get(
        "iSCSInterfacesInfo",
        "iSCSInterfacesInfo",
        handler=iscsi.interfaces,
        request=schema.ControllersQuery,
        answer=schema.Interfaces,
    ),
)
