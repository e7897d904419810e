"""The tiers of storpool_qos: their JSON, and the limits that they mean for a volume (spec 9.1).

    {"tiers": {"NAME": {"min_iops": 0, "max_iops": 0, "min_bw": 0, "max_bw": 0, "iops_gb": 0.0, "mbps_gb": 0.0}}}

Bandwidths are MiB a second; what is left out is 0, which is none. `examples/qos.json` is a sample.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from simulator.api.scalars import TagValue
from simulator.cluster.records import UNLIMITED
from simulator.services.kept import ConfigError

GIB = 1 << 30
MIB = 1 << 20
MOST = (1 << 63) - 1
"""The largest limit on the wire."""

_Whole = Annotated[int, Meta(ge=0, le=10**12)]
_PerGib = Annotated[float, Meta(ge=0, le=10**9)]


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    min_iops: _Whole = 0
    max_iops: _Whole = 0
    min_bw: _Whole = 0
    """MiB a second, as `max_bw`."""
    max_bw: _Whole = 0
    iops_gb: _PerGib = 0.0
    """IOPS for each GiB of the volume."""
    mbps_gb: _PerGib = 0.0
    """MiB a second for each GiB of the volume."""

    def limits(self, size: int, bandwidth_unit: int) -> tuple[int, int]:
        """(iops, bw) of a volume of so many bytes, as in an `Object`. The unit is `Settings.bandwidth_unit_bytes`."""
        gib = size / GIB
        iops = _between(gib * self.iops_gb, self.min_iops, self.max_iops)
        mib = _between(gib * self.mbps_gb, self.min_bw, self.max_bw)
        return _on_the_wire(iops), _on_the_wire(mib * MIB / bandwidth_unit)


def _between(wanted: float, low: int, high: int) -> float:
    """0 is none. A tier that has only a maximum gives just that."""
    value = max(wanted, low)
    return min(value or high, high) if high else value


def _on_the_wire(limit: float) -> int:
    """Rounded down; the limit of a small volume must not become none."""
    return min(max(1, int(limit)), MOST) if limit else UNLIMITED


TierName = Annotated[TagValue, Meta(min_length=1)]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tiers: dict[TierName, Tier]


def parse(text: str) -> dict[str, Tier]:
    """By name. Raises `ConfigError`."""
    try:
        tiers = msgspec.json.decode(text.encode(errors="replace"), type=_File).tiers
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"the tiers cannot be read: {error}") from error
    for name, tier in tiers.items():
        for low, high in (("min_iops", "max_iops"), ("min_bw", "max_bw")):
            if 0 < getattr(tier, high) < getattr(tier, low):
                raise ConfigError(f"tier '{name}': {low} is more than {high}")
    return tiers
