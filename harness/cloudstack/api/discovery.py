"""listApis: what clients such as Marvin and CloudMonkey generate themselves from (spec/cloudstack-api.md section 5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from harness.cloudstack.api.command import Command, Json, listing
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.services import Services

_NESTED = {
    "tags": ("key", "value", "resourcetype", "resourceid"),
    "nic": ("id", "ipaddress", "macaddress", "networkid", "networkname", "isdefault"),
}


def list_apis(commands: Callable[[], Mapping[str, Command]]) -> Command:
    """The command that describes all commands, itself among them."""

    def run(services: Services, request: Request) -> list[Json]:  # noqa: ARG001 - every command has this form
        wanted = (request.text("name") or "").lower()
        return [_describe(command) for key, command in sorted(commands().items()) if wanted in ("", key)]

    fields = "name:string description:string isasync:boolean params:set response:set"
    return listing("listApis", "api", "name:string", fields, run)


def _describe(command: Command) -> Json:
    parameters = [
        {
            "name": parameter.name,
            "type": parameter.kind,
            "required": parameter.required,
            "description": f"the {parameter.name} of the request",
            "length": parameter.length,
        }
        for parameter in command.parameters
    ]
    fields = [_field(*word.split(":")) for word in command.fields.split()]
    if command.is_async:
        fields += [_field("jobid", "string"), _field("jobstatus", "integer")]
    return {
        "name": command.name,
        "description": " ".join(re.findall(r"[A-Z]*[a-z]+", command.name)).lower(),
        "isasync": command.is_async,
        "params": parameters,
        "response": fields,
    }


def _field(name: str, kind: str) -> Json:
    described: Json = {"name": name, "type": kind, "description": f"the {name} of the answer"}
    if kind in ("set", "list"):
        nested = _NESTED.get(name, ("name",))
        described["response"] = [{"name": n, "type": "string", "description": f"the {n}"} for n in nested]
    return described
