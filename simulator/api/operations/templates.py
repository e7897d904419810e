"""Operations on volume templates (spec storpool-api 2.8)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers, requests
from simulator.cluster import templates

OPERATIONS = (
    get(
        "volumeTemplatesList",
        "VolumeTemplatesList",
        handler=templates.templates_list,
        answer=list[answers.TemplateDesc],
    ),
    get(
        "volumeTemplatesStatus",
        "VolumeTemplatesStatus",
        handler=templates.templates_status,
        answer=list[answers.TemplateStatus],
        capacity=True,
        stored=True,
    ),
    get(
        "volumeTemplateDescribe",
        "VolumeTemplateDescribe/{templateName}",
        handler=templates.template_describe,
        answer=answers.TemplateDesc,
        errors=("objectDoesNotExist",),
    ),
    post(
        "volumeTemplateCreate",
        "VolumeTemplateCreate",
        handler=templates.template_create,
        request=requests.TemplateCreateDesc,
        answer=answers.Ok,
        errors=(
            "objectExists",
            "objectDoesNotExist",
        ),
    ),
    post(
        "volumeTemplateUpdate",
        "VolumeTemplateUpdate/{templateName}",
        handler=templates.template_update,
        request=requests.TemplateUpdateDesc,
        answer=answers.Ok,
        errors=(
            "objectExists",
            "objectDoesNotExist",
        ),
    ),
    post(
        "volumeTemplateDelete",
        "VolumeTemplateDelete/{templateName}",
        handler=templates.template_delete,
        answer=answers.Ok,
        errors=(
            "objectDoesNotExist",
            "busy",
        ),
    ),
)
