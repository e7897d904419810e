"""Encrypted volumes: where they may be, what is refused of them, and their passphrases on the way to a host.

spec/cloudstack-plugin.md 4.24; the refusals are close to CloudStack's words.
"""

from __future__ import annotations

import msgspec

from harness.cloudstack import settings
from harness.cloudstack.records import Records, Transaction
from harness.cloudstack.records.passphrases import Passphrases
from harness.cloudstack.records.rows import DiskOffering, HostRow, Snapshot, StoragePool, Volume
from harness.spi.commands import AnyCommand, AttachCommand, PrepareForMigrationCommand, StartCommand
from harness.spi.errors import InvalidParameter
from harness.spi.objects import Disk

HOST_DETAIL = "host.volume.encryption"
"""Of a host, as its agent reported it."""
CAPABLE_HOST = f"id IN (SELECT resource_id FROM host_details WHERE name = '{HOST_DETAIL}' AND value = 'true')"
POOL_TYPES = frozenset({"StorPool"})
"""Of pools that can have encrypted volumes."""


def is_encrypted(tx: Transaction, row: Volume) -> bool:
    """Whether the volume is, or will be once it is created."""
    if row.passphrase_id is not None:
        return True
    return row.path is None and tx.get(DiskOffering, row.disk_offering_id).encrypt


def host_encrypts(tx: Transaction, host_id: int) -> bool:
    return tx.details("host_details", host_id).get(HOST_DETAIL) == "true"


def set_host_encrypts(tx: Transaction, host_id: int, encrypts: bool) -> None:
    if tx.details("host_details", host_id).get(HOST_DETAIL) != str(encrypts).lower():
        tx.set_detail("host_details", host_id, HOST_DETAIL, str(encrypts).lower())


def why_not_on_host(tx: Transaction, row: Volume, host: HostRow) -> str | None:
    """Why the volume cannot be used on the host, if it is encrypted and cannot."""
    if not is_encrypted(tx, row) or host_encrypts(tx, host.id):
        return None
    return f"it does not support encrypted volumes ({HOST_DETAIL}), and {row.name} is one"


def why_not_on_pool(tx: Transaction, row: Volume, pool: StoragePool) -> str | None:
    """Why the volume cannot be on the pool, if it is encrypted and cannot."""
    if pool.pool_type in POOL_TYPES or not is_encrypted(tx, row):
        return None
    return f"is of type {pool.pool_type}, which has no encrypted volumes"


def check_kept(passphrases: Passphrases) -> None:
    """Refuses an offering of encrypted volumes where no passphrase can be stored."""
    if not passphrases.usable:
        raise InvalidParameter(
            "Encrypted volumes need a `database_key` in the configuration of the management server: without it their "
            "passphrases would be readable in its database"
        )


def check_source(tx: Transaction, snapshot: Snapshot, offering: DiskOffering) -> None:
    """A volume has what its snapshot has, so both are encrypted or neither."""
    encrypted = tx.get(Volume, snapshot.volume_id).passphrase_id is not None
    if encrypted is not offering.encrypt:
        raise InvalidParameter(
            f"Snapshot {snapshot.name} is {_word(encrypted)} and disk offering {offering.name} is for "
            f"{_word(offering.encrypt)} volumes; choose an offering with encrypt={str(encrypted).lower()}"
        )


def check_offerings(current: DiskOffering, new: DiskOffering) -> None:
    """A change of the offering leaves what is on the volume as it is."""
    if current.encrypt is not new.encrypt:
        raise InvalidParameter(
            f"Current disk offering's encryption ({str(current.encrypt).lower()}) does not match target disk "
            f"offering's encryption ({str(new.encrypt).lower()})"
        )


def check_snapshot(tx: Transaction, row: Volume) -> None:
    """Snapshots of encrypted volumes stay on primary storage."""
    if row.passphrase_id is not None and settings.flag(tx, settings.BACKUP):
        raise InvalidParameter(
            f"Volume {row.name} ({row.uuid}) is encrypted: snapshots of encrypted volumes are supported only on "
            f"primary storage, while {settings.BACKUP} is false"
        )


def check_plain(row: Volume, what: str) -> None:
    """Refuses `what`, such as "download", for an encrypted volume."""
    if row.passphrase_id is not None:
        raise InvalidParameter(
            f"Volume {row.name} ({row.uuid}) is encrypted: {what} of encrypted volumes is not supported"
        )


def with_passphrases(records: Records, passphrases: Passphrases, command: AnyCommand) -> AnyCommand:
    """The command with the passphrase of every encrypted disk that the host is to open."""
    match command:
        case AttachCommand(disk=disk) if disk.encrypted:
            return msgspec.structs.replace(command, disk=_opened(records, passphrases, disk))
        case PrepareForMigrationCommand(rollback=True):
            return command
        case StartCommand(vm=vm) | PrepareForMigrationCommand(vm=vm) if any(disk.encrypted for disk in vm.disks):
            disks = tuple(_opened(records, passphrases, disk) for disk in vm.disks)
            return msgspec.structs.replace(command, vm=msgspec.structs.replace(vm, disks=disks))
        case _:
            return command


def _opened(records: Records, passphrases: Passphrases, disk: Disk) -> Disk:
    if not disk.encrypted:
        return disk
    with records.read() as tx:
        row = tx.find(Volume, path=disk.path, removed=None)
        if row is None:
            raise InvalidParameter(f"no volume has the path {disk.path}, so its passphrase is not known")
        return msgspec.structs.replace(disk, passphrase=passphrases.of_volume(tx, row))


def _word(encrypted: bool) -> str:
    return "encrypted" if encrypted else "not encrypted"
