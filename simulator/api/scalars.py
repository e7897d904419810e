"""Scalar types with their ranges and patterns (spec storpool-api section 4). Sizes are bytes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

SECTOR = 512
MAX_ATTACHMENTS = 1024
"""Attachments of one client."""

_WORD = r"[A-Za-z0-9_\-.:]+"
_GLOBAL = r"[a-z0-9]+\.[a-z0-9]+\.[a-z0-9]+"
_NOT_LISTED = r"(?!(?:list|status)\Z)"
_VOLUME = rf"{_NOT_LISTED}\#?{_WORD}"
_SNAPSHOT = rf"{_NOT_LISTED}\*?[A-Za-z0-9_\-.:@]+"
_PLAIN = r"(?!list\Z)[A-Za-z0-9_\-]+"

VolumeName = Annotated[str, Meta(pattern=rf"^{_VOLUME}\Z", max_length=199)]
NewVolumeName = Annotated[str, Meta(pattern=rf"^(?:{_VOLUME})?\Z", max_length=199)]
"""An empty name means unnamed."""
VolumeRef = Annotated[str, Meta(pattern=rf"^(?:{_VOLUME}|~{_GLOBAL})\Z", max_length=199)]
SnapshotName = Annotated[str, Meta(pattern=rf"^{_SNAPSHOT}\Z", max_length=199)]
SnapshotRef = Annotated[str, Meta(pattern=rf"^(?:{_SNAPSHOT}|~{_GLOBAL})\Z", max_length=199)]
OptionalSnapshotRef = Annotated[str, Meta(pattern=rf"^(?:{_SNAPSHOT}|~{_GLOBAL})?\Z", max_length=199)]
OptionalTemplateName = Annotated[str, Meta(pattern=rf"^(?:{_PLAIN})?\Z", max_length=199)]
GroupName = Annotated[str, Meta(pattern=rf"^{_PLAIN}\Z", max_length=127)]
TemplateName = Annotated[str, Meta(pattern=rf"^{_PLAIN}\Z", max_length=199)]
TagName = Annotated[str, Meta(pattern=rf"^{_WORD}\Z", max_length=199)]
TagValue = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-.:]*\Z", max_length=199)]
Tags = dict[TagName, TagValue]

VolumeSize = Annotated[int, Meta(ge=1, le=(1 << 60), multiple_of=SECTOR)]
Replication = Annotated[int, Meta(ge=1, le=3)]
Limit = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | Annotated[str, Meta(pattern=r"^(?:-|[0-9]{1,18})\Z")]
"""Of iops or bw; `-` is unlimited."""
UnixTime = Annotated[int, Meta(ge=0, le=(1 << 53))]
GlobalId = Annotated[str, Meta(pattern=rf"^{_GLOBAL}\Z", max_length=199)]
"""Without the `~`."""
ClusterId = Annotated[str, Meta(pattern=r"^[a-z0-9]+\.[a-z0-9]+\Z", max_length=127)]
Seconds = Annotated[int, Meta(ge=0, le=(1 << 40))]
ClientId = Annotated[int, Meta(ge=1, le=4095)]
DiskId = Annotated[int, Meta(ge=0, le=4095)]
ServerId = Annotated[int, Meta(ge=1, le=32767)]
DetachClients = list[ClientId] | Literal["all"]
OnAttached = Literal["fail", "detach", "detachForce", "export"]

PATH_ARGUMENTS: dict[str, tuple[re.Pattern[str], int]] = {
    "volumeName": (re.compile(rf"(?:{_VOLUME}|~{_GLOBAL})\Z"), 199),
    "snapshotName": (re.compile(rf"(?:{_SNAPSHOT}|~{_GLOBAL})\Z"), 199),
    "globalVolumeId": (re.compile(rf"{_GLOBAL}\Z"), 199),
    "templateName": (re.compile(rf"{_PLAIN}\Z"), 199),
    "placementGroupName": (re.compile(rf"{_PLAIN}\Z"), 127),
    "vagName": (re.compile(r"[0-9]{1,20}\Z"), 20),
    "bucketName": (re.compile(rf"\#?{_WORD}\Z"), 1022),
    "keyName": (re.compile(r"(?s:.+)\Z"), 1022),
    "clientId": (re.compile(r"[0-9]{1,4}\Z"), 4),
    "serverId": (re.compile(r"[0-9]{1,5}\Z"), 5),
    "diskId": (re.compile(r"[0-9]{1,4}\Z"), 4),
}
"""What may stand in a path: pattern and longest length."""
