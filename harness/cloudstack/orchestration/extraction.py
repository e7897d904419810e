"""Volumes to be downloaded: a copy on secondary storage behind a URL, for a while (spec/cloudstack-plugin.md 4.13).

Each request has a file and a row of its own, and the row comes first. It goes when the URL and the file are gone and
nothing can write to the file any more.
"""

from __future__ import annotations

import logging

import msgspec

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects, secondary_files
from harness.cloudstack.orchestration.agents import ask
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.encryption import check_plain
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Vm, Volume, VolumeStore
from harness.spi.commands import (
    CreateEntityDownloadURLAnswer,
    CreateEntityDownloadURLCommand,
    published,
)
from harness.spi.errors import Error, InvalidParameter
from harness.spi.locks import KeyedLocks
from harness.spi.objects import ImageFormat, VolumeObject
from harness.spi.states import StoreRefEvent, StoreRefState, VmState, VolumeEvent, VolumeState

_log = logging.getLogger("harness.cloudstack.extraction")

EXPIRATION = "extract.url.expiration.interval"
PUBLISH_WAIT = 60.0


class ExtractionManager:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._at_work = KeyedLocks(context.runtime, "volume file")

    def extract(self, volume_id: int) -> str:
        """The URL; of a copy that is there, if the volume cannot have changed since. It is Migrating meanwhile, so that
        nobody changes it, as in CloudStack."""
        with self._context.records.read() as tx:
            there = _still_good(tx, tx.get(Volume, volume_id))
        if there is not None:
            return there
        volume, ref, source, destination = self._begin(volume_id)
        try:
            made = self._copy(source, destination)
            ref = self._copied(volume, ref, made)
            return self._publish(ref)
        except Error as error:
            self._give_up(ref.id)
            raise reworded(error, f"Failed to extract volume {volume.name}: {error}") from error

    def abandon_interrupted(self) -> None:
        """At the start: copies whose jobs have failed, and of which nobody was told a URL."""
        with self._context.records.transaction("downloads interrupted") as tx:
            for ref in tx.select(VolumeStore, "extract_url IS NULL AND state IN ('Allocated', 'Creating', 'Ready')"):
                _abandon(tx, ref)

    def tend(self) -> None:
        """The background task: URLs that have expired, or whose volume is gone; then what is to be deleted."""
        with self._context.records.transaction("downloads expired") as tx:
            limit = tx.now - settings.seconds(tx, EXPIRATION)
            for ref in tx.select(VolumeStore, "extract_url IS NOT NULL AND state = 'Ready' ORDER BY id"):
                if (ref.extract_url_created or 0.0) <= limit or tx.get(Volume, ref.volume_id).removed is not None:
                    tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)
        with self._context.records.read() as tx:
            refs = [
                ref
                for ref in tx.select(VolumeStore, "state IN ('Destroying', 'Destroyed') ORDER BY id")
                if ref.state is StoreRefState.DESTROYING or _is_still(tx, ref)
            ]
        for ref in refs:
            self._delete(ref.id)

    def _begin(self, volume_id: int) -> tuple[Volume, VolumeStore, VolumeObject, VolumeObject]:
        own, token = self._context.runtime.uuid(), self._context.runtime.uuid()
        with self._context.records.transaction("volume download") as tx:
            volume = tx.get(Volume, volume_id)
            check_extractable(tx, volume)
            source = objects.volume_object(tx, volume)
            volume = tx.transition(volume, VolumeEvent.MIGRATION_REQUESTED)
            ref = tx.insert(
                VolumeStore(
                    store_id=objects.image_store_of(tx, volume.data_center_id).id,
                    volume_id=volume.id,
                    state=StoreRefState.ALLOCATED,
                    download_state="NOT_DOWNLOADED",
                    install_path=f"volumes/{volume.uuid}.{own}.qcow2",
                    size=volume.size,
                    physical_size=0,
                    asked_at=tx.now,
                    token=token,
                )
            )
            ref = tx.transition(ref, StoreRefEvent.CREATE_ONLY_REQUESTED)
            store = objects.image_store(tx, ref.store_id)
        destination = msgspec.structs.replace(source, store=store, path=ref.install_path, format=ImageFormat.QCOW2)
        return volume, ref, source, destination

    def _copy(self, source: VolumeObject, destination: VolumeObject) -> VolumeObject:
        made = self._context.driver.copy(source, destination)
        if not isinstance(made, VolumeObject):
            raise Error(f"the driver answered a copy of volume {source.uuid} with something else")
        return made

    def _copied(self, volume: Volume, ref: VolumeStore, made: VolumeObject) -> VolumeStore:
        with self._context.records.transaction("volume copied") as tx:
            tx.transition(volume, VolumeEvent.OPERATION_SUCCEEDED)
            return tx.transition(ref, StoreRefEvent.OPERATION_SUCCEEDED, download_state="DOWNLOADED", size=made.size)

    def _publish(self, ref: VolumeStore) -> str:
        with self._context.records.read() as tx:
            store = objects.image_store(tx, ref.store_id)
        command = CreateEntityDownloadURLCommand(store=store, path=ref.install_path, token=ref.token, wait=PUBLISH_WAIT)
        answer = ask(self._context.secondary, command)
        if not isinstance(answer, CreateEntityDownloadURLAnswer):
            raise Error(f"{self._context.secondary.name} did not say where the volume can be downloaded")
        with self._context.records.transaction("download published") as tx:
            tx.update(ref, extract_url=answer.url, extract_url_created=tx.now)
        return answer.url

    def _give_up(self, ref_id: int) -> None:
        with self._context.records.transaction("volume not downloaded") as tx:
            _abandon(tx, tx.get(VolumeStore, ref_id))
        self._delete(ref_id)

    def _delete(self, ref_id: int) -> None:
        try:
            with self._at_work.hold(str(ref_id), 0):
                self._delete_files(ref_id)
        except Error as error:
            _log.warning("a copy of a volume that is to go is still on secondary storage: %s", error)

    def _delete_files(self, ref_id: int) -> None:
        with self._context.records.read() as tx:
            ref = tx.find(VolumeStore, id=ref_id)
            if ref is None:
                return
            store = objects.image_store(tx, ref.store_id)
        for path in (published(ref.token), ref.install_path):
            secondary_files.delete(self._context.secondary, store, path)
        with self._context.records.transaction("download deleted") as tx:
            if ref.state is StoreRefState.DESTROYING:
                ref = tx.transition(ref, StoreRefEvent.OPERATION_SUCCEEDED)
            if _is_still(tx, ref):
                tx.delete(ref)


def check_extractable(tx: Transaction, volume: Volume) -> None:
    """Raises in CloudStack's words for what cannot be downloaded."""
    if volume.removed is not None:
        raise InvalidParameter(f"Unable to find volume with id {volume.uuid}")
    if volume.pool_id is None or volume.path is None:
        raise InvalidParameter("The volume doesn't belong to a storage pool so can't extract it")
    check_plain(volume, "download")
    vm = None if volume.instance_id is None else tx.find(Vm, id=volume.instance_id)
    if vm is not None and vm.state is not VmState.STOPPED:
        raise InvalidParameter(
            "Invalid state of the volume with specified ID. It should be either detached or the VM should be in stopped"
            " state."
        )
    if volume.state is not VolumeState.READY:
        raise InvalidParameter(f"Volume {volume.name} is not in Ready state but {volume.state.value}")


def _still_good(tx: Transaction, volume: Volume) -> str | None:
    """The URL of a copy that was begun after the volume, and the VM that has it, changed last."""
    check_extractable(tx, volume)
    vm = None if volume.instance_id is None else tx.find(Vm, id=volume.instance_id)
    changed = max(volume.updated or 0.0, volume.attached or 0.0, vm.update_time if vm else 0.0)
    good = tx.select(
        VolumeStore,
        "volume_id = ? AND state = 'Ready' AND extract_url IS NOT NULL AND asked_at > ? AND extract_url_created > ?"
        " ORDER BY id DESC LIMIT 1",
        (volume.id, changed, tx.now - settings.seconds(tx, EXPIRATION) / 2),
    )
    return good[0].extract_url if good else None


def _abandon(tx: Transaction, ref: VolumeStore) -> None:
    """Nobody gets it; and its volume, if it waited for it, may be used again."""
    volume = tx.get(Volume, ref.volume_id)
    if ref.state is StoreRefState.CREATING:
        ref = tx.transition(ref, StoreRefEvent.OPERATION_FAILED)
        if volume.state is VolumeState.MIGRATING:
            tx.transition(volume, VolumeEvent.OPERATION_FAILED)
    tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)


def _is_still(tx: Transaction, ref: VolumeStore) -> bool:
    """Whether no host can begin to write the file any more."""
    return secondary_files.is_still(tx, ref.asked_at, "copy.volume.wait")
