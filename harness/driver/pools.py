"""Which StorPool API, and which StorPool template, a CloudStack pool stands for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from harness.spi.driver import DriverRecords
from harness.spi.errors import InvalidParameter
from harness.spi.objects import DataObject, DataStore, StoreRole, storpool_id
from harness.storpool import Connection, Secret, StorPoolClient, from_details, parse_url

PROVIDER = "StorPool"

CHECK_VOLUME_DETAIL = "SP_VOLUME_ON_CLUSTER-"
"""Start of the pool detail that holds the path of a check volume; the CloudStack cluster's row id follows."""

Connect = Callable[[Connection], StorPoolClient]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with its API client."""

    id: int
    template: str
    client: StorPoolClient
    cluster_id: str | None = None
    """Of the cluster that the API is of: the one that new objects are made in. None until one was made."""

    def at(self, cluster_id: str | None) -> StorPoolClient:
        """To address this cluster and no other; the pool's own when it is None, or nobody knows which one that is."""
        if cluster_id is None or self.cluster_id in (None, cluster_id):
            return self.client
        return self.client.at(cluster_id)


@dataclass(frozen=True, slots=True)
class StorPoolCluster:
    """Pools on one StorPool API, at least one."""

    pools: tuple[Pool, ...]

    @property
    def client(self) -> StorPoolClient:
        return self.pools[0].client

    @property
    def templates(self) -> frozenset[str]:
        return frozenset(pool.template for pool in self.pools)


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
        return Pool(pool_id, connection.template, client, self._cluster_id(pool_id))

    def apart(self, pool_ids: Collection[int]) -> bool:
        """Whether it is sure that these pools are not all in one StorPool cluster."""
        first, *others = [self._connection(pool_id) for pool_id in pool_ids]
        return any(other.token != first.token and not set(other.endpoints) & set(first.endpoints) for other in others)

    def same_cluster(self, one: int, other: int) -> bool:
        """Whether both pools are reached by the same API with the same token, so that an object of one is one there."""
        first, second = self._connection(one), self._connection(other)
        return first.token == second.token and set(first.endpoints) == set(second.endpoints)

    def clusters(self) -> tuple[list[StorPoolCluster], dict[int, str]]:
        """Pools by the API they are on, which those with the same endpoints and token share; why others are left out.

        Two clusters may be given the same token. One that pools reach by different addresses is two here, and is looked
        at twice, which does no harm.
        Pools at their alternative endpoint are: what is there is a copy that was made without these records.
        """
        found: dict[tuple[Secret, frozenset[str]], list[Pool]] = {}
        left_out: dict[int, str] = {}
        for pool_id in self._records.pool_ids():
            if self._at_alternative(pool_id):
                left_out[pool_id] = "it is at its alternative endpoint"
                continue
            try:
                connection = self._connection(pool_id)
                found.setdefault((connection.token, frozenset(connection.endpoints)), []).append(self.get(pool_id))
            except InvalidParameter as error:
                left_out[pool_id] = str(error)
        return [StorPoolCluster(tuple(pools)) for pools in found.values()], left_out

    def _cluster_id(self, pool_id: int) -> str | None:
        """Objects have the id of the cluster that made them in theirs, and check volumes are made at the pool's API."""
        for key, path in self._records.pool_details(pool_id).items():
            if key.startswith(CHECK_VOLUME_DETAIL):
                return cluster_of(path)
        return None

    def _at_alternative(self, pool_id: int) -> bool:
        return self._records.setting("sp.enable.alternative.endpoint", pool_id=pool_id) == "true"

    def _connection(self, pool_id: int) -> Connection:
        if self._at_alternative(pool_id):
            url = self._records.setting("sp.alternative.endpoint", pool_id=pool_id)
            if not url:
                raise InvalidParameter(
                    f"StorPool pool {pool_id}: sp.enable.alternative.endpoint is on, sp.alternative.endpoint is empty"
                )
            return parse_url(url)
        return from_details(self._records.pool_details(pool_id))


def cluster_of(path: str) -> str | None:
    """Id of the StorPool cluster that made the object at this path; None when the path does not tell."""
    parts = storpool_id(path).removeprefix("~").split(".")
    return ".".join(parts[:2]) if len(parts) == 3 else None


def is_ours(store: DataStore | None) -> bool:
    """Whether the store is a primary pool of this provider."""
    return store is not None and store.role is StoreRole.PRIMARY and store.provider == PROVIDER
