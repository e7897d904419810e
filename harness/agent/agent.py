"""The agent of one host: hands each command to its handler and turns errors into answers."""

from __future__ import annotations

import logging

from harness.agent.adaptor import StorageAdaptor
from harness.agent.attachments import ClientAttachments
from harness.agent.config import AgentConfig
from harness.agent.handlers import attach, dettach, download_template, modify_pool, ping, start, stop
from harness.agent.storpool_conf import read_host_configuration
from harness.agent.tools import Tools
from harness.agent.unplugs import Unplugs
from harness.spi.commands import (
    Answer,
    AnyAnswer,
    AnyCommand,
    AttachCommand,
    DettachCommand,
    PingCommand,
    StartCommand,
    StopCommand,
    StorPoolDownloadTemplateCommand,
    StorPoolModifyStoragePoolCommand,
)
from harness.spi.errors import Error, ErrorClass, MisuseError
from harness.spi.locks import KeyedLocks
from harness.spi.ports import Host, Hypervisor, Secondary
from harness.spi.runtime import Runtime
from harness.storpool import StorPoolClient

_log = logging.getLogger("harness.agent")


class Agent:
    """Keeps no state but its locks and what guests were asked last: domains and attachments are found again after a
    restart. Safe for many tasks."""

    def __init__(
        self,
        runtime: Runtime,
        host: Host,
        hypervisor: Hypervisor,
        secondary: Secondary,
        storpool: StorPoolClient,
        config: AgentConfig,
    ) -> None:
        adaptor = StorageAdaptor(
            runtime,
            host,
            ClientAttachments(storpool),
            config,
            client_id=lambda: read_host_configuration(host, config).client_id,
        )
        self._tools = Tools(
            runtime=runtime,
            host=host,
            hypervisor=hypervisor,
            secondary=secondary,
            adaptor=adaptor,
            config=config,
            vm_locks=KeyedLocks(runtime, "vm"),
            volume_locks=KeyedLocks(runtime, "volume"),
            unplugs=Unplugs(runtime),
        )

    def handle(self, command: AnyCommand) -> AnyAnswer:
        """Carry out one command. Only `Dead`, `MisuseError` and bugs are raised; every other error is an answer."""
        try:
            return self._dispatch(command)
        except MisuseError:
            raise
        except Error as error:
            details = describe(error)
            _log.warning("%s failed: %s", type(command).__name__, details)
            return Answer(result=False, details=details, error_class=error.error_class)

    def _dispatch(self, command: AnyCommand) -> AnyAnswer:
        match command:
            case PingCommand():
                return ping.handle(self._tools, command)
            case StartCommand():
                return start.handle(self._tools, command)
            case StopCommand():
                return stop.handle(self._tools, command)
            case AttachCommand():
                return attach.handle(self._tools, command)
            case DettachCommand():
                return dettach.handle(self._tools, command)
            case StorPoolModifyStoragePoolCommand():
                return modify_pool.handle(self._tools, command)
            case StorPoolDownloadTemplateCommand():
                return download_template.handle(self._tools, command)
            case _:
                return Answer(
                    result=False,
                    details=f"{type(command).__name__} is for the secondary storage role, not for a KVM host",
                    error_class=ErrorClass.PERMANENT,
                )


def describe(error: Error) -> str:
    """The error's text, then what else went wrong while cleaning up after it."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())])
