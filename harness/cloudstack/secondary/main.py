"""`python -m harness.cloudstack.secondary.main --config FILE`: serves the role's commands until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.agent.real_host import RealHost
from harness.agent.server import CommandServer
from harness.cloudstack.secondary.config import SecondaryConfig, load_config
from harness.cloudstack.secondary.downloads import Downloads
from harness.cloudstack.secondary.role import SecondaryRole
from harness.runtime.threads import ThreadRuntime, stop_event
from harness.spi.errors import Error
from harness.spi.logs import log_to_stderr

DRAIN_SECONDS = 60.0

_log = logging.getLogger("harness.cloudstack.secondary")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 after SIGTERM, 2 when it cannot start; the reason is one line on stderr."""
    parser = argparse.ArgumentParser(description="StorPool Lab's secondary storage role.")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    log_to_stderr("secondary")
    try:
        return serve(load_config(options.config))
    except (Error, OSError) as error:
        print(f"secondary storage role: {error}", file=sys.stderr)
        return 2


def serve(config: SecondaryConfig) -> int:
    """Serve until SIGTERM or SIGINT, then until the commands that run have ended."""
    runtime = ThreadRuntime("secondary")
    downloads = None if config.downloads_listen is None else Downloads(runtime, config, config.downloads_listen)
    role = SecondaryRole(runtime, RealHost(runtime), config, None if downloads is None else lambda: downloads.url)
    stopping = stop_event(runtime)
    server = CommandServer(runtime, role.handle, config.listen, config.tls, config.max_commands)
    server.start()
    if downloads is not None:
        downloads.start()
    host, port = server.address
    print(f"ready https://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    while not stopping.wait(1.0):
        pass
    if downloads is not None:
        downloads.stop()
    if not server.stop(DRAIN_SECONDS):
        _log.error("commands still ran after %g s; they end with this process", DRAIN_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
