"""The command wire: who may send, what is refused before anything is done, and twins of one command."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trustme

from harness.agent.config import TlsFiles
from harness.agent.inflight import Failed, InFlight
from harness.agent.server import BODY_LIMIT, CommandServer
from harness.cloudstack.agents.https import HttpsEndpoint
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import Answer, AnyAnswer, AnyCommand, PingAnswer, PingCommand, StopCommand
from harness.spi.errors import ErrorClass, Unavailable, Unknown
from harness.spi.objects import VmPower

Handler = Callable[[AnyCommand], AnyAnswer]
PONG = PingAnswer(result=True, host_uuid="h-1", vms={"i-2-7-VM": VmPower.ON})


@dataclass
class Certificates:
    """A CA with the certificates of an agent and of the management server, as files."""

    directory: Path
    ca: trustme.CA

    def files(self, name: str, *, ip: bool = False) -> tuple[str, str, str]:
        """CA, certificate and key of `name`."""
        names = (name, "127.0.0.1") if ip else (name,)
        issued = self.ca.issue_cert(*names, common_name=name)
        paths = [self.directory / f"{name}.{kind}" for kind in ("ca", "pem", "key")]
        self.ca.cert_pem.write_to_path(paths[0])
        issued.cert_chain_pems[0].write_to_path(paths[1])
        issued.private_key_pem.write_to_path(paths[2])
        ca, certificate, key = map(str, paths)
        return ca, certificate, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"), trustme.CA())


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("other"), trustme.CA())


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What escaped a task; nothing may."""
    seen: list[str] = []
    yield seen
    assert seen == []


@contextmanager
def serving(certificates: Certificates, handler: Handler, errors: list[str], limit: int = 4) -> Iterator[str]:
    runtime = ThreadRuntime("agent", report=lambda task, error: errors.append(f"{task}: {error!r}"))
    ca, certificate, key = certificates.files("kvm1", ip=True)
    server = CommandServer(runtime, handler, "127.0.0.1:0", TlsFiles(ca=ca, certificate=certificate, key=key), limit)
    server.start()
    try:
        yield f"https://127.0.0.1:{server.address[1]}"
    finally:
        assert server.stop(10)


def endpoint(certificates: Certificates, url: str, new_id: Callable[[], str] | None = None) -> HttpsEndpoint:
    return HttpsEndpoint("kvm1", url, *certificates.files("management"), new_id=new_id)


def never(command: AnyCommand) -> AnyAnswer:
    raise AssertionError(f"{command} should not have been carried out")


def raw(certificates: Certificates, url: str, method: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    ca, certificate, key = certificates.files("management")
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=context, timeout=10)
    try:
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        connection.send(body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_command_and_its_answer_arrive_as_they_were_sent_and_through_no_proxy(
    certificates: Certificates, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    seen: list[AnyCommand] = []

    def handler(command: AnyCommand) -> AnyAnswer:
        seen.append(command)
        return PONG

    command = StopCommand(vm_name="i-2-7-VM", volumes_to_disconnect=("/dev/storpool-byid/d.n.1",), wait=7)
    with serving(certificates, handler, errors) as url:
        assert endpoint(certificates, url).send(command, timeout=10) == PONG
    assert seen == [command]


def test_a_client_of_another_ca_is_turned_away_before_its_command_is_read(
    certificates: Certificates, strangers: Certificates, errors: list[str]
) -> None:
    with serving(certificates, never, errors) as url:
        _, certificate, key = strangers.files("management")
        ca, _, _ = certificates.files("management")
        with pytest.raises(Unavailable, match="TLS refused"):
            HttpsEndpoint("kvm1", url, ca, certificate, key).send(PingCommand(), timeout=10)


def test_a_server_of_another_ca_gets_no_command(
    certificates: Certificates, strangers: Certificates, errors: list[str]
) -> None:
    with serving(strangers, never, errors) as url:
        with pytest.raises(Unavailable, match="TLS refused"):
            endpoint(certificates, url).send(PingCommand(), timeout=10)


def test_a_client_without_a_certificate_is_turned_away(certificates: Certificates, errors: list[str]) -> None:
    with serving(certificates, never, errors) as url:
        context = ssl.create_default_context(cafile=certificates.files("management")[0])
        connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=context, timeout=10)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connection.request("POST", "/command", body=msgspec.json.encode(PingCommand()))
            connection.getresponse()
        connection.close()


def test_only_management_may_send_commands(certificates: Certificates, errors: list[str]) -> None:
    with serving(certificates, never, errors) as url:
        answer = HttpsEndpoint("kvm1", url, *certificates.files("kvm2")).send(PingCommand(), timeout=10)
    assert not answer.result
    assert answer.error_class is ErrorClass.PERMANENT
    assert "403" in answer.details
    assert "management" in answer.details


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/command", b"", {"Content_Length": str(BODY_LIMIT + 1)}, 413),
        ("POST", "/command", b"", {"Content_Length": "9" * 30}, 413),
        ("POST", "/command", b"", {"Content_Length": "-1"}, 411),
        ("POST", "/command", b"", {}, 411),
        ("POST", "/command", b"{}", {"Content_Length": "2"}, 400),
        ("POST", "/command", b"\xff\xff", {"Content_Length": "2"}, 400),
        ("POST", "/command", b'{"command":"PingCommand","x":1}', {"Content_Length": "31"}, 400),
        ("POST", "/command", b'{"command":"PingCommand"}', {"Content_Length": "25", "X_Command_Id": "a" * 200}, 400),
        ("POST", "/other", b"", {"Content_Length": "0"}, 404),
        ("GET", "/command", b"", {}, 404),
    ],
)
def test_what_is_no_command_is_refused_with_a_reason(
    certificates: Certificates,
    errors: list[str],
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
) -> None:
    with serving(certificates, never, errors) as url:
        got, text = raw(certificates, url, method, path, body, **headers)
    assert got == status, text
    assert msgspec.json.decode(text)["error"]


def test_an_oversized_command_is_an_answer_to_its_sender(certificates: Certificates, errors: list[str]) -> None:
    big = StopCommand(vm_name="x", volumes_to_disconnect=("y" * 100,) * (BODY_LIMIT // 90))
    with serving(certificates, never, errors) as url:
        answer = endpoint(certificates, url).send(big, timeout=10)
    assert not answer.result
    assert "413" in answer.details


class Gate:
    """A handler that says when it has begun, and waits until it may go on."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.calls = 0

    def __call__(self, command: AnyCommand) -> AnyAnswer:
        self.calls += 1
        self.begun.release()
        assert self.go.wait(20)
        return Answer(result=True, details=f"{command.wait:g}")


def send_beside(sender: HttpsEndpoint, command: AnyCommand, answers: list[AnyAnswer]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(sender.send(command, timeout=20)))
    thread.start()
    return thread


def test_twins_of_a_command_are_carried_out_once_and_both_get_the_answer(
    certificates: Certificates, errors: list[str]
) -> None:
    gate = Gate()
    answers: list[AnyAnswer] = []
    with serving(certificates, gate, errors) as url:
        sender = endpoint(certificates, url, new_id=lambda: "one")
        threads = [send_beside(sender, PingCommand(wait=5), answers)]
        assert gate.begun.acquire(timeout=10)
        threads.append(send_beside(sender, PingCommand(wait=5), answers))
        assert not gate.begun.acquire(timeout=0.3), "the twin was carried out too"
        gate.go.set()
        for thread in threads:
            thread.join(20)
        late = sender.send(PingCommand(wait=5), timeout=10)
        other = sender.send(PingCommand(wait=6), timeout=10)
    assert answers == [Answer(result=True, details="5")] * 2
    assert late == answers[0]
    assert gate.calls == 1, "a twin that comes after the answer gets it again"
    assert not other.result, "an id belongs to one command"


def test_a_twin_is_never_told_that_nothing_was_done_while_the_command_runs() -> None:
    gate = Gate()
    commands = InFlight(ThreadRuntime("agent"), gate, limit=4)
    first = threading.Thread(target=lambda: commands.run("one", PingCommand(), patience=20))
    first.start()
    assert gate.begun.acquire(timeout=10)
    with pytest.raises(Failed, match="still running"):
        commands.run("one", PingCommand(), patience=0.05)
    gate.go.set()
    first.join(20)
    assert gate.calls == 1


def test_more_commands_than_the_limit_are_turned_away_before_they_begin(
    certificates: Certificates, errors: list[str]
) -> None:
    gate = Gate()
    answers: list[AnyAnswer] = []
    with serving(certificates, gate, errors, limit=2) as url:
        sender = endpoint(certificates, url)
        threads = [send_beside(sender, PingCommand(wait=number), answers) for number in (1, 2)]
        for _ in threads:
            assert gate.begun.acquire(timeout=10)
        with pytest.raises(Unavailable, match="limit"):
            sender.send(PingCommand(), timeout=10)
        gate.go.set()
        for thread in threads:
            thread.join(20)
    assert gate.calls == 2
    assert sorted(answer.details for answer in answers) == ["1", "2"]


def test_a_server_that_stops_finishes_what_runs_and_begins_nothing(
    certificates: Certificates, errors: list[str]
) -> None:
    gate = Gate()
    answers: list[AnyAnswer] = []
    runtime = ThreadRuntime("agent", report=lambda task, error: errors.append(f"{task}: {error!r}"))
    ca, certificate, key = certificates.files("kvm1", ip=True)
    server = CommandServer(runtime, gate, "127.0.0.1:0", TlsFiles(ca=ca, certificate=certificate, key=key))
    server.start()
    sender = endpoint(certificates, f"https://127.0.0.1:{server.address[1]}")
    first = send_beside(sender, PingCommand(wait=5), answers)
    assert gate.begun.acquire(timeout=10)
    ended: list[bool] = []
    stopping = threading.Thread(target=lambda: ended.append(server.stop(20)))
    stopping.start()
    turned_away = False
    while not turned_away:
        try:
            # Until the stop has begun, commands are taken; they wait at the gate like the first.
            sender.send(PingCommand(wait=7), timeout=0.3)
        except Unavailable:
            turned_away = True
        except Unknown:
            continue
    assert ended == []
    gate.go.set()
    first.join(20)
    stopping.join(20)
    assert ended == [True]
    assert Answer(result=True, details="5") in answers
    with pytest.raises(Unavailable, match="not reached"):
        sender.send(PingCommand(), timeout=5)


def test_a_handler_that_breaks_is_an_unknown_outcome(
    certificates: Certificates, errors: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(command: AnyCommand) -> AnyAnswer:
        raise KeyError(command.wait)

    with serving(certificates, broken, errors) as url:
        with pytest.raises(Unknown, match="KeyError"):
            endpoint(certificates, url).send(PingCommand(), timeout=10)
    assert "KeyError" in caplog.text


def test_no_answer_in_time_is_an_unknown_outcome_and_nobody_there_is_not(
    certificates: Certificates, errors: list[str]
) -> None:
    gate = Gate()
    with serving(certificates, gate, errors) as url:
        with pytest.raises(Unknown, match="PingCommand to kvm1"):
            endpoint(certificates, url).send(PingCommand(), timeout=0.3)
        assert gate.calls == 1
        gate.go.set()
    with pytest.raises(Unavailable, match="not reached"):
        endpoint(certificates, url).send(PingCommand(), timeout=5)


def test_a_connection_that_breaks_after_the_command_left_is_an_unknown_outcome(certificates: Certificates) -> None:
    ca, certificate, key = certificates.files("kvm1", ip=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def cut() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(65536)

        thread = threading.Thread(target=cut)
        thread.start()
        with pytest.raises(Unknown):
            endpoint(certificates, f"https://127.0.0.1:{listener.getsockname()[1]}").send(PingCommand(), timeout=10)
        thread.join(10)


def test_a_client_that_never_speaks_does_not_keep_others_waiting(certificates: Certificates, errors: list[str]) -> None:
    with serving(certificates, lambda _: PONG, errors) as url:
        host, _, port = url.removeprefix("https://").partition(":")
        with socket.create_connection((host, int(port))):
            assert endpoint(certificates, url).send(PingCommand(), timeout=10) == PONG
