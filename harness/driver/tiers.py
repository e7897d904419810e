"""What an offering's details ask of StorPool (spec/cloudstack-plugin.md section 4 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.spi.driver import DriverRecords

TIER = "SP_QOSCLASS"
TEMPLATE = "SP_TEMPLATE"


@dataclass(frozen=True, slots=True)
class Placement:
    tier: str | None
    """Tier of storpool_qos, for the tag `qc`."""
    template: str | None
    """StorPool template instead of the pool's; never together with a tier."""

    def limit(self, max_iops: int | None) -> int | None:
        """IOPS that CloudStack asks for; None where the tier or the StorPool template says it."""
        return max_iops or None if self.tier is None and self.template is None else None


def placement(records: DriverRecords, disk_offering_id: int | None) -> Placement:
    """SP_QOSCLASS of the disk offering; without one its SP_TEMPLATE, or that of its compute offering."""
    if disk_offering_id is None:
        return Placement(None, None)
    details = records.disk_offering_details(disk_offering_id)
    tier = details.get(TIER) or None
    if tier is not None:
        return Placement(tier, None)
    template = details.get(TEMPLATE) or records.compute_offering_details(disk_offering_id).get(TEMPLATE)
    return Placement(None, template or None)
