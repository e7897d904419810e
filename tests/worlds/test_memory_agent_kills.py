"""An agent killed at every point of every command: the next one finishes or undoes what it finds on its host."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.agent.operations import SETTLE_TIME
from harness.agent.recovery import START_SECONDS, Recovery
from harness.agent.secondary import QemuNfs
from harness.runtime.simulated import Simulation
from harness.spi.commands import (
    AnyAnswer,
    AnyCommand,
    AttachCommand,
    DettachCommand,
    PingCommand,
    StartCommand,
    StopCommand,
    StorPoolDownloadTemplateCommand,
    StorPoolModifyStoragePoolCommand,
)
from harness.spi.errors import Unavailable, Unknown
from harness.spi.objects import (
    DataStore,
    Disk,
    ImageFormat,
    StoreRole,
    TemplateObject,
    VirtualMachine,
    VolumeObject,
    VolumeType,
    device_path,
)
from harness.spi.ports import DomainState
from harness.storpool import Secret, StorPoolClient, VolumeCreateDesc
from harness.worlds.memory import model_host, model_qemu_img
from harness.worlds.memory.bootstrap import make_templates
from harness.worlds.memory.image import guest_image
from harness.worlds.memory.processes import EXPORT, STORPOOL, STORPOOL_TOKEN, Processes, agent_of
from harness.worlds.memory.transports import MemoryEndpoint, StorPoolTransport

HOST = "kvm1"
AGENT = agent_of(HOST)
VM = "i-2-7-VM"
SIZE = 8 << 20
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:fast")
STORE = DataStore(id=2, uuid="s", name="secondary", role=StoreRole.IMAGE, provider="NFS", url=EXPORT)
ROOT, DATA, OTHER = 0, 1, 2


@pytest.fixture(autouse=True)
def slow_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough that one which nobody ends outlives whatever waits for its device."""
    monkeypatch.setattr(model_qemu_img, "COPY_SECONDS", 40.0)


class Lab:
    """StorPool, one host with its agent, and three volumes; the agent dies at the points that `deadly` numbers, or at
    the first whose detail ends with `word`."""

    def __init__(self, seed: int, deadly: tuple[int, ...] = (), word: str | None = None) -> None:
        self.points = 0
        """Of the agent and of the programs on its host, since it was armed or killed."""
        self._deadly = list(deadly)
        self._word = word
        self._armed = False
        self.simulation = Simulation(seed, strike=self._strike)
        self.processes = Processes(self.simulation)
        self.machine = self.processes.machines[HOST]
        main = self.simulation.main
        transport = StorPoolTransport(main, self.processes.storpool, Secret(STORPOOL_TOKEN))
        self.transport = transport
        self.storpool = StorPoolClient(transport, main)
        self.endpoint = MemoryEndpoint(main, self.processes.listeners[HOST])
        self.processes.export.files["image.qcow2"] = guest_image().qcow2()
        self.disks: list[Disk] = []

    def prepare(self) -> None:
        self.processes.start(STORPOOL)
        self.processes.start(AGENT)
        make_templates(self.transport)
        for number in (ROOT, DATA, OTHER):
            made = self.storpool.volume_create(VolumeCreateDesc(name=f"v{number}", size=SIZE, template="fast"))
            self.disks.append(
                Disk(
                    path=device_path(made.global_id),
                    serial=f"{number:020d}",
                    device_id=number,
                    size=SIZE,
                    type=VolumeType.DATADISK if number else VolumeType.ROOT,
                )
            )
        assert self.send(self.download(ROOT)).result

    def send(self, command: AnyCommand) -> AnyAnswer:
        return self.endpoint.send(command, timeout=300)

    def download(self, number: int) -> AnyCommand:
        image = TemplateObject(
            id=1, uuid="t", name="t", format=ImageFormat.QCOW2, size=0, store=STORE, path="image.qcow2"
        )
        onto = VolumeObject(
            id=1, uuid="v", name="v", type=VolumeType.ROOT, size=SIZE, store=POOL, path=self.disks[number].path
        )
        return StorPoolDownloadTemplateCommand(source=image, destination=onto)

    def start(self, *numbers: int) -> AnyCommand:
        disks = tuple(self.disks[number] for number in numbers)
        return StartCommand(vm=VirtualMachine(uuid="u-1", name=VM, cpus=1, memory=1 << 27, disks=disks, nics=()))

    def up(self, *numbers: int) -> None:
        """The VM runs with these disks, and its guest has booted."""
        assert self.send(self.start(*numbers)).result
        self.simulation.main.sleep(10)

    def struck(self, command: AnyCommand) -> None:
        """Send it; the agent that dies at it, or as it starts again, is started again until it serves."""
        self._armed = True
        try:
            answer = self.send(command)
        except (Unknown, Unavailable):
            while not self.simulation.alive(AGENT):
                self.processes.start(AGENT)
        else:
            assert answer.result, answer
        self._armed = False

    def killed_at(self, command: AnyCommand) -> None:
        """Send it; the agent dies at it and is not started again."""
        self._armed = True
        with pytest.raises(Unknown):
            self.send(command)
        self._armed = False

    def attached(self) -> set[int]:
        return {number for number in (ROOT, DATA, OTHER) if self.storpool.attachments(f"v{number}")}

    def shown(self) -> set[int]:
        """Disks of the domain that runs."""
        domain = self.machine.domains.get(VM)
        if domain is None or domain.state is not DomainState.RUNNING:
            return set()
        return {int(disk.serial) for disk in domain.disks}

    def records(self) -> list[str]:
        """Records of open operations."""
        return [text for path, text in self.machine.files.items() if "/operations/" in path]

    def settle(self) -> None:
        self.simulation.main.sleep(SETTLE_TIME + 60)

    def _strike(self, process: str, _kind: str, detail: str) -> None:
        if not self._armed or process not in (AGENT, HOST):
            return
        self.points += 1
        if self._word is not None and detail.endswith(self._word):
            self._word = None
            self.simulation.kill(AGENT)
        if self._deadly and self.points == self._deadly[0]:
            self._deadly.pop(0)
            self.points = 0
            self.simulation.kill(AGENT)


@dataclass(frozen=True)
class Case:
    """A command, what runs before it, and the disks that are the VM's once it has succeeded."""

    name: str
    prepare: Callable[[Lab], AnyCommand]
    before: frozenset[int]
    after: frozenset[int]
    goes_on: bool = False
    """Guests may still follow a request after the agent has died."""


def attach(lab: Lab) -> AnyCommand:
    lab.up(ROOT)
    return AttachCommand(vm_name=VM, disk=lab.disks[DATA])


def dettach(lab: Lab) -> AnyCommand:
    lab.up(ROOT, DATA)
    return DettachCommand(vm_name=VM, disk=lab.disks[DATA])


def stop(lab: Lab, *, force: bool = False) -> AnyCommand:
    lab.up(ROOT, DATA)
    return StopCommand(vm_name=VM, force=force, volumes_to_disconnect=(lab.disks[ROOT].path, lab.disks[DATA].path))


def check(lab: Lab) -> AnyCommand:
    return StorPoolModifyStoragePoolCommand(pool=POOL, volume_path=lab.disks[OTHER].path)


NONE: frozenset[int] = frozenset()
ONE = frozenset({ROOT})
BOTH = frozenset({ROOT, DATA})
CASES = (
    Case("start", lambda lab: lab.start(ROOT, DATA), NONE, BOTH),
    Case("stop", stop, BOTH, NONE, goes_on=True),
    Case("stop by force", lambda lab: stop(lab, force=True), BOTH, NONE),
    Case("attach", attach, ONE, BOTH),
    Case("dettach", dettach, BOTH, ONE, goes_on=True),
    Case("download", lambda lab: lab.download(OTHER), NONE, NONE),
    Case("check", check, NONE, NONE),
)


def run(case: Case, seed: int, deadly: tuple[int, ...]) -> int:
    """Kill as told, and look; the points that were passed after the last kill."""
    lab = Lab(seed, deadly)

    def whole(when: str) -> None:
        assert lab.shown() in (case.before, case.after), when
        assert lab.attached() == lab.shown(), when
        assert lab.shown() or VM not in lab.machine.domains, when

    def main() -> None:
        lab.prepare()
        command = case.prepare(lab)
        lab.settle()
        assert not lab.records()
        lab.struck(command)
        if not case.goes_on:
            whole("once the agent serves again")
        assert not lab.machine.programs, "a program writes on"
        lab.settle()
        whole("once everything has settled")
        assert lab.records() == []
        answer = lab.send(command)
        assert answer.result, answer
        assert lab.shown() == lab.attached() == case.after
        lab.settle()
        assert lab.records() == []

    lab.simulation.run(main)
    return lab.points


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_agent_killed_at_any_point_is_followed_by_one_that_leaves_nothing_half_done(case: Case) -> None:
    points = run(case, 1, ())
    assert points > 6
    for point in range(1, points + 1):
        try:
            run(case, 1, (point,))
        except AssertionError as error:
            raise AssertionError(f"killed at point {point} of {points}: {error}") from error


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_agent_that_is_killed_again_while_it_recovers_changes_nothing_about_that(case: Case) -> None:
    points = run(case, 2, ())
    for point in range(1, points + 1):
        for again in range(1, 12, 2):
            try:
                run(case, 2 + again, (point, again))
            except AssertionError as error:
                raise AssertionError(f"killed at point {point} of {points}, then at {again}: {error}") from error


def half_attached(lab: Lab) -> AnyCommand:
    """StorPool has attached the volume, libvirt has not been asked yet, and the agent is dead."""
    lab.prepare()
    command = attach(lab)
    lab.killed_at(command)
    assert lab.attached() == BOTH
    assert lab.shown() == ONE
    return command


def test_an_agent_serves_while_storpool_is_away_and_undoes_once_it_is_back() -> None:
    lab = Lab(1, word="attach-device i-2-7-VM")

    def main() -> None:
        half_attached(lab)
        lab.machine.cuts += 1
        lab.machine.files["/var/lib/splab-agent/operations/torn.json"] = '{"id":"to'
        before = lab.simulation.elapsed
        lab.processes.start(AGENT)
        assert lab.simulation.elapsed - before <= START_SECONDS
        assert lab.send(PingCommand()).result
        lab.simulation.main.sleep(3600)
        assert lab.attached() == BOTH
        lab.machine.cuts -= 1
        lab.simulation.main.sleep(90)
        assert lab.attached() == lab.shown() == ONE
        lab.settle()
        assert lab.records() == ['{"id":"to']

    lab.simulation.run(main)


def test_an_upgraded_agent_reads_what_the_first_one_wrote_and_leaves_alone_what_is_used() -> None:
    """Records did not tell their format then."""
    lab = Lab(1, word="attach-device i-2-7-VM")

    def main() -> None:
        half_attached(lab)
        (name,) = [name for name, text in lab.machine.files.items() if '"acting"' in text]
        first = {
            "id": Path(name).stem,
            "kind": "attach",
            "step": "acting",
            "vm": VM,
            "began_at": 1.5,
            "settles_at": 0.0,
        }
        paths = [lab.disks[ROOT].path, lab.disks[DATA].path]
        lab.machine.files[name] = json.dumps({**first, "paths": paths})
        lab.processes.start(AGENT)
        assert lab.attached() == lab.shown() == ONE
        lab.settle()
        assert lab.attached() == lab.shown() == ONE
        assert lab.records() == []

    lab.simulation.run(main)


def test_the_background_task_outlives_errors_that_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(1, word="attach-device i-2-7-VM")
    looks: list[str] = []

    def broken(*_: object) -> bool:
        looks.append("look")
        raise ValueError("strange XML")

    def main() -> None:
        half_attached(lab)
        with monkeypatch.context() as patch:
            patch.setattr(QemuNfs, "clean_up", broken)
            patch.setattr(Recovery, "_used", broken)
            lab.processes.start(AGENT)
            lab.simulation.main.sleep(600)
        assert len(looks) > 5
        assert lab.attached() == BOTH
        lab.simulation.main.sleep(90)
        assert lab.attached() == lab.shown() == ONE

    lab.simulation.run(main)


def test_records_that_cannot_be_listed_at_the_start_are_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(1, word="attach-device i-2-7-VM")

    def refused(*_: object) -> tuple[str, ...]:
        raise Unavailable("input/output error")

    def main() -> None:
        half_attached(lab)
        with monkeypatch.context() as patch:
            patch.setattr(model_host.ModelHost, "list_directory", refused)
            lab.processes.start(AGENT)
            lab.simulation.main.sleep(600)
        assert lab.attached() == BOTH
        lab.simulation.main.sleep(90)
        assert lab.attached() == lab.shown() == ONE
        lab.settle()
        assert lab.records() == []

    lab.simulation.run(main)


@pytest.mark.parametrize("down", [False, True])
def test_a_clock_that_is_set_back_keeps_an_operation_open_for_twice_its_settle_time_at_most(down: bool) -> None:
    lab = Lab(1, word="attach-device i-2-7-VM")

    def main() -> None:
        half_attached(lab)
        lab.processes.start(AGENT)
        lab.simulation.main.sleep(10)
        assert '"settling"' in lab.records()[0]
        if down:
            lab.simulation.kill(AGENT)
        lab.simulation.clocks[AGENT] = -36000
        if down:
            lab.processes.start(AGENT)
        lab.simulation.main.sleep(2 * SETTLE_TIME + 60)
        assert lab.records() == []

    lab.simulation.run(main)


def test_what_has_settled_is_tried_at_a_bounded_pace_while_storpool_is_away(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab(1, word="attach-device i-2-7-VM")

    def main() -> None:
        half_attached(lab)
        lab.processes.start(AGENT)
        assert lab.attached() == ONE
        lab.machine.cuts += 1
        lab.settle()
        caplog.clear()
        lab.simulation.main.sleep(3600)
        tried = [record for record in caplog.records if "is tried again" in record.getMessage()]
        assert 30 < len(tried) <= 60
        lab.machine.cuts -= 1
        lab.simulation.main.sleep(90)
        assert lab.records() == []

    lab.simulation.run(main)


@pytest.mark.parametrize("seed", range(20))
def test_commands_that_come_while_it_recovers_take_turns_with_it(seed: int) -> None:
    lab = Lab(seed, word="attach-device i-2-7-VM")
    answers: list[AnyAnswer] = []

    def main() -> None:
        again = half_attached(lab)
        lab.machine.cuts += 1
        lab.processes.start(AGENT)
        commands = (
            again,
            lab.start(ROOT),
            lab.download(DATA),
            DettachCommand(vm_name=VM, disk=lab.disks[DATA]),
            StopCommand(vm_name=VM, volumes_to_disconnect=(lab.disks[DATA].path, lab.disks[ROOT].path)),
            lab.start(ROOT),
        )
        for command in commands:
            lab.simulation.main.spawn("command", lambda command=command: answers.append(lab.send(command)))  # type: ignore[misc]  # bound
        lab.simulation.main.sleep(seed)
        lab.machine.cuts -= 1
        lab.simulation.main.sleep(400)
        assert len(answers) == len(commands)
        lab.settle()
        assert lab.attached() == lab.shown()
        assert lab.records() == []
        assert lab.send(lab.start(ROOT)).result

    lab.simulation.run(main)
