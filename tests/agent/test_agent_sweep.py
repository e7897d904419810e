"""Every step of every command fails once, before or after it acted: what is left, and what a repetition makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from agent_fakes import MIB, Rig

from harness.agent.operations import SETTLE_TIME
from harness.spi.commands import (
    AnyCommand,
    AttachCommand,
    DettachCommand,
    DirectDownloadCommand,
    StartCommand,
    StopCommand,
    StorPoolBackupTemplateFromSnapshotCommand,
    StorPoolDownloadTemplateCommand,
    StorPoolModifyStoragePoolCommand,
    StorPoolSetVolumeEncryptionCommand,
)
from harness.spi.errors import Dead, Unavailable, Unknown
from harness.spi.objects import (
    LUKS_HEADER,
    DataStore,
    DirectSource,
    ImageFormat,
    StoreRole,
    TemplateObject,
    VolumeObject,
    VolumeType,
    device_path,
)
from harness.spi.passphrase import Passphrase
from harness.spi.ports import CommandResult

VM = "i-2-7-VM"
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")
STORE = DataStore(id=2, uuid="s", name="secondary", role=StoreRole.IMAGE, provider="NFS", url="nfs://10.0.0.9/x")


@dataclass(frozen=True)
class Case:
    """A command, the world before it, and what it must have reached."""

    name: str
    prepare: Callable[[Rig], AnyCommand]
    disks: frozenset[str]
    """Global ids of the domain's disks once the command has succeeded; empty: there is no domain."""
    before: frozenset[str]
    anew: Callable[[AnyCommand], AnyCommand] = lambda command: command
    """How it is sent once more."""


def running(rig: Rig, disks: int) -> StartCommand:
    command = StartCommand(vm=rig.vm(disks))
    assert rig.agent().handle(command).result
    return command


def attach(rig: Rig) -> AnyCommand:
    running(rig, 1)
    return AttachCommand(vm_name=VM, disk=rig.volume(4))


def dettach(rig: Rig) -> AnyCommand:
    return DettachCommand(vm_name=VM, disk=running(rig, 2).vm.disks[1])


def stop(rig: Rig) -> AnyCommand:
    command = running(rig, 2)
    return StopCommand(vm_name=VM, volumes_to_disconnect=tuple(disk.path for disk in command.vm.disks))


def images(rig: Rig, *there: str) -> None:
    """Programs that look at images, write them, and fetch them to files of the host."""
    written = set(there)

    def run(argv: tuple[str, ...]) -> CommandResult:
        if "--output" in argv:
            rig.files[argv[argv.index("--output") + 1]] = "an image"
        if argv[1] == "convert":
            written.add(argv[-1])
        if argv[1] == "info" and argv[-1] not in written | set(rig.files):
            return CommandResult(argv, 1, b"", b"qemu-img: Could not open: No such file or directory\n")
        info = json.dumps({"virtual-size": 8 * MIB, "format": "qcow2"}).encode()
        return CommandResult(argv, 0, info, b"")

    rig.programs = run


def template(store: DataStore, path: str, direct: DirectSource | None = None) -> TemplateObject:
    return TemplateObject(
        id=1, uuid="t", name="t", format=ImageFormat.QCOW2, size=0, store=store, path=path, direct=direct
    )


def download(rig: Rig) -> AnyCommand:
    images(rig, "/mnt/store/t.qcow2")
    return StorPoolDownloadTemplateCommand(
        source=template(STORE, "t.qcow2"), destination=template(POOL, rig.volume(0).path)
    )


def direct_download(rig: Rig) -> AnyCommand:
    images(rig)
    source = template(POOL, "", DirectSource(url="http://10.0.0.9/t.qcow2"))
    return DirectDownloadCommand(source=source, destination=template(POOL, rig.volume(0).path))


def backup(rig: Rig) -> AnyCommand:
    images(rig)
    source = rig.volume(0, size=8 * MIB)
    volume = VolumeObject(
        id=1, uuid="v", name="v", type=VolumeType.DATADISK, size=8 * MIB, store=POOL, path=source.path
    )
    return StorPoolBackupTemplateFromSnapshotCommand(source=volume, destination=template(STORE, "b.qcow2"))


def elsewhere(command: AnyCommand) -> AnyCommand:
    """What was begun is never written to again."""
    assert isinstance(command, StorPoolBackupTemplateFromSnapshotCommand)
    return msgspec.structs.replace(command, destination=template(STORE, "b2.qcow2"))


def encrypt(rig: Rig) -> AnyCommand:
    images(rig)
    volume, source = rig.volume(0, size=8 * MIB + LUKS_HEADER), rig.volume(1, size=8 * MIB)
    rig.snapshots.add("d.n.2")
    return StorPoolSetVolumeEncryptionCommand(
        path=volume.path, size=volume.size, passphrase=Passphrase(rig.passphrase.decode()), source=source.path
    )


def modify(rig: Rig) -> AnyCommand:
    return StorPoolModifyStoragePoolCommand(pool=POOL, volume_path=rig.volume(0, size=512).path)


NONE: frozenset[str] = frozenset()
ONE = frozenset({"d.n.1"})
TWO = frozenset({"d.n.1", "d.n.2"})
CASES = (
    Case("start", lambda rig: StartCommand(vm=rig.vm(2)), TWO, NONE),
    Case("start again", lambda rig: running(rig, 2), TWO, TWO),
    Case("stop", stop, NONE, TWO),
    Case("attach", attach, frozenset({"d.n.1", "d.n.5"}), ONE),
    Case("dettach", dettach, ONE, TWO),
    Case("download", download, NONE, NONE),
    Case("direct download", direct_download, NONE, NONE),
    Case("backup", backup, NONE, NONE, elsewhere),
    Case("encrypt", encrypt, NONE, NONE),
    Case("modify pool", modify, NONE, NONE),
)


def given(case: Case) -> tuple[Rig, AnyCommand]:
    rig = Rig()
    command = case.prepare(rig)
    rig.steps.clear()
    return rig, command


def disks(rig: Rig) -> set[str]:
    return {path.rpartition("/")[2] for path in rig.sources(VM)} if VM in rig.domains else set()


def reached(case: Case, rig: Rig) -> bool:
    return disks(rig) == case.disks and rig.attached == set(case.disks)


def settled(case: Case, rig: Rig) -> bool:
    """Whether nothing is open any more, and nothing has changed, once everything has settled."""
    assert not rig.agent().recovery.look_at_all()
    rig.clock.time += SETTLE_TIME + 1
    assert not rig.agent().recovery.look_at_all()
    return rig.files == {} and reached(case, rig)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(("error", "late"), [(Unavailable, False), (Unknown, False), (Unknown, True)])
def test_any_one_failure_is_undone_or_told_and_a_repetition_succeeds(
    case: Case, error: type[Exception], late: bool
) -> None:
    rig, command = given(case)
    assert rig.agent().handle(command).result
    assert reached(case, rig)
    for number, step in enumerate(list(rig.steps)):
        rig, again = given(case)
        rig.strike = (number, error("struck"), late)
        answer = rig.agent().handle(again)
        where = f"{step} (step {number}): {answer}"
        if rig.running(VM):
            assert disks(rig) <= rig.attached, f"a running guest lost a disk at {where}"
        if answer.result:
            assert reached(case, rig) or "stays attached" in answer.details, where
        else:
            told = {name for name in rig.volumes if f"{device_path(name)} could not be detached" in answer.details}
            told |= set(rig.volumes) if re.search("stays? attached", answer.details) else set()
            assert rig.attached - set(case.before) - set(disks(rig)) <= told, where
        rig.strike = None
        repeated = rig.agent().handle(case.anew(again))
        assert repeated.result, f"{where}, then {repeated}"
        assert reached(case, rig), where
        assert settled(case, rig), where


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("late", [False, True])
def test_an_agent_killed_at_any_step_goes_on_after_its_restart(case: Case, late: bool) -> None:
    rig, command = given(case)
    assert rig.agent().handle(command).result
    for number, step in enumerate(list(rig.steps)):
        rig, again = given(case)
        rig.strike = (number, Dead("killed"), late)
        with pytest.raises(Dead):
            rig.agent().handle(again)
        rig.strike = None
        repeated = rig.agent().handle(case.anew(again))
        assert repeated.result, f"killed at {step} (step {number}), then {repeated}"
        assert reached(case, rig), f"killed at {step} (step {number})"
        assert settled(case, rig), f"killed at {step} (step {number})"
