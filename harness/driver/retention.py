"""Ended operation records: kept for a while, because they tell whose an object is, then forgotten."""

from __future__ import annotations

from harness.driver.operations import Operations
from harness.driver.settings import seconds
from harness.spi.driver import DriverRecords

RETENTION = "storpool.operations.retention"
EVERY = 3600.0
"""Seconds between two rounds."""
AT_ONCE = 1000
"""Operations forgotten in one transaction."""
TRANSACTIONS = 50
"""Of one round at most; what is left waits for the next."""


class Retention:
    """Forgets operations that ended longer ago than the setting says."""

    def __init__(self, operations: Operations, records: DriverRecords) -> None:
        self._operations = operations
        self._records = records
        self._last: float | None = None

    def purge(self) -> None:
        """One round, when it is time for one; raises `InvalidParameter` for a setting that is no number."""
        now = self._operations.now()
        if self._last is not None and 0 <= now - self._last < EVERY:
            return
        self._last = now
        retention = seconds(self._records, RETENTION)
        if not retention:
            return
        for _ in range(TRANSACTIONS):
            if self._records.purge_operations(now - retention, AT_ONCE) < AT_ONCE:
                return
