"""Small things that all commands need: entities by uuid, times, answers without empty fields."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Account, Domain, Row, Zone

Json = dict[str, Any]
R = TypeVar("R", bound=Row)

OWNER = "account:string domain:string domainid:string"
TAGS = "tags:set"


def entity(tx: Transaction, kind: type[R], request: Request, parameter: str) -> R:
    """The row that a required uuid parameter names, unless it was removed."""
    return by_uuid(tx, kind, request.need(parameter), parameter)


def optional(tx: Transaction, kind: type[R], request: Request, parameter: str) -> R | None:
    """As `entity`, None when the parameter was not sent."""
    value = request.text(parameter)
    return by_uuid(tx, kind, value, parameter) if value else None


def by_uuid(tx: Transaction, kind: type[R], uuid: str, parameter: str) -> R:
    row = tx.find(kind, uuid=uuid)
    if row is None or getattr(row, "removed", None) is not None:
        raise ApiError(
            PARAMETER,
            f"Invalid parameter {parameter} value={uuid[:255]} due to incorrect long value format, or entity does not"
            " exist or due to incorrect parameter annotation for the field in api cmd class.",
        )
    return row


def zone(tx: Transaction) -> Zone:
    """The first zone, which is meant where none is named."""
    return tx.get(Zone, 1)


def zone_of(tx: Transaction, row_id: int) -> Zone:
    return tx.get(Zone, row_id)


def named(request: Request, name: str = "name") -> str:
    """A required name: not blank, no control characters."""
    value = request.need(name)
    if not value.strip() or not value.isprintable():
        raise ApiError(PARAMETER, f"Invalid value for parameter {name}: it is blank or has control characters")
    return value


@functools.lru_cache(4096)
def time(seconds: float | None) -> str | None:
    """As CloudStack writes times."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


def clean(**fields: object) -> Json:
    """Fields that are None are left out, never sent as null."""
    return {name: value for name, value in fields.items() if value is not None}


def owner(tx: Transaction) -> Json:
    """Everything belongs to the one account."""
    account = tx.find(Account)
    if account is None:
        return {}
    domain = tx.get(Domain, account.domain_id)
    return {"account": account.account_name, "domain": domain.name, "domainid": domain.uuid}


def matching(rows: Iterable[Json], request: Request, *exact: str) -> list[Json]:
    """Answers whose fields equal the parameters of these names, as far as they were sent; `keyword` in `name`."""
    wanted = {name: request.text(name) for name in exact if request.text(name) is not None}
    keyword = (request.text("keyword") or "").lower()
    return [
        row
        for row in rows
        if all(str(row.get(name, "")) == value for name, value in wanted.items())
        and (not keyword or keyword in str(row.get("name", "")).lower())
    ]


def tags_of(tx: Transaction, kind: str, uuid: str) -> list[Json]:
    pairs = tx.pairs(
        "SELECT key, value FROM resource_tags WHERE resource_type = ? AND resource_uuid = ? ORDER BY key",
        (kind, uuid),
        "resource_tags",
    )
    return [{"key": key, "value": value, "resourcetype": kind, "resourceid": uuid} for key, value in pairs]


def shown_value(name: str, value: str | None) -> str | None:
    """The value of a detail or setting, hidden when its name or its text says that it is, or holds, a secret."""
    secret = any(word in name.lower() for word in ("token", "secret", "password", "apikey"))
    inside = any(word in (value or "").lower() for word in ("token=", "secret=", "password=", "storpool://"))
    return "********" if value and (secret or inside) else value


def visible(details: dict[str, str]) -> dict[str, str]:
    """Details as the API shows them."""
    return {key: shown_value(key, value) or "" for key, value in details.items()}
