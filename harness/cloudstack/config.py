"""What the stand-in is told of its cloud. Unknown keys are refused; times are seconds."""

from __future__ import annotations

from typing import Annotated

import msgspec

from harness.spi.errors import InvalidParameter

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class GuestAddress(Strict, frozen=True, kw_only=True):
    """An address that a guest may have; the guest network hands each out once."""

    mac: str
    ip: str


class FurtherCluster(Strict, frozen=True, kw_only=True):
    """A cluster beside the first one, in the first zone and pod unless it names others."""

    name: Name
    hosts: tuple[Name, ...]
    zone: Name | None = None
    pod: Name | None = None
    storpool_cluster_id: str | None = None
    """As `CloudConfig.storpool_cluster_id`."""


class CloudConfig(Strict, frozen=True, kw_only=True):
    hosts: tuple[Name, ...]
    """Names of the first cluster's KVM hosts, which are also the keys of their agents' endpoints."""
    image_store_url: str
    """`nfs://host/export`"""
    guest_addresses: tuple[GuestAddress, ...]
    bridge: str
    """Bridge that guests' interfaces are put on, of the same name on every host."""
    api_key: str
    secret_key: str
    zone: Name = "zone1"
    pod: Name = "pod1"
    cluster: Name = "cluster1"
    storpool_cluster_id: str | None = None
    """Value of the cluster's `sp.cluster.id`, if it is to be set before a host reports it."""
    further_clusters: tuple[FurtherCluster, ...] = ()
    ping_interval: Seconds = 60.0
    """Between pings of an agent, and between turns of most background tasks; shown as `ping.interval`."""
    cleanup_interval: Seconds = 86400.0
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    """Jobs that run at a time."""
    database_key: Annotated[str, msgspec.Meta(min_length=16)] | None = None
    """Secret that passphrases are encrypted with in the records, which must stay the same; without one there are no
    encrypted volumes. CloudStack's `db.cloud.encrypt.secret`."""
    settings: dict[str, str] = {}
    """Global settings that differ from CloudStack's defaults."""

    def __repr__(self) -> str:
        return f"CloudConfig(zone={self.zone!r}, hosts={self.hosts!r})"


def load(text: bytes) -> CloudConfig:
    """From JSON; raises `InvalidParameter` that names the key but shows no value."""
    try:
        return msgspec.json.decode(text, type=CloudConfig)
    except msgspec.MsgspecError as error:
        raise InvalidParameter(f"the cloud's configuration cannot be used: {error}") from None
