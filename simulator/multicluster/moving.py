"""Moves of objects between clusters, and the end of those that were cut short (spec storpool-api 7.8)."""

from __future__ import annotations

from collections.abc import Generator

from simulator.api import errors
from simulator.api.errors import Refused
from simulator.api.schema.answers import Ok
from simulator.api.schema.transfers import MoveToRemoteDesc, TakeOver, VolumeAcquireDesc
from simulator.cluster.exports import chosen_cluster
from simulator.cluster.records import Arrival
from simulator.cluster.state import State
from simulator.multicluster.addressing import home_of, reached
from simulator.multicluster.flow import Ask, Flow, Got, Here, bridge


def volume_acquire(here: Here, body: VolumeAcquireDesc | None) -> Flow:
    """From whichever cluster of this location has it; nothing happens when that is this one."""
    name = here.call.args[0]
    if here.call.state.find(name) is None:
        source = yield from home_of(name, here.neighbours(own_location=True))
        if not source:
            raise errors.missing("Volume", name)
        yield from take_over(here, name, source, body.onRemoteAttached if body is not None else None, volume=True)
    else:
        here.call.state.volume(name)
    return Ok(generation=here.call.state.generation)


def acquire(here: Here, body: TakeOver) -> Flow:
    """As the other cluster asks, which has the object now."""
    yield from take_over(here, body.object, body.source, body.onAttached)
    return Ok(generation=here.call.state.generation)


def volume_move_to_remote(here: Here, body: MoveToRemoteDesc) -> Flow:
    found = here.call.state.volume(here.call.args[0])
    return (yield from _move(here, found.global_id, body))


def snapshot_move_to_remote(here: Here, body: MoveToRemoteDesc) -> Flow:
    found = here.call.state.snapshot(here.call.args[0])
    return (yield from _move(here, found.global_id, body))


def _move(here: Here, global_id: str, body: MoveToRemoteDesc) -> Generator[Ask, Got, object]:
    """The other cluster does it, on our behalf."""
    if here.cluster_id == body.clusterId or here.call.settings.cluster_name == body.cluster:
        return Ok(generation=here.call.state.generation)
    target = reached(here, f"~{chosen_cluster(here.call.state, body).cluster_id}")
    wanted = {"object": "~" + global_id, "source": here.cluster_id, "onAttached": body.onAttached}
    yield bridge(target.cluster_id, "Acquire", wanted)
    return Ok(generation=here.call.state.generation)


def take_over(
    here: Here, name: str, source: str, on_attached: str | None, *, volume: bool = False
) -> Generator[Ask, Got, None]:
    """The object `name` of cluster `source` is ours afterwards, with the ancestors that only it needed.

    Refused when it has to be a `volume` and is none.
    """
    located = (yield bridge(source, "Locate", {"object": name})).data
    if "globalId" not in located or (volume and located["snapshot"]):
        raise errors.missing("Volume", name)
    global_id = located["globalId"]
    if global_id in here.under_way:
        raise errors.busy(f"'~{global_id}' is being moved here already")
    for arrival in _arrivals(here):
        if global_id in arrival.global_ids:
            yield from _settle(here, source, arrival.id)
            return
    here.under_way[global_id] = 0
    try:
        move = here.under_way[global_id] = (yield bridge("", "Begin", {"source": source})).data["move"]
        depart = {"object": "~" + global_id, "to": here.cluster_id, "move": move, "onAttached": on_attached}
        try:
            departure = (yield bridge(source, "Depart", depart)).data
            yield bridge("", "Arrive", {"source": source, "move": move, "members": departure["members"]})
        except Refused:
            yield from _give_up(here, source, move)
            raise
        yield from _settle(here, source, move)
    finally:
        here.under_way.pop(global_id, None)


def _arrivals(here: Here) -> list[Arrival]:
    return list(here.call.state.table(Arrival).values())


def _settle(here: Here, source: str, move: int) -> Generator[Ask, Got, None]:
    """What is ours is dropped there. When the other cluster does not answer now, it is asked again later."""
    try:
        yield bridge(source, "Departed", {"cluster": here.cluster_id, "move": move})
    except Refused as refused:
        if refused.name == "unavailable":
            return
        raise
    yield bridge("", "Settled", {"cluster": source, "move": move})


def _give_up(here: Here, source: str, move: int) -> Generator[Ask, Got, None]:
    """It does not come. The other cluster finds that out by itself when it does not hear of it."""
    yield bridge("", "Settled", {"cluster": source, "move": move})
    try:
        yield bridge(source, "Stay", {"cluster": here.cluster_id, "move": move})
    except Refused:
        return


def in_doubt(state: State) -> bool:
    """Whether something here came or leaves whose move is not known to be over."""
    return bool(state.leaving or state.table(Arrival))


def clear_doubts(here: Here) -> Flow:
    """Finish or undo the moves that were cut short; those of clusters that do not answer are left for the next time."""
    state = here.call.state
    for arrival in _arrivals(here):
        if arrival.source not in here.reached or arrival.id in here.under_way.values():
            continue
        if arrival.global_ids:
            yield from _settle(here, arrival.source, arrival.id)
        else:
            yield from _give_up(here, arrival.source, arrival.id)
    leaving = [state.objects[serial] for serial in state.leaving]
    for target, move in dict.fromkeys((one.leaving_to, one.move) for one in leaving if one.leaving_to in here.reached):
        moved = {"cluster": here.cluster_id, "move": move}
        try:
            got = yield bridge(target, "Arrived", moved)
            if not got.data["until"]:
                yield bridge("", "Departed" if got.data["yes"] else "Stay", {"cluster": target, "move": move})
        except Refused:
            continue
    return Ok(generation=state.generation)
