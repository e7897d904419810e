"""Any sequence of commands, with faults in between: no illegal state, no internal error, and agreement at rest."""

from __future__ import annotations

from typing import Any
from unittest import mock

from cloud_rig import CloudError, Rig, configuration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cloudstack.orchestration import attachment
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, Error, InsufficientCapacity, NotFound, Unavailable, Unknown

COMMANDS = (
    "deployVirtualMachine",
    "startVirtualMachine",
    "stopVirtualMachine",
    "destroyVirtualMachine",
    "expungeVirtualMachine",
    "recoverVirtualMachine",
    "createVolume",
    "attachVolume",
    "detachVolume",
    "deleteVolume",
    "destroyVolume",
    "createSnapshot",
    "deleteSnapshot",
    "poll",
    "cleanup",
)
CALLS = ("create", "clone", "seed", "delete volume", "snapshot", "delete snapshot", "provide_vm_info", "revoke_access")
AGENT_CALLS = ("StartCommand", "StopCommand", "AttachCommand", "DettachCommand", "PingCommand")
ERRORS = (Unavailable("away"), Conflict("held"), InsufficientCapacity("full"), Error("broken"), NotFound("gone"))
LEGAL = {200, 431, 530, 533, 534, 536}

steps = st.tuples(
    st.sampled_from(COMMANDS),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
    st.one_of(
        st.none(),
        st.tuples(st.sampled_from(CALLS), st.sampled_from(ERRORS), st.booleans()),
        st.tuples(st.sampled_from(AGENT_CALLS), st.sampled_from(ERRORS[:4]), st.just(False)),
        st.tuples(st.sampled_from(AGENT_CALLS), st.just(Unknown("no answer")), st.booleans()),
    ),
)


class Player:
    """Plays steps against a cloud; objects are chosen by number among those that there are or were."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.compute, self.template = rig.ready()
        self.offering = rig.disk_offering()
        self.rig.call("updateConfiguration", name="storage.cleanup.delay", value="0")
        self.vms: list[str] = []
        self.volumes: list[str] = []
        self.snapshots: list[str] = []

    def play(self, step: tuple[str, int, int, bool, Any]) -> None:
        command, first, second, flag, fault = step
        if fault is not None:
            name, error, after = fault
            target: Any = self.rig.storpool if name in CALLS else self.rig.hosts["kvm1"]
            target.fail(name, error, after=after)
        if command == "poll":
            self.rig.server.recover()
            self.rig.server.tend()
        elif command == "cleanup":
            self.rig.server.services.recovery.clean_up()
        else:
            parameters = self.parameters(command, first, second, flag)
            if parameters is not None:
                self.send(command, parameters)

    def parameters(self, command: str, first: int, second: int, flag: bool) -> dict[str, Any] | None:
        vm, volume = _pick(self.vms, first), _pick(self.volumes, second)
        if command == "deployVirtualMachine":
            chosen = {"diskofferingid": self.offering} if flag else {}
            return {"zoneid": self.rig.zone(), "serviceofferingid": self.compute, "templateid": self.template} | chosen
        if command == "createVolume":
            snapshot = _pick(self.snapshots, first)
            return (
                {"name": "d", "snapshotid": snapshot}
                if flag and snapshot
                else {"name": "d", "diskofferingid": self.offering}
            )
        if command == "createSnapshot":
            return {"volumeid": volume} if volume else None
        if command == "deleteSnapshot":
            snapshot = _pick(self.snapshots, first)
            return {"id": snapshot} if snapshot else None
        if command == "attachVolume":
            return {"id": volume, "virtualmachineid": vm} if vm and volume else None
        if command.endswith("Volume"):
            return {"id": volume, "expunge": str(flag).lower()} if volume else None
        return {"id": vm, "forced": str(flag).lower(), "expunge": str(flag).lower()} if vm else None

    def send(self, command: str, parameters: dict[str, Any]) -> None:
        reply = self.rig.request(command, **parameters)
        assert reply.status in LEGAL, (command, reply)
        try:
            body = self.rig.envelope(reply)
            made = {"deployVirtualMachine": self.vms, "createVolume": self.volumes, "createSnapshot": self.snapshots}
            if command in made:
                made[command].append(body["id"])
            if "jobid" in body:
                self.rig.wait(body["jobid"])
        except CloudError as error:
            assert error.code in LEGAL, error
            assert "is not allowed in state" not in error.text, error
        self.volumes = [row["id"] for row in self.rig.call("listVolumes").get("volume", [])] or self.volumes

    def settle(self) -> None:
        """Faults are over: the background tasks of the server put right what is left to them."""
        for party in (self.rig.storpool, *self.rig.hosts.values()):
            party.forgive()
        for _ in range(2):
            self.rig.server.recover()
            self.rig.server.tend()
        self.rig.server.services.recovery.clean_up()


def _pick(known: list[str], number: int) -> str | None:
    return known[number % len(known)] if known else None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=25))
def test_no_sequence_of_commands_and_faults_leads_to_an_illegal_state_or_an_internal_error(
    sequence: list[tuple[str, int, int, bool, Any]],
) -> None:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime, config=configuration(ping_interval=3600.0))
    rig.server.start()
    player = Player(rig)
    with mock.patch.object(attachment, "PAUSE", 0.0):
        for step in sequence:
            player.play(step)
        player.settle()
    rig.check_at_rest()
    assert rig.server.stop()
    runtime.kill()
    rig.records.close()
