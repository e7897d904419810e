"""Volumes of a host that was fenced: detached from it, by force where it cannot answer.

Spec/cloudstack-plugin.md 5.6.
"""

from __future__ import annotations

from harness.driver.operations import log
from harness.driver.pools import Pools
from harness.driver.settings import configured_cluster
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, NotFound, Unknown
from harness.spi.inventory import Client
from harness.spi.objects import Host, VolumeObject, storpool_id
from harness.storpool import StorPoolClient, VolumeReassignDesc

WAIT = 5
"""Seconds StorPool waits for the client, which is off."""


def release_fenced(pools: Pools, records: DriverRecords, volume: VolumeObject, host: Host) -> None:
    """Without force first: a client that answers after all shows that nobody has the device open.

    At the host's own cluster: another one may have a client of the same number, which is on.
    """
    if volume.path is None or host.storpool_client_id is None:
        return
    client = Client(host.storpool_client_id, host.storpool_cluster_id or configured_cluster(records, host.cluster_id))
    pool, name = pools.of(volume), storpool_id(volume.path)
    if not _attached(pool.client, name, client):
        return
    for force in (False, True):
        desc = VolumeReassignDesc(volume=name, detach=(client.number,), force=force)
        try:
            pool.at(client.cluster_id).volumes_reassign_wait([desc], WAIT)
        except NotFound:
            return
        except Unknown:
            raise
        except Error as error:
            if force and _attached(pool.client, name, client):
                raise
            log.warning("%s is not let go by host %s, which was fenced: %s", volume.path, host.name, error)
        else:
            return


def _attached(storpool: StorPoolClient, name: str, client: Client) -> bool:
    return any(client.is_same(Client(found.client, found.cluster_id)) for found in storpool.attachments(name))
