"""`splab-agent --config FILE`: puts the real ports together and serves commands until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.agent.agent import Agent
from harness.agent.config import AgentConfig, SecondaryAccess, load_config
from harness.agent.following import FollowingTransport
from harness.agent.libvirt_hypervisor import LibvirtHypervisor
from harness.agent.real_host import RealHost, check_kernel, hold_directory
from harness.agent.secondary import KernelMount, QemuNfs
from harness.agent.server import CommandServer
from harness.runtime.threads import ThreadRuntime, stop_event
from harness.spi.errors import Error, InvalidParameter
from harness.spi.logs import log_to_stderr
from harness.spi.ports import Host, Secondary
from harness.spi.runtime import Runtime
from harness.storpool import HttpTransport, LoggedTransport, RetryPolicy, StorPoolClient

API_SECONDS = 30.0
API_RETRY = RetryPolicy(attempts=4, deadline=15.0)
"""Short: the management server tries again, and meanwhile waits for the answer."""
DRAIN_SECONDS = 600.0
"""How long SIGTERM waits for commands that run."""

_log = logging.getLogger("harness.agent")
_calls = logging.getLogger("harness.agent.StorPool")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 after SIGTERM, 2 when it cannot start; the reason is one line on stderr."""
    parser = argparse.ArgumentParser(prog="splab-agent", description="StorPool Lab's agent on a KVM host.")
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="JSON file with the agent's settings"
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        log_to_stderr(config.host_name, options.log_level)
        return serve(config)
    except Error as error:
        print(f"splab-agent: {error}", file=sys.stderr)
        return 2


def serve(config: AgentConfig) -> int:
    """Serve commands until SIGTERM or SIGINT, then until those that run have ended."""
    if config.tls is None:
        raise InvalidParameter("agent configuration: `tls` with ca, certificate and key is missing")
    check_kernel()
    runtime = ThreadRuntime(f"agent-{config.host_name}")
    agent = build(runtime, config)
    stopping = stop_event(runtime)
    # Before anything is looked at: what another agent of this host works on would look as if it had been left open.
    hold_directory(config.operations_directory)
    agent.recovery.start()
    server = CommandServer(runtime, agent.handle, config.listen, config.tls, config.max_commands)
    server.start()
    host, port = server.address
    print(f"ready https://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    _log.info("serving commands on %s port %d", host, port)
    stopping.wait()
    _log.info("stopping; no new commands are taken")
    if not server.stop(DRAIN_SECONDS):
        _log.error("commands still ran after %g s; they end with this process", DRAIN_SECONDS)
    return 0


def build(runtime: Runtime, config: AgentConfig) -> Agent:
    """The agent of this machine. Raises `Error` when StorPool's configuration or libvirt-python is missing."""
    host = RealHost(runtime)
    transport = FollowingTransport(
        host,
        config,
        lambda settings: HttpTransport(settings.endpoints, settings.token, monotonic=runtime.monotonic),
    )
    client = StorPoolClient(LoggedTransport(transport, runtime.monotonic, _calls), runtime, API_RETRY, API_SECONDS)
    hypervisor = LibvirtHypervisor(runtime, config.libvirt_uri)
    return Agent(runtime, host, hypervisor, build_secondary(runtime, host, config), client, config)


def build_secondary(runtime: Runtime, host: Host, config: AgentConfig) -> Secondary:
    if config.secondary_access is SecondaryAccess.QEMU_NFS:
        return QemuNfs()
    return KernelMount(runtime, host, config.mount_directory)


if __name__ == "__main__":
    sys.exit(main())
