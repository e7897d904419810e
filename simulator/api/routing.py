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


def _table() -> dict[tuple[str, str], list[Operation]]:
    """By verb and first words. VolumeAbandonDisk is two operations, told apart by what may stand in their paths."""
    table: dict[tuple[str, str], list[Operation]] = {}
    for operation in OPERATIONS:
        table.setdefault((operation.verb.value, operation.call), []).append(operation)
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
    operation = found[0] if len(found) == 1 else next((one for one in found if _fits(one, tail)), found[0])
    if not operation.parameters and not tail:
        return Route(operation, (), multicluster, everywhere)
    return Route(operation, _arguments(operation, tail), multicluster, everywhere)


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


def _fits(operation: Operation, tail: str) -> bool:
    try:
        _arguments(operation, tail)
    except Refused:
        return False
    return True


def _arguments(operation: Operation, tail: str) -> tuple[str, ...]:
    """The last argument may hold slashes, as a key of the key-value store can."""
    parameters = operation.parameters
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
