"""Bodies of the implemented calls (spec storpool-api section 5). None means that the field was absent."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from simulator.api.scalars import (
    ClientId,
    DetachClients,
    DiskId,
    GroupName,
    Limit,
    NewVolumeName,
    OnAttached,
    OptionalSnapshotRef,
    OptionalTemplateName,
    Replication,
    Seconds,
    SnapshotName,
    SnapshotRef,
    Tags,
    TemplateName,
    UnixTime,
    VolumeName,
    VolumeRef,
    VolumeSize,
)


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all bodies; the field names are the wire's."""


class Nothing(Body, frozen=True, kw_only=True):
    """The empty object that calls without JSON may be given."""


class Policy(Body, frozen=True, kw_only=True):
    placeAll: GroupName | None = None
    placeTail: GroupName | None = None
    placeHead: GroupName | None = None
    replication: Replication | None = None
    bw: Limit | None = None
    iops: Limit | None = None
    limitType: Literal["total", "perGiB"] | None = None
    reuseServer: bool | None = None
    tags: Tags | None = None


class VolumeCreateDesc(Policy, frozen=True, kw_only=True):
    name: NewVolumeName | None = None
    size: VolumeSize | None = None
    parent: OptionalSnapshotRef | None = None
    baseOn: VolumeRef | None = None
    template: OptionalTemplateName | None = None


class VolumeUpdateDesc(Policy, frozen=True, kw_only=True):
    rename: NewVolumeName | None = None
    size: VolumeSize | None = None
    sizeAdd: VolumeSize | None = None
    shrinkOk: bool | None = None
    template: TemplateName | None = None


class VolumeDeleteDesc(Body, frozen=True, kw_only=True):
    """Newer than the bindings 7.3.0."""

    onAttached: OnAttached | None = None


class Lifetime(Body, frozen=True, kw_only=True):
    targetDeleteDate: UnixTime | None = None
    deleteAfter: Seconds | None = None


class VolumeFreezeDesc(Lifetime, frozen=True, kw_only=True):
    pass


class VolumeRebaseDesc(Body, frozen=True, kw_only=True):
    parentName: OptionalSnapshotRef | None = None


class VolumeRevertDesc(Body, frozen=True, kw_only=True):
    toSnapshot: SnapshotRef
    revertSize: bool | None = None


class VolumeSnapshotDesc(Lifetime, frozen=True, kw_only=True):
    name: NewVolumeName | None = None
    bind: bool | None = None
    tags: Tags | None = None
    template: OptionalTemplateName | None = None


class GroupSnapshotSpec(Body, frozen=True, kw_only=True):
    volume: VolumeRef
    name: NewVolumeName | None = None
    tags: Tags | None = None


class GroupSnapshotsSpec(Body, frozen=True, kw_only=True):
    volumes: Annotated[list[GroupSnapshotSpec], msgspec.Meta(min_length=1, max_length=1024)]
    """The longest list is our choice: as many as a client can have attached."""
    tags: Tags | None = None


class SnapshotUpdateDesc(Policy, frozen=True, kw_only=True):
    rename: VolumeName | None = None
    template: TemplateName | None = None
    bind: bool | None = None
    targetDeleteDate: UnixTime | None = None
    deleteAfter: Seconds | None = None


class ReassignItem(Body, frozen=True, kw_only=True):
    """VolumeReassignDesc or SnapshotReassignDesc: exactly one of `volume` and `snapshot`."""

    volume: VolumeRef | None = None
    snapshot: SnapshotRef | None = None
    rw: list[ClientId] | None = None
    ro: list[ClientId] | None = None
    detach: DetachClients | None = None
    force: bool = False
    allowRemoteExported: bool | None = None
    onRemoteAttached: OnAttached | None = None
    mcMode: Literal["move", "export"] | None = None


class ReassignWaitDesc(Body, frozen=True, kw_only=True):
    reassign: list[ReassignItem]
    attachTimeout: Seconds | None = None


class TemplateFields(Policy, frozen=True, kw_only=True):
    parent: SnapshotName | None = None
    size: VolumeSize | None = None


class TemplateCreateDesc(TemplateFields, frozen=True, kw_only=True):
    name: TemplateName


class TemplateUpdateDesc(TemplateFields, frozen=True, kw_only=True):
    rename: TemplateName | None = None
    propagate: bool | None = None


class GroupUpdateDesc(Body, frozen=True, kw_only=True):
    rename: GroupName | None = None
    addDisks: list[DiskId] = []
    rmDisks: list[DiskId] = []
