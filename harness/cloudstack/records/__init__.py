"""CloudStack's records: one SQLite store (design sections 3 and 12)."""

from harness.cloudstack.records.driver import RecordsOfDriver
from harness.cloudstack.records.store import Records, Transaction

__all__ = ["Records", "RecordsOfDriver", "Transaction"]
