"""Encrypted volumes in the management server: who may have them, and which passphrase goes to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest
from cloud_rig import HOSTS, CloudError, FakeHost, Rig, configuration

from harness.cloudstack.records.rows import DiskOffering, PassphraseRow, StoragePool, Volume
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import AnyAnswer, AnyCommand, AttachCommand, DettachCommand, PingAnswer, StartCommand
from harness.spi.objects import LUKS_HEADER, Disk

KEY = "the database key of the tests"
Start = Callable[..., Rig]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a server whose hosts of these names can encrypt; every command that they get is in `seen`."""
    runtime = ThreadRuntime("management")
    started: list[Rig] = []

    def begin(*encrypting: str, key: str | None = KEY, seen: list[AnyCommand] | None = None) -> Rig:
        right = FakeHost.send

        def send(self: FakeHost, command: AnyCommand, *, timeout: float) -> AnyAnswer:
            if seen is not None:
                seen.append(command)
            answer = right(self, command, timeout=timeout)
            if isinstance(answer, PingAnswer):
                return msgspec.structs.replace(answer, volume_encryption=self.name in encrypting)
            return answer

        monkeypatch.setattr(FakeHost, "send", send)
        rig = Rig(runtime, config=configuration(database_key=key))
        rig.server.start()
        started.append(rig)
        return rig

    yield begin
    assert all(rig.server.stop() for rig in started)
    runtime.kill()


def refused(rig: Rig, command: str, **parameters: object) -> str:
    with pytest.raises(CloudError) as caught:
        rig.call(command, **parameters)
    return caught.value.text


def disks(seen: list[AnyCommand], kind: type[AttachCommand] | type[DettachCommand]) -> list[Disk]:
    return [command.disk for command in seen if isinstance(command, kind)]


def test_without_a_database_key_there_are_no_offerings_that_encrypt(start: Start) -> None:
    rig = start(*HOSTS, key=None)
    rig.pool()
    before = rig.rows(DiskOffering)
    asked = {"name": "n", "cpunumber": 1, "cpuspeed": 500, "memory": 128}
    assert "database_key" in refused(rig, "createDiskOffering", name="n", disksize=1, encrypt=True)
    assert "database_key" in refused(rig, "createServiceOffering", **asked, encryptroot=True)
    assert rig.rows(DiskOffering) == before


def test_hosts_tell_whether_they_encrypt_and_vms_go_where_it_is_possible(start: Start) -> None:
    rig = start(HOSTS[1])
    hosts = {host["name"]: host["encryptionsupported"] for host in rig.call("listHosts")["host"]}
    assert hosts == {HOSTS[0]: False, HOSTS[1]: True}
    _, template = rig.ready()
    made = rig.call(
        "createServiceOffering", name="e", cpunumber=1, cpuspeed=500, memory=128, tags="fast", encryptroot=True
    )
    for _ in range(2):
        assert rig.deploy(made["serviceoffering"]["id"], template)["hostname"] == HOSTS[1]
    assert len({row.passphrase for row in rig.rows(PassphraseRow)}) == 2


def test_a_passphrase_goes_with_a_command_that_opens_the_disk_and_with_no_other(start: Start) -> None:
    seen: list[AnyCommand] = []
    rig = start(*HOSTS, seen=seen)
    vm = rig.deploy(*rig.ready())
    plain = rig.volume()
    volume = rig.volume(diskofferingid=rig.disk_offering(encrypt=True))
    for each in (plain, volume):
        rig.call("attachVolume", id=each["id"], virtualmachineid=vm["id"])
    first, second = disks(seen, AttachCommand)
    assert (first.encrypted, first.passphrase) == (False, None)
    assert second.encrypted and second.passphrase is not None
    assert second.size == first.size + LUKS_HEADER
    rig.call("stopVirtualMachine", id=vm["id"])
    rig.call("startVirtualMachine", id=vm["id"])
    command = [command for command in seen if isinstance(command, StartCommand)][-1]
    assert [disk.passphrase for disk in command.vm.disks] == [None, None, second.passphrase]
    rig.call("detachVolume", id=volume["id"])
    (gone,) = disks(seen, DettachCommand)
    assert gone.passphrase is None
    (row,) = rig.rows(Volume, uuid=volume["id"])
    assert (row.encrypt_format, len(rig.rows(PassphraseRow))) == ("LUKS", 1)
    assert second.passphrase.value not in rig.rows(PassphraseRow)[0].passphrase
    rig.call("deleteVolume", id=volume["id"])
    assert rig.rows(PassphraseRow) == []


def test_without_a_host_or_a_pool_for_it_nothing_is_attached_or_made(start: Start) -> None:
    rig = start()
    vm = rig.deploy(*rig.ready())
    volume = rig.volume(diskofferingid=rig.disk_offering(encrypt=True))
    assert "does not support encrypted" in refused(rig, "attachVolume", id=volume["id"], virtualmachineid=vm["id"])
    assert rig.rows(PassphraseRow) == []
    rig.check_at_rest()


def test_a_pool_of_a_kind_that_has_none_is_refused_with_the_reason(start: Start) -> None:
    rig = start(*HOSTS)
    vm = rig.deploy(*rig.ready())
    volume = rig.volume(diskofferingid=rig.disk_offering(encrypt=True))
    with rig.records.transaction("another kind of pool") as tx:
        for pool in tx.all(StoragePool):
            tx.update(pool, pool_type="Filesystem")
    assert "no encrypted volumes" in refused(rig, "attachVolume", id=volume["id"], virtualmachineid=vm["id"])
    assert rig.rows(PassphraseRow) == []
