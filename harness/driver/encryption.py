"""Encrypted volumes: blank, with a LUKS header, or with a template written through it (spec/cloudstack-plugin.md 4.24).

Never a clone of what is not encrypted: StorPool would keep the plaintext beside what is written over it.
"""

from __future__ import annotations

from harness.driver.settings import DOWNLOAD_WAIT, copy_wait
from harness.driver.volumes import Ask, VolumeCreation
from harness.spi.commands import StorPoolSetVolumeEncryptionAnswer, StorPoolSetVolumeEncryptionCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import Error, InvalidParameter
from harness.spi.objects import VolumeObject, device_path
from harness.storpool import SnapshotSummary

FORMAT_WAIT = 120.0
"""Seconds that a host may take to write a LUKS header."""


class VolumeEncryption:
    """A new volume, and an agent that makes it an encrypted one."""

    def __init__(self, volumes: VolumeCreation, records: DriverRecords, endpoints: HostEndpoints) -> None:
        self._volumes = volumes
        self._records = records
        self._endpoints = endpoints

    def create(self, volume: VolumeObject) -> VolumeObject:
        """With a LUKS header, and nothing in it."""
        return self._create(volume, None, FORMAT_WAIT)

    def create_from(self, snapshot: SnapshotSummary, volume: VolumeObject) -> VolumeObject:
        """With what the StorPool snapshot of a template has; the volume is as large as that at least."""
        wait = copy_wait(self._records, DOWNLOAD_WAIT)
        return self._create(volume, snapshot, wait)

    def _create(self, volume: VolumeObject, source: SnapshotSummary | None, wait: float) -> VolumeObject:
        if volume.store is None:
            raise InvalidParameter(f"volume {volume.name} ({volume.uuid}) has no pool to be created on")
        # Before anything is made: without such a host it would be for nothing.
        near = None if source is None else source.cluster_id
        endpoint = self._endpoints.select(volume.store, near, encrypting=True)
        passphrase = self._records.passphrase(volume.uuid)
        path = None if source is None else device_path(source.global_id)

        def fill(ask: Ask, blank: VolumeObject) -> None:
            assert blank.path is not None, "it was just made"
            command = StorPoolSetVolumeEncryptionCommand(
                path=blank.path, size=blank.size + blank.overhead, passphrase=passphrase, source=path, wait=wait
            )
            answer = ask(endpoint, command, f"encrypt volume {volume.name} ({volume.uuid})")
            if not isinstance(answer, StorPoolSetVolumeEncryptionAnswer) or answer.size != blank.size:
                raise Error(
                    f"host {endpoint.name} does not say that volume {volume.uuid} is encrypted in full: {answer}"
                )

        least = 0 if source is None else source.size + volume.overhead
        return self._volumes.create_filled(volume, fill, f"encrypted {path or ''}".strip(), least)
