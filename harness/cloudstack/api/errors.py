"""Errors as CloudStack's API shows them: HTTP status, `errorcode`, `cserrorcode` (spec/cloudstack-api.md section 3)."""

from __future__ import annotations

import logging

from harness.spi.errors import (
    Conflict,
    Error,
    InsufficientCapacity,
    InvalidParameter,
    MisuseError,
    NotFound,
    Unavailable,
)

_log = logging.getLogger("harness.cloudstack.api")

MALFORMED, UNAUTHORIZED, PARAMETER, UNSUPPORTED = 430, 401, 431, 432
INTERNAL, LIMIT, CAPACITY, UNAVAILABLE, IN_USE = 530, 532, 533, 534, 536

_CS_ERROR_CODES = {PARAMETER: 4350, INTERNAL: 4250, CAPACITY: 4325, UNAVAILABLE: 4380, IN_USE: 4375, LIMIT: 4370}
_CODES: tuple[tuple[type[Error], int], ...] = (
    (InvalidParameter, PARAMETER),
    (NotFound, PARAMETER),
    (InsufficientCapacity, CAPACITY),
    (Unavailable, UNAVAILABLE),
    (Conflict, IN_USE),
)


class ApiError(Exception):
    """An error answer. `code` is also the HTTP status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def cs_code(self) -> int:
        return _CS_ERROR_CODES.get(self.code, 9999)

    def body(self) -> dict[str, object]:
        return {"uuidList": [], "errorcode": self.code, "cserrorcode": self.cs_code, "errortext": self.text}


def as_api_error(error: Exception) -> ApiError:
    """What the API says of any error; one that nobody expected is logged and shown without its text."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MisuseError):
        raise error
    if isinstance(error, Error):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL)
        return ApiError(code, str(error))
    _log.error("unexpected error", exc_info=error)
    return ApiError(INTERNAL, f"internal error ({type(error).__name__}); the management server's log has the details")
