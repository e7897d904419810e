"""Operations that run at the same time, in many seeded orders: each object is worked on by one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cloud_rig import CloudError, Rig

from harness.runtime.simulated import Simulation

SEEDS = range(1, 31)


def play(seed: int, scenario: Callable[[Rig], None]) -> Rig:
    """The scenario in a task of the management server."""
    simulation = Simulation(seed)
    rig = Rig(simulation.process("management"))
    errors: list[Exception] = []
    ended: list[bool] = []

    def work() -> None:
        try:
            rig.server.start()
            scenario(rig)
            rig.check_at_rest()
        except Exception as error:
            errors.append(error)
        ended.append(True)

    def main() -> None:
        rig.runtime.spawn("scenario", work)
        while not ended:
            simulation.main.sleep(1.0)

    simulation.run(main)
    if errors:
        raise errors[0]
    return rig


def at_once(rig: Rig, *requests: tuple[str, dict[str, str]]) -> list[str]:
    """Start all, then wait for all; "ok" or the error's text for each."""
    outcomes = []
    started = [rig.request(command, **parameters) for command, parameters in requests]
    for reply in started:
        try:
            rig.wait(rig.envelope(reply)["jobid"])
            outcomes.append("ok")
        except CloudError as error:
            outcomes.append(error.text)
    return outcomes


@pytest.mark.parametrize("seed", SEEDS)
def test_deploys_at_once_seed_the_cache_once(seed: int) -> None:
    def scenario(rig: Rig) -> None:
        compute, template = rig.ready()
        deploy = {"zoneid": rig.zone(), "serviceofferingid": compute, "templateid": template}
        assert at_once(rig, *[("deployVirtualMachine", deploy)] * 3) == ["ok"] * 3
        assert rig.storpool.calls.count("seed") == 1

    play(seed, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_volume_that_two_vms_want_at_once_goes_to_one_of_them(seed: int) -> None:
    def scenario(rig: Rig) -> None:
        compute, template = rig.ready()
        vms = [rig.deploy(compute, template)["id"] for _ in range(2)]
        volume = rig.volume()["id"]
        outcomes = at_once(rig, *[("attachVolume", {"id": volume, "virtualmachineid": vm}) for vm in vms])
        assert outcomes.count("ok") == 1, outcomes
        assert rig.find("volume", volume)["virtualmachineid"] in vms

    play(seed, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_stop_destroy_attach_and_detach_at_once_end_in_agreement(seed: int) -> None:
    def scenario(rig: Rig) -> None:
        vm = rig.deploy(*rig.ready())["id"]
        first, second = rig.volume()["id"], rig.volume()["id"]
        rig.call("attachVolume", id=first, virtualmachineid=vm)
        at_once(
            rig,
            ("detachVolume", {"id": first}),
            ("attachVolume", {"id": second, "virtualmachineid": vm}),
            ("stopVirtualMachine", {"id": vm}),
            ("createSnapshot", {"volumeid": first}),
            ("destroyVirtualMachine", {"id": vm, "expunge": "true"}),
        )
        assert rig.find("virtualmachine", vm) is None

    play(seed, scenario)
