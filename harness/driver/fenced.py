"""Volumes of a host that was fenced: detached from it, by force where it cannot answer.

Spec/cloudstack-plugin.md 5.6.
"""

from __future__ import annotations

from harness.driver.operations import log
from harness.driver.pools import Pools
from harness.spi.errors import Error, NotFound, Unknown
from harness.spi.objects import Host, VolumeObject, storpool_id
from harness.storpool import StorPoolClient, VolumeReassignDesc

WAIT = 5
"""Seconds StorPool waits for the client, which is off."""


def release_fenced(pools: Pools, volume: VolumeObject, host: Host) -> None:
    """Without force first: a client that answers after all shows that nobody has the device open."""
    client = host.storpool_client_id
    if volume.path is None or client is None:
        return
    storpool, name = pools.of(volume).client, storpool_id(volume.path)
    if not _attached(storpool, name, client):
        return
    for force in (False, True):
        try:
            storpool.volumes_reassign_wait([VolumeReassignDesc(volume=name, detach=(client,), force=force)], WAIT)
        except NotFound:
            return
        except Unknown:
            raise
        except Error as error:
            if force and _attached(storpool, name, client):
                raise
            log.warning("%s is not let go by host %s, which was fenced: %s", volume.path, host.name, error)
        else:
            return


def _attached(storpool: StorPoolClient, name: str, client: int) -> bool:
    return any(found.client == client for found in storpool.attachments(name))
