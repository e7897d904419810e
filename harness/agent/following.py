"""The way to the StorPool API as this host's configuration names it now: a corrected one needs no restart."""

from __future__ import annotations

import logging
from collections.abc import Callable

from harness.agent.config import AgentConfig
from harness.agent.storpool_conf import read_host_configuration
from harness.spi.errors import Error
from harness.spi.ports import Host
from harness.storpool import HostConfiguration, NotSent, Reply, Request, Transport

_log = logging.getLogger("harness.agent")

REFUSED = (401, 403)


class FollowingTransport:
    """Reads endpoints and token again when the API refuses the token or is not reached; calls again if they changed.

    Neither has done anything, so a call that changes something can be sent again. Raises `InvalidParameter` when the
    configuration cannot be used at the start; later what was read last is kept.
    """

    def __init__(self, host: Host, config: AgentConfig, connect: Callable[[HostConfiguration], Transport]) -> None:
        self._host = host
        self._config = config
        self._connect = connect
        self._settings = read_host_configuration(host, config)
        self._inner = connect(self._settings)

    def call(self, request: Request) -> Reply:
        try:
            reply = self._inner.call(request)
        except NotSent:
            if self._changed():
                return self._inner.call(request)
            raise
        if reply.status in REFUSED and self._changed():
            return self._inner.call(request)
        return reply

    def _changed(self) -> bool:
        try:
            settings = read_host_configuration(self._host, self._config)
            if (settings.endpoints, settings.token) == (self._settings.endpoints, self._settings.token):
                return False
            inner = self._connect(settings)
        except Error as error:
            _log.warning("%s", error)
            return False
        self._settings, self._inner = settings, inner
        _log.info("the StorPool API is used as the host's configuration says now")
        return True
