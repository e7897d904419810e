"""Commands for one VM are carried out in the order in which the management server sent them, or not at all."""

from __future__ import annotations

from collections import OrderedDict

from harness.spi.errors import Conflict
from harness.spi.runtime import Runtime

LIMIT = 4096
"""VMs remembered at most; the one that is longest without a command is forgotten first."""


class CommandOrder:
    """The latest command of each VM, by the sequence number that the management server gave it.

    A command that was held up on its way, and arrives when its sender has long taken it for lost and sent another one,
    must not undo that one. An agent that starts knows of none: with the old process went the connections that could
    still have brought one.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._guard = runtime.lock("command-order")
        self._latest: OrderedDict[str, int] = OrderedDict()

    def arrived(self, vm: str, sequence: int) -> None:
        """From now on no earlier command for the VM is begun; 0 has no place in the order."""
        if not sequence:
            return
        with self._guard:
            self._latest[vm] = max(sequence, self._latest.get(vm, 0))
            self._latest.move_to_end(vm)
            if len(self._latest) > LIMIT:
                self._latest.popitem(last=False)

    def check(self, vm: str, sequence: int) -> None:
        """Raises `Conflict` when a later command for the VM has arrived."""
        with self._guard:
            latest = self._latest.get(vm, 0)
        if 0 < sequence < latest:
            raise Conflict(
                f"command {sequence} for {vm} came late: command {latest} has been sent since, so nothing was done"
            )
