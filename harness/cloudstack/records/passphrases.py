"""Passphrases of encrypted volumes: one is made for a volume before that is created, and goes with what it opens.

A volume that is made from a snapshot has the same LUKS header as the snapshot's, so it has the same passphrase row.
"""

from __future__ import annotations

import base64

from harness.cloudstack.records.rows import DiskOffering, PassphraseRow, Snapshot, Volume
from harness.cloudstack.records.store import Transaction
from harness.cloudstack.vault import Vault
from harness.spi.errors import NotFound
from harness.spi.passphrase import Passphrase
from harness.spi.runtime import Runtime

PASSPHRASE_BYTES = 32
"""Of randomness, as in CloudStack; the passphrase is their base64 text."""
LUKS = "LUKS"
"""CloudStack's word in `volumes.encrypt_format`."""


class Passphrases:
    """Reads and makes them; `vault` has the key that they are stored under."""

    def __init__(self, runtime: Runtime, vault: Vault) -> None:
        self._runtime = runtime
        self._vault = vault

    @property
    def usable(self) -> bool:
        return self._vault.open

    def of_volume(self, tx: Transaction, volume: Volume) -> Passphrase:
        """Raises `NotFound` when the volume has none."""
        row = None if volume.passphrase_id is None else tx.find(PassphraseRow, id=volume.passphrase_id)
        if row is None:
            raise NotFound(f"the records have no passphrase of volume {volume.name} ({volume.uuid})")
        return Passphrase(self._vault.decrypt(row.passphrase, _place(row.uuid)))

    def provide(self, tx: Transaction, volume: Volume) -> int | None:
        """Id of the row for a volume that is about to be created, made now if it has none; None when it is not
        encrypted."""
        if volume.passphrase_id is not None or not tx.get(DiskOffering, volume.disk_offering_id).encrypt:
            return volume.passphrase_id
        if volume.snapshot_id is not None:
            source = tx.get(Volume, tx.get(Snapshot, volume.snapshot_id).volume_id)
            return source.passphrase_id
        uuid = self._runtime.uuid()
        text = base64.b64encode(self._runtime.random_bytes(PASSPHRASE_BYTES)).decode()
        return tx.insert(PassphraseRow(uuid=uuid, passphrase=self._vault.encrypt(text, _place(uuid)))).id


def drop_unused(tx: Transaction, passphrase_id: int | None) -> None:
    """Forget a passphrase once no volume and no snapshot is left that it opens."""
    if passphrase_id is None:
        return
    tx.execute(
        "DELETE FROM passphrase WHERE id = ?"
        " AND NOT EXISTS (SELECT 1 FROM volumes WHERE passphrase_id = ? AND removed IS NULL)"
        " AND NOT EXISTS (SELECT 1 FROM snapshots s JOIN volumes v ON v.id = s.volume_id"
        " WHERE v.passphrase_id = ? AND s.removed IS NULL)",
        (passphrase_id, passphrase_id, passphrase_id),
    )


def _place(uuid: str) -> str:
    return f"passphrase {uuid}"
