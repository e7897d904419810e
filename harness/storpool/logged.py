"""A transport that tells every call: in which order what was asked of StorPool, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable

from harness.spi.errors import Error
from harness.storpool.transport import Reply, Request, Transport

BODY_SHOWN = 300
"""Characters of a request's body, and of an answer that is an error."""


class LoggedTransport:
    """Writes every StorPool call and its outcome into `log`, one line each. Headers, and so the token, stay unshown."""

    def __init__(self, inner: Transport, monotonic: Callable[[], float], log: logging.Logger) -> None:
        self._inner = inner
        self._monotonic = monotonic
        self._log = log

    def call(self, request: Request) -> Reply:
        if not self._log.isEnabledFor(logging.INFO):
            return self._inner.call(request)
        asked = f"{request.verb} {request.path}"
        if request.body is not None:
            asked += f" {request.body.decode(errors='replace')[:BODY_SHOWN]}"
        began = self._monotonic()
        try:
            reply = self._inner.call(request)
        except Error as error:
            self._log.info("%s: %s", asked, error)
            raise
        shown = f" {reply.body.decode(errors='replace')[:BODY_SHOWN]}" if reply.status != 200 else ""
        self._log.info("%s: %d%s in %.3f s", asked, reply.status, shown, self._monotonic() - began)
        return reply
