"""How every process of the plugin and its rig logs: JSON lines on standard error."""

from __future__ import annotations

import logging
import sys

import msgspec


class JsonLines(logging.Formatter):
    """One JSON object a line: ts (Unix seconds), level, logger, host, message, and a traceback if there is one."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "host": self._host,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def log_to_stderr(host: str, level: str = "info") -> None:
    """From now on everything from `level` up goes to standard error, with `host` named as its origin."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(host))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
