"""The reconciler at its work in a whole cloud: what is changed behind CloudStack's back, through StorPool's API."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from harness import checks
from harness.cloudstack.server import ManagementServer
from harness.observers import CloudApiError, Json, World
from harness.spi.inventory import FindingKind
from harness.storpool import Secret, StorPoolClient, VolumeCreateDesc, VolumeReassignDesc, VolumeUpdateDesc
from harness.worlds.memory.processes import MANAGEMENT, STORPOOL_TOKEN
from harness.worlds.memory.transports import StorPoolTransport
from harness.worlds.memory.world import MemoryWorld

CHECKUP, GRACE = 300, 900
PASSES = 24
FOREIGN = {"uuid": "a-volume-of-another-cloud", "cs": "volume"}


def operator(world: MemoryWorld) -> StorPoolClient:
    """StorPool's API in the hands of somebody who knows nothing of CloudStack."""
    main = world.simulation.main
    return StorPoolClient(StorPoolTransport(main, world.processes.storpool, Secret(STORPOOL_TOKEN)), main)


def name(volume: Json) -> str:
    return "~" + str(volume["path"]).rpartition("/")[2]


def check_often(world: MemoryWorld, checkup: int = CHECKUP, grace: int = GRACE) -> None:
    """The intervals are read when the management server starts."""
    for key, value in (
        ("storpool.volume.tags.checkup", checkup),
        ("storpool.snapshot.tags.checkup", checkup),
        ("storpool.orphans.grace", grace),
    ):
        world.cloud.call("updateConfiguration", name=key, value=str(value))
    world.kill(MANAGEMENT)
    world.start(MANAGEMENT)


def data_volume(world: World) -> Json:
    """It is made on StorPool when it is attached first."""
    env = world.environment
    offering = world.cloud.call(
        "createDiskOffering", name="data", displaytext="data", disksize=1, maxiops=500, tags=env.pools[0].tag
    )
    made = world.cloud.call(
        "createVolume", name="data", zoneid=env.zone_id, diskofferingid=offering["diskoffering"]["id"]
    )
    found: Json = made["volume"]
    return found


def deploy(world: World) -> Json:
    env = world.environment
    registered = world.cloud.call(
        "registerTemplate",
        name=world.name("template"),
        displaytext="t",
        format="QCOW2",
        hypervisor="KVM",
        url=env.image_url,
        zoneid=env.zone_id,
        ostypeid=env.os_type_id,
    )
    template_id = str(registered["template"][0]["id"])

    def ready() -> bool:
        listed = world.cloud.call("listTemplates", templatefilter="all", id=template_id)
        return bool(listed["template"][0]["isready"])

    world.wait_until("the template is ready", ready)
    deployed = world.cloud.call(
        "deployVirtualMachine",
        serviceofferingid=env.service_offering_id,
        zoneid=env.zone_id,
        templateid=template_id,
        name=world.name("vm"),
        hypervisor="KVM",
    )
    found: Json = deployed["virtualmachine"]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_drift_is_mended_and_what_is_not_ours_survives(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="harness.cloudstack")

    def live(world: MemoryWorld) -> None:
        vm, data, gone = deploy(world), data_volume(world), data_volume(world)
        world.cloud.call("attachVolume", id=data["id"], virtualmachineid=vm["id"])
        world.cloud.call("detachVolume", id=data["id"])
        world.cloud.call("deleteVolume", id=gone["id"])
        (data,) = world.cloud.call("listVolumes", id=data["id"])["volume"]
        (root,) = world.cloud.call("listVolumes", virtualmachineid=vm["id"])["volume"]
        check_often(world)
        world.wait_until("the cloud is at rest", lambda: at_rest(world))

        by_hand = operator(world)
        by_hand.volume_update(name(root), VolumeUpdateDesc(tags={"cvm": "", "uuid": "x"}))
        by_hand.volume_update(name(data), VolumeUpdateDesc(iops=50))
        by_hand.volumes_reassign_wait([VolumeReassignDesc(volume=name(data), rw=(2,))])
        template = world.environment.pools[0].storpool_template
        orphan = {"uuid": str(gone["id"]), "cs": "volume"}
        by_hand.volume_create(VolumeCreateDesc(size=1 << 20, template=template, tags=orphan))
        foreign = frozenset(
            by_hand.volume_create(VolumeCreateDesc(size=1 << 20, template=template, tags=tags)).global_id
            for tags in ({}, FOREIGN)
        )
        others = [by_hand.volume(f"~{global_id}") for global_id in sorted(foreign)]
        assert len(checks.violations(checks.take(world, foreign))) == 4, "the tags, the attachment, the orphan"

        world.simulation.main.sleep(GRACE + 2 * CHECKUP)
        assert checks.violations(checks.take(world, foreign)) == []
        assert by_hand.volume(name(data)).iops == 500
        assert [by_hand.volume(f"~{global_id}") for global_id in sorted(foreign)] == others
        world.simulation.main.sleep(3 * CHECKUP)
        lists = world.storpool.calls()["VolumesList"]
        world.simulation.main.sleep(2 * CHECKUP)
        assert world.storpool.calls()["VolumesList"] <= lists + 3, "one list of volumes in a pass"

    MemoryWorld(seed).run(live)
    told = [line for line in caplog.messages if line.startswith("storage driver: ")]
    for kind in ("orphan", "tags", "limits", "leaked attachment", "unattributed"):
        assert [line for line in told if line.startswith(f"storage driver: {kind}: ")], kind
    unattributed = [line for line in told if "unattributed" in line]
    assert len(unattributed) == 1, "it is found in every pass and told once"


def whole_life(call: Callable[..., Json], world: World) -> None:
    """`call` is the cloud's, or does something beside."""
    vm, data = deploy(world), data_volume(world)
    call("attachVolume", id=data["id"], virtualmachineid=vm["id"])
    snapshot = call("createSnapshot", volumeid=data["id"])["snapshot"]
    call("stopVirtualMachine", id=vm["id"])
    call("startVirtualMachine", id=vm["id"])
    call("detachVolume", id=data["id"])
    call("deleteSnapshot", id=snapshot["id"])
    call("deleteVolume", id=data["id"])
    call("destroyVirtualMachine", id=vm["id"], expunge=True)


def at_rest(world: World) -> bool:
    return checks.violations(checks.take(world)) == []


@pytest.mark.parametrize("seed", range(8))
def test_passes_beside_everything_else_find_nothing_and_harm_nothing(seed: int) -> None:
    """Each step of a whole life meets passes half done. Without a grace time every orphan is told at once."""
    found: list[str] = []
    passes: list[int] = []

    def reconcile(server: ManagementServer) -> None:
        driver = server.services.context.driver
        for number in range(PASSES):
            findings = driver.reconcile_snapshots() if number % 3 == 2 else driver.reconcile_volumes()
            passes.append(len(findings))
            # A pass may be quicker to set the tags of an attach than the attach itself.
            found.extend(str(finding) for finding in findings if finding.kind is not FindingKind.TAGS)

    def live(world: MemoryWorld) -> None:
        def call(command: str, **parameters: str | int | bool) -> Json:
            before = len(passes)
            world.management.work("passes", reconcile)
            answer = world.cloud.call(command, **parameters)
            world.wait_until("the passes are over", lambda: len(passes) == before + PASSES)
            return answer

        world.cloud.call("updateConfiguration", name="snapshot.backup.to.secondary", value="false")
        world.cloud.call("updateConfiguration", name="storpool.orphans.grace", value="0")
        whole_life(call, world)
        world.wait_until("the cloud is at rest", lambda: at_rest(world))

    MemoryWorld(seed).run(live)
    assert found == []


class Killed:
    """A world whose management server dies after commit number `deadly` of a whole life, and is started again."""

    def __init__(self, seed: int, deadly: int | None) -> None:
        self.commits = 0
        self._deadly = deadly
        self._armed = False
        self._world = MemoryWorld(seed, strike=self._strike)

    def run(self) -> None:
        self._world.run(self._live)

    def _strike(self, process: str, kind: str, detail: str) -> None:  # noqa: ARG002 - the contract's signature
        if self._armed and process == MANAGEMENT and kind == "commit":
            self.commits += 1
            if self.commits == self._deadly:
                self._armed = False
                self._world.kill(MANAGEMENT)

    def _live(self, world: MemoryWorld) -> None:
        world.cloud.call("updateConfiguration", name="snapshot.backup.to.secondary", value="false")
        self._armed = True
        task = world.simulation.main.spawn("life", lambda: self._life(world))
        ended = False
        while not ended:
            ended = task.join(0.5)
            if not world.simulation.alive(MANAGEMENT):
                world.start(MANAGEMENT)
        world.wait_until("the cloud is at rest", lambda: at_rest(world), 2 * 60)

    def _life(self, world: MemoryWorld) -> None:
        try:
            whole_life(world.cloud.call, world)
        except (CloudApiError, ConnectionError):
            assert self._deadly is not None


@pytest.mark.parametrize("part", range(4))
def test_a_cloud_whose_management_server_died_comes_to_rest_at_once(part: int) -> None:
    """Not after the grace time and not at the next comparison a day later."""
    counted = Killed(part, None)
    counted.run()
    assert counted.commits > 40
    for deadly in range(1 + part, counted.commits + 1, 4):
        killed = Killed(part, deadly)
        try:
            killed.run()
        except TimeoutError as error:
            raise AssertionError(f"killed after commit {deadly} of {counted.commits}") from error
        assert killed.commits == deadly
