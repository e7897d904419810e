"""The words of `storpool`: which call each command line is, and that neither order nor blanks matter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.commands.grammar import Options, options, parse
from simulator.commands.request import Action, Choice, Request
from simulator.commands.words import UsageError, tokenise

HERE = 3


def here() -> int:
    return HERE


def nowhere() -> int:
    raise AssertionError("nobody asked for this host's client")


def asked(line: str, *, batch: bool = False) -> Action:
    return parse(tokenise([line]), here if " here" in line else nowhere, batch=batch)


def attach(item: dict[str, Any], **more: Any) -> Request:
    return Request("POST", "VolumesReassignWait", None, {"reassign": [item], **more}, multicluster=True)


@pytest.mark.parametrize(
    ("line", "call", "target", "body"),
    [
        ("volume v size 10G template t create", "VolumeCreate", None, {"name": "v", "size": 10 << 30, "template": "t"}),
        ("volume v create size 512", "VolumeCreate", None, {"name": "v", "size": 512}),
        ("volume v baseOn w template t create", "VolumeCreate", None, {"name": "v", "baseOn": "w", "template": "t"}),
        ("volume v parent s create", "VolumeCreate", None, {"name": "v", "parent": "s"}),
        ("volume v size 3M update", "VolumeUpdate", "v", {"size": 3 << 20}),
        ("volume ~a.b.1 update size 1024 shrinkOk", "VolumeUpdate", "~a.b.1", {"size": 1024, "shrinkOk": True}),
        ("volume v rename w", "VolumeUpdate", "v", {"rename": "w"}),
        (
            "volume v rename w template t tag a= update",
            "VolumeUpdate",
            "v",
            {"rename": "w", "template": "t", "tags": {"a": ""}},
        ),
        ("volume v template t update", "VolumeUpdate", "v", {"template": "t"}),
        ("volume v tag a=b tag c=d=e update", "VolumeUpdate", "v", {"tags": {"a": "b", "c": "d=e"}}),
        ("volume v tag a=b", "VolumeUpdate", "v", {"tags": {"a": "b"}}),
        ("volume v iops - bw 100 update", "VolumeUpdate", "v", {"iops": "-", "bw": 100}),
        ("volume v delete v", "VolumeDelete", "v", None),
        ("volume delete delete delete", "VolumeDelete", "delete", None),
        ("volume v freeze", "VolumeFreeze", "v", None),
        ("volume v deleteAfter 2d freeze", "VolumeFreeze", "v", {"deleteAfter": 2 * 86400}),
        ("volume v snapshot s", "VolumeSnapshot", "v", {"name": "s"}),
        ("volume v snapshot deleteAfter 5m", "VolumeSnapshot", "v", {"deleteAfter": 300}),
        ("volume v tag a=b snapshot", "VolumeSnapshot", "v", {"tags": {"a": "b"}}),
        ("volume v bound snapshot", "VolumeSnapshot", "v", {"bind": True}),
        ("volume v backup L tag a=b", "VolumeBackup", None, {"volume": "v", "location": "L", "tags": {"a": "b"}}),
        ("snapshot s delete s", "SnapshotDelete", "s", None),
        ("snapshot s tag a=b tag c=d", "SnapshotUpdate", "s", {"tags": {"a": "b", "c": "d"}}),
        ("attach volume v client 2 noWait", "VolumesReassign", None, [{"volume": "v", "rw": [2]}]),
        ("template t propagate", "VolumeTemplateUpdate", "t", {"propagate": True}),
        ("template t propagate yes", "VolumeTemplateUpdate", "t", {"propagate": True}),
        ("template t update iops 5 propagate no", "VolumeTemplateUpdate", "t", {"iops": 5, "propagate": False}),
        (
            "template t create replication 2 placeAll a",
            "VolumeTemplateCreate",
            None,
            {"name": "t", "replication": 2, "placeAll": "a"},
        ),
        ("remoteBridge deregister 10.0.0.1", "RemoteBridgeRemove", None, {"ip": "10.0.0.1"}),
    ],
)
def test_a_command_line_is_this_call(line: str, call: str, target: str | None, body: Any) -> None:
    request = asked(line)
    assert isinstance(request, Request)
    assert (request.verb, request.call, request.target, request.body) == ("POST", call, target, body)


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("volume v info", "VolumeGetInfo/v"),
        ("volume list", "VolumesList"),
        ("volume usedSpace", "VolumesSpace"),
        ("volume status", "VolumesGetStatus"),
        ("volume quickStatus", "VolumesGetStatusQuick"),
        ("snapshot s@1 info", "SnapshotGetInfo/s@1"),
        ("snapshot list", "SnapshotsList"),
        ("snapshot space", "SnapshotsSpace"),
        ("attach list", "AttachmentsList"),
        ("template list", "VolumeTemplatesList"),
        ("template status", "VolumeTemplatesStatus"),
        ("service list", "ServicesList"),
        ("location list", "LocationsList"),
        ("cluster list", "ClustersList"),
    ],
)
def test_a_question_is_this_call(line: str, call: str) -> None:
    request = asked(line)
    assert isinstance(request, Request)
    assert request.verb == "GET" and request.body is None
    assert request.path(multicluster=False) == f"/ctrl/1.0/{call}"


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("attach volume v here", attach({"volume": "v", "rw": [HERE]})),
        ("attach volume v mode ro client 7 timeout 1m", attach({"volume": "v", "ro": [7]}, attachTimeout=60)),
        ("attach snapshot s client 7", attach({"snapshot": "s", "ro": [7]})),
        ("attach snapshot s mode ro here timeout 0", attach({"snapshot": "s", "ro": [HERE]}, attachTimeout=0)),
        (
            "attach volume ~a.b.1 here onRemoteAttached export",
            attach({"volume": "~a.b.1", "rw": [HERE], "onRemoteAttached": "export"}),
        ),
        ("attach snapshot ~a.b.1 here onRemoteAttached export", attach({"snapshot": "~a.b.1", "ro": [HERE]})),
        ("volume v attach client 7 mode ro", attach({"volume": "v", "ro": [7]})),
        ("detach volume v all", attach({"volume": "v", "detach": "all"})),
        ("detach volume v client 7 force yes", attach({"volume": "v", "detach": [7], "force": True})),
        ("detach snapshot s here force", attach({"snapshot": "s", "detach": [HERE], "force": True})),
        ("detach volume v here force no", attach({"volume": "v", "detach": [HERE], "force": False})),
    ],
)
def test_attaching_and_detaching_is_a_reassignment(line: str, request_: Request) -> None:
    assert asked(line) == request_


def test_the_name_is_repeated_to_delete_unless_in_batch_mode() -> None:
    for kind in ("volume", "snapshot", "template"):
        with pytest.raises(UsageError, match=f"repeat the name to confirm: {kind} v delete v"):
            asked(f"{kind} v delete")
        assert asked(f"{kind} v delete", batch=True) == asked(f"{kind} v delete v")
        for batch in (False, True):
            with pytest.raises(UsageError, match="'w' after delete is not"):
                asked(f"{kind} v delete w", batch=batch)


def test_a_template_with_settings_is_made_or_changed_whichever_is_needed() -> None:
    choice = asked("template t replication 3 placeAll a placeTail b bw 10 propagate")
    assert isinstance(choice, Choice)
    body = {"replication": 3, "placeAll": "a", "placeTail": "b", "bw": 10}
    known = choice.choose([{"name": "other"}, {"name": "t"}])
    assert (known.call, known.target, known.body) == ("VolumeTemplateUpdate", "t", {**body, "propagate": True})
    unknown = choice.choose([{"name": "other"}])
    assert (unknown.call, unknown.target, unknown.body) == ("VolumeTemplateCreate", None, {"name": "t", **body})


def test_a_bridge_leads_to_a_location_or_else_to_a_cluster() -> None:
    choice = asked("remoteBridge register 10.0.0.1 L a.b.c.d minimumDeleteDelay 1h noCrypto")
    assert isinstance(choice, Choice)
    body = {"ip": "10.0.0.1", "publicKey": "a.b.c.d", "minimumDeleteDelay": 3600, "noCrypto": True}
    assert choice.choose({"locations": [{"name": "L"}]}).body == {**body, "location": "L"}
    assert choice.choose({"locations": []}).body == {**body, "remote": "L"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "give one of"),
        ("disk list", "not 'disk'"),
        ("volume", "Give a name"),
        ("volume v", "say what to do"),
        ("volume v size 10G", "say what to do"),
        ("volume v size 10X create", "size: '10X'"),
        ("volume v size -1 create", "size: '-1'"),
        ("volume v size create", "say what to do|size: 'create'"),
        ("volume v create size", "'size' needs a value"),
        ("volume v size 1G size 2G create", "'size' is given twice"),
        ("volume v tag ab update", "'ab' is not NAME=VALUE"),
        ("volume v tag a=1 tag a=2 update", "tag 'a' is given twice"),
        ("volume v create update", "'create' and 'update'"),
        ("volume v parent s update", "'parent' does not go with 'update'"),
        ("volume v rename w create", "'rename' does not go with 'create'"),
        ("volume v frobnicate", "unexpected word 'frobnicate'"),
        ("volume v update", "nothing to update"),
        ("volume v deleteAfter 1y snapshot", "deleteAfter: '1y'"),
        ("volume v limitType some update", "limitType: 'some'"),
        ("snapshot s delete s tag a=b", "'delete' of a snapshot"),
        ("snapshot s", "say what to do"),
        ("attach volume v", "say where"),
        ("attach volume v client 1 here", "say where"),
        ("attach volume v client x", "client: 'x'"),
        ("attach volume v snapshot s here", "one volume or one snapshot"),
        ("attach snapshot s mode rw here", "only be attached with mode ro"),
        ("attach volume v mode wo here", "mode: 'wo'"),
        ("attach volume v here timeout 1 noWait", "'timeout' and 'noWait'"),
        ("attach volume v here force", "unexpected word 'force'"),
        ("detach volume v all here", "one of client, here and all"),
        ("detach volume v here mode rw", "unexpected word 'mode'"),
        ("template t", "say what to do"),
        ("template t create propagate", "do not go with 'create'"),
        ("service status", "service knows only: list"),
        ("remoteBridge register 10.0.0.1", "remoteBridge knows"),
    ],
)
def test_what_means_nothing_is_told_with_the_word_at_fault(line: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        asked(line)


@pytest.mark.parametrize(
    ("line", "expected", "rest", "unknown"),
    [
        ("-B -j -M volume list", Options(True, True, True), ["volume", "list"], None),
        ("-Bj volume list", Options(True, True, False), ["volume", "list"], None),
        ("volume v iops - update", Options(), ["volume", "v", "iops", "-", "update"], None),
        ("-jx volume list", Options(json=True), ["volume", "list"], "-jx"),
        ("- volume list", Options(), ["volume", "list"], "-"),
    ],
)
def test_options_stand_before_the_other_words(
    line: str, expected: Options, rest: list[str], unknown: str | None
) -> None:
    assert options(line.split()) == (expected, rest, unknown)


def test_the_prefix_of_all_clusters_is_for_objects_that_can_be_elsewhere() -> None:
    volume, templates = asked("volume v#1 info"), asked("template list")
    assert isinstance(volume, Request) and isinstance(templates, Request)
    assert volume.path(multicluster=True) == "/ctrl/1.0/MultiCluster/VolumeGetInfo/v%231"
    assert templates.path(multicluster=True) == "/ctrl/1.0/VolumeTemplatesList"


NAMES = st.from_regex(r"[a-z~][a-z0-9_.:-]{0,8}", fullmatch=True) | st.sampled_from(["create", "tag", "yes", "size"])
SIZES = st.from_regex(r"[1-9][0-9]{0,3}[KMGTP]?", fullmatch=True)
TIMES = st.from_regex(r"[0-9]{1,3}[smhd]?", fullmatch=True)
NUMBERS = st.integers(0, 4095).map(str)
LIMITS = NUMBERS | st.just("-")
NOTHING = st.just("")
POLICY = {
    "replication": NUMBERS,
    "placeAll": NAMES,
    "placeTail": NAMES,
    "placeHead": NAMES,
    "iops": LIMITS,
    "bw": LIMITS,
}
WHERE = [{"client": NUMBERS}, {"here": NOTHING}]
FORMS: list[tuple[str, dict[str, st.SearchStrategy[str]], dict[str, st.SearchStrategy[str]]]] = [
    ("volume v", {"create": NOTHING}, {**POLICY, "size": SIZES, "template": NAMES, "parent": NAMES, "baseOn": NAMES}),
    (
        "volume v",
        {"update": NOTHING, "size": SIZES},
        {**POLICY, "template": NAMES, "rename": NAMES, "shrinkOk": NOTHING},
    ),
    ("volume v", {"snapshot": NOTHING | st.just("s")}, {"deleteAfter": TIMES, "bound": NOTHING}),
    ("volume v", {"backup": NAMES}, {}),
    ("snapshot s", {"rename": NAMES}, {"template": NAMES, "deleteAfter": TIMES, "update": NOTHING}),
    ("template t", {"size": SIZES}, {**POLICY, "parent": NAMES, "propagate": st.sampled_from(["", "yes", "no"])}),
    *(
        (verb, {**where, "volume": NAMES}, more)
        for where in WHERE
        for verb, more in (
            (
                "attach",
                {"mode": st.sampled_from(["ro", "rw"]), "timeout": TIMES, "onRemoteAttached": st.just("export")},
            ),
            ("detach", {"noWait": NOTHING, "force": st.sampled_from(["", "yes", "no"])}),
        )
    ),
]
TAGS = st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.from_regex(r"[a-z0-9]{0,4}", fullmatch=True))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_order_of_the_clauses_and_any_blanks_are_the_same_request(data: st.DataObject) -> None:
    start, needed, optional = data.draw(st.sampled_from(FORMS))
    chosen = data.draw(st.sets(st.sampled_from(sorted(optional)))) if optional else set()
    clauses = [(word, data.draw(values)) for word, values in needed.items()]
    clauses += [(word, data.draw(optional[word])) for word in sorted(chosen)]
    if start.startswith(("volume", "snapshot")):
        clauses += [("tag", f"{name}={value}") for name, value in data.draw(TAGS).items()]

    def tokens(ordered: list[tuple[str, str]]) -> list[str]:
        return start.split() + [word for clause in ordered for word in clause if word]

    once = parse(tokens(clauses), here)
    shuffled = tokens(data.draw(st.permutations(clauses)))
    assert parse(shuffled, here) == once

    items = [""]
    for token in shuffled:
        items[-1] += data.draw(st.sampled_from(["", " ", "  "])) if not items[-1] else " "
        items[-1] += token + data.draw(st.sampled_from(["", " ", "\t"]))
        if data.draw(st.booleans()):
            items.append("")
    assert tokenise(items) == shuffled
