"""StorPool's own configuration on this host, read through the Host port (spec/storpool-api.md section 10.1)."""

from __future__ import annotations

from harness.agent.config import AgentConfig
from harness.spi.errors import InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.ports import Host
from harness.storpool import HostConfiguration, is_configuration_file, parse_configuration

LIST_SECONDS = 10.0


def read_host_configuration(host: Host, config: AgentConfig) -> HostConfiguration:
    """Settings that hold for this host. Raises `InvalidParameter` naming host and file when they cannot be read."""
    try:
        texts = [host.read_text(config.storpool_conf)]
        texts.extend(host.read_text(path) for path in _drop_ins(host, config.storpool_conf_directory))
        return parse_configuration(texts, config.host_name)
    except (NotFound, InvalidParameter) as error:
        raise InvalidParameter(
            f"StorPool's configuration of host {config.host_name} ({config.storpool_conf}) cannot be used: {error}"
        ) from error


def _drop_ins(host: Host, directory: str | None) -> list[str]:
    """Files of the directory that count, in StorPool's order; none when there is no such directory."""
    if directory is None:
        return []
    argv = ("find", directory, "-mindepth", "1", "-maxdepth", "1", "-name", "*.conf", "-printf", "%f\\n")
    try:
        found = host.run(argv, timeout=LIST_SECONDS)
    except (NotFound, Unavailable, Unknown):
        return []
    names = found.stdout.decode(errors="surrogateescape").splitlines()
    return [f"{directory}/{name}" for name in sorted(names) if is_configuration_file(name)]
