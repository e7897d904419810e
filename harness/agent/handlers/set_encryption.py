"""StorPoolSetVolumeEncryptionCommand: a blank volume becomes a LUKS volume (spec/cloudstack-plugin.md 4.24).

The original answered a success whatever had failed, and began an encrypted ROOT volume as a clone of the plaintext.
"""

from __future__ import annotations

from harness.agent import luks
from harness.agent.copies import detach, staying
from harness.agent.deadline import Deadline
from harness.agent.operations import Kind, Operation
from harness.agent.tools import Tools
from harness.spi.commands import StorPoolSetVolumeEncryptionAnswer, StorPoolSetVolumeEncryptionCommand
from harness.spi.errors import Error, InvalidParameter
from harness.spi.objects import LUKS_HEADER
from harness.spi.ports import Output


def handle(tools: Tools, command: StorPoolSetVolumeEncryptionCommand) -> StorPoolSetVolumeEncryptionAnswer:
    """A success says that the header was read back and opened. `wait` bounds it; both objects are detached whatever
    happens."""
    if command.size <= LUKS_HEADER:
        raise InvalidParameter(f"{command.path} of {command.size} bytes has no room for a LUKS header and data")
    deadline = Deadline(tools.runtime, command.wait)
    paths = [path for path in (command.path, command.source) if path is not None]
    with (
        tools.copies.run(command.path) as copy,
        tools.volumes(paths, deadline.remaining),
        tools.operations.begin(Kind.ENCRYPT, None, paths) as operation,
        staying(tools, *paths),
    ):
        copy.begin()
        copy.operation = operation.id
        tools.adaptor.connect(command.path, size=command.size, timeout=deadline.remaining)
        try:
            luks.format_device(tools.host, command.path, command.passphrase, deadline.remaining, operation.id)
            if command.source is not None:
                _write(tools, command, command.source, deadline, operation, copy.heard)
            luks.check(tools.host, command.path, command.passphrase, deadline.remaining, operation.id)
        except Error as error:
            tools.adaptor.undo(error, paths)
            raise
        details = [text for path in reversed(paths) if (text := detach(tools, path, operation, "encrypted"))]
    return StorPoolSetVolumeEncryptionAnswer(result=True, size=command.size - LUKS_HEADER, details="; ".join(details))


def _write(
    tools: Tools,
    command: StorPoolSetVolumeEncryptionCommand,
    source: str,
    deadline: Deadline,
    operation: Operation,
    output: Output,
) -> None:
    # Other hosts may be making volumes from the same snapshot.
    size = tools.adaptor.connect(source, size=None, timeout=deadline.remaining, shared=True)
    if size > command.size - LUKS_HEADER:
        raise InvalidParameter(
            f"{source} has {size} bytes, but encrypted {command.path} has room for {command.size - LUKS_HEADER} only"
        )
    luks.write(tools.host, source, command.path, command.passphrase, deadline.remaining, operation.id, output)
