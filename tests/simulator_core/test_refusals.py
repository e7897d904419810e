"""Every served call refuses what its schema excludes and what is not there, by name, and then has changed nothing."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from core_rig import Bindings, bindings
from msgspec import inspect
from session import Exchange, examples, operation_of, session
from spoiling import edges, spoiled
from storpool import spapi

from simulator.api.scalars import PATH_ARGUMENTS
from simulator.inprocess import InProcess

MISSING = dict.fromkeys(PATH_ARGUMENTS, "missing") | {
    "globalVolumeId": "splab.b.zz",
    "vagName": "99",
    "clientId": "4095",
    "serverId": "32767",
    "diskId": "4095",
}
"""Arguments of paths that name nothing."""
EXAMPLES = examples()
OPERATION = {method: operation_of(found) for method, found in EXAMPLES.items()}
WITH_JSON = [method for method, operation in OPERATION.items() if operation.request is not None]
WITH_ARGUMENTS = [method for method, operation in OPERATION.items() if operation.parameters]
NEWER_JSON = {"volumeDelete"}
"""Takes JSON that the bindings 7.3.0 do not know of."""
MAKES = {"placementGroupUpdate"}
"""Makes what its path names when there is none."""
WITH_OBJECTS = [
    method for method in WITH_ARGUMENTS if "objectDoesNotExist" in OPERATION[method].errors and method not in MAKES
]


@pytest.fixture
def rig() -> Bindings:
    return bindings()


def shapes(method: str) -> list[Exchange]:
    """Of a call's examples, one of each set of fields."""
    found: dict[str, Exchange] = {}
    for exchange in EXAMPLES[method]:
        found.setdefault(re.sub(r'"[^"]*"(?!:)|[0-9]', "", exchange.body.decode()), exchange)
    return list(found.values())


@pytest.mark.parametrize("method", WITH_JSON)
def test_json_with_one_thing_wrong(rig: Bindings, method: str) -> None:
    """The schema says which values there are of this kind; that it is StorPool's is the next test's business."""
    tried = 0
    for example in shapes(method):
        for where, wrong in spoiled(inspect.type_info(OPERATION[method].request), example.json):
            name = rig.refuses(example.verb, example.path, wrong)
            assert name == "invalidParam", f"{where}: {wrong}"
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("method", [method for method in WITH_JSON if method not in NEWER_JSON])
def test_what_the_schema_just_allows_the_bindings_allow_too(method: str) -> None:
    operation = OPERATION[method]
    validate = getattr(spapi.Api, method).__globals__["_validate_json"]
    wanted = inspect.type_info(operation.request)
    fields = wanted.fields if isinstance(wanted, inspect.StructType) else ()
    for example in EXAMPLES[method]:
        for field in fields:
            for value in edges(field.type):
                validate({**(example.json or {}), field.encode_name: value})
        validate(example.json or {})


@pytest.mark.parametrize("method", WITH_ARGUMENTS)
def test_a_path_with_an_argument_that_is_none(rig: Bindings, method: str) -> None:
    example = EXAMPLES[method][0]
    for parameter in OPERATION[method].parameters:
        for wrong in ("x" * 2000, "" if parameter == "keyName" else "a b"):
            path = OPERATION[method].path.format(**{**MISSING, parameter: wrong})
            assert rig.refuses(example.verb, path, example.json) == "invalidParam", path


@pytest.mark.parametrize("method", WITH_OBJECTS)
def test_a_path_that_names_nothing(rig: Bindings, method: str) -> None:
    example = EXAMPLES[method][0]
    path = OPERATION[method].path.format(**MISSING)
    assert rig.refuses(example.verb, path, example.json) == "objectDoesNotExist"


def stringed(value: Any) -> Any:
    """With numbers as strings, as os-brick and OpenNebula send them."""
    if isinstance(value, dict):
        return {key: stringed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [stringed(inner) for inner in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_numbers_as_strings_change_no_answer() -> None:
    simulator = InProcess()
    differing = 0
    for exchange in session():
        body = exchange.body and msgspec.json.encode(stringed(exchange.json))
        differing += body != exchange.body
        asked = simulator.ask(exchange.verb, exchange.path, body)
        assert asked.reply is not None
        assert exchange.operation is None or asked.reply.body == exchange.answer, exchange.path
    assert differing > 10


def test_json_encoded_twice_is_refused_by_every_change(rig: Bindings) -> None:
    """What os-brick sends when it tries again (spec 10.3)."""
    for exchange in session():
        if exchange.body and exchange.operation is not None:
            before = rig.simulator.service.encoded_state()
            twice = msgspec.json.encode(exchange.body.decode())
            answer = rig.simulator.ask(exchange.verb, exchange.path, twice).reply
            assert answer is not None
            error = msgspec.json.decode(answer.body)["error"]
            assert error["name"] == "invalidParam" and "twice" in error["descr"]
            assert rig.simulator.service.encoded_state() == before


KEY = "abc.0def.9.z"
CONFLICTS: dict[str, tuple[str, str, tuple[object, ...]]] = {
    "snapshot takes a volume's name": ("snapshotUpdate", "objectExists", ("s", {"rename": "a"})),
    "attached snapshot deleted by its id": ("snapshotDeleteById", "busy", ("splab.b.3",)),
    "group of a volume that is not": ("snapshotCreateGroup", "objectDoesNotExist", ({"volumes": [{"volume": "z"}]},)),
    "group takes a name": ("snapshotCreateGroup", "objectExists", ({"volumes": [{"volume": "a", "name": "s"}]},)),
    "attached elsewhere": ("volumesReassign", "busy", ([{"volume": "open", "detach": [1]}],)),
    "no volume to attach": ("volumesReassignWait", "objectDoesNotExist", ({"reassign": [{"volume": "z", "rw": [1]}]},)),
    "group's name taken": ("placementGroupUpdate", "objectExists", ("hdd", {"rename": "ssd"})),
    "template in no group": (
        "volumeTemplateCreate",
        "objectDoesNotExist",
        ({"name": "u", "placeAll": "z"},),
    ),
    "template's name taken": ("volumeTemplateUpdate", "objectExists", ("t", {"rename": "t2"})),
    "location there": ("locationAdd", "objectExists", ({"id": "x", "name": "here"},)),
    "location's id there": ("locationAdd", "objectExists", ({"id": "l", "name": "new"},)),
    "location in use": ("locationRemove", "busy", ({"location": "here"},)),
    "no location to remove": ("locationRemove", "objectDoesNotExist", ({"location": "z"},)),
    "no location to update": ("locationUpdate", "objectDoesNotExist", ({"location": "z", "sendBufferSize": 1},)),
    "no location to rename": ("locationRename", "objectDoesNotExist", ({"location": "z", "name": "y"},)),
    "location's new name taken": ("locationRename", "objectExists", ({"location": "here", "name": "there"},)),
    "no location for a cluster": ("clusterAdd", "objectDoesNotExist", ({"id": "x", "location": "z"},)),
    "cluster there": ("clusterAdd", "objectExists", ({"id": "c", "location": "here"},)),
    "cluster in use": ("clusterRemove", "busy", ({"location": "here", "id": "c"},)),
    "no cluster to remove": ("clusterRemove", "objectDoesNotExist", ({"name": "z"},)),
    "no cluster to rename": ("clusterRename", "objectDoesNotExist", ({"cluster": "z", "name": "y"},)),
    "cluster's new name taken": ("clusterRename", "objectExists", ({"cluster": "l.c", "name": "other"},)),
    "bridge to nowhere": (
        "remoteBridgeAdd",
        "objectDoesNotExist",
        ({"ip": "10.0.0.2", "publicKey": KEY, "location": "z"},),
    ),
    "bridge there": ("remoteBridgeAdd", "objectExists", ({"ip": "10.0.0.1", "publicKey": KEY, "location": "here"},)),
    "no bridge to remove": ("remoteBridgeRemove", "objectDoesNotExist", ({"ip": "10.0.0.9"},)),
    "bucket there": ("kvsCreate", "objectExists", ("bucket",)),
    "bucket of another version": ("kvsUpdate", "runIfVersionIsMismatch", ("bucket", {"set": {}, "runIfVersionIs": 9})),
}
"""Method, name of the error and arguments, on the cluster that `conflicting` makes."""


@pytest.fixture
def conflicting(rig: Bindings) -> Bindings:
    strict = rig.strict
    for name in ("a", "open"):
        strict.volumeCreate({"name": name, "size": 1 << 20})
    strict.snapshotCreate("a", {"name": "s"})
    assert strict.snapshotList("s")[0]["globalId"] == "splab.b.3"
    strict.volumesReassignWait({"reassign": [{"volume": "open", "rw": [1]}, {"snapshot": "s", "ro": [2]}]})
    rig.simulator.blocks.open(rig.simulator.service.object_keys()["splab.b.2"])
    for name in ("t", "t2"):
        strict.volumeTemplateCreate({"name": name})
    strict.locationAdd({"id": "l", "name": "here"})
    strict.locationAdd({"id": "m", "name": "there"})
    strict.clusterAdd({"id": "c", "location": "here"})
    strict.clusterAdd({"id": "d", "location": "here", "name": "other"})
    strict.remoteBridgeAdd({"ip": "10.0.0.1", "publicKey": KEY, "remote": "l.c"})
    strict.kvsCreate("bucket")
    return rig


@pytest.mark.parametrize("case", CONFLICTS)
def test_a_conflict_has_its_name(conflicting: Bindings, case: str) -> None:
    method, name, arguments = CONFLICTS[case]
    conflicting.refused(name, method, *arguments)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("volumeCreate", ({"name": "b", "size": 512},)),
        ("snapshotCreate", ("a", {"name": "s"})),
        ("snapshotCreateGroup", ({"volumes": [{"volume": "a"}]},)),
        ("volumeRevert", ("a", {"toSnapshot": "old"})),
    ],
)
def test_a_full_pool_takes_nothing_more(method: str, arguments: tuple[object, ...]) -> None:
    rig = Bindings(InProcess(capacity=4 << 20))
    rig.strict.volumeCreate({"name": "a", "size": 4 << 20})
    rig.strict.snapshotCreate("a", {"name": "old"})
    rig.simulator.blocks.write(rig.simulator.service.object_keys()["splab.b.1"], 0, b"x" * (3 << 20))
    rig.refused("insufficientResources", method, *arguments)


@pytest.mark.parametrize("method", ["servicesList", "serversList"])
def test_a_cluster_that_is_not_operational_says_so(rig: Bindings, method: str) -> None:
    for server in (1, 2, 3):
        rig.simulator.post(f"/_sim/server/{server}", {"running": False})
    path = EXAMPLES[method][0].path
    assert rig.refuses("GET", path) == "unavailable"
    assert rig.strict.serversListBlocked()["clusterStatus"] == "down"


def test_an_object_too_large_to_be_described_is_not(rig: Bindings) -> None:
    rig.strict.volumeCreate({"name": "huge", "size": 1 << 50})
    rig.strict.snapshotCreate("huge", {"name": "s"})
    rig.refused("notImplemented", "snapshotDescribe", "s")
    rig.refused("notImplemented", "volumeDescribe", "huge")
