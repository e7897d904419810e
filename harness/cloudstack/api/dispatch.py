"""From a query to an answer: who asks, which command, its checks, its work, its envelope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from harness.cloudstack.api import (
    async_jobs,
    capacity,
    extraction,
    hosts,
    infrastructure,
    isos,
    migrate_storage,
    migrate_with_volumes,
    migration,
    offerings,
    resize,
    resources,
    signature,
    snapshots,
    storage,
    template_creation,
    templates,
    vm_snapshots,
    vms,
    volumes,
)
from harness.cloudstack.api.command import Command, Json, Shape
from harness.cloudstack.api.discovery import list_apis
from harness.cloudstack.api.errors import MALFORMED, PARAMETER, UNAUTHORIZED, UNSUPPORTED, ApiError, as_api_error
from harness.cloudstack.api.lookup import by_uuid
from harness.cloudstack.api.parameters import Request, check
from harness.cloudstack.records.rows import (
    Account,
    Cluster,
    DiskOffering,
    Domain,
    GuestOs,
    HostRow,
    Pod,
    Row,
    ServiceOffering,
    Snapshot,
    StoragePool,
    Template,
    User,
    Vm,
    Volume,
    Zone,
)
from harness.cloudstack.services import Services
from harness.spi.errors import MisuseError

Query = Sequence[tuple[str, str]]
NOT_VERIFIED = "unable to verify user credentials and/or request signature"
MAX_PARAMETERS = 1000
MAX_PAGE = 500


ENTITIES: Mapping[str, type[Row]] = {
    "zoneid": Zone,
    "podid": Pod,
    "clusterid": Cluster,
    "hostid": HostRow,
    "domainid": Domain,
    "virtualmachineid": Vm,
    "volumeid": Volume,
    "snapshotid": Snapshot,
    "templateid": Template,
    "storageid": StoragePool,
    "ostypeid": GuestOs,
    "serviceofferingid": ServiceOffering,
    "diskofferingid": DiskOffering,
    "newdiskofferingid": DiskOffering,
    "overridediskofferingid": DiskOffering,
}


CHECKED = frozenset(ENTITIES) | {"projectid", "account"}


@dataclass(frozen=True, slots=True)
class ApiReply:
    """`status` is the HTTP status, `body` JSON on one line."""

    status: int
    body: bytes


def _table() -> dict[str, Command]:
    modules = (
        async_jobs,
        extraction,
        infrastructure,
        capacity,
        hosts,
        isos,
        migrate_storage,
        migrate_with_volumes,
        migration,
        offerings,
        resize,
        resources,
        snapshots,
        storage,
        template_creation,
        templates,
        vm_snapshots,
        vms,
        volumes,
    )
    commands = [command for module in modules for command in module.COMMANDS]
    commands.append(list_apis(lambda: COMMANDS))
    return {command.name.lower(): command for command in commands}


class Dispatcher:
    def __init__(self, services: Services) -> None:
        self._services = services

    def handle(self, query: Query) -> ApiReply:
        """Answer one request; errors are answers too."""
        key = "errorresponse"
        try:
            user = self._authenticate(query)
            command = _command(query)
            request = check(command.name, command.parameters, query, user.id)
            key = f"{command.name.lower()}response"
            if not command.name.startswith("list"):
                self._check_entities(command, request)
            return ApiReply(200, msgspec.json.encode({key: self._run(command, request)}))
        except MisuseError:
            raise
        except Exception as error:
            failure = as_api_error(error)
            return ApiReply(failure.code, msgspec.json.encode({key: failure.body()}))

    def _authenticate(self, query: Query) -> User:
        if len(query) > MAX_PARAMETERS:
            raise ApiError(MALFORMED, f"a request has at most {MAX_PARAMETERS} parameters")
        values = {name.lower(): value for name, value in query}
        with self._services.records.read() as tx:
            user = tx.find(User, api_key=values.get("apikey") or "\x00")
            now = tx.now
        if user is None or user.secret_key is None:
            raise ApiError(UNAUTHORIZED, NOT_VERIFIED)
        if not signature.is_signed(query, values.get("signature", ""), user.secret_key):
            raise ApiError(UNAUTHORIZED, NOT_VERIFIED)
        late = signature.expired(query, now)
        if late is not None:
            raise ApiError(UNAUTHORIZED, f"{NOT_VERIFIED}: {late}")
        return user

    def _check_entities(self, command: Command, request: Request) -> None:
        """As in CloudStack, whatever a parameter names must exist, also where the command does not use it."""
        named = [p.name for p in command.parameters if p.name in CHECKED and request.text(p.name)]
        if not named:
            return
        with self._services.records.read() as tx:
            for name in named:
                if name in ENTITIES:
                    by_uuid(tx, ENTITIES[name], request.need(name), name)
                elif name == "projectid":
                    raise ApiError(PARAMETER, "Unable to find project by ID: there are no projects")
                elif name == "account" and tx.find(Account, account_name=request.need(name)) is None:
                    raise ApiError(PARAMETER, f"Unable to find account {request.need(name)}")

    def _run(self, command: Command, request: Request) -> Any:  # Any: the fields of the command's answer
        if command.is_async:
            return self._start(command, request)
        result = command.run(self._services, request)
        return _page(command.noun, result, request) if command.shape is Shape.LIST else command.wrap(result)

    def _start(self, command: Command, request: Request) -> Json:
        services = self._services
        created = command.create(services, request) if command.create else None
        if command.check is not None:
            command.check(services, request)
        final = replace(request, created=created.row_id) if created else request
        instance = (created.type, created.uuid) if created else None
        job_id = services.jobs.submit(
            command.name, request.user_id, lambda: command.wrap(command.run(services, final)), instance
        )
        return {"jobid": job_id, "id": created.uuid} if created else {"jobid": job_id}


def _command(query: Query) -> Command:
    name = next((value for key, value in query if key.lower() == "command"), "")
    command = COMMANDS.get(name.lower())
    if command is None:
        raise ApiError(
            UNSUPPORTED, f"The given command '{name[:128]}' either does not exist, is not available for user"
        )
    return command


def _page(noun: str, rows: list[Json], request: Request) -> Json:
    """`count` is of all rows, as in CloudStack; no rows at all is an empty object."""
    page, size = request.natural("page", 1), request.natural("pagesize", 1)
    if page is not None and size is None:
        raise ApiError(PARAMETER, '"page" parameter was specified, but "pagesize" parameter was not specified')
    if size is not None and size > MAX_PAGE:
        raise ApiError(PARAMETER, f"Page size can not exceed max allowed page size value of {MAX_PAGE}")
    count = len(rows)
    if size is not None:
        start = ((page or 1) - 1) * size
        rows = rows[start : start + size]
    return {"count": count, noun: rows} if rows else {}


COMMANDS: Mapping[str, Command] = _table()
"""All commands by name in lower case."""
