"""Which StorPool API, and which StorPool template, a CloudStack pool stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.spi.driver import DriverRecords
from harness.spi.errors import InvalidParameter
from harness.spi.objects import DataObject, DataStore, StoreRole
from harness.storpool import Connection, StorPoolClient, from_details, parse_url

PROVIDER = "StorPool"

Connect = Callable[[Connection], StorPoolClient]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with its API client."""

    id: int
    template: str
    client: StorPoolClient


class Pools:
    """Looks pools up; details are read on every call, clients are kept for each connection."""

    def __init__(self, records: DriverRecords, connect: Connect) -> None:
        self._records = records
        self._connect = connect
        self._clients: dict[Connection, StorPoolClient] = {}

    def of(self, item: DataObject) -> Pool:
        """The pool of a data object that is, or is to be, on StorPool."""
        if item.store is None or not is_ours(item.store):
            raise InvalidParameter(f"{item.name} ({item.uuid}) is not on a StorPool pool")
        return self.get(item.store.id)

    def get(self, pool_id: int) -> Pool:
        connection = self._connection(pool_id)
        client = self._clients.get(connection)
        if client is None:
            client = self._clients[connection] = self._connect(connection)
        return Pool(pool_id, connection.template, client)

    def _connection(self, pool_id: int) -> Connection:
        if self._records.setting("sp.enable.alternative.endpoint", pool_id=pool_id) == "true":
            url = self._records.setting("sp.alternative.endpoint", pool_id=pool_id)
            if not url:
                raise InvalidParameter(
                    f"StorPool pool {pool_id}: sp.enable.alternative.endpoint is on, sp.alternative.endpoint is empty"
                )
            return parse_url(url)
        return from_details(self._records.pool_details(pool_id))


def is_ours(store: DataStore | None) -> bool:
    """Whether the store is a primary pool of this provider."""
    return store is not None and store.role is StoreRole.PRIMARY and store.provider == PROVIDER
