"""The proxy between a lab's processes: what it calls a message, what it counts, and how it holds one."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import trustme

from harness.agent.config import TlsFiles
from harness.agent.server import CommandServer
from harness.cloudstack.agents.https import HttpsEndpoint
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import Answer, AnyAnswer, AnyCommand, PingCommand, StopCommand
from harness.spi.errors import Unavailable, Unknown
from harness.worlds.local.steps.gate import Gate, Passing, Step
from harness.worlds.local.steps.plan import Found, candidates, chosen, plan
from harness.worlds.local.steps.proxy import Relay, Way, _far, _near
from harness.worlds.local.steps.recovery import recovery_lines
from harness.worlds.local.steps.wire import (
    BrokenMessage,
    HttpMessage,
    call_name,
    command_name,
    is_background,
    objects_named,
    read_message,
)
from scenarios.table import RowId

TOKEN = "Storpool v1:1234567890"


def request(path: str, body: object = None) -> HttpMessage:
    return HttpMessage(f"POST /ctrl/1.0/{path} HTTP/1.1\r\n\r\n".encode(), json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("MultiCluster/VolumeCreate", {"name": "cs-1"}, "VolumeCreate"),
        ("MultiCluster/Volume/~a.b.c", None, "Volume by id"),
        ("MultiCluster/Volume/cs-1-volume", None, "Volume by name"),
        ("MultiCluster/VolumeUpdate/~a.b.c", {"tags": {"cvm": "1"}}, "VolumeUpdate by id (tags)"),
        ("MultiCluster/VolumeUpdate/~a.b.c", {"rename": ""}, "VolumeUpdate by id (rename)"),
        (
            "MultiCluster/VolumesReassignWait",
            {"reassign": [{"volume": "~a.b.c", "rw": [1], "detach": "all", "force": False}]},
            "VolumesReassignWait (detach, rw)",
        ),
        ("VolumeTemplateDescribe/hdd?json=%7B%7D", None, "VolumeTemplateDescribe by name"),
        ("MultiCluster/AttachmentsList", None, "AttachmentsList"),
    ],
)
def test_a_call_is_named_by_what_it_does_and_by_nothing_that_differs_between_runs(
    path: str, body: object, name: str
) -> None:
    assert call_name(request(path, body)) == name


def test_background_is_told_apart_by_the_message_itself() -> None:
    assert command_name(HttpMessage(b"", b'{"command":"PingCommand","wait":10.0}')) == "PingCommand"
    names = (
        "PingCommand",
        "VolumeUpdate by id (rename)",
        "VolumeUpdate by name (rename)",
        "Volume by name",
        "Snapshot by name",
    )
    assert all(is_background(name) for name in names)
    own = ("VolumeCreate", "Volume by id", "VolumeUpdate by id (tags)", "StartCommand", "VolumeDelete by name")
    assert not any(is_background(name) for name in own)


def test_a_message_is_read_whole_or_not_at_all() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    assert read_message(BytesIO(whole + b"more")).raw == whole
    assert read_message(BytesIO(b"GET / HTTP/1.1\r\nA: b\r\n\r\nnext")).body == b""
    assert read_message(BytesIO(b"HTTP/1.1 200 OK\r\n\r\nall of it"), until_end=True).body == b"all of it"
    for torn in (whole[:-1], whole[:20], b""):
        with pytest.raises(BrokenMessage):
            read_message(BytesIO(torn))


def step(name: str, half: str = "request", number: int = 1) -> Step:
    return Step("management", "StorPool", name, half, number)


PARTIES = ("management", "StorPool")


def test_the_wanted_step_alone_is_held_and_only_inside_of_an_operation() -> None:
    gate = Gate()
    assert not gate.passing(step("VolumeCreate"), PARTIES)
    seen: list[Passing] = []
    with ThreadPoolExecutor(1) as pool, gate.counting(step("VolumeCreate", number=2), look=seen.append):
        assert not gate.passing(step("VolumeCreate"), PARTIES)
        assert not gate.passing(step("VolumeCreate", "answer"), PARTIES)
        held = pool.submit(gate.passing, step("VolumeCreate"), PARTIES)
        found = gate.wait_held(20)
        assert found is not None and str(found.step) == "management -> StorPool VolumeCreate, request 2"
        assert not held.done()
        held.add_done_callback(lambda _: gate.gone_on())
        assert gate.release()
        assert held.result(20)
        assert not gate.passing(step("VolumeDelete"), PARTIES)
    assert [passing.step.half for passing in seen] == ["request", "answer", "request"]


def test_a_message_about_what_was_gone_before_the_operation_is_none_of_its_steps() -> None:
    gate = Gate()
    gate.passing(step("VolumeUpdate"), PARTIES, frozenset({"l.c.1"}))
    gate.passing(step("VolumeUpdate"), PARTIES, frozenset({"l.c.2"}))
    seen: list[Passing] = []
    with gate.counting(look=seen.append, there={"l.c.2"}):
        for named in ({"l.c.1"}, {"l.c.2"}, {"l.c.3"}, {"l.c.1", "l.c.2"}, set[str]()):
            gate.passing(step("VolumeUpdate"), PARTIES, frozenset(named))
    assert [passing.step.number for passing in seen] == [1, 2, 3, 4]


def test_the_objects_of_a_call_are_found_in_its_path_and_in_its_body() -> None:
    body = b'{"reassign": [{"volume": "~l.c.2", "rw": [1]}, {"volume": "named"}]}'
    head = b"POST /ctrl/1.0/MultiCluster/VolumeUpdate/~l.c.1 HTTP/1.1\r\n\r\n"
    assert objects_named(HttpMessage(head, body)) == {"l.c.1", "l.c.2"}
    assert objects_named(HttpMessage(b"GET /ctrl/1.0/VolumesList HTTP/1.1\r\n\r\n", b"")) == set()


def test_a_step_that_does_not_come_is_not_waited_for_for_ever() -> None:
    gate = Gate()
    with gate.counting(step("VolumeCreate")):
        assert gate.wait_held(0) is None


class Api(BaseHTTPRequestHandler):
    """A StorPool API that remembers whom it served."""

    served: list[tuple[str, str]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.served.append((self.path, self.headers["Authorization"]))
        body = b'{"data":{"ok":true}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@dataclass(frozen=True, slots=True)
class Served:
    address: tuple[str, int]
    requests: list[tuple[str, str]]
    """Path and authorization of each."""


@pytest.fixture
def api() -> Iterator[Served]:
    requests: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Remembering", (Api,), {"served": requests}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Served(("127.0.0.1", int(server.server_address[1])), requests)
    server.shutdown()
    thread.join(10)
    server.server_close()


def ask(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/ctrl/1.0/VolumeCreate", b"{}", {"Authorization": TOKEN})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_request_is_held_before_it_is_delivered_and_an_answer_before_it_is_given_back(
    api: Served,
) -> None:
    gate = Gate()
    names: list[str] = []
    way = Way("management", "StorPool", api.address, call_name)
    relay = Relay(way, "127.0.0.1", gate, lambda _, name: names.append(name))
    try:
        for half, delivered in (("request", 0), ("answer", 2)):
            with ThreadPoolExecutor(1) as pool, gate.counting(step("VolumeCreate", half)):
                asking = pool.submit(ask, relay.port)
                assert gate.wait_held(20) is not None
                assert (len(api.requests), asking.done()) == (delivered, False)
                assert gate.release()
                assert asking.result(20) == (200, b'{"data":{"ok":true}}')
        assert api.requests == [("/ctrl/1.0/VolumeCreate", TOKEN)] * 2
        assert names == ["VolumeCreate"] * 2
        relay.close()
        with pytest.raises(ConnectionRefusedError):
            ask(relay.port)
        relay.open()
        assert ask(relay.port)[0] == 200
        assert relay.errors == []
    finally:
        relay.close()


def test_a_request_to_a_receiver_that_died_breaks_without_an_answer() -> None:
    gate = Gate()
    gone = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    address = ("127.0.0.1", int(gone.server_address[1]))
    relay = Relay(Way("management", "StorPool", address, call_name), "127.0.0.1", gate, lambda *_: None)
    try:
        with ThreadPoolExecutor(1) as pool, gate.counting(step("VolumeCreate")):
            asking = pool.submit(ask, relay.port)
            assert gate.wait_held(20) is not None
            gone.server_close()
            assert gate.release()
            with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
                asking.result(20)
    finally:
        relay.close()
        gone.server_close()


def test_commands_pass_with_mutual_tls_on_both_sides(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("management", "kvm1", "proxy"):
        issued = ca.issue_cert(name, "127.0.0.1", common_name=name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")

    def file(name: str) -> str:
        return str(tmp_path / name)

    def handle(command: AnyCommand) -> AnyAnswer:
        return Answer(result=True, details=type(command).__name__)

    runtime = ThreadRuntime("test")
    server = CommandServer(
        runtime, handle, "127.0.0.1:0", TlsFiles(ca=file("ca.pem"), certificate=file("kvm1.pem"), key=file("kvm1.key"))
    )
    server.start()
    gate = Gate()
    way = Way("management", "kvm1", server.address, command_name, _near(tmp_path), _far(tmp_path))
    relay = Relay(way, "127.0.0.1", gate, lambda *_: None)
    management = (file("ca.pem"), file("management.pem"), file("management.key"))
    endpoint = HttpsEndpoint("kvm1", f"https://{relay.address}", *management, new_id=runtime.uuid)
    host = (file("ca.pem"), file("kvm1.pem"), file("kvm1.key"))
    stranger = HttpsEndpoint("kvm1", f"https://{relay.address}", *host)
    seen: list[str] = []
    try:
        with gate.counting(look=lambda passing: seen.append(str(passing.step))):
            assert endpoint.send(StopCommand(vm_name="i-2-3-VM"), timeout=20).details == "StopCommand"
            assert endpoint.send(PingCommand(), timeout=20).details == "PingCommand"
        assert seen == ["management -> agent StopCommand, request", "management -> agent StopCommand, answer"]
        with pytest.raises((Unavailable, Unknown)):
            stranger.send(PingCommand(), timeout=20)
        relay.close()
        with pytest.raises(Unavailable):
            endpoint.send(PingCommand(), timeout=20)
    finally:
        relay.close()
        server.stop(20)


def test_a_steps_own_parties_come_first_and_no_qemu_is_killed_where_none_runs() -> None:
    asked = Step("management", "agent", "StartCommand", "request", 1)
    answered = Step("management", "agent", "StartCommand", "answer", 1)
    assert candidates(Found(asked, qemu=False)) == ["management", "agent", "StorPool", "libvirtd"]
    assert candidates(Found(answered, qemu=True)) == ["agent", "management", "StorPool", "libvirtd", "QEMU"]


def test_every_step_is_struck_once_with_victims_in_turn_or_by_every_victim() -> None:
    steps = [Found(step("VolumeCreate", number=number), qemu=True) for number in range(1, 11)]
    once = plan([("attach", 4, steps)], full=False)
    assert [kill.step for kill in once] == [found.step for found in steps]
    assert {victim: [kill.victim for kill in once].count(victim) for victim in {kill.victim for kill in once}} == (
        dict.fromkeys(("management", "agent", "StorPool", "libvirtd", "QEMU"), 2)
    )
    assert [kill.victim for kill in once[:2]] == ["management", "StorPool"]
    assert once == plan([("attach", 4, steps)], full=False)
    more = [*steps, Found(step("VolumeDelete"), qemu=True)]
    once = plan([("attach", 4, steps), ("again", 4, more)], full=False)
    assert [kill.id for kill in once[10:]] == ["4.again.11.management"]
    everything = plan([("attach", 4, steps)], full=True)
    assert len(everything) == 50 == len({kill.id for kill in everything})


def test_rows_operations_and_single_cases_can_be_chosen_and_what_is_not_there_is_an_error() -> None:
    steps: list[tuple[str, RowId, list[Found]]] = [
        ("deploy", 2, [Found(step("VolumeCreate"), qemu=False)]),
        ("attach", 4, [Found(step("VolumeCreate"), qemu=True)]),
    ]

    def ids(*words: str, full: bool = False) -> list[str]:
        return [kill.id for kill in chosen(steps, words, full=full)]

    assert ids() == ["2.deploy.01.management", "4.attach.01.StorPool"]
    assert ids("4") == ids("attach") == ["4.attach.01.StorPool"]
    assert len(ids("attach", full=True)) == 5
    assert ids("2", "4.attach.01.QEMU") == ["2.deploy.01.management", "4.attach.01.QEMU"]
    with pytest.raises(KeyError):
        ids("2.deploy.01.QEMU")


def test_recovery_is_told_by_the_logs_without_calls_that_went_well() -> None:
    entries = [
        (1.0, "management StorPool", "POST MultiCluster/VolumeCreate {}: 200 in 0.003 s"),
        (2.0, "kvm1 StorPool", "POST MultiCluster/VolumesReassignWait: no whole answer came"),
        (3.0, "management agents", "to kvm1: StopCommand"),
        (4.0, "management cloudstack", "storage driver: seed-template t: undone"),
        (5.0, "management cloudstack", "storage driver: create-volume v: made; open until it is surely recorded"),
        (6.0, "management cloudstack", "storage driver: seed-template t: undone"),
        *((7.0, "kvm1 agent warning", f"failure {number}") for number in range(20)),
    ]
    told = recovery_lines(entries)
    assert told[:2] == [
        "kvm1 StorPool: POST MultiCluster/VolumesReassignWait: no whole answer came",
        "management cloudstack: storage driver: seed-template t: undone",
    ]
    assert len(told) == 12 and told[-1] == "and 11 lines more"
