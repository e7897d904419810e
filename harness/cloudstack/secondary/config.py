"""Settings of the secondary storage role. Unknown keys are refused; sizes are bytes, times seconds."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.agent.config import TlsFiles
from harness.spi.errors import InvalidParameter


class SecondaryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str
    """`address:port`; port 0 takes a free one, which the ready line shows."""
    export_directory: str
    """The export as this machine sees it; nothing outside it is ever written or deleted."""
    tls: TlsFiles
    max_image_bytes: int = 64 << 30
    """CloudStack's `max.template.iso.size`: a longer download is stopped."""
    max_virtual_bytes: int = 2048 << 30
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    """How long a web server may be silent in the middle of an image."""
    file_sources: tuple[str, ...] = ()
    """Directories that `file:` URLs may name files of; none means that such URLs are refused."""
    max_commands: int = 8
    downloads_listen: str | None = None
    """`address:port` where files that were published are downloaded from, by HTTP; without it none are published."""
    downloads_url: str | None = None
    """How clients reach that, without a slash at the end; by default at the address that it listens on."""
    max_downloads: int = 16
    """At a time; more are refused."""


def load_config(path: Path) -> SecondaryConfig:
    """Raises `InvalidParameter` naming the file and the key."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=SecondaryConfig)
    except OSError as error:
        raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InvalidParameter(f"{path}: {error}") from None
    if not Path(config.export_directory).is_dir():
        raise InvalidParameter(f"{path}: export_directory {config.export_directory} is not a directory; make it first")
    return config
