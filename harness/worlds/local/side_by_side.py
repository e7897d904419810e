"""Cases on several local labs at once: a worker process for each lab, in a container (lab/local/container.py)."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import msgspec

from harness.report.stream import Event, Listener, Note, WorldFailed, decode
from harness.worlds.local.worker import DONE, Order
from lab.claim import claim_local
from lab.errors import LabError
from lab.local import container
from lab.local.down import down
from lab.local.layout import State, default_state
from lab.local.machine_lock import owner
from scenarios.registry import Case

WORKER = (sys.executable, "-m", "harness.worlds.local.worker")
BATCH = 3
"""Cases of a row that one lab gets at a time."""
PER_LAB = 10
"""A lab takes a quarter of a minute to come up, so a further one is for further cases."""
END_SECONDS = 120.0
"""How long a worker may take its lab down."""
SAID = 2000


def labs_for(cases: Sequence[Case], wanted: int | None) -> int:
    """How many labs to use. One where a lab is up already: that is used, and stays."""
    if owner() is not None:
        return 1
    # Half of a case is waiting: with one lab more than there are cores these idle for a sixth of a run.
    limit = min((os.cpu_count() or 1) + 2, len(cases) // PER_LAB) if wanted is None else wanted
    return max(1, min(limit, len(batches(cases))))


class SideBySide:
    """Several labs, each brought up, used by one worker and taken down. What one worker fails at, it fails alone."""

    name = "local"

    def __init__(self, labs: int) -> None:
        self._labs = labs

    def run_all(self, cases: Sequence[Case], listen: Listener, began: float) -> None:
        run = Shared(listen, began, batches(cases))
        try:
            claim = claim_local()
        except LabError as error:
            run.fail("cannot be used", error)
            return
        try:
            self._run(run)
        except Exception as error:
            run.fail("cannot be used", error)
        finally:
            claim.release()

    def _run(self, run: Shared) -> None:
        root = default_state()
        # What is up when this fails is not ours to take down.
        containers = container.make(root, self._labs, lambda text: run.note(f"local: {text}"))
        try:
            run.work(containers)
        finally:
            try:
                down(root)
            except Exception as error:
                run.fail("was not torn down", error)


def batches(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases that are best run one after the other in one lab: all of a site, which takes a lab of its own, else a few
    of one row. The longest come first, so that no lab is long at work alone."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.site, "" if case.site else str(case.row)), []).append(case)
    found = []
    for (site, _), group in groups.items():
        size = len(group) if site else BATCH
        found += [group[first : first + size] for first in range(0, len(group), size)]
    return sorted(found, key=len, reverse=True)


class Startable(Protocol):
    """What a worker is started in: a container, but for tests."""

    @property
    def state(self) -> State: ...

    def start(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]: ...


class Shared:
    """What is still to do in one run, and who is told what came of it."""

    def __init__(self, listen: Listener, began: float, todo: list[list[Case]]) -> None:
        self._listen = listen
        self.began = began
        """When the run began, by the clock of `time.monotonic`."""
        self._lock = threading.Lock()
        self.interrupted = False
        self._todo: queue.SimpleQueue[list[Case]] = queue.SimpleQueue()
        for batch in todo:
            self._todo.put(batch)

    def tell(self, event: Event) -> None:
        with self._lock:
            self._listen(event)

    def note(self, text: str) -> None:
        self.tell(Note(at=time.monotonic() - self.began, text=text))

    def fail(self, what: str, error: Exception) -> None:
        detail = "".join(traceback.format_exception(error))
        why = f"world local {what}: {error}"
        self.tell(WorldFailed(at=time.monotonic() - self.began, world="local", why=why, detail=detail))

    def work(self, containers: Sequence[Startable]) -> None:
        """Returns when all is done, or all workers have ended."""
        workers = [_Worker(self, each) for each in containers]
        threads = [threading.Thread(target=worker.run, args=(self._todo,)) for worker in workers]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            # That a worker ends which was told to is nothing to tell.
            self.interrupted = True
            raise
        finally:
            for worker in workers:
                worker.stop()


class _Worker:
    def __init__(self, run: Shared, own: Startable) -> None:
        self._run = run
        self._name = own.state.root.name
        self._log = own.state.root / "worker.log"
        self._process = own.start(WORKER, self._log)

    def run(self, todo: queue.SimpleQueue[list[Case]]) -> None:
        """Have cases run until there are none left; in a thread of its own."""
        try:
            while batch := _next(todo):
                self._order(batch)
            self._input.close()
            self._read()
            self._process.wait(END_SECONDS)
        except (OSError, ValueError, LabError, subprocess.TimeoutExpired) as error:
            if not self._run.interrupted:
                self._run.fail(f"cannot be used: {self._name}", error)
        finally:
            self.stop()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()

    def stop(self) -> None:
        """Returns when it has ended, which it does after its lab is down."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_SECONDS)

    def _order(self, batch: list[Case]) -> None:
        order = Order(cases=[case.id for case in batch], began=self._run.began)
        self._input.write(msgspec.json.encode(order) + b"\n")
        self._input.flush()
        if not self._read():
            said = _end_of(self._log)
            error = LabError(f"its worker ended: {said.splitlines()[-1]}")
            error.add_note(said)
            raise error

    def _read(self) -> bool:
        """Pass on what comes, until an order is done; False when nothing comes any more."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == DONE:
                return True
            event = decode(line)
            if isinstance(event, Note):
                event = msgspec.structs.replace(event, text=f"{self._name}: {event.text.removeprefix('local: ')}")
            self._run.tell(event)
        return False

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin


def _next(todo: queue.SimpleQueue[list[Case]]) -> list[Case] | None:
    try:
        return todo.get_nowait()
    except queue.Empty:
        return None


def _end_of(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-SAID:].strip() or "it said nothing"
    except OSError:
        return "its log cannot be read"
