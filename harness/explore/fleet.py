"""Shares out seeds over processes of this machine, or over a Dask cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.explore.shard import Totals, run_share

SHARE = 20
"""Seeds of one share: a second or so, so that a run ends soon after its time."""
CONNECT_SECONDS = 10
"""Until a Dask scheduler must have answered."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Which seeds to run: `runs` numbers from `first` on, for at most `seconds`."""

    first: int
    runs: int | None
    seconds: float | None
    most_failures: int = 20
    """No new share is begun after so many failing seeds."""

    def shares(self, goes_on: Callable[[], bool]) -> Iterator[list[int]]:
        at, end = self.first, None if self.runs is None else self.first + self.runs
        while goes_on() and (end is None or at < end):
            share = list(range(at, at + SHARE if end is None else min(at + SHARE, end)))
            yield share
            at += len(share)


def explore(budget: Budget, jobs: int, scheduler: str | None, progress: Callable[[Totals], None]) -> Totals:
    """Run the budget's seeds; `progress` is called after each share with the sums so far."""
    totals = Totals()
    deadline = None if budget.seconds is None else time.monotonic() + budget.seconds

    def goes_on() -> bool:
        in_time = deadline is None or time.monotonic() < deadline
        return in_time and len(totals.failing) < budget.most_failures

    def take(share: Totals) -> None:
        totals.add(share)
        progress(totals)

    shares = budget.shares(goes_on)
    if jobs == 1 and scheduler is None:
        for share in shares:
            take(run_share(share))
        return totals
    with _executor(jobs, scheduler) as (executor, width):
        running: set[concurrent.futures.Future[Totals]] = set()
        more = True
        while more or running:
            while more and len(running) < 2 * width:
                found = next(shares, None)
                if found is None:
                    more = False
                else:
                    running.add(executor.submit(run_share, found))
            done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                take(future.result())
    return totals


@contextlib.contextmanager
def _executor(jobs: int, scheduler: str | None) -> Iterator[tuple[concurrent.futures.Executor, int]]:
    """Where shares run, and how many at a time."""
    if scheduler is None:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
            yield pool, jobs
        return
    try:
        import distributed
    except ImportError as error:
        raise ValueError("--scheduler needs the extra `cluster`: pip install 'splab[cluster]'") from error
    with distributed.Client(scheduler, timeout=CONNECT_SECONDS) as client:
        width = sum(client.nthreads().values())
        if not width:
            raise ValueError(f"the Dask scheduler {scheduler} has no workers")
        yield client.get_executor(pure=False), width
