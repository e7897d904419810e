"""One lock per key, for the operations on one volume, template or VM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.spi.errors import Conflict
from harness.spi.runtime import Lock, Runtime


class KeyedLocks:
    """Locks made on demand and dropped when nobody holds or awaits them."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._guard = runtime.lock(f"{name}-guard")
        self._held: dict[str, tuple[Lock, int]] = {}

    @contextmanager
    def hold(self, key: str, timeout: float) -> Iterator[None]:
        """Hold the lock of `key`; `Conflict` when it was not free within `timeout` seconds."""
        with self._guard:
            lock, users = self._held.get(key) or (self._runtime.lock(f"{self._name}:{key}"), 0)
            self._held[key] = (lock, users + 1)
        try:
            if not lock.acquire(timeout):
                raise Conflict(f"{self._name} {key}: another operation has been holding it for {timeout:g} s")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                users = self._held[key][1] - 1
                if users:
                    self._held[key] = (lock, users)
                else:
                    del self._held[key]
