"""Other clients than the bindings ask the same, and are answered the same (spec 0.3, 10.3)."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
from collections.abc import Iterator
from unittest import mock
from urllib.parse import quote

import pytest
from core_rig import bindings, driven
from served import served
from session import Exchange, operation_of, session
from storpool import spapi, spreq

from harness.runtime.threads import ThreadRuntime
from harness.storpool import (
    HttpTransport,
    ObjectDoesNotExist,
    Secret,
    SnapshotUpdateDesc,
    StorPoolClient,
    VolumeCreateDesc,
    VolumeReassignDesc,
    VolumeSnapshotDesc,
    VolumeUpdateDesc,
)
from simulator.inprocess import TOKEN, InProcess

BASE = "/ctrl/1.0/"


def raw(address: str, verb: str, path: str, body: bytes, content_type: str | None) -> bytes:
    """As os-brick and curl ask: `http.client`, JSON of a query in the path, no more headers than must be."""
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Storpool v1:{TOKEN}"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        target = quote(path, safe="/~@*:")
        if verb == "GET":
            target += f"?json={quote(body, safe='')}" * bool(body)
        connection.request(verb, target, None if verb == "GET" else body, headers)
        return connection.getresponse().read()


@pytest.mark.parametrize(
    ("client", "content_type"),
    [("os-brick", None), ("curl", "application/x-www-form-urlencoded")],
)
def test_no_answer_hangs_on_the_content_type(client: str, content_type: str | None) -> None:
    exchanges = session()
    with served(InProcess()) as address, driven(client):
        for exchange in exchanges:
            answer = raw(address, exchange.verb, exchange.path, exchange.body, content_type)
            assert exchange.operation is None or answer == exchange.answer, exchange.path


def test_os_bricks_second_try_is_refused_in_json() -> None:
    """After a transient error os-brick encodes its JSON a second time."""
    with served(InProcess()) as address:
        twice = json.dumps(json.dumps({"name": "x", "size": 512})).encode()
        error = json.loads(raw(address, "POST", BASE + "VolumeCreate", twice, None))["error"]
        assert error["name"] == "invalidParam" and "twice" in error["descr"]
        assert json.loads(raw(address, "GET", BASE + "VolumesList", b"", None))["data"] == []


def argv(exchange: Exchange) -> list[str]:
    """Of storpool_req for one exchange."""
    operation = operation_of([exchange])
    pattern = re.sub(r"\\{\w+\\}", "(.+)", re.escape(BASE + operation.path))
    found = re.fullmatch(pattern, exchange.path)
    assert found is not None
    options = ["-P"] if operation.verb == "POST" else []
    documented = getattr(spapi.Api, operation.method).spDoc
    if documented.json is not None:
        options += ["--json", exchange.body.decode() or "{}"]
    return ["storpool_req", *options, "--", documented.query, *found.groups()]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("HTTP_HOST", "127.0.0.1"), ("HTTP_PORT", "81")):
        monkeypatch.setenv(f"SP_API_{name}", value)
    monkeypatch.setenv("SP_AUTH_TOKEN", TOKEN)
    with mock.patch.object(spreq.spconfig, "SPConfig", dict):
        yield


def printable(exchange: Exchange) -> str | None:
    """What storpool_req makes of the answer, if it can: it dies of sets, and of the six calls that begin with the word
    KV it knows one for each verb."""
    if exchange.operation is None or exchange.operation.path.startswith("KV"):
        return None
    read = getattr(spapi.Api, exchange.operation.method).__globals__["returns"](json.loads(exchange.answer)["data"])
    try:
        return json.dumps(spreq.deep_to_json(read), indent=2)
    except TypeError as error:
        assert "set is not JSON serializable" in str(error)
        return None


@pytest.mark.usefixtures("environment")
def test_storpool_req_prints_what_the_bindings_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = bindings()
    printed = 0
    for exchange in session():
        expected = printable(exchange)
        if expected is None:
            rig.simulator.ask(exchange.verb, exchange.path, exchange.body)
            continue
        monkeypatch.setattr("sys.argv", argv(exchange))
        with rig.connected(), driven("storpool_req"), contextlib.redirect_stdout(io.StringIO()) as output:
            spreq.main()
        assert output.getvalue() == expected + "\n", exchange.path
        printed += 1
    assert printed > 100


@pytest.mark.usefixtures("environment")
def test_storpool_req_ends_with_three_when_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["storpool_req", "Volume", "none"])
    with bindings().connected(), driven("storpool_req"), pytest.raises(SystemExit) as ended:
        spreq.main()
    assert ended.value.code == 3
    assert json.loads(capsys.readouterr().err)["error"]["name"] == "objectDoesNotExist"


def test_the_plugins_client_through_the_life_of_a_volume() -> None:
    with served(InProcess()) as address, driven("plugin"):
        runtime = ThreadRuntime("test")
        client = StorPoolClient(HttpTransport((address,), Secret(TOKEN)), runtime)
        created = client.volume_create(VolumeCreateDesc(size=1 << 20, iops=100, tags={"cs": "volume"}))
        volume = f"~{created.global_id}"
        client.volume_update(volume, VolumeUpdateDesc(rename="v", size=2 << 20, tags={"uuid": "u"}))
        shown = client.volume("v")
        assert (shown.size, shown.iops, shown.tags) == (2 << 20, 100, {"cs": "volume", "uuid": "u"})
        assert [found.global_id for found in client.volumes_list()] == [created.global_id]
        taken = client.snapshot_create(volume, VolumeSnapshotDesc(name="s", tags={"cs": "snapshot"}))
        client.snapshot_update("s", SnapshotUpdateDesc(tags={"uuid": "w"}))
        assert client.snapshot("s").tags == {"cs": "snapshot", "uuid": "w"}
        assert [found.name for found in client.snapshots_list()] == ["s"]
        client.volumes_reassign_wait([VolumeReassignDesc(volume=volume, rw=(1,))])
        client.client_config_wait(1)
        assert [found.client for found in client.attachments(volume)] == [1]
        client.volumes_reassign_wait([VolumeReassignDesc(volume=volume, detach="all")])
        assert client.attachments_list() == []
        assert client.volume_templates_status() == []
        assert client.services_list().clients
        client.snapshot_delete(f"~{taken.snapshot_global_id}")
        client.volume_delete(volume)
        with pytest.raises(ObjectDoesNotExist):
            client.volume(volume)
