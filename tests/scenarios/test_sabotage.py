"""The scenarios notice when the plugin does not do its work: each sabotage turns a case red, at the right check."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import msgspec
import pytest

from harness.agent import domain_xml, secrets
from harness.agent.adaptor import StorageAdaptor
from harness.agent.handlers import modify_pool
from harness.cloudstack.orchestration.resize import ResizeManager
from harness.driver.driver import StorPoolDriver
from harness.driver.resizing import Resizing
from harness.driver.vm_reverting import VmReverting
from harness.driver.vm_snapshots import VmSnapshotDeletion
from harness.recording import Recorder
from harness.report.stream import Check, Event
from harness.run import Verdict, judge
from harness.spi.vm_snapshots import VmSnapshotObject
from harness.worlds.memory import model_luks, model_qemu_img
from harness.worlds.memory.image import Image
from harness.worlds.memory.observers import MemoryHost
from harness.worlds.memory.world import MemoryWorld
from scenarios.registry import load

CASES = {case.id: case for case in load()}
NO_PASSPHRASE = "libvirt keeps no passphrase"
ON_EVERY_DISK = "StorPool: vc-policy 'daily' on every disk of the VM"
TEMPLATE_S_BYTES = "ROOT has the template's bytes"
Sabotage = Callable[[pytest.MonkeyPatch], None]


def nothing(*_arguments: object, **_named: object) -> None:
    """What a method does that was sabotaged."""


def without(owner: type, method: str) -> Sabotage:
    return lambda patch: patch.setattr(owner, method, nothing)


def without_disconnect(patch: pytest.MonkeyPatch) -> None:
    """Volumes of VMs stay attached; the check volume does not, or the world would not be at rest to begin with."""
    real = StorageAdaptor.disconnect

    def disconnect(self: StorageAdaptor, path: str, *, timeout: float | None = None) -> None:
        if sys._getframe(1).f_globals["__name__"] == modify_pool.__name__:
            real(self, path, timeout=timeout)

    patch.setattr(StorageAdaptor, "disconnect", disconnect)


def last_disk_left_out(patch: pytest.MonkeyPatch) -> None:
    """Of a VM all disks but the last are reverted."""
    real = VmReverting.revert

    def revert(self: VmReverting, snapshot: VmSnapshotObject) -> dict[str, int]:
        kept = snapshot.volumes[:-1]
        paths = {volume.uuid: snapshot.paths[volume.uuid] for volume in kept}
        return real(self, msgspec.structs.replace(snapshot, volumes=kept, paths=paths))

    patch.setattr(VmReverting, "revert", revert)


def disks_with(change: Callable[[ET.Element], None]) -> Sabotage:
    """Domains get their disks with something changed."""
    right = domain_xml.disk_element

    def wrong(source: str, target: str, serial: str, *, encrypted: bool = False) -> ET.Element:
        disk = right(source, target, serial, encrypted=encrypted)
        change(disk)
        return disk

    return lambda patch: patch.setattr(domain_xml, "disk_element", wrong)


def cached(disk: ET.Element) -> None:
    disk.find("driver").set("cache", "writeback")  # type: ignore[union-attr]  # every disk has a driver


def other_serial(disk: ET.Element) -> None:
    disk.find("serial").text = "0" * 20  # type: ignore[union-attr]  # every disk has a serial


def in_the_clear(patch: pytest.MonkeyPatch) -> None:
    """QEMU is given the device of an encrypted disk as it is."""
    right = domain_xml.disk_element
    patch.setattr(domain_xml, "disk_element", lambda *words, encrypted=False: right(*words))  # noqa: ARG005


def opened_by_anything(patch: pytest.MonkeyPatch) -> None:
    """Every volume has one passphrase that everybody knows, and a guest reads nothing back but noise."""
    patch.setattr(model_luks, "_wrap", lambda _passphrase, _salt, key: key)


def end_not_copied(patch: pytest.MonkeyPatch) -> None:
    """Of an image the last piece is not written to the device."""
    right = model_qemu_img._halves

    def halves(image: Image, *, zeroes: bool) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        first, second = right(image, zeroes=zeroes)
        return first, second[:-1]

    patch.setattr(model_qemu_img, "_halves", halves)


def seeing_nothing(patch: pytest.MonkeyPatch) -> None:
    """Who looks for traces of a text on a host finds none, wherever it stands."""
    patch.setattr(MemoryHost, "traces", lambda *_: [])


def failed_check(case_id: str) -> str:
    """Name of the check that failed, or what else is wrong; empty when the case passed."""
    events: list[Event] = []
    verdict = Verdict()
    recorder = Recorder("memory", case_id, events.append, lambda: 0.0)
    MemoryWorld(3).run(lambda world: judge(CASES[case_id], world, recorder, verdict))
    failed = [event.name for event in events if isinstance(event, Check) and not event.passed]
    if failed:
        return failed[0]
    return str(verdict.error or "") or "; ".join(verdict.violated)


@pytest.mark.parametrize(
    ("sabotage", "case_id", "expected"),
    [
        (without(StorPoolDriver, "revoke_access"), "5.hot", "tags cvm, disk, vc-policy cleared, uuid and cs kept"),
        (without(StorPoolDriver, "revoke_access"), "5.from-stopped", "tags cvm, disk cleared, uuid kept"),
        (without(StorPoolDriver, "provide_vm_info"), "4.hot", "tags cs, uuid, cvm, disk"),
        (without(StorPoolDriver, "provide_vm_tags"), "4.vc-policy", "tag vc-policy on the ROOT disk"),
        (without(StorPoolDriver, "provide_vm_tags"), "22.running", ON_EVERY_DISK),
        (without(StorPoolDriver, "provide_vm_tags"), "23.other-tags", ON_EVERY_DISK),
        (without(StorPoolDriver, "provide_vm_info"), "22.attached-later", ON_EVERY_DISK),
        (without(StorPoolDriver, "delete"), "7.running", "StorPool volume gone"),
        (without(StorPoolDriver, "delete"), "8.detached", "StorPool volume gone"),
        (without(StorPoolDriver, "delete"), "18.to-nfs", "StorPool volume gone"),
        (without_disconnect, "5.stop", "no attachment on StorPool"),
        (without_disconnect, "5.guest-off", "no attachment on StorPool"),
        (in_the_clear, "encryption.data", "the guest sees the disk"),
        (opened_by_anything, "encryption.data", "a wrong key is refused"),
        (lambda patch: patch.setattr(secrets, "take_back", lambda *_: []), "encryption.data", NO_PASSPHRASE),
        (without_disconnect, "encryption.root-nowhere", "what the guest has is nowhere readable on kvm1"),
        (seeing_nothing, "encryption.data", "on the volume that is not encrypted it is found"),
        (seeing_nothing, "encryption.root-nowhere", "on the volume that is not encrypted it is found"),
        (last_disk_left_out, "20.stopped", "the guest boots, and reads first on every disk"),
        (without(VmSnapshotDeletion, "delete"), "21.detached", "StorPool has none of its snapshots"),
        (end_not_copied, "2.two-at-once", TEMPLATE_S_BYTES),
        (end_not_copied, "cache.race", TEMPLATE_S_BYTES),
        (end_not_copied, "direct-download.two-at-once", TEMPLATE_S_BYTES),
        (end_not_copied, "direct-download.lost", TEMPLATE_S_BYTES),
        (without(Resizing, "_tell"), "15.live-grow", "so has the disk in the domain"),
        (without(Resizing, "_undo"), "15.agent-away", "CloudStack and StorPool: 2048 MiB, ready"),
        (without(ResizeManager, "finish"), "15.agent-away", "the change is over: not in 900 s"),
        (disks_with(cached), "4.start", "disk in the domain with serial, raw, discard"),
        (disks_with(other_serial), "4.start", "disk in the domain with serial, raw, discard"),
    ],
    ids=lambda value: value if isinstance(value, str) and value[:1].isdigit() else "",
)
def test_a_plugin_that_does_not_do_its_work_is_noticed(
    sabotage: Sabotage, case_id: str, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="harness")
    assert failed_check(case_id) == ""
    sabotage(monkeypatch)
    assert failed_check(case_id) == expected
