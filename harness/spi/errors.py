"""The error tree of the production code.

    Error                      what was tried, on what, what to do next
    ├── InvalidParameter       the caller asked for something that cannot be
    ├── NotFound               the named object does not exist
    ├── Conflict               somebody else holds the object, or it exists with other attributes
    ├── InsufficientCapacity   no space, no host, no free slot
    ├── Unavailable            the other party could not be reached; nothing was done there
    ├── Unknown                the request left, the answer did not come: it may have been carried out, now or later
    ├── IllegalTransition      a state machine was asked for an event it does not know in this state
    └── MisuseError            a rule of the runtime was broken by our own code

`Dead` stands beside the tree: it is raised in a process that was killed and must never be caught.
"""

from __future__ import annotations

import enum


class ErrorClass(enum.StrEnum):
    """How a caller may go on after an error (design section 4)."""

    TRANSIENT = "transient"
    """Try again later, with back-off."""
    CONFLICT = "conflict"
    """Somebody else must let go first."""
    PERMANENT = "permanent"
    """The same request will fail again."""
    UNKNOWN = "unknown"
    """Read back before doing anything else."""


class Error(Exception):
    """Root of all errors that production code raises on purpose."""

    error_class: ErrorClass = ErrorClass.PERMANENT


class InvalidParameter(Error):
    """A parameter is malformed, out of range or contradicts another one."""


class NotFound(Error):
    """The object that was named does not exist."""


class Conflict(Error):
    """The object is held by somebody else; the text says by whom."""

    error_class = ErrorClass.CONFLICT


class InsufficientCapacity(Error):
    """There is no space, host or slot left for what was asked."""


class Unavailable(Error):
    """The other party was not reached, so nothing was done there."""

    error_class = ErrorClass.TRANSIENT


class Unknown(Error):
    """The answer was lost: the request may have been carried out, or may be later."""

    error_class = ErrorClass.UNKNOWN


class IllegalTransition(Error):
    """An event arrived in a state that does not know it; nothing was changed."""

    def __init__(self, machine: str, state: str, event: str) -> None:
        super().__init__(f"{machine}: event {event} is not allowed in state {state}")
        self.machine = machine
        self.state = state
        self.event = event


class MisuseError(Error):
    """Our own code broke a rule of the runtime, for example a network call inside a record transaction."""


class Dead(BaseException):
    """This process was killed: from now on none of its calls has an effect. Never caught by production code."""
