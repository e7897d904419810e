"""Operations on attachments (spec storpool-api 2.6)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers
from simulator.api.schema.requests import ReassignItem, ReassignWaitDesc
from simulator.cluster import attachments

OPERATIONS = (
    get(
        "attachmentsList",
        "AttachmentsList",
        multicluster=True,
        handler=attachments.attachments_list,
        answer=list[answers.AttachmentDesc],
    ),
    post(
        "volumesReassign",
        "VolumesReassign",
        multicluster=True,
        handler=attachments.volumes_reassign,
        request=list[ReassignItem],
        answer=answers.Ok,
        errors=(
            "objectDoesNotExist",
            "busy",
        ),
    ),
    post(
        "volumesReassignWait",
        "VolumesReassignWait",
        multicluster=True,
        handler=attachments.volumes_reassign_wait,
        request=ReassignWaitDesc | list[ReassignItem],
        answer=answers.Ok,
        errors=(
            "objectDoesNotExist",
            "busy",
            "timeout",
        ),
    ),
)
