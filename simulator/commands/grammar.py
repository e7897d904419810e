"""The command lines of `storpool` that public clients and the guide use, and their calls (spec storpool-api 10.4).

What is not here is refused as a usage error: a form that only the simulator knows would mislead its users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.commands.attachments import WORDS as ATTACH_WORDS
from simulator.commands.attachments import Here, attach, detach, reassign
from simulator.commands.request import Action, Choice, Request, get, post
from simulator.commands.words import (
    Clauses,
    Operand,
    UsageError,
    Word,
    clauses,
    fields,
    limit,
    number,
    one_of,
    seconds,
    size,
    switch,
)

_VERB = Word(Operand.NONE)
_POLICY = {
    "replication": Word(field="replication", read=number),
    "placeAll": Word(field="placeAll"),
    "placeTail": Word(field="placeTail"),
    "placeHead": Word(field="placeHead"),
    "iops": Word(field="iops", read=limit),
    "bw": Word(field="bw", read=limit),
    "limitType": Word(field="limitType", read=one_of("total", "perGiB")),
}
_TAG = {"tag": Word(field="tags")}
_DELETE_AFTER = {"deleteAfter": Word(field="deleteAfter", read=seconds)}
_VOLUME_WORDS = {
    **_POLICY,
    **_TAG,
    **_DELETE_AFTER,
    **{name: ATTACH_WORDS[name] for name in ("client", "here", "mode", "timeout", "onRemoteAttached", "noWait")},
    "size": Word(field="size", read=size),
    "template": Word(field="template"),
    "parent": Word(field="parent"),
    "baseOn": Word(field="baseOn"),
    "rename": Word(field="rename"),
    "shrinkOk": Word(Operand.NONE, "shrinkOk"),
    "bound": Word(Operand.NONE, "bind"),
    "snapshot": Word(Operand.OPTIONAL),
    "backup": Word(),
    "delete": Word(Operand.ANY),
    **dict.fromkeys(("create", "update", "freeze", "info", "attach"), _VERB),
}
_SNAPSHOT_WORDS = {
    **_TAG,
    **_DELETE_AFTER,
    "rename": Word(field="rename"),
    "template": Word(field="template"),
    "delete": Word(Operand.ANY),
    "update": _VERB,
    "info": _VERB,
}
_TEMPLATE_WORDS = {
    **_POLICY,
    "size": Word(field="size", read=size),
    "parent": Word(field="parent"),
    "rename": Word(field="rename"),
    "propagate": Word(Operand.SWITCH, "propagate", switch),
    "delete": Word(Operand.ANY),
    "create": _VERB,
    "update": _VERB,
}
_ALLOWED = {
    "create": {*_POLICY, "tag", "size", "template", "parent", "baseOn"},
    "update": {*_POLICY, "tag", "size", "template", "rename", "shrinkOk"},
    "freeze": {"deleteAfter"},
    "snapshot": {"tag", "deleteAfter", "bound"},
    "backup": {"tag"},
    "delete": set[str](),
    "info": set[str](),
    "attach": {"client", "here", "mode", "timeout", "onRemoteAttached", "noWait"},
}
"""Words that go with each verb of a volume."""
_LISTS = {
    ("volume", "list"): get("VolumesList", multicluster=True),
    ("volume", "usedSpace"): get("VolumesSpace", multicluster=True),
    ("volume", "status"): get("VolumesGetStatus", multicluster=True),
    ("volume", "quickStatus"): get("VolumesGetStatusQuick", multicluster=True),
    ("snapshot", "list"): get("SnapshotsList", multicluster=True),
    ("snapshot", "space"): get("SnapshotsSpace", multicluster=True),
    ("attach", "list"): get("AttachmentsList", multicluster=True),
    ("template", "list"): get("VolumeTemplatesList"),
    ("template", "status"): get("VolumeTemplatesStatus"),
    ("service", "list"): get("ServicesList"),
    ("location", "list"): get("LocationsList"),
    ("cluster", "list"): get("ClustersList"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """`-B`, `-j` and `-M`, also together as in `-Bj`."""

    batch: bool = False
    """Ask for no confirmation."""
    json: bool = False
    """The API's envelope on stdout."""
    multicluster: bool = False


def options(tokens: Sequence[str]) -> tuple[Options, list[str], str | None]:
    """Options, the words after them, and the first option that is none."""
    letters = ""
    unknown = None
    rest = list(tokens)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        letters += option[1:]
        if unknown is None and (len(option) == 1 or set(option[1:]) - set("BjM")):
            unknown = option
    return Options("B" in letters, "j" in letters, "M" in letters), rest, unknown


def parse(tokens: Sequence[str], here: Here, *, batch: bool = False) -> Action:
    """What the words after the options ask for. `here` is called when they say so. Raises `UsageError`."""
    if len(tokens) == 2 and (asked := _LISTS.get((tokens[0], tokens[1]))) is not None:
        return asked
    kind, rest = (tokens[0], list(tokens[1:])) if tokens else ("", [])
    match kind:
        case "volume" | "snapshot" | "template":
            if not rest:
                raise UsageError(f"which {kind}? Give a name, or one of: {_plural(kind)}")
            target, words = rest[0], rest[1:]
            if kind == "volume":
                return _volume(target, words, here, batch)
            return _snapshot(target, words, batch) if kind == "snapshot" else _template(target, words, batch)
        case "attach":
            return attach(rest, here)
        case "detach":
            return detach(rest, here)
        case "remoteBridge":
            return _bridge(rest)
        case "service" | "location" | "cluster":
            raise UsageError(f"{kind} knows only: {_plural(kind)}")
    kinds = sorted({pair[0] for pair in _LISTS} | {"detach", "remoteBridge"})
    raise UsageError(f"give one of {', '.join(kinds)}" + (f", not '{kind}'" if kind else ""))


def _plural(kind: str) -> str:
    return ", ".join(word for found, word in _LISTS if found == kind)


def _volume(volume: str, words: Sequence[str], here: Here, batch: bool) -> Action:
    given = clauses(words, _VOLUME_WORDS)
    verb = _verb(given, _ALLOWED, implied=_implied_update(given))
    for word in given:
        if word != verb and word not in _ALLOWED[verb]:
            raise UsageError(f"'{word}' does not go with '{verb}' of a volume")
    if verb == "attach":
        del given["attach"]
        return reassign("volume", volume, given, here)
    body = fields(given, _VOLUME_WORDS)
    match verb:
        case "create":
            return post("VolumeCreate", body={"name": volume, **body}, multicluster=True)
        case "update":
            return post("VolumeUpdate", volume, _some(body), multicluster=True)
        case "freeze":
            return post("VolumeFreeze", volume, body or None, multicluster=True)
        case "snapshot":
            name = given["snapshot"][0]
            return post("VolumeSnapshot", volume, {**({"name": name} if name else {}), **body}, multicluster=True)
        case "backup":
            return post(
                "VolumeBackup", body={"volume": volume, "location": given["backup"][0], **body}, multicluster=True
            )
        case "delete":
            return _delete("VolumeDelete", "volume", volume, given, batch)
    return get("VolumeGetInfo", volume, multicluster=True)


def _implied_update(given: Clauses) -> bool:
    """`rename`, and tags alone, need no verb; the rest could also be meant for a create."""
    return "rename" in given or set(given) == {"tag"}


def _snapshot(snapshot: str, words: Sequence[str], batch: bool) -> Action:
    given = clauses(words, _SNAPSHOT_WORDS)
    verb = _verb(given, ("delete", "info", "update"), implied=bool(given))
    if verb == "update":
        return post("SnapshotUpdate", snapshot, _some(fields(given, _SNAPSHOT_WORDS)), multicluster=True)
    if len(given) > 1:
        raise UsageError(f"no other word goes with '{verb}' of a snapshot")
    if verb == "delete":
        return _delete("SnapshotDelete", "snapshot", snapshot, given, batch)
    return get("SnapshotGetInfo", snapshot, multicluster=True)


def _template(template: str, words: Sequence[str], batch: bool) -> Action:
    """Without `create` or `update` it becomes whichever is needed, as one client gives all settings at any time."""
    given = clauses(words, _TEMPLATE_WORDS)
    verb = _verb(given, ("create", "update", "delete"), implied=bool(given))
    if verb == "delete":
        if len(given) > 1:
            raise UsageError("no other word goes with 'delete' of a template")
        return _delete("VolumeTemplateDelete", "template", template, given, batch)
    body = fields(given, _TEMPLATE_WORDS)
    settings = {name: value for name, value in body.items() if name not in ("rename", "propagate")}
    create = post("VolumeTemplateCreate", body={"name": template, **settings})
    if "create" in given:
        if settings != body:
            raise UsageError("'rename' and 'propagate' do not go with 'create' of a template")
        return create
    update = post("VolumeTemplateUpdate", template, _some(body))
    if "update" in given or "rename" in body or not settings:
        return update
    # What is propagated reaches nothing when the template is new, so the word may come with either.
    return Choice(get("VolumeTemplatesList"), template, known=update, unknown=create)


def _bridge(words: Sequence[str]) -> Action:
    """`register IP LOCATION|CLUSTER KEY [minimumDeleteDelay N[smhd]] [noCrypto]`, `deregister IP`."""
    if len(words) == 2 and words[0] == "deregister":
        return post("RemoteBridgeRemove", body={"ip": words[1]})
    if len(words) < 4 or words[0] != "register":
        raise UsageError("remoteBridge knows: register IP LOCATION|CLUSTER PUBLICKEY, deregister IP")
    extra = {
        "minimumDeleteDelay": Word(field="minimumDeleteDelay", read=seconds),
        "noCrypto": Word(Operand.NONE, "noCrypto"),
    }
    _, ip, name, key, *rest = words
    body = {"ip": ip, "publicKey": key, **fields(clauses(rest, extra), extra)}
    location, cluster = ({**body, member: name} for member in ("location", "remote"))
    return Choice(
        get("LocationsList"),
        name,
        known=post("RemoteBridgeAdd", body=location),
        unknown=post("RemoteBridgeAdd", body=cluster),
    )


def _verb(given: Mapping[str, Any], verbs: Mapping[str, Any] | Sequence[str], *, implied: bool) -> str:
    named = [word for word in given if word in verbs]
    if len(named) > 1:
        raise UsageError(f"'{named[0]}' and '{named[1]}' do not go together")
    if not named and not implied:
        raise UsageError(f"say what to do: {', '.join(verbs)}")
    return named[0] if named else "update"


def _some(body: dict[str, Any]) -> dict[str, Any]:
    if not body:
        raise UsageError("nothing to update is given")
    return body


def _delete(call: str, kind: str, target: str, given: Clauses, batch: bool) -> Request:
    """The name is repeated to confirm it; with `-B` it may be left out, and must not be another."""
    repeated = given["delete"][0]
    if repeated and repeated != target:
        raise UsageError(f"'{repeated}' after delete is not the {kind} '{target}'")
    if not repeated and not batch:
        raise UsageError(f"repeat the name to confirm: {kind} {target} delete {target}")
    return post(call, target, multicluster=call != "VolumeTemplateDelete")
