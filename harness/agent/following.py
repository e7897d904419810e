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
        settings = read_host_configuration(host, config)
        self._way = settings, connect(settings)
        """Replaced as a whole: tasks that find a change together all read the same."""

    def call(self, request: Request) -> Reply:
        way = self._way
        try:
            reply = way[1].call(request)
        except NotSent:
            if self._changed(way):
                return self._way[1].call(request)
            raise
        if reply.status in REFUSED and self._changed(way):
            return self._way[1].call(request)
        return reply

    def _changed(self, way: tuple[HostConfiguration, Transport]) -> bool:
        """Whether there is another one by now, that perhaps another task has found."""
        if self._way is not way:
            return True
        try:
            settings = read_host_configuration(self._host, self._config)
            if (settings.endpoints, settings.token) == (way[0].endpoints, way[0].token):
                return False
            self._way = settings, self._connect(settings)
        except Error as error:
            _log.warning("%s", error)
            return False
        _log.info("the StorPool API is used as the host's configuration says now")
        return True
