"""StorPool's configuration of this host (spec storpool-api 10.1), read by the vendor's own library.

`/etc/storpool.conf`, then `/etc/storpool.conf.d/*.conf`, then three environment variables. `SPLAB_ETC` names another
directory than `/etc`, for tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from storpool import spconfig

from simulator.commands.api import Endpoint

ETC = "SPLAB_ETC"
_TOKEN = re.compile(r"[!-~]+\Z")


class ConfigurationError(Exception):
    """The configuration cannot be read, or lacks something; its text never holds a value."""


def read(section: str | None = None) -> dict[str, str]:
    """Every variable as host `section`, or this host, has it, the defaults of the vendor's library included."""
    locate(spconfig.SPConfig)
    try:
        return dict(spconfig.SPConfig(section=section).items())
    except spconfig.SPConfigException as error:
        cause = error.__context__
        if isinstance(cause, OSError):
            raise ConfigurationError(f"{cause.filename}: {cause.strerror}") from None
        # The library's own text quotes the line, which may be the token's.
        raise ConfigurationError(
            f"{spconfig.SPConfig.PATH_CONFIG} or a file of {spconfig.SPConfig.PATH_CONFIG_DIR}: "
            "a line is neither a setting, a section nor a comment"
        ) from None


def locate(config: Any) -> None:
    """Tell the class `SPConfig` of the vendor's library where the files are, if not in `/etc`."""
    etc = os.environ.get(ETC)
    if etc:
        config.PATH_CONFIG = f"{etc}/storpool.conf"
        config.PATH_CONFIG_DIR = f"{etc}/storpool.conf.d"


def endpoint(values: Mapping[str, str]) -> Endpoint:
    port = _number(values, "SP_API_HTTP_PORT", 65535)
    token = _value(values, "SP_AUTH_TOKEN")
    if not _TOKEN.match(token):
        raise ConfigurationError("SP_AUTH_TOKEN has characters that no header can carry")
    return Endpoint(_value(values, "SP_API_HTTP_HOST"), port, token)


def client_id(values: Mapping[str, str]) -> int:
    """This host's id as a client."""
    return _number(values, "SP_OURID", 4095)


def _value(values: Mapping[str, str], name: str) -> str:
    if not values.get(name):
        raise ConfigurationError(f"{name} is not set in storpool.conf for this host")
    return values[name]


def _number(values: Mapping[str, str], name: str, highest: int) -> int:
    text = _value(values, name)
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= highest:
        raise ConfigurationError(f"{name} in storpool.conf is not a number from 1 to {highest}")
    return int(text)
