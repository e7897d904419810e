"""What the local lab is beside one StorPool cluster below both hosts: `clusters` and `zones`, as cases ask for them.

Both have a second StorPool cluster, served by the same simulator process, and the second host is its client. Cluster
ids are such that one is a part of the other's global ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import LabError
from lab.local.layout import KVM_HOSTS, Member
from simulator.settings import KnownCluster, Settings

SECOND_CLIENT = 1
"""SP_OURID of the second host in the second cluster: the first host has the same in the first."""


@dataclass(frozen=True, slots=True)
class Site:
    name: str
    first: KnownCluster
    second: KnownCluster | None = None

    def is_second(self, host: Member) -> bool:
        """Whether the host is a client of the second cluster."""
        return self.second is not None and host == KVM_HOSTS[1]

    def client_id(self, host: Member) -> int:
        return SECOND_CLIENT if self.is_second(host) else host.client_id


_FIRST = KnownCluster(cluster_id=Settings().cluster_id, name=Settings().cluster_name, location="sofia")
SITES = {
    site.name: site
    for site in (
        Site("", _FIRST),
        Site("clusters", _FIRST, KnownCluster(cluster_id="splab.bc", name="second", location="sofia")),
        Site("zones", _FIRST, KnownCluster(cluster_id="lab.b", name="second", location="varna")),
    )
}
ONE = SITES[""]


def named(name: str) -> Site:
    """Raises `LabError` for one that there is not."""
    found = SITES.get(name)
    if found is None:
        raise LabError(f"there is no site {name!r} of the local lab; there are {', '.join(filter(None, SITES))}")
    return found
