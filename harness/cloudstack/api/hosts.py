"""Hosts: reconnected, put into maintenance and taken out of it, high availability switched on and off."""

from __future__ import annotations

import functools

from harness.cloudstack.api.command import Command, Json, object_job, sync
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.infrastructure import HOST_FIELDS, host_view
from harness.cloudstack.api.lookup import entity
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.orchestration.hosts import check_host_maintainable
from harness.cloudstack.records.rows import HostRow
from harness.cloudstack.services import Services

HA_PROVIDER = "KVMHAProvider"


def reconnect_host(services: Services, request: Request) -> Json:
    services.hosts.reconnect(_host_id(services, request))
    return _show(services, request)


def prepare_maintenance(services: Services, request: Request) -> Json:
    services.hosts.maintain(check_maintenance(services, request))
    return _show(services, request)


def check_maintenance(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        host = entity(tx, HostRow, request, "id")
        check_host_maintainable(tx, host)
    return host.id


def cancel_maintenance(services: Services, request: Request) -> Json:
    services.hosts.cancel_maintenance(_host_id(services, request))
    return _show(services, request)


def update_host(services: Services, request: Request) -> Json:
    """`allocationstate` Enable or Disable: whether VMs are started there."""
    wanted = (request.text("allocationstate") or "").lower()
    if wanted not in ("", "enable", "disable"):
        raise ApiError(PARAMETER, f"Invalid allocationstate {wanted[:64]}; Enable or Disable")
    with services.records.transaction("host updated") as tx:
        host = entity(tx, HostRow, request, "id")
        if wanted and host.resource_state == "Maintenance":
            raise ApiError(PARAMETER, f"host {host.name} is in maintenance; cancel that first")
        if wanted:
            tx.update(host, resource_state="Enabled" if wanted == "enable" else "Disabled")
    return _show(services, request)


def configure_ha(services: Services, request: Request) -> Json:
    if request.need("provider").lower() != HA_PROVIDER.lower():
        raise ApiError(PARAMETER, f"there is no HA provider {request.need('provider')[:64]}; use {HA_PROVIDER}")
    with services.records.read() as tx:
        return _ha(entity(tx, HostRow, request, "hostid"))


def enable_ha(services: Services, request: Request) -> Json:
    return _switch_ha(services, request, on=True)


def disable_ha(services: Services, request: Request) -> Json:
    return _switch_ha(services, request, on=False)


def _switch_ha(services: Services, request: Request, *, on: bool) -> Json:
    with services.records.transaction("host ha") as tx:
        return _ha(tx.update(entity(tx, HostRow, request, "hostid"), ha_enabled=on))


def _ha(host: HostRow) -> Json:
    state = "Fenced" if host.fenced else "Available" if host.status == "Up" else "Ineligible"
    return {
        "hostid": host.uuid,
        "haenable": host.ha_enabled,
        "haprovider": HA_PROVIDER,
        "hastate": state if host.ha_enabled else "Disabled",
        "status": True,
    }


def _host_id(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        return entity(tx, HostRow, request, "id").id


def _show(services: Services, request: Request) -> Json:
    with services.records.read() as tx:
        return host_view(tx, entity(tx, HostRow, request, "id"))


_job = functools.partial(object_job, noun="host", fields=HOST_FIELDS)
_ha_job = functools.partial(
    object_job, noun="hostha", fields="hostid:string haenable:boolean haprovider:string hastate:string status:boolean"
)

COMMANDS: tuple[Command, ...] = (
    _job("reconnectHost", parameters="id:uuid*", run=reconnect_host),
    _job("prepareHostForMaintenance", parameters="id:uuid*", run=prepare_maintenance, check=check_maintenance),
    _job("cancelHostMaintenance", parameters="id:uuid*", run=cancel_maintenance),
    sync("updateHost", "host", "id:uuid* allocationstate:string hosttags:list url:string", HOST_FIELDS, update_host),
    _ha_job("configureHAForHost", parameters="hostid:uuid* provider:string*", run=configure_ha),
    _ha_job("enableHAForHost", parameters="hostid:uuid*", run=enable_ha),
    _ha_job("disableHAForHost", parameters="hostid:uuid*", run=disable_ha),
)
