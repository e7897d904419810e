"""The iSCSI configuration and what its controllers tell (spec storpool-api 2.11, 5.7, 6.6).

No controller serves a target here: the configuration is all there is to see, and no session is ever open.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from simulator.api import errors
from simulator.api.schema import iscsi as schema
from simulator.api.schema.answers import Ok
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import ISCSI, Export, Initiator, Portal, PortalGroup, Put, Target
from simulator.cluster.state import State

_ONLY = 1
_NOBODY = 0
_P = TypeVar("_P")


def _configuration(state: State) -> ISCSI:
    return state.table(ISCSI).get(_ONLY) or ISCSI(id=_ONLY)


def is_target(state: State, visible_id: int) -> bool:
    return any(target.visible_id == visible_id for target in _configuration(state).targets.values())


def config(call: Call) -> schema.Config:
    now = _configuration(call.state)
    groups, names = now.portal_groups, {at: target.name for at, target in now.targets.items()}
    return schema.Config(
        iscsi=schema.ConfigData(
            baseName=now.base_name,
            initiators={
                at: schema.InitiatorDesc(
                    name=found.name,
                    username=found.username,
                    secret=found.secret,
                    nets=list(found.networks),
                    exports=[
                        schema.ExportDesc(portalGroup=groups[export.portal_group].name, target=names[export.target])
                        for export in found.exports
                    ],
                )
                for at, found in now.initiators.items()
            },
            portalGroups={
                at: schema.PortalGroupDesc(
                    name=found.name,
                    networks=[schema.NetworkDesc(address=address, prefix=prefix) for address, prefix in found.networks],
                    portals=[
                        schema.PortalDesc(controller=portal.controller, ip=portal.ip, port=str(portal.port))
                        for portal in found.portals
                    ],
                )
                for at, found in groups.items()
            },
            targets={
                at: schema.TargetDesc(
                    name=target.name,
                    volume=_volume_name(call.state, target.visible_id),
                    currentControllerId=_controller(now, at),
                )
                for at, target in now.targets.items()
            },
        )
    )


def _volume_name(state: State, visible_id: int) -> str:
    return state.objects[state.volumes_by_visible_id[visible_id]].shown_name


def _controller(now: ISCSI, target: int) -> int:
    """Which controller serves the target: one of those with a portal, by turns; 0 without any."""
    exported = {
        export.portal_group for found in now.initiators.values() for export in found.exports if export.target == target
    }
    groups = [now.portal_groups[at] for at in sorted(exported)] or list(now.portal_groups.values())
    controllers = sorted({portal.controller for group in groups for portal in group.portals})
    return controllers[target % len(controllers)] if controllers else _NOBODY


def sessions(call: Call, body: schema.ControllersQuery | None) -> schema.Sessions:
    return schema.Sessions(
        sessions=[schema.Session(status="timeout", controllerId=controller) for controller in _asked(call, body)]
    )


def interfaces(call: Call, body: schema.ControllersQuery | None) -> schema.Interfaces:
    return schema.Interfaces(
        controllers=[
            schema.ControllerInterfaces(status="timeout", controllerId=controller) for controller in _asked(call, body)
        ]
    )


def _asked(call: Call, body: schema.ControllersQuery | None) -> list[int]:
    if body is not None and body.controllerIds is not None:
        return sorted(set(body.controllerIds))
    groups = _configuration(call.state).portal_groups.values()
    return sorted({portal.controller for group in groups for portal in group.portals})


def config_change(call: Call, body: schema.ConfigChange) -> Plan:
    """All commands in their order, or none of them."""
    before = now = _configuration(call.state)
    for number, command in enumerate(body.commands, 1):
        given = command.given
        if len(given) != 1:
            raise errors.invalid(f"Command {number} has {len(given)} members, and must have exactly one")
        ((name, argument),) = given
        now = _COMMANDS[name](call.state, now, argument)
    new = [target for at, target in now.targets.items() if at not in before.targets]
    uses = tuple(call.state.volumes_by_visible_id[target.visible_id] for target in new)
    return Plan(Ok(), [] if now == before else [Put(now)], touches=("iscsi",), uses=uses)


def _base_name(_state: State, now: ISCSI, body: schema.Named) -> ISCSI:
    if now.targets and body.name != now.base_name:
        raise errors.invalid(f"The base name cannot be changed while there are targets, {len(now.targets)} now")
    return msgspec.structs.replace(now, base_name=body.name)


def _create_group(_state: State, now: ISCSI, body: schema.GroupNamed) -> ISCSI:
    if _find(now.portal_groups, body.name) is not None:
        raise errors.exists(body.name)
    return _added(now, portal_groups={**now.portal_groups, now.next_part: PortalGroup(name=body.name)})


def _delete_group(_state: State, now: ISCSI, body: schema.GroupNamed) -> ISCSI:
    at, _ = _group(now, body.name)
    users = [found.name for found in now.initiators.values() if any(e.portal_group == at for e in found.exports)]
    if users:
        raise errors.invalid(f"Portal group '{body.name}' has exports to {', '.join(users)}")
    return msgspec.structs.replace(now, portal_groups=_without(now.portal_groups, at))


def _add_group_network(_state: State, now: ISCSI, body: schema.GroupNetwork) -> ISCSI:
    at, found = _group(now, body.portalGroup)
    network = _network(body.net)
    pair = (str(network.network_address), network.prefixlen)
    if pair in found.networks:
        raise errors.exists(body.net)
    return _with_group(now, at, msgspec.structs.replace(found, networks=(*found.networks, pair)))


def _create_portal(_state: State, now: ISCSI, body: schema.CreatePortal) -> ISCSI:
    at, found = _group(now, body.portalGroup)
    address = _address(body.ip)
    if any((p.ip, p.port) == (body.ip, body.port) for group in now.portal_groups.values() for p in group.portals):
        raise errors.exists(f"{body.ip}:{body.port}")
    if not any(address in ipaddress.ip_network(f"{net}/{prefix}") for net, prefix in found.networks):
        raise errors.invalid(f"{body.ip} is in no network of portal group '{found.name}'")
    portal = Portal(body.controller, body.ip, body.port)
    return _with_group(now, at, msgspec.structs.replace(found, portals=(*found.portals, portal)))


def _delete_portal(_state: State, now: ISCSI, body: schema.DeletePortal) -> ISCSI:
    for at, found in now.portal_groups.items():
        left = tuple(portal for portal in found.portals if (portal.ip, portal.port) != (body.ip, body.port))
        if left != found.portals:
            return _with_group(now, at, msgspec.structs.replace(found, portals=left))
    raise errors.missing("Portal", f"{body.ip}:{body.port}")


def _create_target(state: State, now: ISCSI, body: schema.TargetOf) -> ISCSI:
    volume = state.volume(body.volumeName)
    if not now.base_name:
        raise errors.invalid("A target is named after the base name: set it first")
    # An iSCSI name has fewer characters than a volume's, so two volumes may come to the same one.
    name = f"{now.base_name}:{volume.shown_name.lstrip('~#').lower().replace('_', '-')}"
    for target in now.targets.values():
        if volume.visible_id == target.visible_id:
            raise errors.exists(body.volumeName)
        if name == target.name:
            raise errors.exists(name)
    return _added(now, targets={**now.targets, now.next_part: Target(name, volume.visible_id)})


def _delete_target(state: State, now: ISCSI, body: schema.TargetOf) -> ISCSI:
    at = _target(state, now, body.volumeName)
    users = [found.name for found in now.initiators.values() if any(e.target == at for e in found.exports)]
    if users:
        raise errors.invalid(f"The target of volume '{body.volumeName}' is exported to {', '.join(users)}")
    return msgspec.structs.replace(now, targets=_without(now.targets, at))


def _create_initiator(_state: State, now: ISCSI, body: schema.CreateInitiator) -> ISCSI:
    if _find(now.initiators, body.name) is not None:
        raise errors.exists(body.name)
    new = Initiator(name=body.name, username=body.username, secret=body.secret)
    return _added(now, initiators={**now.initiators, now.next_part: new})


def _delete_initiator(_state: State, now: ISCSI, body: schema.Named) -> ISCSI:
    at, found = _initiator(now, body.name)
    if found.exports:
        raise errors.invalid(f"Initiator '{body.name}' has {len(found.exports)} exports")
    return msgspec.structs.replace(now, initiators=_without(now.initiators, at))


def _add_initiator_network(_state: State, now: ISCSI, body: schema.InitiatorNetwork) -> ISCSI:
    at, found = _initiator(now, body.initiator)
    network = str(_network(body.net))
    if network in found.networks:
        raise errors.exists(body.net)
    return _with_initiator(now, at, msgspec.structs.replace(found, networks=(*found.networks, network)))


def _export(state: State, now: ISCSI, body: schema.ExportOf) -> ISCSI:
    at, found, export = _exported(state, now, body)
    if export in found.exports:
        raise errors.exists(f"{body.volumeName} to {body.initiator}")
    return _with_initiator(now, at, msgspec.structs.replace(found, exports=(*found.exports, export)))


def _export_delete(state: State, now: ISCSI, body: schema.ExportOf) -> ISCSI:
    at, found, export = _exported(state, now, body)
    if export not in found.exports:
        raise errors.missing("Export", f"{body.volumeName} to {body.initiator}")
    left = tuple(other for other in found.exports if other != export)
    return _with_initiator(now, at, msgspec.structs.replace(found, exports=left))


_COMMANDS: dict[str, Callable[[State, ISCSI, Any], ISCSI]] = {  # Any: each takes the argument of its command
    "setBaseName": _base_name,
    "createPortalGroup": _create_group,
    "deletePortalGroup": _delete_group,
    "portalGroupAddNetwork": _add_group_network,
    "createPortal": _create_portal,
    "deletePortal": _delete_portal,
    "createTarget": _create_target,
    "deleteTarget": _delete_target,
    "createInitiator": _create_initiator,
    "deleteInitiator": _delete_initiator,
    "initiatorAddNetwork": _add_initiator_network,
    "export": _export,
    "exportDelete": _export_delete,
}


def _exported(state: State, now: ISCSI, body: schema.ExportOf) -> tuple[int, Initiator, Export]:
    at, found = _initiator(now, body.initiator)
    return at, found, Export(_group(now, body.portalGroup)[0], _target(state, now, body.volumeName))


def _added(now: ISCSI, **parts: Any) -> ISCSI:
    return msgspec.structs.replace(now, next_part=now.next_part + 1, **parts)


def _with_group(now: ISCSI, at: int, new: PortalGroup) -> ISCSI:
    return msgspec.structs.replace(now, portal_groups={**now.portal_groups, at: new})


def _with_initiator(now: ISCSI, at: int, new: Initiator) -> ISCSI:
    return msgspec.structs.replace(now, initiators={**now.initiators, at: new})


def _without(parts: dict[int, _P], at: int) -> dict[int, _P]:
    return {key: part for key, part in parts.items() if key != at}


def _find(parts: dict[int, Any], name: str) -> int | None:
    return next((at for at, found in parts.items() if found.name == name), None)


def _group(now: ISCSI, name: str) -> tuple[int, PortalGroup]:
    at = _find(now.portal_groups, name)
    if at is None:
        raise errors.missing("Portal group", name)
    return at, now.portal_groups[at]


def _initiator(now: ISCSI, name: str) -> tuple[int, Initiator]:
    at = _find(now.initiators, name)
    if at is None:
        raise errors.missing("Initiator", name)
    return at, now.initiators[at]


def _target(state: State, now: ISCSI, volume: str) -> int:
    visible_id = state.volume(volume).visible_id
    for at, found in now.targets.items():
        if found.visible_id == visible_id:
            return at
    raise errors.missing("Target of volume", volume)


def _network(text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        raise errors.invalid(f"'{text}' is not an IPv4 network like 10.1.2.0/24") from None


def _address(text: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise errors.invalid(f"'{text}' is not an IPv4 address") from None
