"""From a path to the operation, its arguments and the cluster that is meant (spec storpool-api 1.1)."""

from __future__ import annotations

from functools import lru_cache

from simulator.api.errors import Refused, invalid, missing
from simulator.api.operation import Operation
from simulator.api.operations import BRIDGE, OPERATIONS
from simulator.api.paths import BASE, BRIDGE_BASE, Route
from simulator.api.scalars import PATH_ARGUMENTS
from simulator.settings import Settings


def _table() -> dict[tuple[str, str], list[Operation]]:
    """By verb and first words. VolumeAbandonDisk is two operations, told apart by what may stand in their paths."""
    table: dict[tuple[str, str], list[Operation]] = {}
    for operation in OPERATIONS:
        table.setdefault((operation.verb.value, operation.call), []).append(operation)
    return table


_TABLE = _table()
_BRIDGE = {operation.path: operation for operation in BRIDGE}


def route(verb: str, path: str, settings: Settings) -> Route:
    """Raises `Refused` when no operation is meant or an argument cannot be one."""
    if path.startswith(BRIDGE_BASE):
        return _bridged(verb, path[len(BRIDGE_BASE) :])
    if not path.startswith(BASE):
        hint = "; the control API needs a simulator started with --control" if path.startswith("/_sim/") else ""
        raise Refused("unknownCall", f"'{path[:100]}' is not under {BASE}{hint}")
    rest = path[len(BASE) :]
    multicluster = everywhere = False
    if rest.startswith("RemoteCommand/"):
        rest = _own_cluster(rest, settings)
    if rest.startswith("MultiCluster/"):
        multicluster, rest = True, rest[len("MultiCluster/") :]
        if rest.startswith("AllClusters/"):
            everywhere, rest = True, rest[len("AllClusters/") :]
    operation, args = _found(verb, rest)
    return Route(operation, args, multicluster, everywhere)


def remote_command(path: str, settings: Settings) -> tuple[str, str] | None:
    """The other cluster that a path is for, and the rest of it; None when it is for this one."""
    start = BASE + "RemoteCommand/"
    if not path.startswith(start):
        return None
    cluster, _, rest = path[len(start) :].partition("/")
    return None if _is_own(cluster, settings) else (cluster, rest)


def _bridged(verb: str, rest: str) -> Route:
    if rest.startswith("MultiCluster/"):
        operation, args = _found(verb, rest[len("MultiCluster/") :])
        return Route(operation, args, multicluster=True, alone=True)
    bridged = _BRIDGE.get(rest)
    if bridged is None or verb != bridged.verb.value:
        raise _unknown(verb, rest)
    return Route(bridged, (), alone=True)


@lru_cache(maxsize=4096)
def _found(verb: str, rest: str) -> tuple[Operation, tuple[str, ...]]:
    name, _, tail = rest.partition("/")
    if name == "KV" and tail:
        word, _, tail = tail.partition("/")
        name = f"KV/{word}"
    found = _TABLE.get((verb, name))
    if found is None:
        raise _unknown(verb, name)
    operation = found[0] if len(found) == 1 else next((one for one in found if _fits(one, tail)), found[0])
    if not operation.parameters and not tail:
        return operation, ()
    return operation, _arguments(operation, tail)


def _is_own(cluster: str, settings: Settings) -> bool:
    return cluster in (settings.cluster_name, f"~{settings.cluster_id}")


def _own_cluster(rest: str, settings: Settings) -> str:
    """This cluster itself, by name or by `~id`."""
    _, name, *tail = rest.split("/", 2)
    if not _is_own(name, settings):
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
