"""Domain XML: what libvirt's own schema says of it, and what comes back out of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from agent_fakes import MIB, Rig
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from harness.agent.config import Accelerator, AgentConfig
from harness.agent.domain_xml import (
    HOT_PLUG_PORTS,
    AttachedDisk,
    attached_disk_xml,
    cd_xml,
    disk_xml,
    domain_xml,
    read_cd,
    read_disks,
    target_name,
)
from harness.spi.errors import InvalidParameter
from harness.spi.objects import VirtualMachine, disk_serial


def config(**changes: object) -> AgentConfig:
    base = {"host_uuid": "h", "host_name": "kvm1", "accelerator": "qemu"}
    return msgspec.convert(base | changes, AgentConfig)


def machine(disks: int = 2) -> VirtualMachine:
    return Rig().vm(disks)


SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    if not SCHEMA.exists():
        pytest.skip(f"needs {SCHEMA} (package libvirt0)")
    return etree.RelaxNG(etree.parse(SCHEMA))


@pytest.mark.parametrize("accelerator", list(Accelerator))
@pytest.mark.parametrize("log_directory", [None, "/var/log/splab"])
@pytest.mark.parametrize(
    ("disks", "cd"), [(0, "nfs://10.0.0.9/export/x/template/tmpl/2/7/a.iso"), (1, "/run/mnt/a.iso"), (20, None)]
)
def test_libvirts_schema_takes_the_domain(
    schema: etree.RelaxNG, accelerator: Accelerator, log_directory: str | None, disks: int, cd: str | None
) -> None:
    text = domain_xml(machine(disks), config(accelerator=accelerator, log_directory=log_directory), cd)
    assert read_cd(text) == cd
    assert read_cd(f"<domain><devices>{cd_xml(cd)}</devices></domain>") == cd
    assert schema.validate(etree.fromstring(text)), f"{schema.error_log}\n{text}"
    broken = text.replace("<vcpu>", "<vcpus>").replace("</vcpu>", "</vcpus>")
    assert not schema.validate(etree.fromstring(broken)), "the schema must be able to refuse"


def test_a_disk_is_raw_uncached_and_lets_discards_through() -> None:
    (disk,) = machine(1).disks
    shown = ET.fromstring(disk_xml(disk))
    driver = shown.find("driver")
    assert driver is not None
    assert driver.attrib == {"name": "qemu", "type": "raw", "cache": "none", "io": "native", "discard": "unmap"}
    assert shown.attrib == {"type": "block", "device": "disk"}
    assert shown.findtext("serial") == disk.serial


def test_disks_come_back_out_of_the_domain_as_they_went_in() -> None:
    vm = machine(3)
    shown = read_disks(domain_xml(vm, config()))
    assert [(disk.source, disk.target, disk.serial) for disk in shown] == [
        (disk.path, target_name(disk.device_id), disk.serial) for disk in vm.disks
    ]
    again = ET.fromstring(attached_disk_xml(shown[1]))
    assert read_disks(f"<domain><devices>{ET.tostring(again, encoding='unicode')}</devices></domain>") == (shown[1],)


def test_live_xml_with_other_disks_and_extra_elements_is_read() -> None:
    live = """<domain id='3'><devices>
      <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
      <disk type='file' device='disk'><source file='/x.iso'/><target dev='vdz'/></disk>
      <disk type='block' device='disk'><source dev='/dev/storpool-byid/d.n.1' index='1'><privateData/></source>
        <backingStore/><target dev='vda' bus='virtio'/><serial>abc</serial><alias name='virtio-disk0'/></disk>
      <disk type='block' device='disk'><source dev='/dev/storpool-byid/d.n.2'/><target dev='vdb'/></disk>
    </devices></domain>"""
    assert read_disks(live) == (
        AttachedDisk(source="/dev/storpool-byid/d.n.1", target="vda", serial="abc"),
        AttachedDisk(source="/dev/storpool-byid/d.n.2", target="vdb", serial=""),
    )


def test_ports_for_hot_plug_are_left_free_whatever_the_domain_starts_with() -> None:
    for disks in (1, 5):
        domain = ET.fromstring(domain_xml(machine(disks), config()))
        ports = domain.findall("./devices/controller[@model='pcie-root-port']")
        taken = sum(len(domain.findall(f"./devices/{kind}")) for kind in ("disk[@device='disk']", "interface", "rng"))
        assert len(ports) - taken == HOT_PLUG_PORTS


def test_names_from_outside_cannot_add_elements() -> None:
    vm = msgspec.structs.replace(machine(1), name="a</name><evil/>&'\"")
    domain = ET.fromstring(domain_xml(vm, config()))
    assert domain.findtext("name") == vm.name
    assert domain.find("evil") is None


def test_memory_is_bytes_and_an_interface_without_a_bridge_takes_the_hosts() -> None:
    vm = machine(1)
    nic = msgspec.structs.replace(vm.nics[0], bridge="")
    domain = ET.fromstring(domain_xml(msgspec.structs.replace(vm, nics=(nic,)), config(bridge="br7")))
    memory = domain.find("memory")
    source = domain.find("./devices/interface/source")
    assert memory is not None
    assert source is not None
    assert (memory.attrib["unit"], memory.text) == ("b", str(128 * MIB))
    assert source.attrib["bridge"] == "br7"


@given(st.integers(min_value=0, max_value=20_000))
def test_target_names_count_as_the_kernel_does(device_id: int) -> None:
    name = target_name(device_id)
    number = 0
    for letter in name.removeprefix("vd"):
        number = number * 26 + ord(letter) - ord("a") + 1
    assert number - 1 == device_id
    assert (target_name(0), target_name(25), target_name(26), target_name(702)) == ("vda", "vdz", "vdaa", "vdaaa")


def test_a_negative_device_id_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        target_name(-1)


def test_the_serial_is_what_virtio_can_show() -> None:
    assert disk_serial("5e8a9d5c-0f6e-4e41-9c46-0b0d4f6f5f11") == "5e8a9d5c0f6e4e419c46"
