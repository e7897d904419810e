"""Operations on locations, clusters and bridges (spec storpool-api 2.12)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import remote as schema
from simulator.api.schema.answers import Ok
from simulator.cluster import remote

OPERATIONS = (
    get("locationsList", "LocationsList", handler=remote.locations_list, answer=schema.Locations),
    post(
        "locationAdd",
        "LocationAdd",
        handler=remote.location_add,
        request=schema.LocationAddDesc,
        answer=Ok,
        errors=("objectExists",),
    ),
    post(
        "locationRemove",
        "LocationRemove",
        handler=remote.location_remove,
        request=schema.LocationRemoveDesc,
        answer=Ok,
        errors=("objectDoesNotExist", "busy"),
    ),
    post(
        "locationUpdate",
        "LocationUpdate",
        handler=remote.location_update,
        request=schema.LocationUpdateDesc,
        answer=Ok,
        errors=("objectDoesNotExist",),
    ),
    post(
        "locationRename",
        "LocationRename",
        handler=remote.location_rename,
        request=schema.LocationRenameDesc,
        answer=Ok,
        errors=("objectDoesNotExist", "objectExists"),
    ),
    get("clustersList", "ClustersList", handler=remote.clusters_list, answer=schema.Clusters),
    post(
        "clusterAdd",
        "ClusterAdd",
        handler=remote.cluster_add,
        request=schema.ClusterAddDesc,
        answer=Ok,
        errors=("objectDoesNotExist", "objectExists"),
    ),
    post(
        "clusterRemove",
        "ClusterRemove",
        handler=remote.cluster_remove,
        request=schema.ClusterRemoveDesc,
        answer=Ok,
        errors=("objectDoesNotExist", "busy"),
    ),
    post(
        "clusterRename",
        "ClusterRename",
        handler=remote.cluster_rename,
        request=schema.ClusterRenameDesc,
        answer=Ok,
        errors=("objectDoesNotExist", "objectExists"),
    ),
    get("remoteBridgesList", "RemoteBridgesList", handler=remote.bridges_list, answer=schema.Bridges),
    post(
        "remoteBridgeAdd",
        "RemoteBridgeAdd",
        handler=remote.bridge_add,
        request=schema.BridgeAddDesc,
        answer=Ok,
        errors=("objectDoesNotExist", "objectExists"),
    ),
    post(
        "remoteBridgeRemove",
        "RemoteBridgeRemove",
        handler=remote.bridge_remove,
        request=schema.BridgeRemoveDesc,
        answer=Ok,
        errors=("objectDoesNotExist",),
    ),
)
