"""Programs of a model machine that take their time."""

from __future__ import annotations

from dataclasses import dataclass

from harness.runtime.process import SimulatedEvent, SimulatedRuntime


@dataclass(slots=True, eq=False)
class ModelProgram:
    """One that runs. It goes on when the agent that started it dies."""

    runtime: SimulatedRuntime
    """Of the machine's hardware."""
    operation: str | None
    """What `Host.end_programs` finds it by."""
    killed: SimulatedEvent
    reads: int | None = None
    """The object that it has open, if it never writes to it."""
    copies: str = ""
    """The command line, of one that copies."""
    slowness: float = 1.0
    """How many times as long it takes as it would."""
    _shares: tuple[float, float] = (0.0, 0.0)
    """Parts of all its work that were done before, and will be done after, what it does now."""
    _began: float = 0.0
    _lasts: float = 0.0

    def work(self, seconds: float, share: float) -> bool:
        """Let so much time pass, after which this share of all its work is done; whether it was killed."""
        self._shares = (self._shares[1], share)
        self._began, self._lasts = self.runtime.monotonic(), seconds * self.slowness
        return self.killed.wait(self._lasts)

    @property
    def share(self) -> float:
        """Of its work that is done, from 0 to 1."""
        before, after = self._shares
        passed = min(1.0, (self.runtime.monotonic() - self._began) / self._lasts) if self._lasts else 0.0
        return before + (after - before) * passed
