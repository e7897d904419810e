"""Effects off the event loop: a bounded number of threads, whose outcomes come back to the service's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from simulator.cluster.effects import Failure
from simulator.effects import Done, Work


class Workers:
    """Implements `simulator.effects.Effects`. The calls that may be under way at once bound its queue."""

    def __init__(self, threads: int, crashed: Callable[[BaseException], None]) -> None:
        """`crashed` hears of an exception that the work should have turned into a `Failure`: a defect, after which what
        the blocks hold is known only to the next start."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="effects")
        self._crashed = crashed
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.after_each: Callable[[], None] = lambda: None
        """Called on the event loop when the service has heard of an outcome."""

    def start(self, work: Work, done: Done) -> None:
        self.in_flight += 1
        self._idle.clear()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(lambda finished: self._finish(finished, done))

    def _finish(self, finished: asyncio.Future[Failure | None], done: Done) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()
        error = finished.exception()
        if error is not None:
            self._crashed(error)
            return
        try:
            done(finished.result())
        except Exception as defect:  # the service failed half way; the next start has the journal
            self._crashed(defect)
            return
        self.after_each()

    async def drain(self, seconds: float) -> bool:
        """Wait until nothing is under way; whether that came in time."""
        try:
            async with asyncio.timeout(seconds):
                while self.in_flight:
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Work that was not begun is dropped; the next start discards its change."""
        self._pool.shutdown(wait=False, cancel_futures=True)
