"""CancelCommand: a copy that nobody waits for any more ends."""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.tools import Tools
from harness.spi.commands import Answer, CancelCommand


def handle(tools: Tools, command: CancelCommand) -> Answer:
    tools.copies.cancel(command.path, Deadline(tools.runtime, command.wait))
    return Answer(result=True)
