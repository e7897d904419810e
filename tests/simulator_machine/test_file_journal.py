"""The file journal: what was synced is there, a torn tail is cut, any other damage is found."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.journal.file import FileJournal
from simulator.journal.memory import MemoryJournal
from simulator.ports import Journal, JournalError

HEADER = 16
RECORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def written(path: Path, records: list[bytes], *, snapshot_after: int | None = None) -> bytes:
    """The bytes of a journal with these records; with `snapshot_after`, that many were replaced by one snapshot."""
    journal = FileJournal(path)
    for number, record in enumerate(records):
        if number == snapshot_after:
            journal.compact(b"snapshot")
        journal.append(record)
        journal.sync()
    journal.close()
    return path.read_bytes()


def replayed(path: Path) -> list[bytes]:
    journal = FileJournal(path)
    try:
        return list(journal.replay())
    finally:
        journal.close()


@pytest.fixture(params=["file", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Journal]:
    """Kills the process that had the journal and opens it again."""
    memory = MemoryJournal()
    return lambda: memory if request.param == "memory" else FileJournal(tmp_path / "journal")


def test_what_was_synced_survives_a_kill_and_what_was_not_is_gone(reopen: Callable[[], Journal]) -> None:
    journal = reopen()
    journal.append(b"one")
    journal.append(b"")
    journal.sync()
    journal.append(b"never synced")
    journal = reopen()
    assert list(journal.replay()) == [b"one", b""]
    journal.append(b"three")
    journal.sync()
    assert list(reopen().replay()) == [b"one", b"", b"three"]


def test_a_snapshot_replaces_all_before_it_and_nothing_after(reopen: Callable[[], Journal]) -> None:
    journal = reopen()
    for record in (b"one", b"two"):
        journal.append(record)
    journal.sync()
    journal.compact(b"all of it")
    journal.append(b"three")
    journal.sync()
    journal = reopen()
    assert list(journal.replay()) == [b"all of it", b"three"]
    journal.compact(b"again")
    assert list(reopen().replay()) == [b"again"]


@given(records=RECORDS, snapshot_after=st.none() | st.integers(0, 5), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_cut_of_the_file_replays_a_prefix_and_takes_new_records(
    records: list[bytes], snapshot_after: int | None, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        whole = written(path, records, snapshot_after=snapshot_after)
        before = replayed(path)
        begins = HEADER if before[0] != b"snapshot" else HEADER + 24 + len(b"snapshot")
        cut = data.draw(st.integers(begins, len(whole)))
        path.write_bytes(whole[:cut])
        journal = FileJournal(path)
        kept = list(journal.replay())
        assert kept == before[: len(kept)]
        assert (journal.torn is not None) == (path.stat().st_size != cut)
        complete = HEADER + sum(24 + len(record) for record in kept)
        assert complete <= cut < complete + 24 + (len(before[len(kept)]) if len(kept) < len(before) else 1)
        journal.append(b"new")
        journal.sync()
        journal.close()
        assert replayed(path) == [*kept, b"new"]


@given(records=RECORDS, snapshot_after=st.none() | st.integers(0, 5), data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_changed_byte_is_found_and_the_file_is_left_alone(
    records: list[bytes], snapshot_after: int | None, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        damaged = bytearray(written(path, records, snapshot_after=snapshot_after))
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match=rf"{path} is damaged at byte (\d+)") as caught:
            FileJournal(path)
        named = int(str(caught.value).split("at byte ")[1].split(":")[0])
        assert named <= at
        assert path.read_bytes() == damaged


def test_a_tail_of_zeroes_is_a_torn_write_but_zeroes_before_records_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = written(path, [b"one", b"two"])
    path.write_bytes(whole + bytes(5000))
    journal = FileJournal(path)
    assert journal.torn is not None and f"at byte {len(whole)}" in journal.torn
    assert path.read_bytes() == whole
    journal.close()
    path.write_bytes(whole[:HEADER] + bytes(27) + whole[HEADER + 27 :])
    with pytest.raises(JournalError, match=f"damaged at byte {HEADER}:"):
        FileJournal(path)


def test_a_record_that_is_missing_or_there_twice_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = written(path, [b"one", b"two", b"six"])
    first, second, third = (slice(HEADER + 27 * n, HEADER + 27 * (n + 1)) for n in range(3))
    path.write_bytes(whole[:HEADER] + whole[first] + whole[third])
    with pytest.raises(JournalError, match="record 3 stands where 2 should"):
        FileJournal(path)
    path.write_bytes(whole[:HEADER] + whole[first] + whole[second] + whole[second])
    with pytest.raises(JournalError, match="record 2 stands where 3 should"):
        FileJournal(path)


@pytest.mark.parametrize("content", [b"", b"splab", b"x" * 100])
def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="not a journal"):
        FileJournal(path)
    assert path.read_bytes() == content


def test_a_snapshot_cut_short_is_damage_because_it_was_whole_before_it_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = written(path, [b"one"], snapshot_after=0)
    path.write_bytes(whole[: HEADER + 26])
    with pytest.raises(JournalError, match="snapshot that it begins with is incomplete"):
        FileJournal(path)


def test_a_compaction_that_was_interrupted_leaves_the_old_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path, [b"one"])
    (tmp_path / "journal.new").write_bytes(b"half a snapsh")
    assert replayed(path) == [b"one"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal"]


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_after_a_failed_write_nothing_is_accepted_until_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path)
    journal.append(b"one")
    journal.sync()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        journal.append(b"two")
        with pytest.raises(JournalError, match="No space left"):
            journal.sync()
    # The disk has room again, but whether "two" is on it is not known: fsync reports an error once only.
    for attempt in (journal.sync, lambda: journal.append(b"three"), lambda: journal.compact(b"")):
        with pytest.raises(JournalError, match="takes nothing more"):
            attempt()
    journal.close()
    assert replayed(path)[0] == b"one"


def test_records_that_a_killed_process_had_synced_are_all_there(tmp_path: Path) -> None:
    """SIGKILL at an arbitrary moment of appending and compacting: what was acknowledged is replayed."""
    path = tmp_path / "journal"
    program = (
        "import sys; from pathlib import Path; from simulator.journal.file import FileJournal\n"
        f"journal = FileJournal(Path({str(path)!r}))\n"
        "done = int((list(journal.replay()) or [b'0'])[-1])\n"
        "while True:\n"
        "    done += 1; record = str(done).encode()\n"
        "    if done % 7 == 0: journal.compact(record)\n"
        "    else: journal.append(record); journal.sync()\n"
        "    print(done, flush=True)\n"
    )
    acknowledged = 0
    for lines in (1, 6, 7, 20, 50):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(lines):
                acknowledged = int(child.stdout.readline())
            child.kill()
            rest = child.stdout.read().split()
            acknowledged = max([acknowledged, *map(int, rest[:-1])])
        numbers = [int(record) for record in replayed(path)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert numbers[-1] >= acknowledged
