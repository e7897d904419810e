"""What every manager of the orchestration is handed."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cloudstack.orchestration.agents import Agents
from harness.cloudstack.primary.files import PoolFiles
from harness.cloudstack.records import Records
from harness.cloudstack.records.passphrases import Passphrases
from harness.spi.driver import DataStoreProvider, PrimaryDataStoreDriver
from harness.spi.locks import KeyedLocks
from harness.spi.ports import Endpoint
from harness.spi.runtime import Runtime

LOCK_TIMEOUT = 900.0
"""Seconds that an operation waits for another one on the same VM or volume."""


@dataclass(frozen=True, slots=True)
class Context:
    """Locks are taken in the order VM, volume, template; keys are row ids."""

    runtime: Runtime
    records: Records
    passphrases: Passphrases
    provider: DataStoreProvider
    """The plugin under test."""
    driver: PrimaryDataStoreDriver
    """The plugin's, and beside it CloudStack's own for pools of other kinds: each gets what is on its pools."""
    files: PoolFiles
    agents: Agents
    secondary: Endpoint
    vm_locks: KeyedLocks
    volume_locks: KeyedLocks
    template_locks: KeyedLocks
