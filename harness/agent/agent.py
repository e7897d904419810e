"""The agent of one host: hands each command to its handler and turns errors into answers.

A command whose VM or volumes have an operation open that nobody works on waits until that was looked at (recovery.py).
Stopping a VM does not: it helps whatever was left open, and must be possible while StorPool is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from harness.agent.adaptor import StorageAdaptor
from harness.agent.arrivals import Arrivals
from harness.agent.attachments import ClientAttachments
from harness.agent.command_order import CommandOrder
from harness.agent.config import AgentConfig
from harness.agent.deadline import Deadline
from harness.agent.handlers import (
    attach,
    attach_iso,
    cancel_copy,
    cancel_migration,
    check_vm,
    dettach,
    direct_download,
    download,
    migrate,
    modify_pool,
    nfs_pool,
    ping,
    prepare_for_migration,
    resize,
    set_encryption,
    start,
    stop,
    to_secondary,
)
from harness.agent.operations import Operations
from harness.agent.recovery import Recovery
from harness.agent.running_copies import RunningCopies
from harness.agent.storpool_conf import read_host_configuration
from harness.agent.tools import Tools
from harness.agent.unplugs import Unplugs
from harness.spi.commands import (
    Answer,
    AnyAnswer,
    AnyCommand,
    AttachCommand,
    AttachIsoCommand,
    CancelCommand,
    CancelMigrationCommand,
    CheckUrlCommand,
    CheckVirtualMachineCommand,
    CreateObjectCommand,
    DettachCommand,
    DirectDownloadCommand,
    MigrateCommand,
    ModifyStoragePoolCommand,
    PingCommand,
    PrepareForMigrationCommand,
    StartCommand,
    StopCommand,
    StorPoolBackupSnapshotCommand,
    StorPoolBackupTemplateFromSnapshotCommand,
    StorPoolCopyVolumeToSecondaryCommand,
    StorPoolDownloadTemplateCommand,
    StorPoolDownloadVolumeCommand,
    StorPoolModifyStoragePoolCommand,
    StorPoolResizeVolumeCommand,
    StorPoolSetVolumeEncryptionCommand,
)
from harness.spi.errors import Error, ErrorClass, MisuseError
from harness.spi.locks import KeyedLocks
from harness.spi.ports import Host, Hypervisor, Secondary
from harness.spi.runtime import Runtime
from harness.storpool import StorPoolClient

_log = logging.getLogger("harness.agent")


class Agent:
    """Keeps records of the operations that are not over, durably on its host, and in memory its locks and what guests
    were asked last. Domains and attachments are found again after a restart. Safe for many tasks."""

    def __init__(
        self,
        runtime: Runtime,
        host: Host,
        hypervisor: Hypervisor,
        secondary: Secondary,
        storpool: StorPoolClient,
        config: AgentConfig,
    ) -> None:
        operations = Operations(runtime, host, config.operations_directory)
        adaptor = StorageAdaptor(
            runtime,
            host,
            ClientAttachments(storpool),
            config,
            client_id=lambda: read_host_configuration(host, config).client_id,
            attach_may_come_late=operations.attach_may_come_late,
        )
        self._tools = Tools(
            runtime=runtime,
            host=host,
            hypervisor=hypervisor,
            secondary=secondary,
            adaptor=adaptor,
            config=config,
            order=CommandOrder(runtime),
            vm_locks=KeyedLocks(runtime, "vm"),
            volume_locks=KeyedLocks(runtime, "volume"),
            unplugs=Unplugs(runtime),
            arrivals=Arrivals(runtime),
            operations=operations,
            copies=RunningCopies(runtime, host),
        )
        self.recovery = Recovery(self._tools)
        """To be started before the first command; see `Recovery.start`."""

    def handle(self, command: AnyCommand) -> AnyAnswer:
        """Carry out one command. Only `Dead`, `MisuseError` and bugs are raised; every other error is an answer."""
        try:
            return self._dispatch(self._after_recovery(command))
        except MisuseError:
            raise
        except Error as error:
            details = describe(error)
            _log.warning("%s failed: %s", type(command).__name__, details)
            return Answer(result=False, details=details, error_class=error.error_class)

    def _after_recovery(self, command: AnyCommand) -> AnyCommand:
        """The command with the time that is left, once what is open of its VM and volumes has been looked at."""
        vm, paths = _subjects(command)
        if (vm is None and not paths) or isinstance(command, StopCommand):
            return command
        deadline = Deadline(self._tools.runtime, command.wait)
        self.recovery.before_command(vm, paths, command.wait / 2)
        return msgspec.structs.replace(command, wait=deadline.remaining)

    def _dispatch(self, command: AnyCommand) -> AnyAnswer:
        handler = _HANDLERS.get(type(command))
        if handler is None:
            return Answer(
                result=False,
                details=f"{type(command).__name__} is for the secondary storage role, not for a KVM host",
                error_class=ErrorClass.PERMANENT,
            )
        return handler(self._tools, command)


_HANDLERS: Mapping[type[AnyCommand], Callable[[Tools, Any], AnyAnswer]] = {
    PingCommand: ping.handle,
    StartCommand: start.handle,
    StopCommand: stop.handle,
    AttachCommand: attach.handle,
    DettachCommand: dettach.handle,
    AttachIsoCommand: attach_iso.handle,
    PrepareForMigrationCommand: prepare_for_migration.handle,
    MigrateCommand: migrate.handle,
    CancelMigrationCommand: cancel_migration.handle,
    CheckVirtualMachineCommand: check_vm.handle,
    StorPoolResizeVolumeCommand: resize.handle,
    StorPoolModifyStoragePoolCommand: modify_pool.handle,
    CheckUrlCommand: direct_download.check,
    DirectDownloadCommand: direct_download.handle,
    StorPoolDownloadTemplateCommand: download.handle,
    StorPoolDownloadVolumeCommand: download.handle,
    CreateObjectCommand: nfs_pool.create,
    ModifyStoragePoolCommand: nfs_pool.modify,
    StorPoolSetVolumeEncryptionCommand: set_encryption.handle,
    StorPoolBackupSnapshotCommand: to_secondary.handle,
    StorPoolBackupTemplateFromSnapshotCommand: to_secondary.handle,
    StorPoolCopyVolumeToSecondaryCommand: to_secondary.handle,
    CancelCommand: cancel_copy.handle,
}


def _subjects(command: AnyCommand) -> tuple[str | None, tuple[str, ...]]:
    """The VM, and the volumes, that the command changes on this host."""
    match command:
        case StartCommand():
            return command.vm.name, tuple(disk.path for disk in command.vm.disks)
        case StopCommand():
            return command.vm_name, command.volumes_to_disconnect
        case AttachCommand() | DettachCommand():
            return command.vm_name, (command.disk.path,)
        case PrepareForMigrationCommand():
            return command.vm.name, tuple(disk.path for disk in command.vm.disks)
        case MigrateCommand() | CancelMigrationCommand() | AttachIsoCommand():
            return command.vm_name, ()
        case StorPoolResizeVolumeCommand():
            return command.vm_name, (command.path,)
        case StorPoolModifyStoragePoolCommand():
            return None, (command.volume_path,)
        case StorPoolDownloadTemplateCommand() | StorPoolDownloadVolumeCommand() | DirectDownloadCommand():
            return None, (command.destination.path,) if command.destination.path is not None else ()
        case (
            StorPoolBackupSnapshotCommand()
            | StorPoolBackupTemplateFromSnapshotCommand()
            | StorPoolCopyVolumeToSecondaryCommand()
        ):
            return None, (command.source.path,) if command.source.path is not None else ()
        case StorPoolSetVolumeEncryptionCommand():
            return None, (command.path,) if command.source is None else (command.path, command.source)
        case CancelCommand():
            # Of a copy that an earlier agent made, a program may still run.
            return None, (command.path,)
        case _:
            return None, ()


def describe(error: Error) -> str:
    """The error's text, then what else went wrong while cleaning up after it."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())])
