"""The StorPool client over HTTP: what it sends, and what it makes of every kind of answer."""

from __future__ import annotations

import io
import json
import logging
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests
import requests_mock

from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Error, InvalidParameter, Unavailable, Unknown
from harness.storpool import (
    AnswerLost,
    AuthenticationFailed,
    Busy,
    ClientNotRegistered,
    Connection,
    HttpTransport,
    InsufficientResources,
    LoggedTransport,
    MalformedAnswer,
    NotSent,
    ObjectDoesNotExist,
    ObjectExists,
    Request,
    RequestRefused,
    RetryPolicy,
    Secret,
    StorPoolClient,
    TransientRefusal,
    VolumeCreateDesc,
    VolumeReassignDesc,
    VolumeUpdateDesc,
    connect_http,
)

TOKEN = "1556129910218014736"
BASE = "http://10.0.0.1:81/ctrl/1.0/"
QUICK = RetryPolicy(attempts=3, first_delay=0.001, largest_delay=0.002)
CREATED = {"generation": 7, "data": {"ok": True, "generation": 7, "globalId": "d.n.b1", "name": "~d.n.b1"}}
DONE = {"generation": 7, "data": {"ok": True, "generation": 7}}
VOLUME = {"name": "~d.n.b1", "globalId": "d.n.b1", "size": 1024, "tags": {"cs": "volume"}, "iops": "-"}


def client(
    *endpoints: str, retry: RetryPolicy = QUICK, session: Callable[[], requests.Session] = requests.Session
) -> StorPoolClient:
    transport = HttpTransport(endpoints or ("10.0.0.1:81",), Secret(TOKEN), session=session)
    return StorPoolClient(transport, ThreadRuntime("test"), retry)


def error(name: str, descr: str = "", **more: object) -> dict[str, object]:
    return {"error": {"name": name, "descr": descr, **more}}


def test_a_create_sends_token_prefix_and_exactly_the_fields_that_were_given(
    requests_mock: requests_mock.Mocker,
) -> None:
    sent = requests_mock.post(BASE + "MultiCluster/VolumeCreate", json=CREATED)

    created = client().volume_create(VolumeCreateDesc(size=1024, template="hdd", tags={"cs": "volume"}))

    assert created.global_id == "d.n.b1"
    assert sent.last_request is not None
    assert sent.last_request.headers["Authorization"] == f"Storpool v1:{TOKEN}"
    assert sent.last_request.json() == {"size": 1024, "template": "hdd", "tags": {"cs": "volume"}}


def test_an_object_is_addressed_by_its_id_with_the_tilde_unescaped(requests_mock: requests_mock.Mocker) -> None:
    sent = requests_mock.get(BASE + "MultiCluster/Volume/~d.n.b1", json={"data": [VOLUME], "future": 1})

    assert client().volume("~d.n.b1").size == 1024
    assert sent.last_request is not None
    assert "~d.n.b1" in sent.last_request.url


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "list", "~d.n", "a b", "a?x=1", "é", "x" * 200])
def test_a_name_that_could_change_the_call_is_refused_before_anything_is_sent(name: str) -> None:
    with requests_mock.Mocker() as mock, pytest.raises(InvalidParameter):
        client().volume_delete(name)
    assert mock.call_count == 0


def test_an_empty_new_name_is_sent_and_a_field_not_given_is_not(requests_mock: requests_mock.Mocker) -> None:
    sent = requests_mock.post(BASE + "MultiCluster/VolumeUpdate/~d.n.b1", json=DONE)

    client().volume_update("~d.n.b1", VolumeUpdateDesc(rename="", tags={"cvm": ""}))

    assert sent.last_request is not None
    assert sent.last_request.json() == {"rename": "", "tags": {"cvm": ""}}


def test_attach_and_detach_wait_for_the_clients_with_a_bound(requests_mock: requests_mock.Mocker) -> None:
    sent = requests_mock.post(BASE + "MultiCluster/VolumesReassignWait", json=DONE)

    client().volumes_reassign_wait([VolumeReassignDesc(volume="~d.n.b1", detach="all", force=False)], 5)

    assert sent.last_request is not None
    assert sent.last_request.json() == {
        "reassign": [{"volume": "~d.n.b1", "detach": "all", "force": False}],
        "attachTimeout": 5,
    }


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error("objectDoesNotExist", "Volume 'x' does not exist"), ObjectDoesNotExist),
        (error("objectExists", "taken"), ObjectExists),
        (error("busy", "attached"), Busy),
        (error("invalidParam", "'~d.n.b1' is open at client 3"), Busy),
        (error("invalidParam", "No such client registered"), ClientNotRegistered),
        (error("insufficientResources", "Not enough servers"), InsufficientResources),
        (error("anything", "passing", transient=True), TransientRefusal),
        (error("neverHeardOf"), RequestRefused),
    ],
)
def test_an_error_member_counts_whatever_the_status(
    requests_mock: requests_mock.Mocker, status: int, answer: dict[str, object], expected: type[Error]
) -> None:
    requests_mock.post(BASE + "MultiCluster/VolumeDelete/x", json=answer, status_code=status)
    with pytest.raises(Error) as caught:
        client().volume_delete("x")
    assert type(caught.value) is expected


def test_busy_names_the_clients_that_hold_the_device_open(requests_mock: requests_mock.Mocker) -> None:
    requests_mock.post(BASE + "MultiCluster/VolumeDelete/x", json=error("busy", "'x' is open at client 17"))
    with pytest.raises(Busy) as caught:
        client().volume_delete("x")
    assert caught.value.clients == (17,)


@pytest.mark.parametrize("body", [b'{"error": {"name": "x", "descr": "bad token"}}', b"<html>no</html>"])
def test_a_wrong_token_is_named_as_such(requests_mock: requests_mock.Mocker, body: bytes) -> None:
    mock = requests_mock.get(BASE + "ServicesList", content=body, status_code=401)
    with pytest.raises(AuthenticationFailed, match="SP_AUTH_TOKEN"):
        client().services_list()
    assert mock.call_count == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"", 204),
        (b"<html>Bad gateway</html>", 502),
        (b'{"data": {"ok": true, "globalId": "d.n.b1"', 200),
        (b'"text"', 200),
        (b"[]", 200),
        (b"{}", 200),
        (b'{"data": null}', 200),
        (b'{"error": "text"}', 500),
        (b'{"error": {"descr": "no name"}}', 500),
        (b'{"data": {"ok": false, "globalId": "d.n.b1"}}', 200),
        (b'{"data": {"ok": true}}', 200),
        (b'{"data": {"ok": true, "globalId": "../../etc"}}', 200),
        (b'{"data": {"ok": true, "globalId": 7}}', 200),
        (b'{"data": {"ok": true, "globalId": "d.n.b1"}}', 500),
        (b"\xff\xfe", 200),
        (b'{"data": {"ok": true, "globalId": "\xff"}}', 200),
    ],
)
def test_a_malformed_answer_to_a_change_is_an_unknown_outcome_and_never_sent_again(
    requests_mock: requests_mock.Mocker, body: bytes, status: int
) -> None:
    mock = requests_mock.post(BASE + "MultiCluster/VolumeCreate", content=body, status_code=status)
    with pytest.raises(MalformedAnswer) as caught:
        client().volume_create(VolumeCreateDesc(size=512))
    assert isinstance(caught.value, Unknown)
    assert mock.call_count == 1


@pytest.mark.parametrize(
    "answer", [[], [VOLUME, VOLUME], [{**VOLUME, "size": 7}], [{**VOLUME, "globalId": "x"}], VOLUME]
)
def test_one_object_is_exactly_one_object_with_sound_fields(
    requests_mock: requests_mock.Mocker, answer: object
) -> None:
    requests_mock.get(BASE + "MultiCluster/Volume/x", json={"data": answer})
    with pytest.raises(MalformedAnswer):
        client().volume("x")


def test_a_query_is_asked_again_after_a_malformed_answer(requests_mock: requests_mock.Mocker) -> None:
    requests_mock.get(BASE + "MultiCluster/Volume/x", [{"text": "cut"}, {"json": {"data": [VOLUME]}}])
    assert client().volume("x").global_id == "d.n.b1"


def test_a_transient_refusal_of_a_change_is_tried_again_a_bounded_number_of_times(
    requests_mock: requests_mock.Mocker,
) -> None:
    later = {"json": error("x", transient=True), "status_code": 503}
    create = BASE + "MultiCluster/VolumeCreate"
    requests_mock.post(create, [later, {"json": CREATED}])
    assert client().volume_create(VolumeCreateDesc(size=512)).global_id == "d.n.b1"

    refusing = requests_mock.post(create, [later])
    with pytest.raises(TransientRefusal):
        client().volume_create(VolumeCreateDesc(size=512))
    assert refusing.call_count == QUICK.attempts


def test_attachments_of_an_object_are_found_by_id_and_by_name(requests_mock: requests_mock.Mocker) -> None:
    def attachment(volume: str, gid: str, number: int) -> dict[str, object]:
        return {"volume": volume, "globalId": gid, "snapshot": False, "client": number, "rights": "rw", "pos": 0}

    # The second was reverted: it answers to its old id, and shows it as its name.
    listed = [attachment("named", "d.n.b1", 1), attachment("~d.n.b2", "d.n.b9", 2), attachment("~d.n.b3", "d.n.b3", 3)]
    requests_mock.get(BASE + "MultiCluster/AttachmentsList", json={"data": listed})

    assert [a.client for a in client().attachments("~d.n.b1")] == [1]
    assert [a.client for a in client().attachments("named")] == [1]
    assert [a.client for a in client().attachments("~d.n.b2")] == [2]


def test_service_ids_are_numbers_although_json_keys_are_texts(requests_mock: requests_mock.Mocker) -> None:
    data = {"clusterStatus": "running", "clients": {"3": {"id": 3, "status": "running", "nodeId": 3}}}
    requests_mock.get(BASE + "ServicesList", json={"data": data})
    assert client().services_list().clients[3].status == "running"


def test_a_redirect_is_refused_and_the_token_stays_here(requests_mock: requests_mock.Mocker) -> None:
    requests_mock.get(BASE + "ServicesList", status_code=307, headers={"Location": "http://evil/"})
    other = requests_mock.get("http://evil/", text="{}")
    with pytest.raises(RequestRefused, match="redirect"):
        client().services_list()
    assert other.call_count == 0


def whole_request(connection: socket.socket) -> bytes:
    """Head and body: closing with bytes unread would reset the connection and take the answer along."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + body


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A listener on loopback that gives each connection to `answer`; yields its address and the requests it got."""
    runtime = ThreadRuntime("server")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    seen: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                seen.append(whole_request(connection))
                try:
                    answer(connection)
                except OSError:
                    pass

    task = runtime.spawn("serve", serve)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        task.join(10)


def http(body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body) if length is None else length, body)


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def answer_too_late(connection: socket.socket) -> None:
    """Silent until the client hangs up; one that never does gets an answer in the end, so that no test hangs."""
    connection.settimeout(3)
    try:
        connection.recv(1)
    except TimeoutError:
        connection.sendall(http(b"{}"))


def dead_endpoint() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_an_answer_that_is_cut_off_is_an_unknown_outcome_of_one_sending() -> None:
    with server(lambda c: c.sendall(http(b'{"data"', 4096))) as (address, seen):
        with pytest.raises(AnswerLost, match="may have been carried out"):
            client(address).volume_create(VolumeCreateDesc(size=512))
    assert len(seen) == 1


def test_a_connection_closed_without_an_answer_is_an_unknown_outcome() -> None:
    with server(hang_up) as (address, seen):
        with pytest.raises(AnswerLost):
            client(address).volume_create(VolumeCreateDesc(size=512))
    assert len(seen) == 1


@pytest.mark.parametrize(("timeout", "read_timeout"), [(0.2, None), (60, 0.2)], ids=["of the call", "of each wait"])
def test_a_server_that_accepts_and_stays_silent_is_given_up(timeout: float, read_timeout: float | None) -> None:
    with server(answer_too_late) as (address, seen):
        transport = HttpTransport((address,), Secret(TOKEN), read_timeout=read_timeout)
        with pytest.raises(AnswerLost, match="no whole answer came"):
            transport.call(Request("POST", "VolumeCreate", b"{}", timeout))
    assert len(seen) == 1


def test_an_attach_that_may_wait_long_for_its_host_is_waited_for_as_long() -> None:
    with requests_mock.Mocker() as api:
        api.post("http://sp:81/ctrl/1.0/MultiCluster/VolumesReassignWait", json={"data": {"ok": True}})
        StorPoolClient(HttpTransport(("sp:81",), Secret(TOKEN)), ThreadRuntime("t")).volumes_reassign_wait(
            [VolumeReassignDesc(volume="~d.n.b1", rw=(1,))], 300
        )
        (request,) = api.request_history
    _, read = request.timeout
    assert read > 300


def test_an_answer_that_drips_is_given_up_at_the_deadline() -> None:
    now = [0.0]

    def monotonic() -> float:
        now[0] += 1.0
        return now[0]

    with server(lambda c: c.sendall(http(b"x" * 300_000))) as (address, _):
        transport = HttpTransport((address,), Secret(TOKEN), monotonic=monotonic)
        with pytest.raises(AnswerLost, match="did not finish"):
            transport.call(Request("POST", "VolumeCreate", b"{}", 2))


def test_an_answer_beyond_the_limit_is_refused() -> None:
    with server(lambda c: c.sendall(http(b" " * 5000))) as (address, _):
        transport = HttpTransport((address,), Secret(TOKEN), answer_limit=4096)
        with pytest.raises(MalformedAnswer, match="larger"):
            transport.call(Request("GET", "VolumesList", None, 5))


def test_the_next_endpoint_is_taken_when_one_refuses_connections_and_then_kept() -> None:
    dead = dead_endpoint()
    with server(lambda c: c.sendall(http(json.dumps(CREATED).encode()))) as (address, seen):
        transport = HttpTransport((dead, address), Secret(TOKEN))
        for _ in range(2):
            assert transport.call(Request("POST", "MultiCluster/VolumeCreate", b"{}", 5)).status == 200
    assert len(seen) == 2


def test_a_change_whose_answer_was_lost_is_not_sent_to_the_next_endpoint() -> None:
    with server(hang_up) as (first, _), server(lambda c: c.sendall(http(b"{}"))) as (second, seen):
        with pytest.raises(AnswerLost):
            client(first, second).volume_create(VolumeCreateDesc(size=512))
    assert seen == []


def test_no_endpoint_at_all_says_that_nothing_was_sent_and_names_them() -> None:
    dead = dead_endpoint()
    with pytest.raises(NotSent, match=dead) as caught:
        client(dead).volume_create(VolumeCreateDesc(size=512))
    assert isinstance(caught.value, Unavailable)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{dead_endpoint()}")
    monkeypatch.setenv("no_proxy", "")
    with server(lambda c: c.sendall(http(json.dumps(CREATED).encode()))) as (address, seen):
        client(address).volume_create(VolumeCreateDesc(size=512))
    assert seen[0].startswith(b"POST /ctrl/1.0/MultiCluster/VolumeCreate HTTP/1.1")


class Broken(requests.Session):
    """Fails as requests does for a header it cannot send: with the header in the text."""

    def request(self, *_: object, **more: object) -> requests.Response:
        raise requests.exceptions.InvalidHeader(f"bad header {more['headers']}")


def test_every_call_is_logged_with_its_outcome_and_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    transport = HttpTransport(("10.0.0.1:81",), Secret(TOKEN))
    logged = LoggedTransport(transport, ThreadRuntime("test").monotonic, logging.getLogger("calls"))
    talk = StorPoolClient(logged, ThreadRuntime("test"), RetryPolicy(attempts=1))
    with requests_mock.Mocker() as web:
        web.post(f"{BASE}MultiCluster/VolumeCreate", json=CREATED)
        talk.volume_create(VolumeCreateDesc(name="made", size=1 << 20))
        refusal = error("objectDoesNotExist", "no such volume")
        web.get(f"{BASE}MultiCluster/Volume/~d.n.b1", json=refusal, status_code=404)
        with pytest.raises(ObjectDoesNotExist):
            talk.volume("~d.n.b1")
        web.get(f"{BASE}MultiCluster/Volume/~d.n.b1", exc=requests.exceptions.ReadTimeout)
        with pytest.raises(AnswerLost):
            talk.volume("~d.n.b1")
    made, missing, lost = [record.getMessage() for record in caplog.records if record.name == "calls"]
    assert made.startswith("POST MultiCluster/VolumeCreate ") and '"name":"made"' in made and ": 200 in " in made
    assert missing.startswith("GET MultiCluster/Volume/~d.n.b1: 404 ") and "no such volume" in missing
    assert lost.startswith("GET MultiCluster/Volume/~d.n.b1: ") and " 200 " not in lost
    assert TOKEN not in caplog.text


def test_the_token_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connection = Connection(("127.0.0.1:1",), Secret(TOKEN), "hdd")
    shown = io.StringIO()
    for thing in (connection, connection.token, vars(connect_http(connection, ThreadRuntime("t")))):
        shown.write(f"{thing!r} {thing!s} {thing}")

    def fail(of: StorPoolClient) -> None:
        with pytest.raises(Error) as caught:
            of.volume_create(VolumeCreateDesc(size=512))
        shown.write("".join(traceback.format_exception(caught.value)) + repr(caught.value))

    with requests_mock.Mocker() as mock:
        mock.post(requests_mock.ANY, text="{}", status_code=403)
        fail(client())
        mock.post(requests_mock.ANY, exc=requests.ReadTimeout)
        fail(client())
    fail(client(dead_endpoint()))
    fail(client(session=Broken))
    with pytest.raises(TypeError):
        pickle.dumps(connection.token)

    assert "127.0.0.1" in shown.getvalue()
    assert TOKEN not in shown.getvalue()
    assert TOKEN not in caplog.text
