"""What an offering's details ask of StorPool (spec/cloudstack-plugin.md section 4 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.spi.driver import DriverRecords
from harness.spi.errors import InvalidParameter
from harness.storpool import ObjectDoesNotExist, StorPoolClient
from harness.storpool.types import Limit

TIER = "SP_QOSCLASS"
TEMPLATE = "SP_TEMPLATE"


@dataclass(frozen=True, slots=True)
class Placement:
    tier: str | None
    """Tier of storpool_qos, for the tag `qc`."""
    template: str | None
    """StorPool template instead of the pool's; never together with a tier."""

    def limit(self, max_iops: int | None) -> int | None:
        """IOPS that CloudStack asks for; None where the tier or the StorPool template says it.

        However a volume came to its offering, whether it was made with it or changed to it, the limit is the same.
        """
        return max_iops or None if self.tier is None and self.template is None else None


def limits(client: StorPoolClient, template: str, limit: int | None) -> tuple[Limit, Limit]:
    """IOPS and bandwidth of a volume on the template that is to have this limit, or the template's."""
    try:
        given = client.volume_template_describe(template)
    except ObjectDoesNotExist:
        raise InvalidParameter(f"StorPool has no template {template}; check SP_TEMPLATE of the offering") from None
    return limit or given.iops, given.bw


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
