"""Every served call refuses what its schema excludes and what is not there, by name, and then has changed nothing."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from core_rig import Bindings, bindings
from msgspec import inspect
from session import Exchange, examples, session
from spoiling import edges, spoiled
from storpool import spapi

from simulator.inprocess import InProcess

MISSING = {
    **{name: "missing" for name in ("volumeName", "snapshotName", "templateName", "placementGroupName", "bucketName")},
    **{"globalVolumeId": "splab.b.zz", "keyName": "missing", "vagName": "99", "clientId": "4095"},
    **{"serverId": "32767", "diskId": "4095"},
}
"""Arguments of paths that name nothing."""
EXAMPLES = examples()
WITH_JSON = [method for method, found in EXAMPLES.items() if found[0].operation.request is not None]
WITH_ARGUMENTS = [method for method, found in EXAMPLES.items() if found[0].operation.parameters]
NEWER_JSON = {"volumeDelete"}
"""Takes JSON that the bindings 7.3.0 do not know of."""
MAKES = {"placementGroupUpdate"}
"""Makes what its path names when there is none."""
WITH_OBJECTS = [
    method
    for method in WITH_ARGUMENTS
    if "objectDoesNotExist" in EXAMPLES[method][0].operation.errors and method not in MAKES
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
        for where, wrong in spoiled(inspect.type_info(example.operation.request), example.json):
            name = rig.refuses(example.operation.verb, example.path, wrong)
            assert name == "invalidParam", f"{where}: {wrong}"
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("method", [method for method in WITH_JSON if method not in NEWER_JSON])
def test_what_the_schema_just_allows_the_bindings_allow_too(method: str) -> None:
    operation = EXAMPLES[method][0].operation
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
    for parameter in example.operation.parameters:
        for wrong in ("x" * 2000, "" if parameter == "keyName" else "a b"):
            path = example.operation.path.format(**{**MISSING, parameter: wrong})
            assert rig.refuses(example.operation.verb, path, example.json) == "invalidParam", path


@pytest.mark.parametrize("method", WITH_OBJECTS)
def test_a_path_that_names_nothing(rig: Bindings, method: str) -> None:
    example = EXAMPLES[method][0]
    path = example.operation.path.format(**MISSING)
    assert rig.refuses(example.operation.verb, path, example.json) == "objectDoesNotExist"


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
        asked = simulator.ask(exchange.operation.verb, exchange.path, body)
        assert asked.reply is not None and asked.reply.body == exchange.answer, exchange.path
    assert differing > 10


def test_json_encoded_twice_is_refused_by_every_change(rig: Bindings) -> None:
    """What os-brick sends when it tries again (spec 10.3)."""
    for exchange in session():
        if exchange.body:
            before = rig.simulator.service.encoded_state()
            twice = msgspec.json.encode(exchange.body.decode())
            answer = rig.simulator.ask(exchange.operation.verb, exchange.path, twice).reply
            assert answer is not None
            error = msgspec.json.decode(answer.body)["error"]
            assert error["name"] == "invalidParam" and "twice" in error["descr"]
            assert rig.simulator.service.encoded_state() == before
