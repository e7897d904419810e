"""Passphrases in a whole cloud: one for each volume, encrypted in the records, shown nowhere; and the model of LUKS."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cloudstack.records.passphrases import Passphrases
from harness.cloudstack.records.rows import PassphraseRow, Volume
from harness.cloudstack.vault import Vault
from harness.faults import Injector, parse_fault
from harness.observers import CloudApiError, Json
from harness.worlds.memory.management import DATABASE_KEY
from harness.worlds.memory.model_luks import KEY, RANDOM_BYTES, Luks, LuksError, new_header, unlock
from harness.worlds.memory.world import MemoryWorld
from scenarios import encrypted, looks, snapshots, steps

Said = list[str]


def passphrases(world: MemoryWorld) -> dict[str, bytes]:
    """Of every volume that is not removed, by its uuid, as the management server reads them."""
    kept = world.management._records
    assert kept is not None
    main = world.simulation.main
    reader = Passphrases(main, Vault(main, DATABASE_KEY))
    with kept.reopen(main).read() as tx:
        volumes = [row for row in tx.all(Volume, removed=None) if row.passphrase_id is not None]
        return {row.uuid: reader.of_volume(tx, row).reveal() for row in volumes}


def rows(world: MemoryWorld) -> list[PassphraseRow]:
    kept = world.management._records
    assert kept is not None
    with kept.reopen(world.simulation.main).read() as tx:
        return tx.all(PassphraseRow)


def full_life(world: MemoryWorld, said: Said) -> dict[str, bytes]:
    """Everything that is done with encrypted volumes, with what the API said of it; the passphrases there were."""
    vm = encrypted.encrypted_vm(world)
    data = steps.attach(world, encrypted.encrypted_data(world), vm)
    encrypted.write(world, vm, data, "life")
    with steps.setting(world, snapshots.BYPASS, "true", "false"):
        snapshot = snapshots.take(world, data)
    steps.resize(world, data, 2)
    made = snapshots.volume_from(world, snapshot, steps.disk_offering(world, encrypt=True))
    steps.attach(world, made, vm)
    found = passphrases(world)
    for command in ("listVolumes", "listVirtualMachines", "listHosts", "listSnapshots", "listConfigurations"):
        said.append(json.dumps(world.cloud.call(command, listall=True)))
    for job in (lambda: steps.attach(world, data, vm), lambda: snapshots.take(world, data)):
        said.append(refusal(job))
    vm = steps.start(world, steps.stop(world, vm))
    for host in world.hosts:
        said += [host.domain_xml(name) for name in host.domains()]
    steps.expunge(world, vm)
    return found


def refusal(work: Callable[[], Json]) -> str:
    try:
        work()
    except CloudApiError as error:
        return str(error)
    raise AssertionError("it was not refused")


FAULTS = ("", "libvirtd-gone@3", "killed@30", "killed@45", "answer-lost@9", "device-missing@1", "broken@12")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passphrase_stands_in_no_log_file_command_line_answer_or_journal(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: Said = []
    injector = Injector([parse_fault(fault)] if fault else [])
    world = MemoryWorld(1, strike=injector.strike)
    injector.aim(world.faults)

    def body(world: MemoryWorld) -> dict[str, bytes]:
        injector.armed = False
        vm = encrypted.encrypted_vm(world)
        found = passphrases(world)
        injector.armed = True
        try:
            found |= full_life(world, said)
        except (CloudApiError, ConnectionError, TimeoutError) as error:
            assert fault, error
            said.append(str(error))
        injector.armed = False
        said.append(str(vm))
        for machine in world.processes.machines.values():
            said.extend([*machine.files.values(), *machine.command_lines])
        return found

    found = world.run(body)
    assert found and all(len(text) == 44 for text in found.values())
    texts = {"log": caplog.text, "journal": world.simulation.journal.render(), "answers and files": "\n".join(said)}
    for uuid, passphrase in found.items():
        for where, text in texts.items():
            assert passphrase.decode() not in text, f"the passphrase of volume {uuid} stands in the {where}"


def test_the_records_hold_one_encrypted_passphrase_for_each_volume_and_drop_it_with_the_last_use() -> None:
    def body(world: MemoryWorld) -> bytes:
        vm = steps.booted_vm(world)
        first, second = (steps.attach(world, encrypted.encrypted_data(world), vm) for _ in range(2))
        found = passphrases(world)
        assert len(set(found.values())) == len(rows(world)) == 2
        with steps.setting(world, snapshots.BYPASS, "true", "false"):
            snapshot = snapshots.take(world, first)
        made = snapshots.volume_from(world, snapshot, steps.disk_offering(world, encrypt=True))
        assert passphrases(world)[str(made["id"])] == found[str(first["id"])]
        assert len(rows(world)) == 2
        world.wait_until("operations are over", lambda: not world.management.open_operations(), 3600)
        image = world.management.image()
        for volume in (second, first):
            world.cloud.call("deleteVolume", id=steps.detach(world, volume)["id"])
        assert len(rows(world)) == 1, "the snapshot, and the volume of it, still need it"
        snapshots.delete(world, snapshot)
        assert len(rows(world)) == 1, "the volume of it still needs it"
        world.cloud.call("deleteVolume", id=made["id"])
        assert rows(world) == []
        assert not any(text in image for text in found.values())
        return image

    assert b"passphrase" in MemoryWorld(2).run(body)


def test_a_volume_has_what_its_own_passphrase_opens_and_no_other_one() -> None:
    def body(world: MemoryWorld) -> None:
        vm = steps.booted_vm(world)
        first, second = (steps.attach(world, encrypted.encrypted_data(world), vm) for _ in range(2))
        found, host = passphrases(world), steps.host_of(world, vm)
        assert host.unlocks(str(first["path"]), found[str(first["id"])])
        assert not host.unlocks(str(first["path"]), found[str(second["id"])])
        looks.fully_attached(world, vm, first)

    MemoryWorld(3).run(body)


@given(st.integers(0, 20_000), st.binary(max_size=9_000), st.binary(min_size=KEY, max_size=KEY))
def test_what_is_written_in_any_pieces_reads_back_and_is_stored_otherwise(
    offset: int, data: bytes, master: bytes
) -> None:
    luks = Luks(master)
    stored = luks.crypt(offset, data)
    assert luks.crypt(offset, stored) == data
    middle = len(data) // 3
    assert luks.crypt(offset, data[:middle]) + luks.crypt(offset + middle, data[middle:]) == stored
    assert len(data) < 8 or stored != data


@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_a_header_is_opened_by_its_passphrase_only(right: bytes, other: bytes, random: bytes) -> None:
    header = new_header(right, random)
    assert unlock(header, right).master == random[KEY:]
    if other != right:
        with pytest.raises(LuksError, match="Invalid password"):
            unlock(header, other)
    with pytest.raises(LuksError, match="not in LUKS format"):
        unlock(bytes(len(header)), right)


def test_a_volume_that_cannot_be_formatted_is_an_error_leaves_nothing_and_can_be_tried_again() -> None:
    """What no ping has told yet: spec 12.2, a failing luksFormat."""

    def body(world: MemoryWorld) -> None:
        vm, volume = steps.booted_vm(world), encrypted.encrypted_data(world)
        before = {str(item["globalId"]) for item in world.storpool.volumes()}
        first, second = world.hosts
        with first.without_encryption(), second.without_encryption():
            text = refusal(lambda: steps.attach(world, volume, vm))
        assert "encrypt" in text and "cryptsetup" in text, text
        assert looks.reread_volume(world, volume)["state"] == "Allocated"
        left = {str(item["globalId"]) for item in world.storpool.volumes()} - before
        assert len(left) <= 1, left
        world.wait_until(
            "what was begun is gone",
            lambda: {str(item["globalId"]) for item in world.storpool.volumes()} == before,
            3600,
        )
        attached = steps.attach(world, volume, vm)
        encrypted.is_luks(world, vm, attached)
        looks.fully_attached(world, vm, attached)

    MemoryWorld(4).run(body)
