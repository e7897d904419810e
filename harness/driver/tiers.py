"""What an offering's details ask of StorPool (spec/cloudstack-plugin.md section 4 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.spi.driver import DriverRecords


@dataclass(frozen=True, slots=True)
class Placement:
    tier: str | None
    """Tier of storpool_qos, for the tag `qc`."""
    template: str | None
    """StorPool template instead of the pool's; never together with a tier."""


def placement(records: DriverRecords, disk_offering_id: int | None) -> Placement:
    """SP_QOSCLASS of the disk offering; without one, its SP_TEMPLATE."""
    if disk_offering_id is None:
        return Placement(None, None)
    details = records.disk_offering_details(disk_offering_id)
    tier = details.get("SP_QOSCLASS") or None
    return Placement(tier, None if tier else details.get("SP_TEMPLATE") or None)
