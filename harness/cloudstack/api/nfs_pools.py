"""Primary storage of CloudStack's own provider: NFS pools, of a cluster or of the zone."""

from __future__ import annotations

from urllib.parse import urlsplit

from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import entity, named, optional
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.orchestration.objects import NFS_POOL, image_store_of
from harness.cloudstack.orchestration.pool import set_tags
from harness.cloudstack.primary.default_driver import PROVIDER
from harness.cloudstack.primary.files import directory_on_export
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Cluster, StoragePool, Zone
from harness.cloudstack.services import Services
from harness.spi.errors import InvalidParameter

CAPACITY = 1 << 40
"""Bytes that may be allocated where it was not said: QEMU's NFS client does not tell how large an export is."""


def is_nfs(request: Request) -> bool:
    """Whether CloudStack would give it to its default provider."""
    provider = request.text("provider")
    return request.need("url").startswith("nfs://") and (provider or PROVIDER).lower() == PROVIDER.lower()


def insert(services: Services, tx: Transaction, request: Request) -> StoragePool:
    """The new pool's row, not Up yet; raises `ApiError` for what cannot be a pool."""
    server, path = _place(request)
    zone = entity(tx, Zone, request, "zoneid")
    cluster = optional(tx, Cluster, request, "clusterid")
    scope = (request.text("scope") or ("CLUSTER" if cluster else "ZONE")).upper()
    if scope not in ("CLUSTER", "ZONE") or (scope == "CLUSTER") != (cluster is not None):
        raise ApiError(PARAMETER, "give scope=cluster with a clusterid, or scope=zone without one")
    _check_new(tx, request, zone, server, path)
    row = tx.insert(
        StoragePool(
            uuid=services.runtime.uuid(),
            name=named(request),
            status="Initialized",
            path=path,
            scope=scope,
            storage_provider_name=PROVIDER,
            pool_type=NFS_POOL,
            data_center_id=zone.id,
            capacity_bytes=request.natural("capacitybytes", 1) or CAPACITY,
            created=tx.now,
            host_address=server,
            cluster_id=cluster.id if cluster else None,
        )
    )
    set_tags(tx, row, request.items("tags"))
    return row


def _place(request: Request) -> tuple[str, str]:
    url = urlsplit(request.need("url"))
    path = url.path.rstrip("/")
    if not url.hostname or url.query or url.username or not path:
        raise ApiError(PARAMETER, "host or path is null, should be nfs://hostname/path")
    return url.hostname, path


def _check_new(tx: Transaction, request: Request, zone: Zone, server: str, path: str) -> None:
    if tx.find(StoragePool, name=named(request), removed=None):
        raise ApiError(PARAMETER, f"a storage pool named {named(request)} exists already")
    if tx.find(StoragePool, host_address=server, path=path, removed=None):
        raise ApiError(PARAMETER, f"Storage pool already exists with the same host and path: nfs://{server}{path}")
    try:
        directory_on_export(image_store_of(tx, zone.id).url, server, path)
    except InvalidParameter as error:
        raise ApiError(PARAMETER, str(error)) from None
