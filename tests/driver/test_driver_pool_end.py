"""Deleting a pool, the space of pools and volumes, and volumes of a host that was fenced."""

from __future__ import annotations

import threading

import msgspec
import pytest
from driver_rig import POOL, TOKEN, Fault, Rig, VolumeReassign, volume

from harness.spi.errors import Conflict, Error, InvalidParameter, Unknown
from harness.spi.objects import Host
from harness.storpool import Busy

HOST = Host(id=4, uuid="h", name="kvm-1", cluster_id=2, storpool_client_id=1)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("fault", [None, *Fault])
def test_the_check_volumes_of_a_pool_go_with_it_whatever_happens(rig: Rig, fault: Fault | None) -> None:
    for cluster in (2, 3):
        rig.provider.host_listener.host_connected(msgspec.structs.replace(HOST, cluster_id=cluster), POOL)
    assert len(rig.volumes()) == 2
    if fault is not None:
        rig.cluster.strike(fault)
    try:
        rig.provider.life_cycle.remove(POOL.id)
    except Error:
        rig.provider.life_cycle.remove(POOL.id)
    except BaseException as death:
        assert type(death).__name__ == "Dead"
        rig.restart()
        rig.provider.life_cycle.remove(POOL.id)
    rig.settle()
    assert rig.volumes() == []
    assert not [key for key in rig.records.details[1] if key.startswith("SP_VOLUME")]


def test_a_check_volume_that_is_gone_is_done_and_one_that_is_open_keeps_the_pool(rig: Rig) -> None:
    rig.provider.host_listener.host_connected(HOST, POOL)
    (path,) = rig.volumes()
    rig.look.volumes_reassign_wait([VolumeReassign(path).attach()])
    rig.blocks_of(path, lambda key: rig.cluster.blocks.open(key, 1))
    with pytest.raises((Conflict, Busy)):
        rig.provider.life_cycle.remove(POOL.id)
    assert rig.volumes() == [path] and path in rig.records.details[1].values()
    rig.blocks_of(path, lambda key: rig.cluster.blocks.release(key, 1))
    rig.look.volumes_reassign_wait([VolumeReassign(path).detach()])
    rig.look.volume_delete("~" + path.rpartition("/")[2])
    rig.provider.life_cycle.remove(POOL.id)
    assert path not in rig.records.details[1].values()


def test_what_an_operation_left_on_the_pool_is_undone_first(rig: Rig) -> None:
    rig.cluster.strike(Fault.KILLED_AFTER)
    with pytest.raises(BaseException, match="killed"):
        rig.driver.create(volume())
    assert len(rig.volumes()) == 1
    rig.restart()
    rig.provider.life_cycle.remove(POOL.id)
    assert rig.volumes() == []


def test_while_an_operation_is_worked_on_the_pool_stays(rig: Rig) -> None:
    rig.cluster.strike(Fault.ANSWER_LOST, Fault.ANSWER_LOST, Fault.ANSWER_LOST, Fault.ANSWER_LOST)
    with pytest.raises(Unknown):
        rig.driver.create(volume())
    (operation,) = rig.records.open_operations()
    held, over = threading.Event(), threading.Event()

    def work() -> None:
        with rig.driver._operations.exclusive(operation.subject):
            held.set()
            over.wait(10)

    worker = threading.Thread(target=work)
    worker.start()
    assert held.wait(10)
    try:
        with pytest.raises(Conflict, match="being worked on"):
            rig.provider.life_cycle.remove(POOL.id)
    finally:
        over.set()
        worker.join(10)


def test_space_is_told_of_pools_and_volumes_and_stays_known_while_the_api_is_away(rig: Rig) -> None:
    made = rig.driver.create(volume())
    assert made.path is not None
    assert (rig.driver.pool_stats(1), rig.driver.volume_stats(made.path)) == (None, None)
    rig.write(made.path, b"x" * 4096)
    assert rig.driver.collect_pool_stats() == [] and rig.driver.collect_volume_stats() == []
    pool, taken = rig.driver.pool_stats(1), rig.driver.volume_stats(made.path)
    assert pool is not None and pool.capacity > 0 and 0 <= pool.used <= pool.capacity
    assert taken is not None and taken.capacity == made.size and taken.used >= 4096
    rig.cluster.faults = dict.fromkeys(range(99), Fault.NOT_SENT)
    assert "pools 1: no statistics" in "".join(rig.driver.collect_pool_stats())
    assert rig.driver.collect_volume_stats()
    assert (rig.driver.pool_stats(1), rig.driver.volume_stats(made.path)) == (pool, taken)
    rig.cluster.faults.clear()
    rig.driver.delete(made)
    assert rig.driver.collect_volume_stats() == []
    assert rig.driver.volume_stats(made.path) is None, "what is gone is forgotten"


def test_a_pool_whose_details_are_damaged_costs_the_others_no_statistics(rig: Rig) -> None:
    made = rig.driver.create(volume(1))
    assert made.path is not None
    rig.records.details[2] = {"SP_TEMPLATE": "ssd"}
    (line,) = rig.driver.collect_pool_stats()
    assert line.startswith("pool 2: no statistics") and rig.driver.pool_stats(1) is not None
    for known in (True, False):
        (line,) = rig.driver.collect_volume_stats()
        assert line.startswith("pool 2") and (rig.driver.volume_stats(made.path) is not None) is known
        rig.driver.delete(made)


@pytest.mark.parametrize("opened", [False, True])
def test_a_volume_is_taken_from_a_host_that_was_fenced_and_from_no_other(rig: Rig, opened: bool) -> None:
    made, other = rig.driver.create(volume(1)), rig.driver.create(volume(2))
    assert made.path is not None and other.path is not None
    for path in (made.path, other.path):
        rig.look.volumes_reassign_wait([VolumeReassign(path).attach()])
    if opened:
        rig.blocks_of(made.path, lambda key: rig.cluster.blocks.open(key, 1))
    rig.driver.release_fenced(made, msgspec.structs.replace(HOST, storpool_client_id=2))
    assert len(rig.look.attachments_list()) == 2, "another client's attachments are not its own"
    for _ in range(2):
        rig.driver.release_fenced(made, HOST)
    (left,) = rig.look.attachments_list()
    assert left.is_of("~" + other.path.rpartition("/")[2])


def test_a_pools_connection_is_changed_to_its_own_cluster_and_template_only(rig: Rig) -> None:
    rig.provider.host_listener.host_connected(HOST, POOL)
    change = rig.provider.life_cycle.change_connection
    before = dict(rig.records.details[1])
    assert change(1, f"storpool://{TOKEN}@sp:81,sp2:81/hdd")["SP_API_HTTP_HOST"] == "sp:81,sp2:81"
    for url, says in (
        (f"storpool://{TOKEN}@sp:81/ssd", "cannot be changed to ssd"),
        ("storpool://wr0ngsecret@sp:81/hdd", "SP_AUTH_TOKEN"),
        ("nfs://sp/hdd", "expected"),
    ):
        with pytest.raises(InvalidParameter, match=says) as caught:
            change(1, url)
        assert TOKEN not in str(caught.value) and "wr0ngsecret" not in str(caught.value)
    # Another cluster, which has a template of this name too, and not the pool's volumes.
    rig.look.volume_delete("~" + rig.volumes()[0].rpartition("/")[2])
    with pytest.raises(InvalidParameter, match="another cluster"):
        change(1, f"storpool://{TOKEN}@sp:81/hdd")
    assert rig.records.details[1] == before
