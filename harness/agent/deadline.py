"""One time limit shared by the steps of a command."""

from __future__ import annotations

from harness.spi.runtime import Runtime


class Deadline:
    """`seconds` from now on the runtime's monotonic clock."""

    def __init__(self, runtime: Runtime, seconds: float) -> None:
        self._runtime = runtime
        self._end = runtime.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - self._runtime.monotonic())

    @property
    def passed(self) -> bool:
        return self.remaining <= 0

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        self._runtime.sleep(min(seconds, self.remaining))
