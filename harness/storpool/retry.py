"""When a call is made again: never from here a change whose outcome is unknown (StorPool's changes are POST)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from harness.spi.errors import Unavailable, Unknown
from harness.spi.runtime import Runtime

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds and pace of retries. Times are seconds."""

    attempts: int = 6
    deadline: float = 120.0
    """From the first attempt to the start of the last."""
    first_delay: float = 0.2
    largest_delay: float = 8.0
    jitter: float = 0.5
    """Share of each delay that is left to chance."""

    def delay(self, attempt: int, chance: float) -> float:
        """Pause after attempt 1, 2, ...; `chance` is in [0, 1)."""
        whole = min(self.first_delay * 2.0 ** (attempt - 1), self.largest_delay)
        return whole * (1 - self.jitter * chance)

    def run(self, runtime: Runtime, action: Callable[[], T], *, repeatable: bool) -> T:
        """Make a call until it succeeds or the bounds are reached; then its last error is raised.

        Made again: a call that was not carried out (`Unavailable`); of unknown outcome only a `repeatable` one.
        """
        start = runtime.monotonic()
        attempt = 1
        while True:
            try:
                return action()
            except Unavailable:
                pause = self._pause(runtime, attempt, start)
                if pause is None:
                    raise
            except Unknown:
                pause = self._pause(runtime, attempt, start) if repeatable else None
                if pause is None:
                    raise
            runtime.sleep(pause)
            attempt += 1

    def _pause(self, runtime: Runtime, attempt: int, start: float) -> float | None:
        """How long to wait before the next attempt; None when this was the last."""
        if attempt >= self.attempts:
            return None
        pause = self.delay(attempt, runtime.random())
        return None if runtime.monotonic() + pause > start + self.deadline else pause
