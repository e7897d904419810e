"""What an operator may choose, and what is not publicly known of StorPool (spec storpool-api section 12)."""

from __future__ import annotations

import re
from typing import Literal

import msgspec


class KnownCluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As it is registered, with its location."""

    cluster_id: str
    """`<location>.<sub-cluster>`"""
    name: str
    location: str
    """Name of its location."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes are bytes, times seconds."""

    cluster_id: str = "splab.b"
    """`<location>.<sub-cluster>`, each `[a-z0-9]+`; the beginning of every global id."""
    cluster_name: str = "splab"
    version: str = "19.01"
    """What services report as theirs."""
    loose: bool = False
    """Accept and drop unknown request fields instead of refusing them."""
    minimum_free_bytes: int = 1 << 20
    """A volume or snapshot is refused with insufficientResources unless the pool has more than this free."""
    remote_recovery_seconds: float = 5.0
    """How long a copy of a remote snapshot says that its data is still arriving."""
    transfer_check_seconds: float = 10.0
    """How often the other cluster of a move that was cut short is asked how it ended."""
    known_clusters: tuple[KnownCluster, ...] = ()
    """This one and others: registered with their locations, and the others with bridges, in an empty state."""
    disk_recovery_seconds: float = 5.0
    """How long a disk that was away takes until its copies are up to date."""
    disk_drain_seconds: float = 60.0
    """How long the soft-eject of a disk takes."""
    relocation_seconds: float = 60.0
    """How long the relocator takes to move a volume or snapshot whose disk sets were changed."""
    balancer_seconds: float = 5.0
    """How long the balancer works until it is ready."""
    disk_scrub_seconds: float = 3600.0
    """How long the scrub of a disk takes."""
    compact_every: int = 20_000
    """Journal records after which the journal is replaced by a snapshot."""

    bandwidth_unit_bytes: int = 1024
    """Not known (6): how many bytes a second 1 of `bw` stands for. The bindings call it KB."""
    default_placement_group: str = "default"
    """Not known (5): a volume without template or placement goes here; with an empty name it is refused instead."""
    default_replication: int = 3
    snapshot_removal_seconds: float = 1.0
    """How long a deleted snapshot stays listed until its data is merged."""
    transient_seconds: float = 1.0
    """Age at which the server deletes the transient snapshot of a copy."""
    deleting_name: str = "*{global_id}"
    """Not known (10): the listed name of a deleting snapshot; `{name}` and `{global_id}` are filled in."""
    attach_timeout_result: Literal["error", "success"] = "error"
    """Not known (3): how VolumesReassignWait ends when attachTimeout runs out. The attachments stay."""
    revert_attached: Literal["refuse", "allow"] = "refuse"
    """Not known (4): VolumeRevert of an attached volume. Allowed, its device is replaced by force."""
    smaller_than_parent: Literal["refuse", "allow"] = "refuse"
    """Not known (4): a new volume smaller than its parent."""
    template_in_use: Literal["refuse", "allow"] = "refuse"
    """Not known (8): deleting a template in use; a placement group in use is always kept."""
    open_device_error: Literal["busy", "invalidParam"] = "busy"
    """Name of the error `'NAME' is open at client N`; older releases said invalidParam."""
    qos_seconds: float = 60.0
    """How often storpool_qos looks at the limits of volumes."""
    volumecare_seconds: float = 60.0
    """How often VolumeCare looks what is due."""
    qos_bucket: str = "storpool_qos"
    """Not known: the bucket of the key-value store with the tiers of storpool_qos, under the key `config`."""
    volumecare_bucket: str = "volumecare"
    """Not known: the bucket of the key-value store with VolumeCare's configuration, under the key `config`."""
    error_statuses: dict[str, int] = {}
    """Not known (1): HTTP status by error name, over `simulator.api.errors.STATUS`."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+", self.cluster_id):
            raise ValueError(f"cluster id '{self.cluster_id}' is not <location>.<sub-cluster>, each of a-z and 0-9")
        if self.qos_seconds <= 0 or self.volumecare_seconds <= 0:
            raise ValueError(
                "services must look less often than all the time: qos_seconds and volumecare_seconds over 0"
            )
