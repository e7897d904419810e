"""What is durable of a whole cloud at rest, from which worlds start without booting one each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.observers import Environment
from harness.worlds.memory.model_domain import ModelDomain
from simulator.blocks.memory import MemoryBlocks


@dataclass(frozen=True, slots=True)
class PreparedCluster:
    """Of one StorPool simulator."""

    journal: tuple[bytes, ...]
    blocks: MemoryBlocks


@dataclass(frozen=True, slots=True)
class Prepared:
    """Taken by `MemoryWorld.durable`; nobody changes what is in it, each world takes copies.

    No API job is open and the management server has nothing left to recover, so that what its process had in memory is
    what a new one begins with. Agents are started anew, over the domains that run.
    """

    records: bytes
    """CloudStack's, as `Records.image` gives them."""
    clusters: tuple[PreparedCluster, ...]
    """In the order of the site."""
    calls: Mapping[str, int]
    """Calls that the StorPool API had served, by name."""
    domains: Mapping[str, Mapping[str, ModelDomain]]
    """By host and name."""
    host_files: Mapping[str, Mapping[str, str]]
    """By host and path."""
    files: Mapping[str, bytes]
    """On the NFS export."""
    served: Mapping[str, bytes]
    """By the web server that templates come from."""
    elapsed: float
    """Virtual seconds since the start of the run that made it."""
    environment: Environment
