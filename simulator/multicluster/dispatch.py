"""Which calls are flows: those that always take several steps, and those that other clusters have a part in."""

from __future__ import annotations

from typing import cast

from simulator.api.paths import Route
from simulator.multicluster import addressing, attaching
from simulator.multicluster.flow import Flow, Here
from simulator.ports import Request


def may_be_flow(route: Route, *, reaches_others: bool) -> bool:
    """False for what is surely one change or query here, as nearly all calls are."""
    return route.operation.flow is not None or route.all_clusters or (reaches_others and not route.alone)


def flow_of(here: Here, route: Route, body: object, request: Request) -> Flow | None:
    """What the call consists of; None when it is one change or query here after all."""
    operation = route.operation
    if route.all_clusters:
        return addressing.all_clusters(here, route, request)
    if operation.call in ("VolumesReassign", "VolumesReassignWait"):
        items = cast(attaching.Body, body)
        if not attaching.concerns_others(here, items, multicluster=route.multicluster):
            return None
        return attaching.reassign(here, items, operation.call, multicluster=route.multicluster)
    if route.multicluster and not route.alone:
        flow = addressing.multicluster(here, route, body, request)
        if flow is not None:
            return flow
    if operation.flow is None:
        return None
    return cast(Flow, operation.flow(here) if operation.request is None else operation.flow(here, body))
