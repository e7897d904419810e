"""Bodies and answers of iSCSI (spec storpool-api 5.7, 6.6)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from simulator.api.scalars import VolumeName
from simulator.api.schema.requests import Body

IQN = Annotated[str, Meta(pattern=r"^[a-z0-9\-.:]+\Z", max_length=223)]
"""As the standard has it: lower case, at most 223 bytes."""
GroupName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-.:]+\Z", max_length=199)]
ControllerId = Annotated[int, Meta(ge=0, le=4095)]
Network = Annotated[str, Meta(pattern=r"^[0-9]{1,3}(?:\.[0-9]{1,3}){3}/[0-9]{1,2}\Z")]
IPv4 = Annotated[str, Meta(pattern=r"^[0-9]{1,3}(?:\.[0-9]{1,3}){3}\Z")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Secret = Annotated[str, Meta(max_length=255)]


class Named(Body, frozen=True, kw_only=True):
    name: IQN


class GroupNamed(Body, frozen=True, kw_only=True):
    name: GroupName


class GroupNetwork(Body, frozen=True, kw_only=True):
    portalGroup: GroupName
    net: Network


class CreatePortal(Body, frozen=True, kw_only=True):
    portalGroup: GroupName
    controller: ControllerId
    ip: IPv4
    port: Port = 3260


class DeletePortal(Body, frozen=True, kw_only=True):
    ip: IPv4
    port: Port = 3260


class TargetOf(Body, frozen=True, kw_only=True):
    volumeName: VolumeName


class CreateInitiator(Body, frozen=True, kw_only=True):
    name: IQN
    username: Secret
    secret: Secret


class InitiatorNetwork(Body, frozen=True, kw_only=True):
    initiator: IQN
    net: Network


class ExportOf(Body, frozen=True, kw_only=True):
    initiator: IQN
    portalGroup: GroupName
    volumeName: VolumeName


class Command(Body, frozen=True, kw_only=True):
    """Exactly one member."""

    setBaseName: Named | None = None
    createPortalGroup: GroupNamed | None = None
    deletePortalGroup: GroupNamed | None = None
    portalGroupAddNetwork: GroupNetwork | None = None
    createPortal: CreatePortal | None = None
    deletePortal: DeletePortal | None = None
    createTarget: TargetOf | None = None
    deleteTarget: TargetOf | None = None
    createInitiator: CreateInitiator | None = None
    deleteInitiator: Named | None = None
    initiatorAddNetwork: InitiatorNetwork | None = None
    export: ExportOf | None = None
    exportDelete: ExportOf | None = None

    @property
    def given(self) -> list[tuple[str, Body]]:
        """Name and argument of the members that are there."""
        found = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, argument) for name, argument in found if argument is not None]


class ConfigChange(Body, frozen=True, kw_only=True):
    """iSCSIConfigChange."""

    commands: Annotated[list[Command], msgspec.Meta(max_length=1024)]


class ControllersQuery(Body, frozen=True, kw_only=True):
    """iSCSIControllersQuery."""

    msecsTimeout: Annotated[int, Meta(ge=0, le=1 << 31)] | None = None
    controllerIds: list[ControllerId] | None = None


class ExportDesc(Struct, kw_only=True):
    portalGroup: str
    target: str


class InitiatorDesc(Struct, kw_only=True):
    name: str
    username: str
    secret: str
    nets: list[str]
    exports: list[ExportDesc]


class NetworkDesc(Struct, kw_only=True):
    address: str
    prefix: int


class PortalDesc(Struct, kw_only=True):
    controller: int
    ip: str
    port: str


class PortalGroupDesc(Struct, kw_only=True):
    name: str
    networks: list[NetworkDesc]
    portals: list[PortalDesc]


class TargetDesc(Struct, kw_only=True):
    name: str
    volume: str
    currentControllerId: int


class ConfigData(Struct, kw_only=True):
    baseName: str
    initiators: dict[int, InitiatorDesc]
    portalGroups: dict[int, PortalGroupDesc]
    targets: dict[int, TargetDesc]


class Config(Struct, kw_only=True):
    """iSCSIConfig."""

    iscsi: ConfigData


class Session(Struct, kw_only=True):
    status: str
    controllerId: int


class Sessions(Struct, kw_only=True):
    """iSCSISessionsInfo."""

    sessions: list[Session]


class Interface(Struct, kw_only=True):
    port: int
    state: str
    interfaceName: str
    MAC: str
    resolveInterfaceName: str


class ControllerInterfaces(Struct, kw_only=True):
    status: str
    controllerId: int
    interfaces: list[Interface] | UnsetType = UNSET


class Interfaces(Struct, kw_only=True):
    """iSCSIControllersIntefacesInfo."""

    controllers: list[ControllerInterfaces]
