"""Parameters of commands: declared once, checked before a command runs (spec/cloudstack-api.md sections 1 and 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.cloudstack.api.errors import PARAMETER, ApiError

MAX_LENGTH = 255
_MAP_NAME = re.compile(r"([a-z0-9]+)\[(\d{1,4})\](?:\.(.+))?", re.IGNORECASE)
_LONG_TEXTS = {"url": 2048, "resourceids": 4096, "value": 8192, "ids": 4096, "externaldetails": 4096}
_BOUNDS = {"integer": 1 << 31, "long": 1 << 63, "short": 1 << 15}
_KINDS = ("string", "uuid", "integer", "long", "short", "boolean", "list", "map", "date")


@dataclass(frozen=True, slots=True)
class Parameter:
    """`kind` is CloudStack's word: string, uuid, integer, long, boolean, list, map or date."""

    name: str
    kind: str
    required: bool

    @property
    def length(self) -> int:
        return _LONG_TEXTS.get(self.name, MAX_LENGTH)


def declare(text: str) -> tuple[Parameter, ...]:
    """From `name:kind`, with `*` behind what is required, separated by blanks."""
    return tuple(_declared(word) for word in text.split())


LIST = "keyword:string page:integer pagesize:integer"
OWNED = f"{LIST} listall:boolean domainid:uuid isrecursive:boolean account:string projectid:uuid"


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. Names are lower case; what a client left out is None or empty."""

    command: str
    user_id: int
    values: Mapping[str, str]
    maps: Mapping[str, list[dict[str, str]]] = field(default_factory=dict)
    created: int = 0
    """Row id of what the command's `create` made."""

    def text(self, name: str) -> str | None:
        return self.values.get(name)

    def need(self, name: str) -> str:
        """A required text; the declaration has made sure of it."""
        return self.values[name]

    def integer(self, name: str) -> int | None:
        value = self.values.get(name)
        return None if value is None else int(value)

    def natural(self, name: str, least: int = 0) -> int | None:
        """As `integer`; raises when it is less than `least`."""
        value = self.integer(name)
        if value is not None and value < least:
            raise ApiError(PARAMETER, f"Invalid value {value} for parameter {name}: it must be at least {least}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        return default if value is None else value.lower() == "true"

    def items(self, name: str) -> list[str]:
        """Of a list, without blanks."""
        return [item.strip() for item in self.values.get(name, "").split(",") if item.strip()]

    def pairs(self, name: str) -> dict[str, str]:
        """Of a map: `name[0].key` with `name[0].value`, or else `name[0].anything` as they are."""
        found: dict[str, str] = {}
        for entry in self.maps.get(name, []):
            lower = {key.lower(): value for key, value in entry.items()}
            if "key" in lower:
                found[lower["key"]] = lower.get("value", "")
            else:
                found.update(entry)
        return found


def check(command: str, declared: Sequence[Parameter], query: Sequence[tuple[str, str]], user_id: int) -> Request:
    """Check types, lengths and presence; parameters that the command does not know are ignored."""
    values, maps = _collect(query)
    known: dict[str, str] = {}
    for parameter in declared:
        value = values.get(parameter.name)
        if parameter.required and not value and not maps.get(parameter.name):
            raise ApiError(
                PARAMETER,
                f"Unable to execute API command {command.lower()} due to missing parameter {parameter.name}",
            )
        if value:
            _check_value(parameter, value)
            known[parameter.name] = value
        elif value == "" and parameter.kind == "string":
            known[parameter.name] = value
    wanted = {parameter.name for parameter in declared if parameter.kind == "map"}
    chosen = {name: [maps[name][index] for index in sorted(maps[name])] for name in wanted & maps.keys()}
    return Request(command, user_id, known, chosen)


def _collect(query: Sequence[tuple[str, str]]) -> tuple[dict[str, str], dict[str, dict[int, dict[str, str]]]]:
    values: dict[str, str] = {}
    maps: dict[str, dict[int, dict[str, str]]] = {}
    for name, value in query:
        if "\x00" in value:
            raise ApiError(PARAMETER, f"Received value contains control characters for parameter {name[:MAX_LENGTH]}")
        match = _MAP_NAME.fullmatch(name) if "[" in name else None
        if match is None:
            values.setdefault(name.lower(), value)
        else:
            entry = maps.setdefault(match[1].lower(), {}).setdefault(int(match[2]), {})
            if len(value) > _LONG_TEXTS["value"]:
                raise ApiError(
                    PARAMETER, f"Value greater than max allowed length {_LONG_TEXTS['value']} for {match[1]}"
                )
            entry[match[3] or "value"] = value
    return values, maps


def _check_value(parameter: Parameter, value: str) -> None:
    name, kind = parameter.name, parameter.kind
    if kind in _BOUNDS:
        bound = _BOUNDS[kind]
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", value) or not -bound <= int(value) < bound:
            raise ApiError(PARAMETER, f"Unable to parse the value of parameter {name} as {kind}")
    elif kind == "boolean":
        if value.lower() not in ("true", "false"):
            raise ApiError(PARAMETER, f"Unable to parse the value of parameter {name} as boolean: true or false")
    elif len(value) > parameter.length:
        raise ApiError(PARAMETER, f"Value greater than max allowed length {parameter.length} for param: {name}")


def _declared(word: str) -> Parameter:
    name, _, kind = word.rstrip("*").partition(":")
    if kind not in _KINDS:
        raise ValueError(f"parameter {word}: {kind} is no kind of parameter")
    return Parameter(name, kind, word.endswith("*"))
