"""Several StorPool clusters as one `harness.observers.StorPool`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from harness.observers import Json, StorPool


class SeveralStorPools:
    """What more than one has, such as a snapshot and its copy, is listed by each and looked up in the first."""

    def __init__(self, clusters: Sequence[StorPool]) -> None:
        self._clusters = tuple(clusters)

    def volumes(self) -> list[Json]:
        return [item for cluster in self._clusters for item in cluster.volumes()]

    def volume(self, name: str) -> Json | None:
        return self._first(lambda cluster: cluster.volume(name))

    def snapshots(self) -> list[Json]:
        return [item for cluster in self._clusters for item in cluster.snapshots()]

    def snapshot(self, name: str) -> Json | None:
        return self._first(lambda cluster: cluster.snapshot(name))

    def attachments(self) -> list[Json]:
        """Each once: clusters of one location tell each other's too."""
        found = {
            (item.get("clusterId"), item["client"], item.get("globalId") or item["volume"]): item
            for cluster in self._clusters
            for item in cluster.attachments()
        }
        return list(found.values())

    def lose_snapshot(self, name: str) -> None:
        """In the first cluster that has it."""
        for cluster in self._clusters:
            if cluster.snapshot(name) is not None:
                cluster.lose_snapshot(name)
                return
        raise AssertionError(f"no StorPool cluster has snapshot {name}")

    def update_volume(self, name: str, **changes: object) -> None:
        """In the first cluster that has it."""
        for cluster in self._clusters:
            if cluster.volume(name) is not None:
                cluster.update_volume(name, **changes)
                return
        raise AssertionError(f"no StorPool cluster has volume {name}")

    def kept(self, bucket: str, key: str) -> str:
        """Of the first cluster that has the key."""
        return next((found for cluster in self._clusters if (found := cluster.kept(bucket, key))), "")

    def keep(self, bucket: str, key: str, value: str) -> None:
        """In each cluster."""
        for cluster in self._clusters:
            cluster.keep(bucket, key, value)

    def make_template(self, name: str, like: str, *, replication: bool = True) -> None:
        """In each cluster."""
        for cluster in self._clusters:
            cluster.make_template(name, like, replication=replication)

    def remove_template(self, name: str) -> bool:
        """From each cluster."""
        gone = [cluster.remove_template(name) for cluster in self._clusters]
        return all(gone)

    @contextmanager
    def refusing(self, call: str, name: str, *, for_good: bool = False) -> Iterator[None]:
        """In each cluster."""
        with ExitStack() as stack:
            for cluster in self._clusters:
                stack.enter_context(cluster.refusing(call, name, for_good=for_good))
            yield

    def calls(self) -> Mapping[str, int]:
        """Sums."""
        total: dict[str, int] = {}
        for cluster in self._clusters:
            for name, count in cluster.calls().items():
                total[name] = total.get(name, 0) + count
        return total

    def _first(self, look: Callable[[StorPool], Json | None]) -> Json | None:
        return next((found for cluster in self._clusters if (found := look(cluster)) is not None), None)
