"""The model machine behaves as the measured one (spec/lab-facts.md section 3), where agents and scenarios can tell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest

from harness.agent.config import AgentConfig
from harness.agent.domain_xml import AttachedDisk, attached_disk_xml, disk_xml, domain_xml, read_disks
from harness.runtime.process import SimulatedRuntime
from harness.runtime.simulated import Simulation
from harness.spi.commands import AnyAnswer, DeleteCommand, DownloadAnswer, DownloadCommand, PingCommand
from harness.spi.errors import Conflict, Dead, Error, NotFound, Unavailable
from harness.spi.objects import DataStore, Disk, ImageFormat, Nic, StoreRole, TemplateObject, VirtualMachine, VolumeType
from harness.spi.ports import DomainState
from harness.worlds.memory.image import BOOT_MAGIC, guest_image
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_guest import ModelGuest
from harness.worlds.memory.model_host import ModelHost
from harness.worlds.memory.model_hypervisor import ModelHypervisor
from harness.worlds.memory.model_programs import COPY_SECONDS
from harness.worlds.memory.model_secondary import ModelExport, ModelSecondaryRole
from simulator.blocks.memory import MemoryBlocks
from simulator.ports import DeviceBusy, Links

SIZE = 8 << 20
EXPORT = "nfs://secondary/export"
QCOW2 = f"{EXPORT}/template/tmpl/1/2/image.qcow2"
RAW = f"{EXPORT}/template/tmpl/1/3/image.raw"


class Bench:
    """One machine, client 1, with objects 1 (bootable once copied), 2 and 3 attached to it, 3 read-only."""

    def __init__(self, seed: int = 1) -> None:
        self.simulation = Simulation(seed)
        self.blocks = MemoryBlocks(1 << 30)
        hardware = self.simulation.process("hardware")
        self.machine = Machine(hardware, "kvm1", 1, self.blocks, {"/etc/storpool.conf": "SP_OURID=1\n"})
        for key in (1, 2, 3):
            self.blocks.create(key, SIZE)
            links = Links(client=1, names=(f"v{key}",), by_id=(f"a.b.{key}",))
            self.blocks.attach(key, links, read_only=key == 3)
        export = ModelExport(EXPORT)
        export.files["template/tmpl/1/2/image.qcow2"] = guest_image().qcow2()
        export.files["template/tmpl/1/3/image.raw"] = guest_image().raw()
        self.export = export
        self.agent: SimulatedRuntime = self.simulation.process("agent")
        self.host = ModelHost(self.machine, self.agent, export)
        self.hypervisor = ModelHypervisor(self.machine, self.agent)
        self.guest = ModelGuest(self.simulation.main, [self.machine], lambda: "vm")

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` as a task of the agent."""
        ended: list[bool] = []

        def task() -> None:
            work()
            ended.append(True)

        def main() -> None:
            self.agent.spawn("work", task)
            self.simulation.main.sleep(1000)

        self.simulation.run(main)
        assert ended == [True]

    def write_image(self) -> None:
        for offset, data in guest_image().extents:
            self.blocks.write(1, offset, data)


def disk(number: int, *, serial: str | None = None, slot: int | None = None) -> Disk:
    return Disk(
        path=f"/dev/storpool-byid/a.b.{number}",
        serial=serial or f"serial{number}",
        device_id=number - 1 if slot is None else slot,
        size=SIZE,
        type=VolumeType.DATADISK,
    )


def vm(*disks: Disk, name: str = "vm", uuid: str = "u-1") -> str:
    machine = VirtualMachine(
        uuid=uuid, name=name, cpus=1, memory=1 << 27, disks=disks, nics=(Nic(mac="m", ip="i", bridge="b"),)
    )
    return domain_xml(machine, AgentConfig(host_uuid="h", host_name="kvm1"))


def named(number: int) -> str:
    item = disk(number)
    return attached_disk_xml(AttachedDisk(item.path, f"vd{'abc'[number - 1]}", item.serial))


def convert(source: str, image_format: str, device: str) -> tuple[str, ...]:
    return ("qemu-img", "convert", "-n", "-f", image_format, "-O", "raw", "-t", "none", source, device)


DEVICE = "/dev/storpool-byid/a.b.1"


@pytest.mark.parametrize(("source", "image_format"), [(QCOW2, "qcow2"), (RAW, "raw")])
def test_convert_writes_the_guests_disk_over_whatever_the_device_held(source: str, image_format: str) -> None:
    bench = Bench()
    bench.blocks.write(1, 1 << 20, b"old bytes")
    bench.blocks.write(1, guest_image().size, b"beyond")

    def work() -> None:
        result = bench.host.run(("qemu-img", "info", "--output=json", "-f", image_format, source), timeout=10)
        assert json.loads(result.stdout)["virtual-size"] == guest_image().size
        assert bench.host.run(convert(source, image_format, DEVICE), timeout=60).rc == 0

    bench.run(work)
    assert bench.blocks.read(1, 0, guest_image().size) == guest_image().raw()
    assert bench.blocks.read(1, guest_image().size, 6) == b"beyond"
    assert not bench.blocks.opened(1)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (convert(RAW, "qcow2", DEVICE), "not in qcow2 format"),
        (convert(QCOW2, "vmdk", DEVICE), "Unknown driver"),
        (convert(QCOW2 + ".missing", "qcow2", DEVICE), "No such file"),
        (convert(QCOW2, "qcow2", "/dev/storpool-byid/a.b.9"), "No such file"),
        (("qemu-img", "convert", "-n", "-O", "raw", QCOW2, DEVICE), "-f FORMAT is missing"),
        (("qemu-img", "convert", "-n", "-f", "qcow2", QCOW2, DEVICE), "-O FORMAT is missing"),
        (("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", QCOW2, DEVICE), "not to be read as raw"),
        (("qemu-img", "convert", "--salvage", "-f", "raw", "-O", "raw", QCOW2, DEVICE), "--salvage"),
        (("qemu-img", "info", "--output=json", QCOW2), "-f FORMAT is missing"),
        (("qemu-img", "info", "-f", "raw"), "expected 1 file names"),
    ],
)
def test_qemu_img_fails_with_a_reason_and_writes_nothing(argv: tuple[str, ...], reason: str) -> None:
    bench = Bench()

    def work() -> None:
        result = bench.host.run(argv, timeout=10)
        assert result.rc == 1
        assert reason in result.stderr.decode()

    bench.run(work)
    assert bench.blocks.stored(1) == 0


def test_an_image_larger_than_the_device_is_refused_and_other_programs_do_not_exist() -> None:
    bench = Bench()
    bench.blocks.resize(1, 1 << 20)

    def work() -> None:
        assert b"too small" in bench.host.run(convert(QCOW2, "qcow2", DEVICE), timeout=10).stderr
        for argv in (("losetup", "-a"), ("qemu-img", "commit", "x"), ()):
            with pytest.raises(Unavailable):
                bench.host.run(argv, timeout=10)

    bench.run(work)


def test_a_copy_outlives_its_agent_until_it_is_killed_and_leaves_part_of_the_image_and_a_closed_device() -> None:
    bench = Bench()
    copies: list[str] = []

    def strike(_process: str, _kind: str, detail: str) -> None:
        if detail.endswith("writes"):
            copies.append(detail)
            if len(copies) == 2:
                bench.simulation.kill("agent")

    bench.simulation.strike = strike

    def copy() -> None:
        bench.host.run(convert(QCOW2, "qcow2", DEVICE), timeout=60, operation="op-1")

    def main() -> None:
        bench.agent.spawn("copy", copy)
        bench.simulation.main.sleep(COPY_SECONDS * 0.75)
        assert not bench.simulation.alive("agent")
        assert bench.blocks.opened(1)
        runtime = bench.simulation.process("agent")
        host = ModelHost(bench.machine, runtime, bench.export)

        def end() -> None:
            host.end_programs("another", timeout=5)
            assert bench.blocks.opened(1)
            host.end_programs("op-1", timeout=5)
            assert not bench.blocks.opened(1)

        runtime.spawn("end", end)
        bench.simulation.main.sleep(10)

    bench.simulation.run(main)
    assert bench.blocks.read(1, 0, len(BOOT_MAGIC)) == BOOT_MAGIC
    assert bench.blocks.read(1, guest_image().size - 4096, 4096) == bytes(4096)
    with pytest.raises(Dead):
        bench.host.block_device_size(DEVICE)


def test_a_guest_boots_from_a_right_copy_only_and_each_boot_has_its_own_id() -> None:
    bench = Bench()

    def main() -> None:
        def create() -> None:
            bench.hypervisor.create(vm(disk(1), disk(2)))

        bench.agent.spawn("create", create)
        with pytest.raises(TimeoutError, match="no bootable device"):
            bench.guest.boot_id()
        bench.write_image()
        boots = set()
        for _ in range(2):

            def again() -> None:
                bench.hypervisor.destroy("vm")
                bench.hypervisor.create(vm(disk(1), disk(2)))

            before = bench.simulation.now
            bench.agent.spawn("again", again)
            bench.simulation.main.sleep(0.1)
            boots.add(bench.guest.boot_id())
            assert bench.simulation.now - before >= 2
        assert len(boots) == 2
        bench.guest.write("serial2", 4096, b"hello")
        assert bench.guest.read("serial2", 4096, 5) == b"hello" == bench.blocks.read(2, 4096, 5)
        assert bench.guest.disks() == {"serial1": SIZE, "serial2": SIZE}
        with pytest.raises(FileNotFoundError, match="serial9"):
            bench.guest.read("serial9", 0, 1)

    bench.simulation.run(main)


def test_libvirt_refuses_bad_domains_and_opens_nothing_for_them() -> None:
    bench = Bench()
    good = vm(disk(1), disk(2))
    refused: list[tuple[str, str]] = [
        (good.replace('<target dev="vdb" bus="virtio" />', ""), "missing target"),
        (good.replace('dev="vdb"', 'dev="vda"'), "target 'vda' duplicated"),
        (vm(disk(1), disk(9)), "Cannot access storage file '/dev/storpool-byid/a.b.9'"),
        (vm(disk(1), disk(3)), "Read-only"),
        (good.replace('type="raw"', ""), "driver type"),
        ("<domain><name>vm</name>", "XML error"),
        ("<network/>", "expected <domain>"),
    ]

    def work() -> None:
        for xml, reason in refused:
            assert xml != good
            with pytest.raises(Error, match=reason):
                bench.hypervisor.create(xml)
            assert not any(bench.blocks.opened(key) for key in (1, 2, 3)), reason
            bench.hypervisor.undefine("vm")
        bench.hypervisor.create(good)
        with pytest.raises(Conflict, match="running"):
            bench.hypervisor.create(good)
        with pytest.raises(Error, match="u-1"):
            bench.hypervisor.create(vm(disk(2), name="other"))
        assert bench.hypervisor.domains() == {"vm": DomainState.RUNNING}
        with pytest.raises(NotFound):
            bench.hypervisor.xml("nobody")
        bench.hypervisor.destroy("nobody")

    bench.run(work)


def test_an_open_device_is_busy_until_the_domain_is_off() -> None:
    bench = Bench()

    def work() -> None:
        bench.hypervisor.create(vm(disk(1)))
        with pytest.raises(DeviceBusy):
            bench.blocks.detach(1, 1, force=False)
        bench.hypervisor.destroy("vm")
        bench.blocks.detach(1, 1, force=False)
        assert bench.host.block_device_size(DEVICE) is None
        assert bench.host.block_device_size("/dev/storpool/v2") == SIZE
        assert bench.host.block_device_size("/dev/sda") is None
        with pytest.raises(Error, match="No such file"):
            bench.hypervisor.create(vm(disk(1)))
        assert bench.hypervisor.domains() == {"vm": DomainState.SHUT_OFF}

    bench.run(work)


def test_hot_plug_reaches_guest_and_xml_until_the_domain_is_off() -> None:
    bench = Bench()
    bench.write_image()

    def work() -> None:
        bench.hypervisor.create(vm(disk(1)))
        bench.agent.sleep(10)
        bench.hypervisor.attach_device("vm", disk_xml(disk(2)))
        for again, reason in ((disk(2), "target"), (disk(1, serial="x", slot=1), "target"), (disk(9), "No such file")):
            with pytest.raises(Error, match=reason):
                bench.hypervisor.attach_device("vm", disk_xml(again))
        assert [item.target for item in read_disks(bench.hypervisor.xml("vm"))] == ["vda", "vdb"]
        assert bench.blocks.opened(2)
        bench.hypervisor.detach_device("vm", named(2))
        bench.hypervisor.detach_device("vm", named(2))
        assert not bench.blocks.opened(2)
        bench.hypervisor.attach_device("vm", disk_xml(disk(2)))
        bench.hypervisor.destroy("vm")
        assert [item.target for item in read_disks(bench.hypervisor.xml("vm"))] == ["vda"]
        assert not bench.blocks.opened(2)
        with pytest.raises(Conflict, match="not running"):
            bench.hypervisor.attach_device("vm", disk_xml(disk(2)))

    bench.run(work)


def test_hot_plug_ports_run_out() -> None:
    bench = Bench()
    for key in range(10, 30):
        bench.blocks.create(key, SIZE)
        bench.blocks.attach(key, Links(client=1, names=(), by_id=(f"a.b.{key}",)), read_only=False)

    def work() -> None:
        bench.hypervisor.create(vm(disk(1)))
        for key in range(10, 18):
            bench.hypervisor.attach_device("vm", disk_xml(disk(key)))
        with pytest.raises(Error, match="PCI slots"):
            bench.hypervisor.attach_device("vm", disk_xml(disk(18)))

    bench.run(work)


def test_a_guest_that_boots_or_is_suspended_keeps_its_disk_though_the_detach_returns() -> None:
    bench = Bench()
    bench.write_image()

    def has_disk() -> bool:
        return "vdb" in [item.target for item in read_disks(bench.hypervisor.xml("vm"))]

    def work() -> None:
        bench.hypervisor.create(vm(disk(1), disk(2)))
        domain = bench.machine.domains["vm"]
        domain.up_at = bench.agent.now() + 6
        before = bench.agent.monotonic()
        bench.hypervisor.detach_device("vm", named(2))
        assert has_disk()
        assert bench.agent.monotonic() - before == 5
        bench.agent.sleep(2)
        bench.machine.suspend(domain)
        assert bench.hypervisor.domains() == {"vm": DomainState.PAUSED}
        for _ in range(2):
            bench.hypervisor.detach_device("vm", named(2))
            assert has_disk()
        bench.machine.resume(domain)
        assert has_disk()
        bench.agent.sleep(0.5)
        assert not has_disk()
        assert not bench.blocks.opened(2)

    bench.run(work)


def test_a_request_that_meets_an_eject_loses_the_disk_and_leaves_its_device_open_until_the_domain_is_off() -> None:
    """As measured: blockdev-del says that the node is in use, and libvirt drops the disk all the same."""
    bench = Bench()
    bench.write_image()

    def work() -> None:
        bench.hypervisor.create(vm(disk(1), disk(2)))
        domain = bench.machine.domains["vm"]
        bench.agent.sleep(10)
        bench.machine.suspend(domain)
        bench.hypervisor.detach_device("vm", named(2))
        bench.machine.resume(domain)
        while not domain.disks[1].ejecting:
            bench.agent.sleep(0.001)
        bench.hypervisor.detach_device("vm", named(2))
        assert [item.target for item in read_disks(bench.hypervisor.xml("vm"))] == ["vda"]
        bench.agent.sleep(60)
        assert bench.blocks.opened(2)
        bench.hypervisor.destroy("vm")
        assert not bench.blocks.opened(2)

    bench.run(work)


def test_a_guest_powers_off_when_it_is_up_and_asked_and_a_booting_one_does_not_hear() -> None:
    bench = Bench()
    bench.write_image()

    def work() -> None:
        bench.hypervisor.create(vm(disk(1)))
        bench.hypervisor.shutdown("vm")
        bench.agent.sleep(20)
        assert bench.hypervisor.domains() == {"vm": DomainState.RUNNING}
        bench.hypervisor.shutdown("vm")
        assert bench.hypervisor.domains() == {"vm": DomainState.RUNNING}
        bench.agent.sleep(5)
        assert bench.hypervisor.domains() == {"vm": DomainState.SHUT_OFF}
        assert not bench.blocks.opened(1)

    bench.run(work)


def test_the_secondary_role_registers_only_what_is_there_and_of_the_right_format_and_deletes_it() -> None:
    bench = Bench()
    image = guest_image().qcow2()
    export = ModelExport(EXPORT)
    export.served["http://images/a.qcow2"] = image
    role = ModelSecondaryRole(bench.agent, export)
    store = DataStore(id=1, uuid="s", name="sec", role=StoreRole.IMAGE, provider="NFS", url=EXPORT)
    digest = hashlib.sha256(image).hexdigest()

    def download(
        url: str = "http://images/a.qcow2", path: str = "a/b", image_format: str = "QCOW2", sum: str = ""
    ) -> AnyAnswer:
        template = TemplateObject(
            id=1, uuid="t", name="t", format=ImageFormat(image_format), size=0, store=store, path=path
        )
        return role.handle(DownloadCommand(template=template, url=url, checksum=sum or None))

    def work() -> None:
        for answer, reason in (
            (download(url="http://images/b.qcow2"), "404"),
            (download(path="../etc/passwd"), "leaves the image store"),
            (download(path="/etc/passwd"), "leaves the image store"),
            (download(sum="{SHA-256}" + "0" * 64), "expected"),
            (download(sum="0" * 64), "expected"),
            (role.handle(DeleteCommand(store=store, path="a/../..")), "leaves the image store"),
            (role.handle(PingCommand()), "not for the secondary storage role"),
        ):
            assert not answer.result
            assert reason in answer.details
        assert export.files == {}
        export.served["http://images/raw"] = guest_image().raw()
        assert "not in qcow2 format" in download(url="http://images/raw").details
        answer = download(sum="{SHA-256}" + digest)
        assert answer == DownloadAnswer(
            result=True, install_path="a/b", virtual_size=guest_image().size, physical_size=len(image)
        )
        assert export.read(f"{EXPORT}/a/b") == image
        export.stalls += 1
        with pytest.raises(NotFound, match="timed out"):
            export.read(f"{EXPORT}/a/b")
        assert "does not answer" in role.handle(DeleteCommand(store=store, path="a/b")).details
        export.stalls -= 1
        export.full += 1
        assert "No space left on device" in download(sum="{SHA-256}" + digest).details
        for _ in range(2):
            assert role.handle(DeleteCommand(store=store, path="a/b")).result
        assert export.files == {}

    bench.run(work)
