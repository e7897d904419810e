"""Which cluster a call is for (spec storpool-api 1.1): RemoteCommand, MultiCluster and AllClusters."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from simulator.api import errors
from simulator.api.errors import Refused
from simulator.api.paths import BASE, BRIDGE_BASE, Route
from simulator.api.schema.requests import GroupSnapshotsSpec, VolumeCreateDesc
from simulator.api.schema.transfers import VolumeBackupDesc, VolumesGroupBackupDesc
from simulator.cluster.records import COPY
from simulator.cluster.remote import Neighbour, neighbour
from simulator.multicluster.flow import Ask, Flow, Got, Here, bridge
from simulator.ports import Request

_LISTS = frozenset({"VolumesList", "SnapshotsList", "VolumesSpace", "SnapshotsSpace", "AttachmentsList"})
_MAPS = frozenset({"VolumesGetStatus", "VolumesGetStatusQuick"})
_MIXED = "VolumesAndSnapshotsList"


def reached(here: Here, reference: str) -> Neighbour:
    """The registered cluster of this name or `~id`. Raises `Refused` when it is unknown or cannot be reached."""
    found = neighbour(here.call.state, reference)
    if found is None:
        raise errors.missing("Cluster", reference[:100])
    if not found.bridged:
        raise errors.invalid(f"No bridge to cluster '{found.name}' is registered; use RemoteBridgeAdd")
    if found.cluster_id not in here.reached:
        raise errors.unavailable(f"Cluster '{found.name}' cannot be reached")
    return found


def remote_command(here: Here, reference: str, rest: str, request: Request) -> Flow:
    """Make the call `rest` at the cluster that is named."""
    target = reached(here, reference)
    got = yield Ask(target.cluster_id, request.verb, BASE + rest, request.body)
    return got.reply


def multicluster(here: Here, route: Route, body: object, request: Request) -> Flow | None:
    """How a MultiCluster call is answered that this cluster alone cannot answer; None when it can."""
    others = here.neighbours(own_location=True)
    call = route.operation.call
    if not others or call == "VolumeAcquire":  # which brings the volume here, wherever it is
        return None
    if call in _LISTS or call in _MAPS or call == _MIXED:
        return _everybody(route, request, others)
    if call == "SnapshotDelete":
        return _delete(here, route, request, others)
    references = _references(route, body)
    if all(_is_here(here, route, reference) for reference in references):
        return None
    return _at_owner(here, route, request, references, others)


def _is_here(here: Here, route: Route, reference: str) -> bool:
    """A copy whose owner is another cluster will do to make a volume of it."""
    found = here.call.state.find(reference)
    return found is not None and (found.state != COPY or route.operation.call == "VolumeCreate")


def _home(here: Here, route: Route, reference: str, others: list[Neighbour]) -> Generator[Ask, Got, str]:
    """Empty for this cluster."""
    if _is_here(here, route, reference):
        return ""
    return (yield from home_of(reference, others, copy_here=here.call.state.find(reference) is not None))


def _references(route: Route, body: object) -> list[str]:
    """The existing objects that decide where the call is made."""
    if route.operation.parameters and route.operation.parameters[0] in ("volumeName", "snapshotName"):
        return [route.args[0]]
    if isinstance(body, VolumeCreateDesc):
        return [name for name in (body.parent, body.baseOn) if name]
    if isinstance(body, GroupSnapshotsSpec):
        return [item.volume for item in body.volumes]
    if isinstance(body, VolumesGroupBackupDesc):
        return list(body.volumes)
    if isinstance(body, VolumeBackupDesc):
        return [body.volume]
    return []


def _at_owner(here: Here, route: Route, request: Request, references: list[str], others: list[Neighbour]) -> Flow:
    """Where all of the objects are; here, which refuses it, when that is nowhere."""
    homes: dict[str, str] = {}
    for reference in references:
        homes[reference] = yield from _home(here, route, reference, others)
    apart = set(homes.values())
    if len(apart) > 1:
        where = ", ".join(f"'{name}' in {home or here.cluster_id}" for name, home in homes.items())
        raise errors.invalid(f"{route.operation.call} takes objects of one cluster only: {where}")
    got = yield alone(apart.pop(), route, request)
    return got.reply


def _delete(here: Here, route: Route, request: Request, others: list[Neighbour]) -> Flow:
    """By its owner, then what other clusters of the location have of it, or it would still be found."""
    home = yield from _home(here, route, route.args[0], others)
    located = (yield bridge(home, "Locate", {"object": route.args[0]})).data
    reference = "~" + located.get("globalId", "")
    got = yield alone(home, route, request)
    for cluster in ("", *(other.cluster_id for other in others)):
        if cluster == home:
            continue
        try:
            copy = (yield bridge(cluster, "Locate", {"object": reference})).data
            if copy["copy"]:
                yield Ask(cluster, request.verb, f"{BRIDGE_BASE}MultiCluster/SnapshotDelete/{reference}")
        except Refused as refused:
            if refused.name != "unavailable":
                raise
    return got.reply


def home_of(reference: str, others: list[Neighbour], *, copy_here: bool = False) -> Generator[Ask, Got, str]:
    """Id of the other cluster that has the object, its owner rather than one with a copy; empty when none has.

    `unavailable` when one that may have it does not answer: clients take it for deleted if they hear that none has.
    """
    copy = ""
    silent: Refused | None = None
    for other in others:
        try:
            got = yield bridge(other.cluster_id, "Locate", {"object": reference})
        except Refused as refused:
            if refused.name != "unavailable":
                raise
            silent = refused
            continue
        if got.data.get("owner"):
            return other.cluster_id
        if "globalId" in got.data:
            copy = other.cluster_id
    if copy_here:
        return ""
    if silent is not None and not copy:
        raise silent
    return copy


def alone(cluster: str, route: Route, request: Request) -> Ask:
    """The call in its MultiCluster form, to be answered by that cluster by itself."""
    path = "/".join((f"{BRIDGE_BASE}MultiCluster/{route.operation.call}", *route.args))
    return Ask(cluster, request.verb, path, request.body)


def _everybody(route: Route, request: Request, others: list[Neighbour]) -> Flow:
    """One list, or map, of all; of two objects with one name in a map, the one that is here."""
    answers: list[Any] = []
    for cluster in ("", *(other.cluster_id for other in others)):
        got = yield alone(cluster, route, request)
        answers.append(got.data)
    if route.operation.call in _LISTS:
        return [entry for answer in answers for entry in answer]
    if route.operation.call in _MAPS:
        merged: dict[str, Any] = {}
        for answer in reversed(answers):
            merged.update(answer)
        return merged
    return {"ok": True, "volumes": [entry for answer in answers for entry in answer["volumes"]]}


def all_clusters(here: Here, route: Route, request: Request) -> Flow:
    """What each cluster of the location answers, errors included."""
    answers: list[Any] = []
    for cluster in ("", *(other.cluster_id for other in here.neighbours(own_location=True))):
        try:
            got = yield alone(cluster, route, request)
        except Refused as refused:
            answers.append({"error": {"name": refused.name, "descr": refused.descr, "transient": refused.transient}})
        else:
            answers.append({"response": {"generation": got.generation, "data": got.data}})
    return {"clusters": answers}
