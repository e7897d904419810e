"""Bringing a snapshot back from its backup on secondary storage, as a volume (spec/cloudstack-plugin.md 4.10)."""

from __future__ import annotations

from harness.driver.copying import copied
from harness.driver.pools import cluster_of
from harness.driver.settings import DOWNLOAD_WAIT, copy_wait
from harness.driver.volumes import Ask, VolumeCreation
from harness.spi.commands import StorPoolDownloadTemplateCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import InvalidParameter
from harness.spi.objects import SnapshotObject, VolumeObject


class SnapshotRestoring:
    """A new volume of the offering it is for, and an agent that copies the backup onto it."""

    def __init__(self, volumes: VolumeCreation, records: DriverRecords, endpoints: HostEndpoints) -> None:
        self._volumes = volumes
        self._records = records
        self._endpoints = endpoints

    def restore(self, source: SnapshotObject, volume: VolumeObject) -> VolumeObject:
        if source.path is None:
            # An empty volume would be taken for the snapshot's (weakness 8).
            raise InvalidParameter(f"snapshot {source.name} ({source.uuid}) has no path on its image store")
        wait = copy_wait(self._records, DOWNLOAD_WAIT)

        def fill(ask: Ask, empty: VolumeObject) -> None:
            assert empty.store is not None, "it was just made there"
            endpoint = self._endpoints.select(empty.store, None if empty.path is None else cluster_of(empty.path))
            command = StorPoolDownloadTemplateCommand(source=source, destination=empty, wait=wait)
            what = f"snapshot {source.name} ({source.uuid})"
            copied(ask(endpoint, command, f"copy {what}"), endpoint, what)

        return self._volumes.create_filled(volume, fill, source.path, source.size)
