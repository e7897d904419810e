"""What a command is: its name, parameters, kind of answer and the functions that do its work."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.cloudstack.api.parameters import Parameter, Request, declare
from harness.cloudstack.services import Services

Json = dict[str, Any]


class Shape(enum.Enum):
    """How an answer is wrapped (spec/cloudstack-api.md section 2)."""

    OBJECT = "object"
    """`{"<noun>": {...}}`"""
    LIST = "list"
    """`{"count": n, "<noun>": [...]}`, or `{}`"""
    SUCCESS = "success"
    """`{"success": true}`"""
    BARE = "bare"
    """The fields themselves."""


@dataclass(frozen=True, slots=True)
class Created:
    """What an async create command made before its job starts."""

    row_id: int
    uuid: str
    type: str
    """CloudStack's name of the object's type, for the job: Volume, VirtualMachine, Snapshot."""


@dataclass(frozen=True, slots=True)
class Command:
    """`run` gives the object, of a LIST command the list; of an async command it runs in the job."""

    name: str
    parameters: tuple[Parameter, ...]
    shape: Shape
    noun: str
    fields: str
    """`name:type` of the answer's fields, for listApis; `jobid` and `jobstatus` come by themselves."""
    run: Callable[[Services, Request], Any]  # Any: an object or a list, as `shape` says
    is_async: bool = False
    create: Callable[[Services, Request], Created] | None = None
    check: Callable[[Services, Request], object] | None = None
    """Of an async command: refusals that the caller gets at once, before there is a job."""

    def wrap(self, result: Any) -> Json:
        """The answer without its outermost key."""
        if self.shape is Shape.OBJECT:
            return {self.noun: result}
        if self.shape is Shape.SUCCESS:
            return {"success": True}
        return dict(result)


def listing(
    name: str, noun: str, parameters: str, fields: str, run: Callable[[Services, Request], list[Json]]
) -> Command:
    return Command(name, declare(parameters), Shape.LIST, noun, fields, run)


def sync(name: str, noun: str, parameters: str, fields: str, run: Callable[[Services, Request], Json]) -> Command:
    return Command(name, declare(parameters), Shape.OBJECT, noun, fields, run)


def deleting(name: str, parameters: str, run: Callable[[Services, Request], object]) -> Command:
    """A sync command that answers success."""
    return Command(name, declare(parameters), Shape.SUCCESS, "success", SUCCESS_FIELDS, run)


def job(
    name: str,
    parameters: str,
    run: Callable[[Services, Request], object],
    check: Callable[[Services, Request], object] | None = None,
) -> Command:
    """An async command that answers success."""
    declared = declare(f"{parameters} {JOB}")
    return Command(name, declared, Shape.SUCCESS, "success", SUCCESS_FIELDS, run, is_async=True, check=check)


def object_job(
    name: str,
    noun: str,
    parameters: str,
    fields: str,
    run: Callable[[Services, Request], Json],
    create: Callable[[Services, Request], Created] | None = None,
    check: Callable[[Services, Request], object] | None = None,
) -> Command:
    """An async command that answers an object."""
    declared = declare(f"{parameters} {JOB}")
    return Command(name, declared, Shape.OBJECT, noun, fields, run, is_async=True, create=create, check=check)


JOB = "starteventid:long customjobid:string"
SUCCESS_FIELDS = "success:boolean displaytext:string"
