"""Stands between the processes of a lab: passes each message on, through the gate. Logs nothing, so no secret either.

Both kinds of traffic make a connection for each exchange: StorPool's API (plain HTTP), and commands to agents (mutual
TLS, ended and begun here with certificates of the lab). A process that is dead is not listened for, so that others are
refused as by its own machine.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.agent.server import CLIENT_NAME, certificate_names
from harness.worlds.local.processes import MANAGEMENT, Routes
from harness.worlds.local.steps.gate import ANSWER, REQUEST, Gate, Step
from harness.worlds.local.steps.wire import (
    BrokenMessage,
    HttpMessage,
    call_name,
    command_name,
    is_background,
    objects_named,
    read_message,
)
from lab.file import Lab

STORPOOL = "StorPool"
AGENT = "agent"
PROXY = "proxy"
"""Name of the proxy's certificate."""
CONNECT_SECONDS = 10.0
EXCHANGE_SECONDS = 600.0
"""The longest that one read waits: commands may take minutes."""


@dataclass(frozen=True, slots=True)
class Way:
    """From whom to whom, and how."""

    sender: str
    """`management` or a host's name."""
    receiver: str
    """`StorPool` or a host's name."""
    address: tuple[str, int]
    """Where the receiver really listens."""
    name_of: Callable[[HttpMessage], str]
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None


class Relay:
    """One way: a port of ours whose connections lead to the receiver."""

    def __init__(self, way: Way, own_address: str, gate: Gate, watch: Callable[[Way, str], None]) -> None:
        self._way = way
        self._own = own_address
        self._gate = gate
        self._watch = watch
        self._listening: socket.socket | None = None
        self.port = 0
        self.errors: list[str] = []
        """What nobody expected."""
        self.open()

    @property
    def receiver(self) -> str:
        return self._way.receiver

    @property
    def sender(self) -> str:
        return self._way.sender

    @property
    def address(self) -> str:
        return f"{self._own}:{self.port}"

    def open(self) -> None:
        """Listen, on the same port as before. Nothing when it does."""
        if self._listening is not None:
            return
        listening = self._bind()
        self.port = int(listening.getsockname()[1])
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _bind(self) -> socket.socket:
        """Meanwhile the port may have become that of a connection from here, which does not last."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                return socket.create_server((self._own, self.port), backlog=64)
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def close(self) -> None:
        """Listen no more: whoever connects is refused. Exchanges that are under way go on."""
        if self._listening is not None:
            # Else a thread that waits in accept keeps the port.
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        try:
            self._exchange(accepted)
        except OSError:
            return  # a party died, or gave up; that the connection ends tells the other one
        except Exception as error:
            self.errors.append(f"{self._way.sender} -> {self._way.receiver}: {type(error).__name__}: {error}")
        finally:
            accepted.close()

    def _exchange(self, accepted: socket.socket) -> None:
        way = self._way
        accepted.settimeout(EXCHANGE_SECONDS)
        with _server_side(accepted, way.server_tls) as near:
            _check_client(near)
            request = read_message(near.makefile("rb"))
            name, objects = way.name_of(request), objects_named(request)
            self._watch(way, name)
            held = self._pass(name, REQUEST, objects)
            try:
                far = self._deliver(request)
            finally:
                if held:
                    self._gate.gone_on()
            with far:
                answer = read_message(far.makefile("rb"), until_end=True)
            held = self._pass(name, ANSWER, objects)
            try:
                near.sendall(answer.raw)
            finally:
                if held:
                    self._gate.gone_on()

    def _deliver(self, request: HttpMessage) -> socket.socket:
        way = self._way
        far = socket.create_connection(way.address, CONNECT_SECONDS)
        try:
            far.settimeout(EXCHANGE_SECONDS)
            if way.client_tls is not None:
                far = way.client_tls.wrap_socket(far, server_hostname=way.address[0])
            far.sendall(request.raw)
        except BaseException:
            far.close()
            raise
        return far

    def _pass(self, name: str, half: str, objects: frozenset[str]) -> bool:
        if is_background(name):
            return False
        sender, receiver = _role(self._way.sender), _role(self._way.receiver)
        step = Step(sender, receiver, name, half, 0)
        return self._gate.passing(step, (self._way.sender, self._way.receiver), objects)


class Proxy:
    """All ways of a lab between management server, agents and StorPool; `routes` leads its processes here."""

    def __init__(self, lab: Lab, own_address: str, gate: Gate) -> None:
        self._pings = threading.Condition()
        self._ping_count: dict[str, int] = {}
        self._others = 0
        storpool = _address(lab.storpool.endpoints[0])
        near, far = _near(lab.tls.directory), _far(lab.tls.directory)
        ways = [Way(name, STORPOOL, storpool, call_name) for name in (MANAGEMENT, *(host.name for host in lab.hosts))]
        ways += [
            Way(MANAGEMENT, host.name, _address(host.agent_address), command_name, near, far) for host in lab.hosts
        ]
        self._relays: list[Relay] = []
        for way in ways:
            self._relays.append(Relay(way, own_address, gate, self._seen))
        self.routes = Routes(
            storpool={relay.sender: (relay.address,) for relay in self._relays if relay.receiver == STORPOOL},
            agents={relay.receiver: relay.address for relay in self._relays if relay.receiver != STORPOOL},
        )

    @property
    def errors(self) -> list[str]:
        return [text for relay in self._relays for text in relay.errors]

    def dead(self, party: str) -> None:
        """Whoever wants to reach the party is refused from now on."""
        for relay in self._relays:
            if relay.receiver == party:
                relay.close()

    def alive(self, party: str) -> None:
        for relay in self._relays:
            if relay.receiver == party:
                relay.open()

    def close(self) -> None:
        for relay in self._relays:
            relay.close()

    def quiet_tick(self, host: str, seconds: float) -> bool:
        """Whether, within `seconds`, a whole round of the management server's background task went by, from one ping of
        the host to the next, in which it and the agents sent nothing that is part of an operation."""
        deadline = time.monotonic() + seconds
        with self._pings:
            before = -1
            while self._next_ping(host, deadline):
                if self._others == before:
                    return True
                before = self._others
        return False

    def _next_ping(self, host: str, deadline: float) -> bool:
        count = self._ping_count.get(host, 0)
        return self._pings.wait_for(lambda: self._ping_count.get(host, 0) > count, deadline - time.monotonic())

    def _seen(self, way: Way, name: str) -> None:
        with self._pings:
            if name == "PingCommand":
                self._ping_count[way.receiver] = self._ping_count.get(way.receiver, 0) + 1
            elif not is_background(name):
                self._others += 1
            self._pings.notify_all()


def _role(party: str) -> str:
    return party if party in (MANAGEMENT, STORPOOL) else AGENT


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _near(directory: Path) -> ssl.SSLContext:
    """Towards the management server: shows the proxy's certificate, takes no client but one of the lab."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "ca.pem")
    context.load_cert_chain(directory / f"{PROXY}.pem", directory / f"{PROXY}.key")
    return context


def _far(directory: Path) -> ssl.SSLContext:
    """Towards the agents: they take commands from who shows the management server's certificate."""
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / f"{MANAGEMENT}.pem", directory / f"{MANAGEMENT}.key")
    return context


def _check_client(near: socket.socket) -> None:
    """As the agents do: commands come from the management server alone."""
    if isinstance(near, ssl.SSLSocket) and CLIENT_NAME not in certificate_names(near.getpeercert()):
        raise BrokenMessage("the client's certificate is not the management server's")


def _server_side(accepted: socket.socket, context: ssl.SSLContext | None) -> socket.socket:
    return accepted if context is None else context.wrap_socket(accepted, server_side=True)
