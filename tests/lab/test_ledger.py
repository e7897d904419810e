"""The ledger is written first, and what it lists is what may be removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.errors import NotOurs
from lab.local.down import REMOVE, loop_devices
from lab.local.ledger import Entry, Kind, Ledger


def test_what_was_recorded_is_read_back_in_order_by_another_process_s_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state" / "ledger.jsonl")
    ledger.record(Kind.NETNS, "splab-mgmt")
    ledger.record(Kind.TREE, tmp_path / "keys")
    assert Ledger(ledger.path).entries() == [Entry(Kind.NETNS, "splab-mgmt"), Entry(Kind.TREE, str(tmp_path / "keys"))]


def test_recording_the_same_thing_again_adds_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(3):
        ledger.record(Kind.LINK, "splab0")
    assert len(ledger.path.read_text().splitlines()) == 1


def test_a_line_torn_by_a_crash_is_left_out_wherever_it_was_torn(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.record(Kind.NETNS, "splab-mgmt")
    whole = ledger.path.read_bytes()
    ledger.record(Kind.LINK, "splab0")
    both = ledger.path.read_bytes()
    for end in range(len(whole), len(both)):
        ledger.path.write_bytes(both[:end])
        assert ledger.entries() == [Entry(Kind.NETNS, "splab-mgmt")], end


def test_the_line_is_on_disk_before_record_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    ledger = Ledger(tmp_path / "ledger.jsonl")
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(ledger.path.read_bytes()))
    ledger.record(Kind.LINK, "splab0")
    assert synced == [b'{"kind":"link","name":"splab0"}\n']


def test_no_loop_device_of_others_is_taken_for_the_lab_s(tmp_path: Path) -> None:
    assert loop_devices(tmp_path) == []


def test_a_tree_with_something_mounted_in_it_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "keys" / "file"
    kept.parent.mkdir()
    kept.write_text("x")
    real = Path.read_text

    def mounts(path: Path, *args: str, **options: str) -> str:
        if str(path) == "/proc/self/mounts":
            return f"disk {tmp_path}/keys/inside ext4 rw 0 0\n"
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", mounts)
    with pytest.raises(NotOurs, match="still mounted"):
        REMOVE[Kind.TREE](str(tmp_path / "keys"))
    assert kept.exists()
