"""Making a pool usable on a host that has just connected (spec/cloudstack-plugin.md 5.2)."""

from __future__ import annotations

import msgspec

from harness.driver.check_volume import CheckVolumes
from harness.driver.pools import is_ours
from harness.driver.settings import CLUSTER_ID, configured_cluster
from harness.spi.commands import StorPoolModifyStoragePoolAnswer, StorPoolModifyStoragePoolCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import Error, InvalidParameter
from harness.spi.objects import DataStore, Host

WAIT = 60.0
"""Seconds the agent has for attaching the check volume."""
ANSWER_MARGIN = 15.0


class StorPoolHostListener:
    """A host that fails changes nothing for the others: the check volume stays."""

    def __init__(self, endpoints: HostEndpoints, check_volumes: CheckVolumes, records: DriverRecords) -> None:
        self._records = records
        self._endpoints = endpoints
        self._check_volumes = check_volumes

    def host_connected(self, host: Host, pool: DataStore) -> Host:
        if not is_ours(pool):
            raise InvalidParameter(f"pool {pool.name} ({pool.uuid}) is not a StorPool pool")
        path = self._check_volumes.path(pool.id, host.cluster_id)
        command = StorPoolModifyStoragePoolCommand(pool=pool, volume_path=path, wait=WAIT)
        with self._check_volumes.in_use(pool.id, host.cluster_id, host.id):
            answer = self._endpoints.host(host.id).send(command, timeout=WAIT + ANSWER_MARGIN)
        if not answer.result:
            raise Error(
                f"host {host.name} cannot use StorPool pool {pool.name}: {answer.details}; "
                "check storpool_block and /etc/storpool.conf on the host, then reconnect it"
            )
        if not isinstance(answer, StorPoolModifyStoragePoolAnswer) or answer.client_node_id is None:
            raise Error(f"host {host.name} did not tell its StorPool client id; set SP_OURID there and reconnect it")
        client_id, cluster_id = answer.client_node_id, answer.cluster_id
        if cluster_id is not None:
            self._check_cluster(host, cluster_id)
        return msgspec.structs.replace(host, storpool_client_id=client_id, storpool_cluster_id=cluster_id)

    def _check_cluster(self, host: Host, cluster_id: str) -> None:
        """All hosts of a CloudStack cluster are clients of one StorPool cluster, and ids are compared as a whole."""
        wanted = configured_cluster(self._records, host.cluster_id)
        if wanted not in (None, cluster_id):
            raise InvalidParameter(
                f"host {host.name} is a client of StorPool cluster {cluster_id}, but {CLUSTER_ID} of its CloudStack"
                f" cluster is {wanted}; correct one of the two"
            )
