"""Two StorPool clusters whose hosts have the same client id: nobody takes the one for the other."""

from __future__ import annotations

import pytest

from harness import checks
from harness.cloudstack.server import ManagementServer
from harness.observers import World
from harness.spi.inventory import Finding, FindingKind
from harness.storpool import StorPoolClient, VolumeReassignDesc
from harness.worlds.memory.bridges import MemoryBridges
from harness.worlds.memory.site import CLUSTERS, SITES, ZONES
from harness.worlds.memory.world import MemoryWorld
from scenarios import looks, multicluster, registry, snapshots, steps
from simulator.ports import Reply, Request


def operator(world: MemoryWorld, cluster: int) -> StorPoolClient:
    """The API of this StorPool cluster in the hands of somebody who knows nothing of CloudStack."""
    main = world.simulation.main
    return StorPoolClient(world.processes.transport(main, cluster), main)


def compared(world: MemoryWorld) -> list[Finding]:
    """When nothing is at work on the volumes any more."""
    world.simulation.main.sleep(1800)
    found: list[Finding] = []
    done = world.simulation.main.event("the comparison's end")

    def compare(server: ManagementServer) -> None:
        found.extend(server.services.context.driver.reconcile_volumes())
        done.deliver()

    world.management.work("compare", compare)
    done.wait()
    return found


def test_the_scenarios_and_the_memory_world_know_the_same_sites() -> None:
    assert tuple(SITES) == registry.SITES


@pytest.mark.parametrize("site", [CLUSTERS, ZONES], ids=lambda site: site.name)
def test_one_clusters_id_is_a_part_of_the_others_global_ids_and_hosts_have_one_client_id(site: object) -> None:
    assert site in (CLUSTERS, ZONES)
    chosen = CLUSTERS if site is CLUSTERS else ZONES
    first, second = (cluster.known.cluster_id for cluster in chosen.clusters)
    assert first in f"{second}.1" or second in f"{first}.1"
    assert len({host.client_id for host in chosen.hosts}) == 1


def test_an_attachment_left_in_the_other_cluster_is_taken_away_there_and_nowhere_else() -> None:
    def scenario(world: World) -> None:
        assert isinstance(world, MemoryWorld)
        here = multicluster.vm_on(world, world.hosts[0])
        volume = steps.attach(world, steps.data_volume(world), here)
        name = "~" + looks.global_id(volume)
        operator(world, 1).volumes_reassign_wait([VolumeReassignDesc(volume=name, rw=(1,))])
        assert multicluster.holders(world, volume) == [("splab.b", 1), ("splab.bc", 1)]
        findings = [finding for finding in compared(world) if finding.kind is FindingKind.LEAKED_ATTACHMENT]
        assert [finding.mended for finding in findings] == [True], findings
        assert "kvm2" in str(findings[0]), findings[0]
        multicluster.only_at(world, volume, world.hosts[0])
        assert checks.violations(checks.take(world)) == []
        assert compared(world) == []

    MemoryWorld(1, site="clusters").run(scenario)


@pytest.mark.parametrize("place", [0, 1])
def test_a_backup_is_read_on_a_host_of_the_cluster_that_has_the_snapshot(place: int) -> None:
    for seed in range(1, 7):
        world = MemoryWorld(seed, site="clusters")

        def scenario(inner: World) -> None:
            vm = multicluster.vm_on(inner, inner.hosts[place])
            snapshots.take(inner, steps.attach(inner, steps.data_volume(inner), vm))

        world.run(scenario)
        details = [entry[-1] for entry in world.simulation.journal.entries if entry[-2] == "send"]
        sent = [detail for detail in details if detail.startswith("StorPoolBackupSnapshotCommand")]
        assert sent == [f"StorPoolBackupSnapshotCommand to kvm{place + 1}"], f"seed {seed}: {sent}"


def test_the_invariants_see_an_attachment_at_the_client_of_the_same_number_in_the_other_cluster() -> None:
    def scenario(world: World) -> None:
        assert isinstance(world, MemoryWorld)
        here = multicluster.vm_on(world, world.hosts[0])
        volume = steps.attach(world, steps.data_volume(world), here)
        name = "~" + looks.global_id(volume)
        operator(world, 1).volumes_reassign_wait([VolumeReassignDesc(volume=name, rw=(1,))])
        found = [str(violation) for violation in checks.violations(checks.take(world))]
        assert len(found) == 1 and f"{name} at client 1 of cluster splab.bc" in found[0], found

    MemoryWorld(2, site="clusters").run(scenario)


def test_who_asked_a_cluster_that_dies_hears_that_it_cannot_be_reached_and_once_only() -> None:
    class Silent:
        """Takes a request and never answers, until it is told to."""

        def __init__(self) -> None:
            self.answers: list[object] = []
            self.moved = lambda: None

        def submit(self, request: Request, reply: object) -> int:
            del request
            self.answers.append(reply)
            return 1

        def withdraw(self, number: int) -> bool:
            del number
            return False

    bridges, silent = MemoryBridges(), Silent()
    bridges.exchange.join("a.b", silent, object(), "token")  # type: ignore[arg-type]  # asked for nothing but calls
    replies: list[Reply] = []
    bridges.of("a.c").submit("a.b", Request("POST", "/x", b"", None), replies.append)
    assert replies == [] and len(silent.answers) == 1
    bridges.died("a.b")
    assert len(replies) == 1 and b"cannot be reached" in replies[0].body
    (late,) = silent.answers
    assert callable(late)
    late(Reply(200, b"{}"))
    assert len(replies) == 1
