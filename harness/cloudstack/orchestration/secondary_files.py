"""Files on secondary storage that are to go.

Whoever was asked to write one may do so after the request was taken to have failed, so the row of a file stays until
nobody can write it any more, and the file is deleted once more then.
"""

from __future__ import annotations

from harness.cloudstack import settings
from harness.cloudstack.orchestration.agents import ask
from harness.cloudstack.records import Transaction
from harness.spi.commands import DeleteCommand
from harness.spi.objects import DataStore
from harness.spi.ports import Endpoint

LATE = 600.0
"""Seconds after which a request that was never answered is taken to be dead."""
DELETE_WAIT = 60.0


def delete(secondary: Endpoint, store: DataStore, path: str) -> None:
    """It is gone when this returns, also when it was not there."""
    ask(secondary, DeleteCommand(store=store, path=path, wait=DELETE_WAIT))


def is_still(tx: Transaction, asked_at: float, *waits: str) -> bool:
    """Whether nobody can begin any more to write a file that was asked for at `asked_at`.

    `waits` name the settings of how many seconds that may take; the longest counts.
    """
    return tx.now >= asked_at + max(settings.seconds(tx, name) for name in waits) + LATE
