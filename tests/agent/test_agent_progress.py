"""How far a copy is: what qemu-img prints, in pieces and of whatever kind, and what an agent tells of it."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from agent_fakes import MIB, Rig
from test_agent_cancelling import Real, backup, copies, real
from test_agent_copies import FILE

from harness.agent.deadline import Deadline
from harness.agent.progress import LONGEST, Progress
from harness.agent.real_host import RealHost
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import CancelCommand, PingAnswer, PingCommand
from harness.spi.objects import VmPower

__all__ = ["real"]

PRINTED = b"".join(f"    ({percent / 4:.2f}/100%)\r".encode() for percent in range(401)) + b"\n"


def told(*pieces: bytes) -> list[int]:
    seen: list[int] = []
    progress = Progress(seen.append)
    for piece in pieces:
        progress.heard(piece)
    return seen


@pytest.mark.parametrize("length", [1, 2, 7, 16, 19, 64, 65536])
def test_every_percent_is_told_once_however_the_output_is_cut(length: int) -> None:
    pieces = [PRINTED[start : start + length] for start in range(0, len(PRINTED), length)]
    seen = told(*pieces)
    if length < LONGEST * 4:
        assert seen == list(range(101))
    assert seen == sorted(set(seen)) and seen[-1] == 100


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"",),
        (b"\xff\xfe\x00" * 5000,),
        (b"(abc/100%)\r", b"(/100%)", b"(1e9/100%)", b"(-3/100%)", b"(1000/100%)", b"(101.00/100%)"),
        (b"(12.5/100%", b"x)", b"(", b"(((("),
        (b"100%", b"50/100%"),
    ],
)
def test_what_is_no_number_of_percent_tells_nothing(pieces: tuple[bytes, ...]) -> None:
    assert told(*pieces) == []


def test_garbage_between_the_numbers_hides_none_and_none_goes_back() -> None:
    assert told(b"qemu: (40.00/1", b"00%)\rwarning (x/100%) (7.00/100%)", b"\0(41/100%)(200/100%)") == [40, 41]


def test_what_is_kept_of_endless_output_has_a_limit() -> None:
    progress = Progress(lambda _percent: None)
    for _ in range(100):
        progress.heard(b"(" * 4096)
    assert len(progress._rest) <= LONGEST


def test_output_is_told_while_the_program_runs_and_kept_as_ever(tmp_path: Path) -> None:
    runtime = ThreadRuntime("agent")
    host, go = RealHost(runtime), tmp_path / "go"
    heard: list[bytes] = []

    def hear(piece: bytes) -> None:
        # It goes on only when its first line was told.
        heard.append(piece)
        go.touch()

    script = f"echo first; while ! [ -e {go} ]; do sleep 0.02; done; echo last; echo error >&2"
    result = host.run(["sh", "-c", script], timeout=20, output=hear)
    assert (result.rc, result.stdout, result.stderr) == (0, b"first\nlast\n", b"error\n")
    assert heard[0] == b"first\n" and b"".join(heard) == b"first\nlast\n", "of what it writes to stderr nothing is told"
    runtime.kill()


def test_a_real_copy_tells_how_far_it_is_with_each_ping_and_in_the_log(
    real: Real,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="harness.agent")
    real.host.rate = 8 * MIB
    task = real.runtime.spawn("copy", lambda: real.answers.append(real.agent.handle(backup())))
    seen: list[int] = []

    def further() -> bool:
        answer = real.agent.handle(PingCommand())
        assert isinstance(answer, PingAnswer)
        if (percent := answer.copies.get(FILE)) is not None and percent not in seen:
            seen.append(percent)
        return len(seen) >= 3

    real.wait_for("it grew twice", further)
    assert seen == sorted(seen) and seen[-1] < 100, seen
    if not task.join(60):
        real.agent.handle(CancelCommand(path=FILE))
    (answer,) = real.answers
    assert answer.result, answer
    lines = [record.getMessage() for record in caplog.records if "copy to" in record.getMessage()]
    assert 1 < len(lines) <= 10 and lines[-1].endswith("100 %"), lines
    after = real.agent.handle(PingCommand())
    assert isinstance(after, PingAnswer) and after.copies == {}, "it is over"


def test_a_copy_that_tells_nothing_is_not_told_of() -> None:
    copying, rig = copies()
    with copying.run("/dev/a", "file") as copy:
        copy.heard(b"no number")
        assert copying.progress() == {}
        copy.heard(b"(3.99/100%)\r")
        assert copying.progress() == {"file": 3}
        copying.cancel("another", Deadline(rig.clock, 1))
    assert copying.progress() == {}


def test_a_host_that_copies_nothing_answers_as_ever() -> None:
    """A management server of the release before must be able to read it."""
    rig = Rig()
    answer = rig.agent().handle(PingCommand())
    assert isinstance(answer, PingAnswer) and answer.vms == dict[str, VmPower]()
    assert b"copies" not in msgspec.json.encode(answer)
