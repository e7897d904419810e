"""The management server killed at every point of a VM's life: the next one ends with records and cloud in agreement."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cloud_rig import Rig

from harness.cloudstack.records.rows import AsyncJob
from harness.runtime.simulated import Simulation

MANAGEMENT = "management"


class Life:
    """A cloud in a simulation, whose management server dies at point number `deadly` and is started again."""

    def __init__(self, seed: int, deadly: int | None) -> None:
        self.points = 0
        self.kills = 0
        self._deadly = deadly
        self._armed = False
        self.then: Callable[[Rig], object] = Rig.check_at_rest
        """What is done at the end, beside the checks that are always made."""
        self._simulation = Simulation(seed, strike=self._strike)
        self.rig = Rig(self._simulation.process(MANAGEMENT))

    def run(self, given: Callable[[Rig], object], act: Callable[[Rig], object]) -> Rig:
        self._simulation.run(lambda: self._main(given, act))
        return self.rig

    def _main(self, given: Callable[[Rig], object], act: Callable[[Rig], object]) -> None:
        self._do(self.rig, lambda: self.rig.server.start())
        self._do(self.rig, lambda: given(self.rig))
        self._armed = True
        self._do(self.rig, lambda: act(self.rig))
        self._armed = False
        self._do(self.rig, lambda: self.rig.runtime.sleep(300))
        self._do(self.rig, lambda: self.rig.check_at_rest())
        self._do(self.rig, lambda: self.then(self.rig))

    def _do(self, rig: Rig, work: Callable[[], object]) -> None:
        """In a task of the management server; when that dies meanwhile, start the next one."""
        errors: list[Exception] = []
        ended: list[bool] = []

        def guarded() -> None:
            try:
                work()
            except Exception as error:
                errors.append(error)
            ended.append(True)

        rig.runtime.spawn("test", guarded)
        while not ended and self._simulation.alive(MANAGEMENT):
            self._simulation.main.sleep(0.5)
        if errors:
            raise errors[0]
        if not self._simulation.alive(MANAGEMENT):
            self.kills += 1
            self.rig = rig.reborn(self._simulation.process(MANAGEMENT))
            self._do(self.rig, lambda: self.rig.server.start())

    def _strike(self, process: str, kind: str, detail: str) -> None:  # noqa: ARG002 - the contract's signature
        if self._armed and process == MANAGEMENT:
            self.points += 1
            if self.points == self._deadly:
                self._armed = False
                self._simulation.kill(MANAGEMENT)


def ready(rig: Rig) -> None:
    rig.ready()


def whole_life(rig: Rig) -> None:
    """Deploy, attach, snapshot, detach, stop, start, destroy: what fails because of the kill is not begun again."""
    offering = rig.call("listServiceOfferings")["serviceoffering"][0]["id"]
    template = rig.call("listTemplates", templatefilter="all")["template"][0]["id"]
    vm = rig.deploy(offering, template)["id"]
    volume = rig.volume()["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=vm)
    snapshot = rig.call("createSnapshot", volumeid=volume)["snapshot"]["id"]
    rig.call("detachVolume", id=volume)
    rig.call("deleteSnapshot", id=snapshot)
    rig.call("stopVirtualMachine", id=vm)
    rig.call("startVirtualMachine", id=vm)
    rig.call("deleteVolume", id=volume)
    rig.call("destroyVirtualMachine", id=vm, expunge="true")


def count_points() -> int:
    life = Life(1, None)
    rig = life.run(ready, whole_life)
    assert life.kills == 0
    assert rig.storpool.volumes == {} and rig.storpool.attached
    return life.points


def test_a_server_killed_at_any_point_of_a_vms_life_is_followed_by_one_that_leaves_nothing_half_done() -> None:
    points = count_points()
    assert points > 60
    for deadly in range(1, points + 1):
        life = Life(1, deadly)
        try:
            life.run(ready, whole_life)
        except AssertionError as error:
            raise AssertionError(f"killed at point {deadly} of {points}: {error}") from error
        assert life.kills == 1, deadly


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_restarted_server_lets_the_user_remove_everything_that_the_kill_left(seed: int) -> None:
    for deadly in range(seed, count_points(), 7):
        life = Life(seed, deadly)

        def remove_all(rig: Rig) -> None:
            for vm in rig.call("listVirtualMachines").get("virtualmachine", []):
                if vm["state"] in ("Destroyed", "Error"):
                    rig.call("expungeVirtualMachine", id=vm["id"])
                else:
                    rig.call("destroyVirtualMachine", id=vm["id"], expunge="true")
            for snapshot in rig.call("listSnapshots").get("snapshot", []):
                rig.call("deleteSnapshot", id=snapshot["id"])
            for volume in rig.call("listVolumes").get("volume", []):
                rig.call("deleteVolume", id=volume["id"])
            assert rig.storpool.volumes == {}

        life.then = remove_all
        life.run(ready, whole_life)
        assert life.kills == 1


def test_jobs_of_a_killed_server_are_failed_with_a_clear_text() -> None:
    points = count_points()
    texts: set[str] = set()
    for deadly in range(1, points, 5):
        life = Life(1, deadly)

        def failed_jobs(rig: Rig) -> None:
            texts.update(job.job_result for job in rig.rows(AsyncJob, job_status=2))
            assert not rig.rows(AsyncJob, job_status=0)

        life.then = failed_jobs
        life.run(ready, whole_life)
    assert texts == {'{"errorcode":530,"errortext":"job cancelled because of management server restart or shutdown"}'}
