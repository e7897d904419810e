"""Attaching against the simulator: which host may write to a volume."""

from __future__ import annotations

import pytest
from agent_fakes import MIB, ClockRuntime

from harness.agent.attachments import ClientAttachments
from harness.spi.errors import Conflict
from harness.storpool import AnswerLost, Reply, Request, RetryPolicy, StorPoolClient
from simulator.inprocess import InProcess

HERE, THERE = 1, 2


class Wire:
    """The way to the simulator. The next `delayed` changes lose their answer and arrive when `deliver` is called."""

    def __init__(self) -> None:
        self.simulator = InProcess()
        self.delayed = 0
        self.waiting: list[Request] = []

    def call(self, request: Request) -> Reply:
        if self.delayed and request.verb == "POST":
            self.delayed -= 1
            self.waiting.append(request)
            raise AnswerLost("lost")
        return self._serve(request)

    def deliver(self) -> None:
        while self.waiting:
            self._serve(self.waiting.pop(0))

    def _serve(self, request: Request) -> Reply:
        asked = self.simulator.ask(request.verb, request.path, request.body or b"")
        assert asked.reply is not None
        return Reply(asked.reply.status, asked.reply.body)

    def clients(self) -> dict[int, str]:
        return {entry["client"]: entry["rights"] for entry in self.simulator.get("AttachmentsList")}


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def attachments(wire: Wire) -> ClientAttachments:
    return ClientAttachments(StorPoolClient(wire, ClockRuntime(), RetryPolicy(attempts=1)))


@pytest.fixture
def volume(wire: Wire) -> str:
    global_id: str = wire.simulator.post("VolumeCreate", {"size": 4 * MIB})["globalId"]
    return f"~{global_id}"


def use_there(wire: Wire, volume: str) -> None:
    """A guest on the other host opens the volume."""
    wire.simulator.blocks.open(wire.simulator.blocks.links_by_id(THERE)[volume[1:]], THERE)


def test_a_volume_open_on_another_host_stays_there_alone(
    wire: Wire, attachments: ClientAttachments, volume: str
) -> None:
    attachments.attach(volume, THERE, shared=False, timeout=5)
    use_there(wire, volume)
    with pytest.raises(Conflict, match=f"is open at client {THERE}"):
        attachments.attach(volume, HERE, shared=False, timeout=5)
    assert wire.clients() == {THERE: "rw"}
    attachments.attach(volume, HERE, shared=True, timeout=5)
    assert wire.clients() == {HERE: "rw", THERE: "rw"}


def test_an_attach_that_arrives_after_its_detach_keeps_no_other_host_from_the_volume(
    wire: Wire, attachments: ClientAttachments, volume: str
) -> None:
    wire.delayed = 1
    attachments.attach(volume, THERE, shared=False, timeout=5)
    attachments.detach(volume, THERE, timeout=5)
    wire.deliver()
    assert wire.clients() == {THERE: "rw"}
    attachments.attach(volume, HERE, shared=False, timeout=5)
    assert wire.clients() == {HERE: "rw"}


def test_an_attach_that_arrives_after_a_guest_started_elsewhere_takes_nothing_from_it(
    wire: Wire, attachments: ClientAttachments, volume: str
) -> None:
    attachments.attach(volume, THERE, shared=False, timeout=5)
    wire.delayed = 1
    attachments.attach(volume, HERE, shared=False, timeout=5)
    attachments.attach(volume, THERE, shared=False, timeout=5)
    use_there(wire, volume)
    wire.deliver()
    assert wire.clients() == {THERE: "rw"}


def test_a_snapshot_is_attached_on_many_hosts_at_once(wire: Wire, attachments: ClientAttachments, volume: str) -> None:
    made = wire.simulator.post(f"VolumeSnapshot/{volume}", {})["snapshotGlobalId"]
    for client in (HERE, THERE):
        attachments.attach(f"~{made}", client, shared=False, timeout=5)
    assert wire.clients() == {HERE: "ro", THERE: "ro"}
