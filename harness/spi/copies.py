"""Commands that have an agent copy, and what such a copy is known by."""

from __future__ import annotations

from harness.spi.commands import (
    AnyCommand,
    DirectDownloadCommand,
    StorPoolBackupSnapshotCommand,
    StorPoolBackupTemplateFromSnapshotCommand,
    StorPoolCopyVolumeToSecondaryCommand,
    StorPoolDownloadTemplateCommand,
    StorPoolDownloadVolumeCommand,
    StorPoolSetVolumeEncryptionCommand,
)


def copied_to(command: AnyCommand) -> str | None:
    """The path that an agent is asked to copy to; None of a command that is for something else."""
    match command:
        case (
            StorPoolDownloadTemplateCommand()
            | StorPoolDownloadVolumeCommand()
            | DirectDownloadCommand()
            | StorPoolBackupSnapshotCommand()
            | StorPoolBackupTemplateFromSnapshotCommand()
            | StorPoolCopyVolumeToSecondaryCommand()
        ):
            return command.destination.path
        case StorPoolSetVolumeEncryptionCommand():
            return command.path
        case _:
            return None
