"""Real space of pools and volumes, as StorPool tells it now and then (spec/cloudstack-plugin.md 4.29).

The original emptied its maps before it asked, asked for one pool a zone, and ended for good at the first surprise.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.driver.operations import log
from harness.driver.pools import Pools, StorPoolCluster
from harness.spi.driver import Space
from harness.spi.errors import Error, MisuseError
from harness.spi.objects import device_path


class SpaceStats:
    """What was told last, in memory; replaced at once, so that a reader sees one telling or the other."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._of_pools: dict[int, Space] = {}
        self._of_volumes: dict[frozenset[int], dict[str, Space]] = {}
        """By path, of each StorPool cluster: by the pools that are on it."""

    def collect_pools(self) -> list[str]:
        found: dict[int, Space] = {}

        def ask(cluster: StorPoolCluster) -> None:
            told = {status.name: status.stored for status in cluster.client.volume_templates_status()}
            for pool in cluster.pools:
                if pool.template in told:
                    stored = told[pool.template]
                    found[pool.id] = Space(capacity=stored.capacity, used=max(0, stored.capacity - stored.free))

        lines = self._each(ask)
        self._of_pools = {**self._of_pools, **found}
        return lines

    def collect_volumes(self) -> list[str]:
        found: dict[frozenset[int], dict[str, Space]] = {}

        def ask(cluster: StorPoolCluster) -> None:
            told: dict[str, Space] = {}
            for volume in cluster.client.volumes_space():
                # What goes by its old id after a revert has that for a name.
                name = volume.name[1:] if volume.name.startswith("~") else volume.global_id
                told[device_path(name)] = Space(capacity=volume.size, used=volume.space_used)
            found[frozenset(pool.id for pool in cluster.pools)] = told

        lines = self._each(ask)
        # Of a cluster that did not answer, what was known stays; of any other one, volumes that are gone are forgotten.
        answered = frozenset[int]().union(*found)
        kept = {pools: told for pools, told in self._of_volumes.items() if not pools & answered}
        self._of_volumes = {**kept, **found}
        return lines

    def of_pool(self, pool_id: int) -> Space | None:
        return self._of_pools.get(pool_id)

    def of_volume(self, path: str) -> Space | None:
        return next((told[path] for told in self._of_volumes.values() if path in told), None)

    def _each(self, ask: Callable[[StorPoolCluster], None]) -> list[str]:
        clusters, left_out = self._pools.clusters()
        lines = [f"pool {pool_id}: no statistics: {why}" for pool_id, why in left_out.items()]
        for cluster in clusters:
            names = ", ".join(str(pool.id) for pool in cluster.pools)
            try:
                ask(cluster)
            except MisuseError:
                raise
            except Error as error:
                lines.append(f"pools {names}: no statistics: {error}")
            except Exception as error:
                log.exception("statistics of pools %s ended early", names)
                lines.append(f"pools {names}: no statistics: {type(error).__name__}")
        return lines
