"""Settings of CloudStack that the driver reads."""

from __future__ import annotations

from harness.spi.driver import DriverRecords
from harness.spi.errors import InvalidParameter

CLUSTER_ID = "sp.cluster.id"
NOT_SET = "n/a"
BACKUP_WAIT = "backup.snapshot.wait"
COPY_WAIT = "copy.volume.wait"
DOWNLOAD_WAIT = "primary.storage.download.wait"
_WAITS = {BACKUP_WAIT: 21600.0, COPY_WAIT: 10800.0, DOWNLOAD_WAIT: 10800.0}
"""What CloudStack ships with."""


def seconds(records: DriverRecords, name: str, pool_id: int | None = None) -> int:
    """A setting in whole seconds, 0 when it has no value; raises `InvalidParameter` for anything else."""
    text = records.setting(name, pool_id=pool_id) or "0"
    if not (text.isascii() and text.isdigit()):
        where = "" if pool_id is None else f" of pool {pool_id}"
        raise InvalidParameter(f"setting {name}{where} is {text!r}, not a number of seconds")
    return int(text)


def copy_wait(records: DriverRecords, name: str) -> float:
    """Seconds that an agent is given for a copy; `name` is one of the settings that say so.

    CloudStack's default when it is not set, or 0. Raises `InvalidParameter` for anything but a number.
    """
    return float(seconds(records, name) or _WAITS[name])


def configured_cluster(records: DriverRecords, cluster_id: int) -> str | None:
    """The StorPool cluster of a CloudStack cluster's hosts; None until it is known."""
    found = records.setting(CLUSTER_ID, cluster_id=cluster_id)
    return None if found in (None, "", NOT_SET) else found
