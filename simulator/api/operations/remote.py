"""Operations on locations, clusters and bridges (spec storpool-api 2.12)."""

from __future__ import annotations

from simulator.api.operation import get, post

OPERATIONS = (
    get("locationsList", "LocationsList"),
    post("locationAdd", "LocationAdd"),
    post("locationRemove", "LocationRemove"),
    post("locationUpdate", "LocationUpdate"),
    post("locationRename", "LocationRename"),
    get("clustersList", "ClustersList"),
    post("clusterAdd", "ClusterAdd"),
    post("clusterRemove", "ClusterRemove"),
    post("clusterRename", "ClusterRename"),
    get("remoteBridgesList", "RemoteBridgesList"),
    post("remoteBridgeAdd", "RemoteBridgeAdd"),
    post("remoteBridgeRemove", "RemoteBridgeRemove"),
)
