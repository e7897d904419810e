"""What every command handler works with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from harness.agent.adaptor import StorageAdaptor
from harness.agent.arrivals import Arrivals
from harness.agent.command_order import CommandOrder
from harness.agent.config import AgentConfig
from harness.agent.operations import Operations
from harness.agent.running_copies import RunningCopies
from harness.agent.unplugs import Unplugs
from harness.spi.locks import KeyedLocks
from harness.spi.ports import Host, Hypervisor, Secondary
from harness.spi.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Tools:
    """Ports, adaptor, locks, open operations and open requests of one agent."""

    runtime: Runtime
    host: Host
    hypervisor: Hypervisor
    secondary: Secondary
    adaptor: StorageAdaptor
    config: AgentConfig
    order: CommandOrder
    vm_locks: KeyedLocks
    volume_locks: KeyedLocks
    unplugs: Unplugs
    arrivals: Arrivals
    operations: Operations
    copies: RunningCopies

    @contextmanager
    def vm(self, name: str, sequence: int, timeout: float) -> Iterator[None]:
        """Hold the VM for a command; `Conflict` when it is not free in time, or a later command has arrived."""
        self.order.arrived(name, sequence)
        with self.vm_locks.hold(name, timeout):
            self.order.check(name, sequence)
            yield

    @contextmanager
    def volumes(self, paths: Iterable[str], timeout: float) -> Iterator[None]:
        """Hold the locks of these volumes, taken in one order everywhere; `Conflict` when one is not free in time."""
        with ExitStack() as stack:
            for path in sorted(set(paths)):
                stack.enter_context(self.volume_locks.hold(path, timeout))
            yield
