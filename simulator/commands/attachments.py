"""`attach` and `detach`, and the `attach` of a volume (spec storpool-api 5.4, 10.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simulator.commands.request import Request, post
from simulator.commands.words import (
    Clauses,
    Operand,
    UsageError,
    Word,
    clauses,
    fields,
    number,
    one_of,
    seconds,
    switch,
)

Here = Callable[[], int]
"""Id of this host's client."""
WORDS = {
    "volume": Word(),
    "snapshot": Word(),
    "client": Word(),
    "here": Word(Operand.NONE),
    "mode": Word(),
    "timeout": Word(field="attachTimeout", read=seconds),
    "onRemoteAttached": Word(field="onRemoteAttached", read=one_of("fail", "detach", "detachForce", "export")),
    "noWait": Word(Operand.NONE),
    "all": Word(Operand.NONE),
    "force": Word(Operand.SWITCH, "force", switch),
}
_ATTACH = {name: WORDS[name] for name in WORDS if name not in ("all", "force")}
_DETACH = {name: WORDS[name] for name in WORDS if name not in ("mode", "onRemoteAttached")}


def attach(words: Sequence[str], here: Here) -> Request:
    """`attach volume|snapshot NAME [mode rw|ro] client N|here [timeout N[smhd]|noWait] [onRemoteAttached WHAT]`."""
    given = clauses(words, _ATTACH)
    kind, name = _object(given)
    return reassign(kind, name, given, here)


def detach(words: Sequence[str], here: Here) -> Request:
    """`detach volume|snapshot NAME client N|here|all [force [yes]] [timeout N[smhd]|noWait]`."""
    given = clauses(words, _DETACH)
    kind, name = _object(given)
    item = {kind: name, "detach": "all" if "all" in given else [_client(given, here)]}
    if "all" in given and ("client" in given or "here" in given):
        raise UsageError("give one of client, here and all")
    return _call(item, given)


def reassign(kind: str, name: str, given: Clauses, here: Here) -> Request:
    """Attach one object to one client; a volume read-write unless told otherwise, a snapshot always read-only."""
    mode = given["mode"][0] if "mode" in given else "rw" if kind == "volume" else "ro"
    if mode not in ("rw", "ro"):
        raise UsageError(f"mode: '{mode}' is not one of: rw, ro")
    if kind == "snapshot" and mode == "rw":
        raise UsageError("a snapshot can only be attached with mode ro")
    return _call({kind: name, mode: [_client(given, here)]}, given)


def _object(given: Clauses) -> tuple[str, str]:
    named = [kind for kind in ("volume", "snapshot") if kind in given]
    if len(named) != 1:
        raise UsageError("name one volume or one snapshot")
    return named[0], given[named[0]][0]


def _client(given: Clauses, here: Here) -> int:
    if ("client" in given) == ("here" in given):
        raise UsageError("say where: client N, or here")
    if "here" in given:
        return here()
    try:
        return number(given["client"][0])
    except UsageError as error:
        raise UsageError(f"client: {error}") from None


def _call(item: dict[str, Any], given: Clauses) -> Request:
    settings = fields(given, WORDS)
    timeout = settings.pop("attachTimeout", None)
    if "snapshot" in item:
        # CloudStack gives the word with snapshots too; the API knows it of volumes only.
        settings.pop("onRemoteAttached", None)
    item |= settings
    if "noWait" in given:
        if timeout is not None:
            raise UsageError("'timeout' and 'noWait' do not go together")
        return post("VolumesReassign", body=[item], multicluster=True)
    body: dict[str, Any] = {"reassign": [item]}
    if timeout is not None:
        body["attachTimeout"] = timeout
    return post("VolumesReassignWait", body=body, multicluster=True)
