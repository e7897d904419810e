"""`splab-simulator`: the command."""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Never

import click
import msgspec
import structlog

from simulator import clustersfile
from simulator.blocks.pool import KINDS
from simulator.clustersfile import ClustersFileError
from simulator.multicluster.elsewhere import Endpoint
from simulator.ports import BlocksError, JournalError
from simulator.process import ClusterOptions, Options, run
from simulator.services import policies, tiers
from simulator.settings import Settings
from simulator.statedir import StateInUse, remove

_LOCK_SECONDS = 10.0
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    return address(value)


def address(value: str) -> tuple[str, int]:
    """Raises `click.BadParameter`."""
    host, _, port = value.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, for example 127.0.0.1:8081")
    return host, int(port)


def _bytes(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]+)([KMGT]?)(i?B)?", value)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is not a size, for example 20G")
    return int(found[1]) * _UNITS[found[2]]


def read_token(path: Path | None, environment: Mapping[str, str]) -> str:
    """From the file, else from SPLAB_TOKEN. Raises `click.ClickException`; its text never holds the token."""
    if path is None:
        token, source = environment.get("SPLAB_TOKEN"), "SPLAB_TOKEN"
        if token is None:
            raise click.ClickException("no token: set SPLAB_TOKEN, or give --token-file with a file of mode 600")
    else:
        source = str(path)
        try:
            with path.open() as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise click.ClickException(f"token file {path} has mode {mode:o}, so others may read it: chmod 600")
                token = file.read(4096)
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(f"cannot read token file {path}: {error}") from error
    token = token.strip()
    if not token:
        raise click.ClickException(f"the token in {source} is empty")
    if not re.fullmatch(r"[!-~]{1,256}", token):
        raise click.ClickException(f"the token in {source} has blanks, control or non-ASCII characters, or is too long")
    return token


def read_configuration(path: Path, parse: Callable[[str], object]) -> str:
    """The text of a service's configuration. Raises `click.ClickException` when the service would not take it."""
    try:
        text = path.read_text()
        parse(text)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot take {path}: {error}") from error
    return text


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--listen",
    callback=_address,
    default="127.0.0.1:81",
    show_default=True,
    metavar="HOST:PORT",
    help="Port 0: any free port.",
)
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="What outlives a stop lies here."
)
@click.option(
    "--blocks",
    type=click.Choice(["loop", "memory"]),
    default="loop",
    show_default=True,
    help="memory: no devices, and volumes are empty after each start.",
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="File of mode 600 with the API token; else SPLAB_TOKEN."
)
@click.option(
    "--pool", "pool_kind", type=click.Choice(KINDS), help="File system of a new pool; default: the first that works."
)
@click.option("--pool-size", callback=_bytes, metavar="SIZE", help="Of a new pool, for example 20G.")
@click.option("--cluster-id", default=Settings().cluster_id, show_default=True, help="LOCATION.SUBCLUSTER")
@click.option(
    "--clusters",
    "clusters_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Several clusters that reach each other, in place of --listen, --state and --cluster-id; "
    "JSON as in simulator/clustersfile.py.",
)
@click.option("--loose", is_flag=True, help="Drop unknown request fields instead of refusing them.")
@click.option(
    "--control",
    is_flag=True,
    help="Serve the control API under /_sim/ (its calls: simulator/api/control.py), on a loopback address.",
)
@click.option(
    "--control-anywhere", is_flag=True, help="With --control: also on an address that other machines can reach."
)
@click.option(
    "--qos",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Tiers of storpool_qos for the key-value store, if it has none; JSON as simulator/services/examples/qos.json.",
)
@click.option(
    "--qos-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=Settings().qos_seconds,
    show_default=True,
    help="How often storpool_qos looks at the limits of volumes.",
)
@click.option(
    "--volumecare",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration of VolumeCare for the key-value store, if it has none; "
    "as simulator/services/examples/volumecare.conf.",
)
@click.option(
    "--destroy", "destroying", is_flag=True, help="Remove everything that the state directory has on this machine."
)
def main(
    listen: tuple[str, int],
    state: Path | None,
    blocks: str,
    token_file: Path | None,
    pool_kind: str | None,
    pool_size: int | None,
    cluster_id: str,
    clusters_file: Path | None,
    loose: bool,
    control: bool,
    control_anywhere: bool,
    qos: Path | None,
    qos_seconds: float,
    volumecare: Path | None,
    destroying: bool,
) -> None:
    """A StorPool cluster of one process, with real block devices.

    Prints one line `ready http://HOST:PORT` when it serves; SIGTERM stops it.
    """
    _log_to_stderr()
    if destroying:
        _destroy(state)
        return
    if control_anywhere and not control:
        raise click.UsageError("--control-anywhere says where --control may be served; give both")
    configurations = _configurations(qos, volumecare)
    base = Settings(loose=loose, qos_seconds=qos_seconds)
    common = (blocks, pool_kind, pool_size, control, control_anywhere, configurations)
    if clusters_file is not None:
        context = click.get_current_context()
        for name in ("listen", "state", "cluster_id"):
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(f"--{name.replace('_', '-')} is said for each cluster in the file of --clusters")
        clusters, elsewhere = _several(clusters_file, token_file, blocks, base)
        _run(Options(clusters, elsewhere, *common))
    if state is None and blocks == "loop":
        raise click.UsageError("--state DIR is needed for block devices; without them run with --blocks memory")
    if not re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+", cluster_id):
        raise click.UsageError(f"--cluster-id {cluster_id!r} is not LOCATION.SUBCLUSTER in small letters and digits")
    token = read_token(token_file, os.environ)
    os.environ.pop("SPLAB_TOKEN", None)
    cluster = ClusterOptions(*listen, state, token, msgspec.structs.replace(base, cluster_id=cluster_id))
    _run(Options((cluster,), {}, *common))


def _configurations(qos: Path | None, volumecare: Path | None) -> dict[str, str]:
    """By bucket of the key-value store."""
    buckets, found = Settings(), {}
    if qos is not None:
        found[buckets.qos_bucket] = read_configuration(qos, tiers.parse)
    if volumecare is not None:
        found[buckets.volumecare_bucket] = read_configuration(volumecare, policies.parse)
    return found


def _several(
    path: Path, token_file: Path | None, blocks: str, base: Settings
) -> tuple[tuple[ClusterOptions, ...], dict[str, Endpoint]]:
    try:
        entries = clustersfile.read(path)
    except ClustersFileError as error:
        raise click.ClickException(str(error)) from error
    here, elsewhere = [], {}
    for entry in entries:
        token = read_token(entry.token_file or token_file, os.environ)
        if entry.listen is None:
            elsewhere[entry.known.cluster_id] = Endpoint(entry.url or "", token)
            continue
        if entry.state is None and blocks == "loop":
            raise click.ClickException(f"{path}: cluster {entry.known.cluster_id!r} needs 'state' for block devices")
        known = tuple(one.known for one in entries)
        names = {"cluster_id": entry.known.cluster_id, "cluster_name": entry.known.name}
        settings = msgspec.structs.replace(base, known_clusters=known, **names)
        here.append(ClusterOptions(*address(entry.listen), entry.state, token, settings))
    os.environ.pop("SPLAB_TOKEN", None)
    return tuple(here), elsewhere


def _run(options: Options) -> Never:
    try:
        sys.exit(run(options))
    except (StateInUse, BlocksError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _destroy(state: Path | None) -> None:
    if state is None:
        raise click.UsageError("--destroy needs --state DIR")
    try:
        lines = remove(state, patience=Patience())
    except (StateInUse, BlocksError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for line in lines:
        click.echo(line)


class Patience:
    """Waits a little at each question, and says no when the time is over."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + _LOCK_SECONDS

    def __call__(self) -> bool:
        time.sleep(0.1)
        return time.monotonic() < self._deadline


def _log_to_stderr() -> None:
    """JSON lines; stdout has the one line that says ready."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    main()
