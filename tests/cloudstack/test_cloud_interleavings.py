"""Operations that run at the same time, in many seeded orders: each object is worked on by one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cloud_rig import CloudError, Rig

from harness.runtime.simulated import Simulation
from harness.spi.errors import Unavailable

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
def test_a_deploy_while_its_cached_template_is_collected_gets_its_disk(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scenario(rig: Rig) -> None:
        compute, template = rig.ready()
        collector = rig.server.services.template_collector
        rig.call("destroyVirtualMachine", id=rig.deploy(compute, template)["id"], expunge="true")
        collector.collect()
        step = rig.storpool.step

        def slow(call: str) -> None:
            rig.runtime.sleep(rig.runtime.random())
            step(call)

        monkeypatch.setattr(rig.storpool, "step", slow)
        job = rig.request("deployVirtualMachine", zoneid=rig.zone(), serviceofferingid=compute, templateid=template)
        collector.collect()
        rig.wait(rig.envelope(job)["jobid"])

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


def test_a_deploy_that_fails_takes_no_volume_along_that_a_user_attached_meanwhile() -> None:
    accepted: list[int] = []

    def scenario(rig: Rig) -> None:
        compute, template = rig.ready()
        for host in rig.hosts.values():
            host.fail("StartCommand", Unavailable("sabotaged"), times=3)
        offering, zone = rig.disk_offering(), rig.zone()
        deploy = {"zoneid": zone, "serviceofferingid": compute, "templateid": template}
        job = rig.envelope(rig.request("deployVirtualMachine", **deploy))
        volume = rig.envelope(rig.request("createVolume", zoneid=zone, diskofferingid=offering, name="mine"))["id"]
        # Between two tries of the start the VM is Stopped, and a volume may be attached to it.
        while rig.find("virtualmachine", job["id"])["state"] != "Error":
            reply = rig.request("attachVolume", id=volume, virtualmachineid=job["id"])
            accepted.append(reply.status)
        with pytest.raises(CloudError, match="sabotaged"):
            rig.wait(job["jobid"])
        rig.runtime.sleep(1.0)
        kept = rig.find("volume", volume)
        assert (kept["state"] in ("Allocated", "Ready"), kept.get("virtualmachineid")) == (True, None), kept

    for seed in SEEDS:
        play(seed, scenario)
    assert 200 in accepted, "no attach was let in meanwhile"
