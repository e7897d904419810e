"""The records: compare-and-set, transactions without waiting, durability, stores in memory that cost nothing."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from cloud_rig import configuration

from harness.cloudstack.bootstrap import bootstrap
from harness.cloudstack.orchestration.agents import STARTS
from harness.cloudstack.records import Records, RecordsOfDriver
from harness.cloudstack.records.database import FileDatabase
from harness.cloudstack.records.rows import ROWS, Configuration, Sequence, StoragePool, Volume
from harness.runtime.threads import ThreadRuntime
from harness.spi.driver import OperationRecord
from harness.spi.errors import Conflict, Dead, Error, IllegalTransition, MisuseError, NotFound
from harness.spi.objects import VolumeType
from harness.spi.states import VolumeEvent, VolumeState


@pytest.fixture
def runtime() -> Iterator[ThreadRuntime]:
    runtime = ThreadRuntime("management")
    yield runtime
    runtime.kill()


@pytest.fixture(params=["memory", "file"])
def records(request: pytest.FixtureRequest, runtime: ThreadRuntime, tmp_path: Path) -> Records:
    return Records.open(None if request.param == "memory" else tmp_path / "cloud.db", runtime)


SUM = "SELECT sum(size) FROM volumes"


def volume(name: str = "data") -> Volume:
    return Volume(
        uuid=f"uuid of {name}",
        name=name,
        volume_type=VolumeType.DATADISK,
        state=VolumeState.ALLOCATED,
        size=1 << 30,
        data_center_id=1,
        disk_offering_id=1,
        created=1.5,
    )


def test_a_row_comes_back_as_it_was_stored(records: Records) -> None:
    with records.transaction("x") as tx:
        stored = tx.insert(volume())
    with records.read() as tx:
        assert tx.get(Volume, stored.id) == stored
        assert type(tx.get(Volume, stored.id).state) is VolumeState
        assert tx.find(Volume, name="data", removed=None) == stored
        with pytest.raises(NotFound):
            tx.get(Volume, 99)


def test_a_state_changes_only_as_its_machine_allows(records: Records) -> None:
    with records.transaction("x") as tx:
        row = tx.insert(volume())
        with pytest.raises(IllegalTransition):
            tx.transition(row, VolumeEvent.ATTACH_REQUESTED)
        with pytest.raises(MisuseError):
            tx.update(row, state=VolumeState.READY)
        assert tx.transition(row, VolumeEvent.CREATE_REQUESTED, pool_id=3).state is VolumeState.CREATING
        assert tx.get(Volume, row.id).pool_id == 3


def test_a_transition_from_a_state_that_the_row_has_left_is_a_conflict(records: Records) -> None:
    with records.transaction("x") as tx:
        row = tx.insert(volume())
        tx.transition(row, VolumeEvent.CREATE_REQUESTED)
        with pytest.raises(Conflict):
            tx.transition(row, VolumeEvent.DESTROY_REQUESTED)
        assert tx.get(Volume, row.id).state is VolumeState.CREATING


def test_an_error_inside_a_transaction_undoes_all_of_it(records: Records) -> None:
    with pytest.raises(ZeroDivisionError):
        with records.transaction("x") as tx:
            tx.insert(volume())
            raise ZeroDivisionError
    with records.read() as tx:
        assert tx.all(Volume) == []


@pytest.mark.parametrize("call", ["sleep", "lock", "spawn", "point", "another"])
def test_nothing_that_waits_may_be_called_inside_a_transaction(
    records: Records, runtime: ThreadRuntime, call: str
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "sleep": lambda: runtime.sleep(0),
        "lock": lambda: runtime.lock("x"),
        "spawn": lambda: runtime.spawn("x", lambda: None),
        "point": lambda: runtime.point("send", "x"),
        "another": lambda: records.read().__enter__(),
    }
    with pytest.raises(MisuseError):
        with records.transaction("x"):
            calls[call]()
    with records.read() as tx:
        assert tx.all(Volume) == []


def test_a_killed_process_neither_reads_nor_commits(records: Records, runtime: ThreadRuntime) -> None:
    with pytest.raises(Dead):
        with records.transaction("x") as tx:
            tx.insert(volume())
            runtime.kill()
    with pytest.raises(Dead):
        with records.read():
            pass
    with records.reopen(ThreadRuntime("next")).read() as tx:
        assert tx.all(Volume) == []


def test_threads_that_count_in_one_row_lose_no_step(records: Records, runtime: ThreadRuntime) -> None:
    with records.transaction("x") as tx:
        counter = tx.insert(Configuration(name="counter", value="0"))

    def count() -> None:
        for _ in range(20):
            with records.transaction("x") as tx:
                row = tx.get(Configuration, counter.id)
                tx.update(row, value=str(int(row.value) + 1))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        tasks = [runtime.spawn("count", count) for _ in range(4)]
        assert all(task.join(30) for task in tasks)
    finally:
        sys.setswitchinterval(before)
    with records.read() as tx:
        assert tx.get(Configuration, counter.id).value == "80"


def test_a_file_keeps_what_was_committed_and_another_version_is_refused(runtime: ThreadRuntime, tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    records = Records.open(path, runtime)
    with records.transaction("x") as tx:
        tx.insert(volume())
        assert tx.scalar("PRAGMA journal_mode") == "wal" and tx.scalar("PRAGMA synchronous") == 2
    again = Records.open(path, runtime)
    with again.transaction("x") as tx:
        assert [row.name for row in tx.all(Volume)] == ["data"]
        tx.execute("PRAGMA user_version = 7")
    with pytest.raises(Error, match="version 7"):
        Records.open(path, runtime)


def test_stores_in_memory_are_separate_and_open_in_well_under_a_millisecond(runtime: ThreadRuntime) -> None:
    first = Records.open(None, runtime)
    with first.transaction("x") as tx:
        tx.insert(volume())
    copy = Records.open(None, runtime, image=first.image())
    with Records.open(None, runtime).read() as tx:
        assert tx.all(Volume) == []
    with copy.read() as tx:
        assert len(tx.all(Volume)) == 1
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        Records.open(None, runtime).close()
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.001


def test_what_was_read_before_a_change_is_read_anew_after_it(records: Records, runtime: ThreadRuntime) -> None:
    with records.transaction("x") as tx:
        row = tx.insert(volume())

    def look() -> tuple[object, ...]:
        seen: list[object] = []
        for store in (records, records, records.reopen(runtime)):
            with store.read() as tx:
                every = tx.all(Volume)
                sizes = tx.pairs("SELECT name, size FROM volumes")
                seen.append((tx.get(Volume, row.id), tx.find(Volume, name="data"), [*every], tx.integer(SUM), [*sizes]))
                every.clear()
                sizes.clear()
        assert seen[0] == seen[1] == seen[2]
        return tuple(seen)

    first = look()
    with pytest.raises(Conflict), records.transaction("x") as tx:
        assert (tx.get(Volume, row.id), tx.details("volume_details", 1)) == (row, {})
        tx.update(row, size=7)
        tx.set_detail("volume_details", 1, "key", "value")
        assert tx.details("volume_details", 1) == {"key": "value"}
        assert tx.get(Volume, row.id).size == tx.integer(SUM) == 7
        raise Conflict("given up")
    assert look() == first
    with pytest.raises(Conflict), records.transaction("x") as tx:
        tx.execute("UPDATE volumes SET size = 6")
        assert tx.get(Volume, row.id) != row
        raise Conflict("given up")
    assert look() == first
    with records.transaction("x") as tx:
        assert tx.details("volume_details", 1) == {}
        tx.set_detail("volume_details", 1, "key", "value")
        tx.update(row, size=7)
    after = look()
    assert after != first
    with records.transaction("x") as tx:
        assert tx.details("volume_details", 1) == {"key": "value"}
        tx.execute("UPDATE volumes SET size = 8")
        tx.set_detail("volume_details", 1, "key", None)
        assert tx.find(Volume, name="data") == tx.get(Volume, row.id) == msgspec.structs.replace(row, size=8)
        assert tx.details("volume_details", 1) == {}
    with records.read() as tx:
        assert tx.get(Volume, row.id).size == 8
    with records.reopen(runtime).transaction("x") as tx:
        tx.delete(row)
        assert tx.find(Volume, name="data") is None
    with records.read() as tx:
        assert tx.find(Volume, name="data") is None and tx.all(Volume) == [] and tx.integer(SUM) == 0


def test_a_closed_store_in_memory_leaves_nothing_to_the_next_one_and_is_not_its_back_door(
    runtime: ThreadRuntime,
) -> None:
    first = Records.open(None, runtime)
    with first.transaction("x") as tx:
        kept = tx.insert(volume())
    image = first.image()
    for _ in range(3):
        with_row, without = Records.open(None, runtime, image), Records.open(None, runtime)
        with with_row.transaction("x") as tx:
            tx.delete(kept)
            assert tx.insert(msgspec.structs.replace(volume(), uuid="another")).id == kept.id
        with without.transaction("x") as tx:
            assert tx.insert(volume()).id == kept.id
        assert with_row.image() != image
        for records in (with_row, without):
            records.close()
            records.close()
    after = Records.open(None, runtime, image)
    with after.read() as tx:
        assert tx.all(Volume) == [kept]
    assert after.image() == image
    with pytest.raises(sqlite3.ProgrammingError):
        with with_row.read() as tx:
            tx.all(Volume)


def test_every_table_can_be_read_as_its_row(records: Records) -> None:
    with records.read() as tx:
        for kind in ROWS:
            assert tx.all(kind) == []


def operation(id: str = "one", step: str = "create") -> OperationRecord:
    data = {"name": "splab-one"}
    return OperationRecord(id=id, kind="create", subject="volume:v", step=step, data=data, created_at=1.0)


def test_one_operation_of_a_kind_and_subject_is_open_at_a_time(records: Records) -> None:
    driver = RecordsOfDriver(records)
    assert driver.begin_operation(operation("one")) == operation("one")
    assert driver.begin_operation(operation("two")).id == "one"
    driver.step_operation("one", "create", "tag", {"gid": "a.b.c"})
    assert [(o.step, o.data) for o in driver.open_operations()] == [("tag", {"gid": "a.b.c", "name": "splab-one"})]
    with pytest.raises(Conflict):
        driver.step_operation("one", "create", "other", {})
    driver.end_operation("one", "done")
    assert driver.open_operations() == []
    with pytest.raises(Conflict):
        driver.end_operation("one", "undone")
    with pytest.raises(Conflict):
        driver.step_operation("one", "tag", "x", {})
    with pytest.raises(NotFound):
        driver.end_operation("never", "done")
    assert driver.begin_operation(operation("two")).id == "two"


def test_finding_an_open_operation_costs_the_same_however_many_are_open(runtime: ThreadRuntime, tmp_path: Path) -> None:
    database = FileDatabase(tmp_path / "cloud.db")
    driver = RecordsOfDriver(Records(database, runtime))
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(number: int) -> int:
        """Steps of SQLite's machine that the three questions about one operation take."""
        nonlocal steps
        wanted = msgspec.structs.replace(operation(f"id-{number}"), subject=f"volume:{number}")
        steps = 0
        database.connection.set_progress_handler(step, 1)
        assert driver.begin_operation(wanted) == wanted
        assert driver.open_operation("create", wanted.subject) == wanted
        assert driver.is_worked_on(["volume:none", wanted.subject]) and not driver.is_worked_on(["volume:none"])
        database.connection.set_progress_handler(None, 1)
        return steps

    costs = [cost(number) for number in range(200)]
    assert max(costs[5:]) <= 1.2 * min(costs[:5]), costs
    assert driver.open_operation("delete", "volume:7") is None
    driver.end_operation("id-7", "done")
    assert driver.open_operation("create", "volume:7") is None and not driver.is_worked_on(["volume:7"])


def test_a_driver_reads_settings_details_tags_and_the_template_cache(records: Records) -> None:
    driver = RecordsOfDriver(records)
    with records.transaction("x") as tx:
        pool = tx.insert(
            StoragePool(
                uuid="p",
                name="p",
                status="Up",
                path="/dev/storpool",
                scope="ZONE",
                storage_provider_name="StorPool",
                pool_type="StorPool",
                data_center_id=1,
                capacity_bytes=1,
                created=0.0,
            )
        )
        tx.set_detail("disk_offering_details", 4, "SP_QOSCLASS", "gold")
    assert driver.disk_offering_details(4) == {"SP_QOSCLASS": "gold"}
    assert driver.setting("storpool.delete.after.interval", pool_id=pool.id) == "0"
    driver.set_pool_detail(pool.id, "storpool.delete.after.interval", "60")
    assert driver.setting("storpool.delete.after.interval", pool_id=pool.id) == "60"
    assert driver.setting("storpool.delete.after.interval") == "0"
    driver.set_pool_detail(pool.id, "storpool.delete.after.interval", None)
    assert driver.pool_details(pool.id) == {}
    assert driver.vm_tag("vm", "vc-policy") is None
    with pytest.raises(NotFound):
        driver.setting("no.such.setting")


@pytest.mark.parametrize("restored", [5, 10**9 * 4])
def test_each_start_of_a_server_numbers_its_commands_after_all_before(
    records: Records, runtime: ThreadRuntime, restored: int
) -> None:
    """Also with records from a backup, whose number is far behind, and after a clock that was ahead."""

    def start() -> int:
        bootstrap(runtime, records, configuration())
        with records.read() as tx:
            found = tx.find(Sequence, name=STARTS)
        assert found is not None
        return found.value

    first = start()
    assert first >= int(runtime.now()) - 60
    assert start() > first
    with records.transaction("restored") as tx:
        row = tx.find(Sequence, name=STARTS)
        assert row is not None
        tx.update(row, value=restored)
    assert start() >= max(first, restored + 1)
