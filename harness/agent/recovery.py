"""Finishes or undoes operations that no command works on any more, by looking at domains and attachments.

At start-up, before the agent serves; in the background for as long as StorPool or libvirt are away, and once more when
an operation has settled; and before a command for the same VM or volume, unless it stops the VM. What is looked at
decides, never what the record says was done, so it is right at any time: locks keep running commands out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import read_disks
from harness.agent.fetching import file_of
from harness.agent.operations import COPIES, LENDERS, Kind, Record, Step
from harness.agent.secrets import take_back_left
from harness.agent.tools import Tools
from harness.spi.errors import Conflict, Error, MisuseError, NotFound, Unavailable
from harness.spi.objects import is_storpool_path
from harness.spi.ports import ON

_log = logging.getLogger("harness.agent")

START_SECONDS = 10.0
"""How long the start of the agent waits for the first look at everything; it goes on in the background."""
LOOK_SECONDS = 20.0
"""How long one operation may take to be concluded, beside the last call. Its VM and volumes are held so long."""
RETRY_SECONDS = (5.0, 60.0)
"""Between attempts: at first, and after doubling at most."""
PROGRAM_SECONDS = 10.0
"""How long a program that was killed may take to end."""


class Recovery:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def load(self) -> None:
        """Find what an earlier agent left, and do nothing about it yet."""
        self._tools.operations.load()

    def start(self) -> None:
        """Look at what an earlier agent left, for at most `START_SECONDS`, and tend to it from then on."""
        self.load()
        looked = self._tools.runtime.event("recovery")

        def tend() -> None:
            failed = self.look_at_all()
            self._take_back_strays()
            looked.set()
            try:
                self._tools.secondary.clean_up()
            except MisuseError:
                raise
            except Exception:
                _log.exception("what an earlier agent may have left of image stores could not be cleaned up")
            self._tend(failed or self._tools.operations.incomplete)

        self._tools.runtime.spawn("recovery", tend)
        if not looked.wait(START_SECONDS):
            _log.warning("operations that were left open are not all concluded yet; commands are served meanwhile")

    def look_at_all(self) -> bool:
        """One attempt at everything that is left, also before it has settled; whether any failed."""
        return self._attempt(self._tools.operations.left())

    def before_command(self, vm: str | None, paths: Iterable[str], seconds: float) -> None:
        """Conclude what is left open of this VM and these volumes.

        What fails is logged and stays for later: the command may be what helps. Only a copy that may still be written
        to keeps others off its volume, with `Unknown`, or the error that kept it from being looked at.
        """
        wanted = set(paths)
        deadline = Deadline(self._tools.runtime, seconds)
        for record in self._tools.operations.left():
            if record.step is Step.SETTLING or not (wanted & set(record.paths) or (vm is not None and vm == record.vm)):
                continue
            if deadline.passed and record.kind not in COPIES:
                continue
            try:
                self._conclude(record, deadline)
            except MisuseError:
                raise
            except Exception as error:
                if record.kind in COPIES:
                    raise
                _tell(record, "could not be concluded before the next command", error)

    def _tend(self, failed: bool) -> None:
        operations = self._tools.operations
        pause, longest = RETRY_SECONDS
        while True:
            operations.await_change(pause if failed else self._first_settles_in())
            if operations.incomplete:
                operations.load()
            self._follow_clock()
            failed = self._attempt(
                record for record in operations.left() if record.step is Step.ACTING or operations.settled(record)
            )
            failed = failed or operations.incomplete
            pause = min(2 * pause, longest) if failed else RETRY_SECONDS[0]

    def _take_back_strays(self) -> None:
        """Passphrases that an agent lent to libvirt, and of which no record is left."""
        tools = self._tools
        try:
            found = tools.hypervisor.secrets()
        except Error as error:
            _log.error("passphrases that an earlier agent may have left with libvirt cannot be looked for: %s", error)
            return
        for path in filter(is_storpool_path, found):
            try:
                with tools.volumes([path], 0.0):
                    if not any(path in record.paths for record in tools.operations.left()):
                        tools.hypervisor.undefine_secret(path)
            except Error as error:
                # A command that has begun meanwhile holds the volume, and takes its passphrase back itself.
                _log.warning("the passphrase of %s stays with libvirt: %s", path, error)

    def _follow_clock(self) -> None:
        """What the clock was set back for settles in its time from now; looked at again when that is over at most."""
        operations = self._tools.operations
        for record in operations.left():
            if operations.set_back(record):
                try:
                    operations.settle(record)
                except Error as error:
                    _tell(record, "settles late, for the clock was set back", error)

    def _first_settles_in(self) -> float | None:
        """Seconds; None when nothing is settling."""
        operations = self._tools.operations
        waits = [operations.settles_in(record) for record in operations.left() if record.step is Step.SETTLING]
        return max(0.0, min(waits)) if waits else None

    def _attempt(self, records: Iterable[Record]) -> bool:
        failed = False
        for record in records:
            try:
                self._conclude(record, Deadline(self._tools.runtime, LOOK_SECONDS))
            except MisuseError:
                raise
            except Exception as error:
                # One that cannot be dealt with must not end what tends to all the others.
                _tell(record, "could not be concluded and is tried again", error)
                failed = True
        return failed

    def _conclude(self, record: Record, deadline: Deadline) -> None:
        """Finish or undo it, then let it settle; with its settle time over, end it."""
        tools = self._tools
        with ExitStack() as stack:
            if record.vm is not None:
                stack.enter_context(tools.vm_locks.hold(record.vm, deadline.remaining))
            if record.kind is Kind.MIGRATE and record.vm is not None and record.step is Step.ACTING:
                tools.hypervisor.cancel_migration(record.vm, timeout=deadline.remaining)
            off = (
                record.kind in (Kind.START, Kind.STOP, Kind.MIGRATE)
                and record.vm is not None
                and self._is_off(record.vm)
            )
            paths = dict.fromkeys(record.paths)
            if off and record.vm is not None:
                paths |= dict.fromkeys(self._disks(record.vm))
            stack.enter_context(tools.volumes(paths, deadline.remaining))
            if not tools.operations.holds(record):
                return
            if record.kind in COPIES:
                tools.host.end_programs(record.id, timeout=min(PROGRAM_SECONDS, deadline.remaining))
            if record.kind in LENDERS:
                # A disk of a VM that is awaited was lent once more, and that has a record of its own.
                take_back_left(tools.hypervisor, set(record.paths) - tools.arrivals.paths())
            if record.kind is Kind.DIRECT_DOWNLOAD:
                tools.host.remove(file_of(tools.config, record.id))
            released = self._release(record, list(paths), deadline)
            if off and released and record.vm is not None:
                tools.hypervisor.undefine(record.vm)
                tools.secondary.let_go(record.vm)
            if record.step is Step.ACTING:
                tools.operations.settle(record)
                _log.info("%s is finished or undone, and is looked at again when it has settled", record)
            elif tools.operations.settled(record):
                tools.operations.end(record)
                _log.info("%s has settled", record)

    def _release(self, record: Record, paths: list[str], deadline: Deadline) -> bool:
        """Detach what no running domain has; False when something else has one of them open and keeps it."""
        used = self._used()
        released = True
        problem: Error | None = None
        for path in reversed(paths):
            if path in used or not is_storpool_path(path):
                continue
            if deadline.passed:
                raise problem or Unavailable(f"its time was over before {path} could be detached")
            try:
                self._tools.adaptor.disconnect(path, timeout=deadline.remaining)
            except Conflict as error:
                _log.error("%s: %s", record, error)
                released = False
            except Error as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return released

    def _used(self) -> set[str]:
        """Devices that a domain which runs or is paused has, or one that is about to be migrated here."""
        states = self._tools.hypervisor.domains()
        found = {path for name, state in states.items() if state in ON for path in self._disks(name)}
        return found | self._tools.arrivals.paths()

    def _is_off(self, vm: str) -> bool:
        return self._tools.hypervisor.domains().get(vm) not in ON

    def _disks(self, vm: str) -> list[str]:
        try:
            return [disk.source for disk in read_disks(self._tools.hypervisor.xml(vm))]
        except NotFound:
            return []


def _tell(record: Record, what: str, error: Exception) -> None:
    """With its traceback, when it is none that this agent raises on purpose."""
    _log.warning("%s %s: %s", record, what, error, exc_info=None if isinstance(error, Error) else error)
