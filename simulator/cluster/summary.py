"""Objects as the API shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from simulator.api.schema.answers import IntOrDash, Summary
from simulator.cluster.plan import Call
from simulator.cluster.records import COPY, OWNER, Object
from simulator.cluster.state import State
from simulator.ports import Links

OBJECT_BYTES = 32 << 20
"""Most that one StorPool object (a piece of a volume) covers."""
NO_VOLUME = "-"
_encode = msgspec.json.Encoder().encode
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """Lower case, as global ids show serials."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _ALPHABET[digit] + digits
        if not number:
            return digits


def or_dash(value: int) -> IntOrDash:
    """`-` for unlimited and for not set."""
    return "-" if value < 0 else value


def objects_count(size: int) -> int:
    return -(-size // OBJECT_BYTES)


def links(found: Object, client: int, cluster: str = "") -> Links:
    """An unnamed object is seen by id only; after a revert by its old id too (spec 7.4). Clients of another cluster see
    it by id only: there the name may be another object's."""
    if cluster and not found.name.startswith("~"):
        return Links(client, (), (found.global_id,), cluster)
    if cluster:
        return Links(client, (), (found.global_id, found.name[1:]), cluster)
    if not found.name:
        return Links(client, (), (found.global_id,))
    if found.name.startswith("~"):
        return Links(client, (), (found.global_id, found.name[1:]))
    return Links(client, (found.name,), (found.global_id,))


def fields(call: Call, found: Object) -> dict[str, Any]:
    """Fields of `Summary` (Any: each has its own type; tests hold the structs to the vendor's)."""
    state = call.state
    template = state.templates[found.template].name if found.template else ""
    parent = state.objects.get(found.parent)
    shown: dict[str, Any] = {
        "id": found.id,
        "name": found.shown_name,
        "globalId": found.global_id,
        "size": found.size,
        "replication": found.replication,
        "placeAll": state.groups[found.place_all].name,
        "placeTail": state.groups[found.place_tail].name,
        "placeHead": state.groups[found.place_head].name,
        "parentName": parent.shown_name if parent is not None else "",
        "templateName": template,
        "bw": or_dash(found.bw),
        "iops": or_dash(found.iops),
        "creationTimestamp": found.created,
        "objectsCount": objects_count(found.size),
        "visibleVolumeId": found.visible_id,
        "parentVolumeId": found.parent,
        "originalParentVolumeId": found.original_parent,
        "templateId": found.template,
        "tags": found.tags,
        "snapshot": found.snapshot,
    }
    if found.limit_type:
        shown["limitType"] = found.limit_type
    if found.reuse_server is not None:
        shown["reuseServer"] = found.reuse_server
    if call.multicluster:
        shown["clusterName"] = call.settings.cluster_name
        shown["clusterId"] = call.settings.cluster_id
    if found.snapshot:
        _snapshot_fields(call, found, shown)
    return shown


def _snapshot_fields(call: Call, found: Object, shown: dict[str, Any]) -> None:
    state = call.state
    on_volume = state.volumes_by_visible_id.get(found.taken_on)
    shown["onVolume"] = NO_VOLUME if on_volume is None else state.objects[on_volume].shown_name
    shown["autoName"] = found.auto_name
    shown["bound"] = found.bound
    shown["deleted"] = bool(found.gone_at)
    shown["transient"] = found.transient
    recovering = call.now < found.recovering_until
    shown["recoveringFromRemote"] = recovering
    if call.multicluster or found.state != OWNER or found.id in state.exports:
        shown["mcState"] = mc_state(state, found)
    if found.backup_of:
        shown["backup"] = True
        shown["backupOfGlobalId"] = found.backup_of
        shown["backupOfVisibleVolumeId"] = found.backup_of_visible
    if found.leaving_to:
        shown["volumeMoveSource"] = True
    if found.delete_date:
        shown["targetDeleteDate"] = found.delete_date
    if found.taken_on:
        shown["createdFromVisibleVolumeId"] = found.taken_on
    if found.gone_at:
        blocked = "rebasing" if found.id in state.children else "pending"
        shown["deleteBlocked"] = "recovering from remote" if recovering else blocked


def mc_state(state: State, found: Object) -> str:
    """MultiClusterState (spec section 4)."""
    exported = found.id in state.exports and found.state != COPY
    return found.state + "Exported" if exported else found.state


def summary(call: Call, found: Object) -> msgspec.Raw:
    """A `Summary`, encoded: lists are long, and little of them changes between two calls."""
    known = call.state.shown[call.multicluster]
    shown = known.get(found.id)
    if shown is None:
        shown = msgspec.Raw(_encode(Summary(**fields(call, found))))
        if call.now >= found.recovering_until:  # before, it changes with time
            known[found.id] = shown
    return shown
