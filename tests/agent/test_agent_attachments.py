"""Which host may write to a volume: attachments on the simulator, then commands."""

from __future__ import annotations

import pytest
from agent_fakes import MIB, OTHER_CLIENT, ClockRuntime, Rig

from harness.agent.attachments import ClientAttachments
from harness.spi.commands import AttachCommand, StartCommand, StorPoolModifyStoragePoolCommand
from harness.spi.errors import Conflict, ErrorClass
from harness.spi.objects import DataStore, StoreRole
from harness.storpool import AnswerLost, Reply, Request, RetryPolicy, StorPoolClient
from simulator.inprocess import InProcess

HERE, THERE = 1, 2
VM = "i-2-7-VM"
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")


class Wire:
    """The way to the simulator. The next `delayed` changes lose their answer and arrive when `deliver` is called."""

    def __init__(self) -> None:
        self.simulator = InProcess()
        self.delayed = 0
        self.waiting: list[Request] = []
        self.asked: list[str] = []

    def call(self, request: Request) -> Reply:
        self.asked.append(request.path)
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


def use(wire: Wire, volume: str, client: int = THERE) -> None:
    """A guest of that client's host opens the volume."""
    wire.simulator.blocks.open(wire.simulator.blocks.links_by_id(client)[volume[1:]], client)


def test_a_volume_open_on_another_host_stays_there_alone(
    wire: Wire, attachments: ClientAttachments, volume: str
) -> None:
    attachments.attach(volume, THERE, shared=False, timeout=5)
    use(wire, volume)
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
    use(wire, volume)
    wire.deliver()
    assert wire.clients() == {THERE: "rw"}


@pytest.mark.parametrize("lost", [1, 2])
def test_an_attach_that_arrives_late_makes_no_second_writer_beside_one_that_came_meanwhile(
    wire: Wire, attachments: ClientAttachments, volume: str, lost: int
) -> None:
    # Nobody had it attached when this host asked.
    wire.delayed = lost
    attachments.attach(volume, HERE, shared=False, timeout=5)
    attachments.attach(volume, THERE, shared=False, timeout=5)
    use(wire, volume)
    wire.deliver()
    assert wire.clients() == {THERE: "rw"}


def test_a_volume_that_is_open_here_stays_open_when_it_is_attached_here_again(
    wire: Wire, attachments: ClientAttachments, volume: str
) -> None:
    attachments.attach(volume, HERE, shared=False, timeout=5)
    use(wire, volume, HERE)
    before = wire.simulator.blocks.links_by_id(HERE)
    attachments.attach(volume, HERE, shared=False, timeout=5)
    assert (wire.clients(), wire.simulator.blocks.links_by_id(HERE)) == ({HERE: "rw"}, before)
    with pytest.raises(Conflict, match=f"is open at client {HERE}"):
        attachments.detach(volume, HERE, timeout=5)


def test_one_request_makes_an_attachment_however_many_the_cluster_has(
    wire: Wire, attachments: ClientAttachments, volume: str
) -> None:
    attachments.attach(volume, THERE, shared=False, timeout=5)
    wire.asked.clear()
    attachments.attach(volume, HERE, shared=False, timeout=5)
    assert wire.asked == ["MultiCluster/VolumesReassignWait"]


def test_a_snapshot_is_attached_on_many_hosts_at_once(wire: Wire, attachments: ClientAttachments, volume: str) -> None:
    made = wire.simulator.post(f"VolumeSnapshot/{volume}", {})["snapshotGlobalId"]
    for client in (HERE, THERE):
        attachments.attach(f"~{made}", client, shared=False, timeout=5)
    assert wire.clients() == {HERE: "ro", THERE: "ro"}


def test_a_volume_that_another_host_has_open_is_not_given_to_a_second_guest() -> None:
    rig = Rig()
    vm = rig.vm(2)
    rig.elsewhere["d.n.2"] = True
    answer = rig.agent().handle(StartCommand(vm=vm))
    assert not answer.result
    assert answer.error_class is ErrorClass.CONFLICT
    assert f"{vm.disks[1].path} was not attached to host kvm1" in answer.details
    assert f"open at client {OTHER_CLIENT}" in answer.details
    assert VM not in rig.domains
    assert rig.attached == set()
    assert rig.elsewhere == {"d.n.2": True}
    del rig.elsewhere["d.n.2"]
    assert rig.agent().handle(StartCommand(vm=vm)).result
    disk = rig.volume(4)
    rig.elsewhere["d.n.5"] = True
    assert rig.agent().handle(AttachCommand(vm_name=VM, disk=disk)).error_class is ErrorClass.CONFLICT
    assert disk.path not in rig.sources(VM)


def test_an_attachment_left_on_another_host_goes_when_the_volume_is_attached_here() -> None:
    rig = Rig()
    vm = rig.vm(2)
    rig.elsewhere["d.n.1"] = False
    assert rig.agent().handle(StartCommand(vm=vm)).result
    assert rig.elsewhere == {}
    assert rig.attached == {"d.n.1", "d.n.2"}


def test_a_host_that_proves_itself_leaves_the_check_volume_of_another_one_alone() -> None:
    rig = Rig()
    check = rig.volume(0, size=512)
    rig.elsewhere["d.n.1"] = False
    assert rig.agent().handle(StorPoolModifyStoragePoolCommand(pool=POOL, volume_path=check.path)).result
    assert rig.elsewhere == {"d.n.1": False}
