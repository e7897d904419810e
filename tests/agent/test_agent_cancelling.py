"""Copies that are cancelled: a real qemu-img that is slow, one that has not begun, and commands that come late."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agent_fakes import MIB, FakeApi, FakeHost, FakeHypervisor, FakeSecondary, Rig
from test_agent_copies import FILE, SECONDARY, UPLOADS, Programs, snapshot

from harness.agent.agent import Agent
from harness.agent.deadline import Deadline
from harness.agent.operations import Kind
from harness.agent.real_host import RealHost
from harness.agent.running_copies import LIMIT, Cancelled, RunningCopies
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import AnyAnswer, CancelCommand, StorPoolBackupSnapshotCommand
from harness.spi.errors import ErrorClass, Unavailable, Unknown
from harness.spi.ports import CommandResult, Output
from harness.storpool import RetryPolicy, StorPoolClient

SIZE = 32 * MIB


class SlowHost(FakeHost):
    """qemu-img is real and slow, its device a file; the rest is the rig's."""

    def __init__(self, rig: Rig, runtime: ThreadRuntime, directory: Path) -> None:
        super().__init__(rig)
        self.real = RealHost(runtime)
        self.rate = 128 * 1024
        """Bytes a second."""
        self._directory = directory
        self.device = directory / "device"
        with self.device.open("wb") as file:
            for block in range(SIZE // 4096):
                file.write(block.to_bytes(4, "big") * 1024)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        operation: str | None = None,
        output: Output | None = None,
    ) -> CommandResult:
        words = [self._real(word) for word in argv]
        if words[1] == "convert":
            words[2:2] = ["-r", str(self.rate)]
        return self.real.run(words, stdin=stdin, timeout=timeout, operation=operation, output=output)

    def end_programs(self, operation: str, *, timeout: float) -> None:
        self.real.end_programs(operation, timeout=timeout)

    def _real(self, word: str) -> str:
        if word.startswith("/dev/storpool-byid/"):
            return str(self.device)
        return str(self._directory / word.rpartition("/")[2]) if word.startswith("/mnt/store/") else word


@dataclass
class Real:
    runtime: ThreadRuntime
    rig: Rig
    host: SlowHost
    agent: Agent
    directory: Path
    answers: list[AnyAnswer] = field(default_factory=list)

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = Deadline(self.runtime, 20)
        while not condition():
            assert not deadline.passed, what
            self.runtime.sleep(0.02)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    if shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img (package qemu-utils)")
    rig, runtime = Rig(), ThreadRuntime("agent")
    rig.volume(0, size=SIZE)
    rig.snapshots.add("d.n.1")
    host = SlowHost(rig, runtime, tmp_path)
    client = StorPoolClient(FakeApi(rig), runtime, RetryPolicy(attempts=1))
    agent = Agent(runtime, host, FakeHypervisor(rig), FakeSecondary(rig), client, rig.config)
    yield Real(runtime, rig, host, agent, tmp_path)
    runtime.kill()


def backup(file: str = FILE) -> StorPoolBackupSnapshotCommand:
    source = snapshot(SECONDARY, "/dev/storpool-byid/d.n.1")
    return StorPoolBackupSnapshotCommand(source=source, destination=snapshot(SECONDARY, file), wait=100)


def test_a_real_copy_ends_at_once_cleans_up_and_is_not_begun_again(real: Real) -> None:
    file = real.directory / FILE
    task = real.runtime.spawn("copy", lambda: real.answers.append(real.agent.handle(backup())))
    real.wait_for("qemu-img writes", lambda: file.exists() and file.stat().st_size > MIB // 4)
    assert real.rig.attached == {"d.n.1"}

    answer = real.agent.handle(CancelCommand(path=FILE))
    assert answer.result, answer
    assert real.rig.attached == set(), "before the answer, what the copy had attached is detached"
    assert {record.kind for record in real.rig.records()} <= {Kind.LATE_ATTACH}
    assert task.join(20)
    (cancelled,) = real.answers
    assert not cancelled.result and "cancelled" in cancelled.details, cancelled
    assert cancelled.error_class is ErrorClass.CONFLICT
    written = file.stat().st_size

    late = real.agent.handle(backup())
    assert not late.result and "cancelled" in late.details, late
    assert (file.stat().st_size, real.rig.attached) == (written, set())
    assert real.agent.handle(CancelCommand(path=FILE)).result, "a second time there is nothing to end"

    real.host.rate = 100 * MIB
    other = real.agent.handle(backup("another-try"))
    assert other.result, "another copy of the same snapshot is another matter"


def test_a_copy_that_waits_for_another_ends_without_having_begun(real: Real) -> None:
    first = real.runtime.spawn("first", lambda: real.answers.append(real.agent.handle(backup("first"))))
    real.wait_for("the first is at work", (real.directory / "first").exists)
    second = real.runtime.spawn("second", lambda: real.answers.append(real.agent.handle(backup("second"))))
    assert real.agent.handle(CancelCommand(path="second", wait=5)).result, "what has not begun is not waited for"
    assert real.agent.handle(CancelCommand(path="first")).result
    assert first.join(20) and second.join(20)
    assert ["cancelled" in answer.details for answer in real.answers] == [True, True], real.answers
    assert not (real.directory / "second").exists()


@pytest.mark.parametrize("what", UPLOADS)
def test_a_command_that_comes_after_its_cancellation_does_nothing(what: str) -> None:
    programs = Programs(size=SIZE)
    rig = Rig(programs=programs)
    agent = rig.agent()
    command = UPLOADS[what](rig.volume(0, size=SIZE).path)
    assert agent.handle(CancelCommand(path=str(command.destination.path))).result
    answer = agent.handle(command)
    assert not answer.result and answer.error_class is ErrorClass.CONFLICT and "cancelled" in answer.details, answer
    assert (programs.ran, rig.attached, rig.steps) == ([], set(), [])
    assert rig.agent().handle(command).result, "a new agent knows of nothing that was cancelled"


def test_the_copy_of_a_dead_agent_is_ended_before_the_answer() -> None:
    rig = Rig(programs=Programs(size=SIZE))
    path = rig.volume(0, size=SIZE).path
    rig.fail("qemu-img convert", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        rig.agent().handle(UPLOADS["template"](path))
    assert rig.attached == {"d.n.1"}
    rig.steps.clear()
    rig.fail("end programs", Unknown("it hangs in I/O"))
    agent = rig.agent()
    refused = agent.handle(CancelCommand(path=path))
    assert not refused.result and "hangs in I/O" in refused.details, "who may still write is not said to have ended"
    assert agent.handle(CancelCommand(path=path)).result
    assert (rig.attached, "end programs" in rig.steps) == (set(), True)


def copies() -> tuple[RunningCopies, Rig]:
    rig = Rig()
    return RunningCopies(rig.clock, FakeHost(rig)), rig


def test_what_went_wrong_as_a_cancelled_copy_cleaned_up_is_told() -> None:
    copying, rig = copies()

    def fail() -> None:
        with copying.run("a", "b") as copy:
            copy.begin()
            copy.cancelled = True
            error = Unavailable("exit status -9")
            error.add_note("a stays attached")
            raise error

    with pytest.raises(Cancelled, match="between a and b was cancelled") as caught:
        fail()
    assert caught.value.__notes__ == ["a stays attached"]
    copying.cancel("a", Deadline(rig.clock, 1))


def test_a_program_that_does_not_end_stays_unknown() -> None:
    copying, _ = copies()
    with pytest.raises(Unknown), copying.run("a") as copy:
        copy.cancelled = True
        raise Unknown("it hangs in I/O")


def test_cancelled_paths_are_remembered_up_to_a_limit() -> None:
    copying, rig = copies()
    for number in range(LIMIT + 1):
        copying.cancel(f"path-{number}", Deadline(rig.clock, 1))
    with copying.run("path-0"):
        pass
    with pytest.raises(Cancelled), copying.run("path-1"):
        pass
