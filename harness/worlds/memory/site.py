"""Where the memory world's hosts and StorPool clusters stand. Most cases know one StorPool cluster; a case may ask for
a site with two, by its name.

Client ids are those of each cluster, so both hosts of a site with two clusters are client 1. Cluster ids are chosen so
that one is a part of the other's global ids: whoever looks for a piece of text finds the wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.cloudstack.config import FurtherCluster
from simulator.settings import KnownCluster, Settings


@dataclass(frozen=True, slots=True)
class ClusterSite:
    """One StorPool cluster. `process` is its name among the processes."""

    process: str
    known: KnownCluster
    endpoint: str
    token: str


@dataclass(frozen=True, slots=True)
class HostSite:
    """A KVM host. `cluster` is the index of its StorPool cluster in the site."""

    name: str
    client_id: int
    cluster: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """`cloud_hosts` are those of CloudStack's first cluster, `further` the other ones."""

    name: str
    clusters: tuple[ClusterSite, ...]
    hosts: tuple[HostSite, ...]
    cloud_hosts: tuple[str, ...]
    further: tuple[FurtherCluster, ...] = ()

    def settings(self, index: int) -> Settings:
        """Of the simulator of this cluster; one that stands alone knows no other."""
        known = self.clusters[index].known
        if len(self.clusters) == 1:
            return Settings()
        return Settings(
            cluster_id=known.cluster_id,
            cluster_name=known.name,
            known_clusters=tuple(cluster.known for cluster in self.clusters),
        )


FIRST = ClusterSite(
    "storpool",
    KnownCluster(cluster_id=Settings().cluster_id, name="splab", location="sofia"),
    "storpool-api:81",
    "12345=67890=",
)


def _second(cluster_id: str, location: str) -> ClusterSite:
    known = KnownCluster(cluster_id=cluster_id, name="second", location=location)
    return ClusterSite("storpool-2", known, "storpool-api-2:81", "0987654321")


ONE = Site("", (FIRST,), (HostSite("kvm1", 1), HostSite("kvm2", 2)), ("kvm1", "kvm2"))
CLUSTERS = Site(
    "clusters",
    (FIRST, _second("splab.bc", "sofia")),
    (HostSite("kvm1", 1), HostSite("kvm2", 1, 1)),
    ("kvm1",),
    (FurtherCluster(name="cluster2", hosts=("kvm2",)),),
)
"""One zone with two CloudStack clusters, each over a StorPool cluster of its own; the pools are the first one's."""
ZONES = Site(
    "zones",
    (FIRST, _second("lab.b", "varna")),
    (HostSite("kvm1", 1), HostSite("kvm2", 1, 1)),
    ("kvm1",),
    (FurtherCluster(name="cluster2", hosts=("kvm2",), zone="zone2", pod="pod2"),),
)
"""Two zones with pools of their own, over StorPool clusters in two locations."""
SITES = {site.name: site for site in (ONE, CLUSTERS, ZONES)}
