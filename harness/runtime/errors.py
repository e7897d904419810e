"""How a simulated run ends when it does not end well."""

from __future__ import annotations

from collections.abc import Sequence


class SimulationError(Exception):
    """Root of the errors that the simulated runtime itself raises at the end of a run."""


class DeadlockError(SimulationError):
    """Every task waits and none for time to pass; the text lists each task, its stack and what it waits for."""


class BoundError(SimulationError):
    """The run took more steps or virtual seconds than it may; the text lists the tasks as in a deadlock."""


class TaskErrors(SimulationError):
    """Errors that escaped spawned tasks, by task."""

    def __init__(self, errors: Sequence[tuple[str, BaseException]]) -> None:
        lines = [f"{task}: {type(error).__name__}: {error}" for task, error in errors]
        super().__init__("errors escaped from spawned tasks:\n" + "\n".join(lines))
        self.errors = tuple(errors)
