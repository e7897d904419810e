"""The retry policy: bounded in number and time, and never blind."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, Error, Unavailable, Unknown
from harness.storpool import RetryPolicy


class Clock(ThreadRuntime):
    """Sleeping moves the clock and takes no time; chance is what the test says."""

    def __init__(self, chance: float = 0.5) -> None:
        super().__init__("clock")
        self.time = 100.0
        self.slept: list[float] = []
        self.chance = chance

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def random(self) -> float:
        return self.chance


@dataclass
class Calls:
    """Raises what it was given, one after the other, and then answers."""

    errors: list[Error]
    clock: Clock
    each_takes: float = 0.0
    made: int = field(default=0)

    def __call__(self) -> str:
        self.made += 1
        self.clock.time += self.each_takes
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@given(st.integers(1, 8), st.integers(0, 12), st.floats(0, 0.999))
def test_attempts_are_bounded_and_pauses_grow_within_their_bounds(attempts: int, failures: int, chance: float) -> None:
    policy, clock = RetryPolicy(attempts=attempts, deadline=10_000), Clock(chance)
    calls = Calls([Unavailable("down")] * failures, clock)
    if failures < attempts:
        assert policy.run(clock, calls, repeatable=False) == "answer"
    else:
        with pytest.raises(Unavailable):
            policy.run(clock, calls, repeatable=False)
    assert calls.made == min(failures + 1, attempts)
    assert clock.slept == sorted(clock.slept)
    assert all(policy.first_delay * policy.jitter <= pause <= policy.largest_delay for pause in clock.slept)


def test_no_attempt_starts_after_the_deadline() -> None:
    clock = Clock()
    calls = Calls([Unavailable("down")] * 100, clock, each_takes=7)
    with pytest.raises(Unavailable):
        RetryPolicy(attempts=100, deadline=30).run(clock, calls, repeatable=True)
    assert 2 <= calls.made <= 5


def test_an_unknown_outcome_is_repeated_only_when_that_is_harmless() -> None:
    clock = Clock()
    change = Calls([Unknown("lost")], clock)
    with pytest.raises(Unknown):
        RetryPolicy().run(clock, change, repeatable=False)
    assert (change.made, clock.slept) == (1, [])
    assert RetryPolicy().run(clock, Calls([Unknown("lost")], clock), repeatable=True) == "answer"


def test_a_definite_refusal_is_not_repeated() -> None:
    clock = Clock()
    calls = Calls([Conflict("held")], clock)
    with pytest.raises(Conflict):
        RetryPolicy().run(clock, calls, repeatable=True)
    assert calls.made == 1
