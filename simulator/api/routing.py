"""From a path to the operation, its arguments and the cluster that is meant (spec storpool-api 1.1)."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.api.errors import Refused, invalid, missing
from simulator.api.operation import Operation
from simulator.api.operations import OPERATIONS
from simulator.api.scalars import PATH_ARGUMENTS
from simulator.settings import Settings

BASE = "/ctrl/1.0/"


@dataclass(frozen=True, slots=True)
class Route:
    operation: Operation
    args: tuple[str, ...]
    multicluster: bool
    all_clusters: bool


def _table() -> dict[tuple[str, str], tuple[Operation, tuple[str, ...]]]:
    table: dict[tuple[str, str], tuple[Operation, tuple[str, ...]]] = {}
    for operation in OPERATIONS:
        # snapshotAbandonDisk has volumeAbandonDisk's path; whichever comes first serves both.
        table.setdefault((operation.verb.value, operation.call), (operation, operation.parameters))
    return table


_TABLE = _table()


def route(verb: str, path: str, settings: Settings) -> Route:
    """Raises `Refused` when no operation is meant or an argument cannot be one."""
    if not path.startswith(BASE):
        raise Refused("unknownCall", f"'{path[:100]}' is not under {BASE}")
    rest = path[len(BASE) :]
    multicluster = everywhere = False
    if rest.startswith("RemoteCommand/"):
        rest = _own_cluster(rest, settings)
    if rest.startswith("MultiCluster/"):
        multicluster, rest = True, rest[len("MultiCluster/") :]
        if rest.startswith("AllClusters/"):
            everywhere, rest = True, rest[len("AllClusters/") :]
    name, _, tail = rest.partition("/")
    if name == "KV" and tail:
        word, _, tail = tail.partition("/")
        name = f"KV/{word}"
    found = _TABLE.get((verb, name))
    if found is None:
        raise _unknown(verb, name)
    operation, parameters = found
    if not parameters and not tail:
        return Route(operation, (), multicluster, everywhere)
    return Route(operation, _arguments(operation, parameters, tail), multicluster, everywhere)


def _own_cluster(rest: str, settings: Settings) -> str:
    """Only this cluster is known, by name or by `~id`."""
    _, name, *tail = rest.split("/", 2)
    if name not in (settings.cluster_name, f"~{settings.cluster_id}"):
        raise missing("Cluster", name[:100])
    return tail[0] if tail else ""


def _unknown(verb: str, name: str) -> Refused:
    for (other, known), _ in _TABLE.items():
        if known == name and other != verb:
            return Refused("unknownCall", f"{name} is a {other} call, not {verb}")
    return Refused("unknownCall", f"There is no call '{name[:100]}'")


def _arguments(operation: Operation, parameters: tuple[str, ...], tail: str) -> tuple[str, ...]:
    """The last argument may hold slashes, as a key of the key-value store can."""
    args = tuple(tail.split("/", len(parameters) - 1)) if parameters and tail else ()
    if len(args) != len(parameters) or (tail and not parameters):
        raise invalid(f"{operation.call} takes {len(parameters)} arguments in its path: {operation.path}")
    for parameter, value in zip(parameters, args, strict=True):
        pattern, longest = PATH_ARGUMENTS[parameter]
        if len(value) > longest:
            raise invalid(f"{parameter} is too long: {len(value)} characters, at most {longest}")
        if not pattern.match(value):
            raise invalid(f"Invalid {parameter} '{value}'")
    return args
