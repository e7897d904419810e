"""Whole simulators killed with SIGKILL under load, on loop devices; what the next one shows is what clients know."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from random import Random

import msgspec
import pytest
from crash_clients import MARK_BYTES, Client, Known, Order, World, attach, delete, group, settle
from simulator_processes import Connection, Running, Zygote, eventually, pool_devices, rules, zygote

from simulator.blocks import loop, pool, throttle
from simulator.blocks.destroy import destroy
from simulator.blocks.links import all_links
from simulator.cluster.records import Aborted, Committed, JournalRecord, Prepared
from simulator.inprocess import ApiError
from simulator.journal.file import FileJournal

pytestmark = [pytest.mark.local, pytest.mark.timeout(1800)]
HERE = Path(__file__).parent
KILLS = 500 if os.environ.get("SPLAB_COUNTS") == "full" else 50
OPEN = KILLS * 3 // 5
"""At least so many of them with a call that was sent and not answered, or a change open in the journal."""
GATES = KILLS // 10
"""At least so many of them while the gate of a group snapshot was closed."""
MB = 1 << 20
GATED = 3
"""The client whose volumes are written to without end while groups of them are copied."""


class Grouper(Client):
    """Copies its two volumes together, again and again, while `writers.py ordered` writes to them."""

    def next(self) -> Order:
        self._turn += 1
        snapshots = [name for name, known in self.world.items() if known.snapshot]
        volumes = [name for name, known in self.world.items() if not known.snapshot]
        loose = [name for name in volumes if not self.world[name].at]
        if len(volumes) < 2:
            name = f"{self.name}-{len(volumes)}"
            made = Known(snapshot=False, size=MB)
            self.order = Order("VolumeCreate", {"name": name, "size": MB}, {**self.world, name: made})
        elif loose:
            self.order = attach(self, loose[0])
        else:
            self.order = delete(self, snapshots[0]) if snapshots else group(self, *sorted(volumes))
        return self.order

    @property
    def ready(self) -> bool:
        return len(self.world) >= 2 and all(known.at or known.snapshot for known in self.world.values())

    def settle(self, seen: World) -> None:
        """The numbers in a group are those of one moment."""
        copies = [int.from_bytes(seen[name].mark[:8], "little") for name in sorted(seen) if seen[name].snapshot]
        if len(copies) == 2:
            assert 0 <= copies[0] - copies[1] <= 1, copies
        super().settle({name: replace(known, mark=b"") for name, known in seen.items()})


class Load:
    """A client at work on one simulator until that dies."""

    def __init__(self, client: Client, running: Running) -> None:
        self.client = client
        self._state = running.state
        self.connection = Connection(running.port)

    def run(self) -> None:
        client = self.client
        try:
            while True:
                if not isinstance(client, Grouper) and client.draw.random() < 0.3:
                    self._write()
                order = client.next()
                try:
                    self.connection.call("POST", order.path, order.body)
                except ApiError as refused:
                    # Writers may be faster than the gate; nothing is copied then.
                    assert isinstance(client, Grouper) and "try again" in refused.descr, (order, refused)
                    client.order = None
                    continue
                client.answered()
        except (OSError, HTTPException):
            self.connection.close()

    def _write(self) -> None:
        client = self.client
        attached = [name for name, known in client.world.items() if known.at and not known.snapshot]
        if not attached:
            return
        name = client.draw.choice(attached)
        mark = f"{client.name}{client.turn}".encode()
        buffer = mmap.mmap(-1, MARK_BYTES)
        buffer[: len(mark)] = mark
        path = self._state / f"clients/{client.number}/storpool/{name}"
        device = os.open(path, os.O_WRONLY | os.O_DIRECT)
        try:
            os.pwrite(device, buffer, 0)
        finally:
            os.close(device)
        client.written(name, mark)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory that leaves nothing on the machine."""
    lacking = loop.missing() or throttle.missing()
    if lacking is not None:
        pytest.skip(f"this needs {lacking}")
    directory = tmp_path / "state"
    yield directory
    description = pool.describe(directory)
    destroy(directory)
    assert description is not None and pool.devices(description.id) + pool.image_devices(directory) == []


def changes_open(state: Path) -> int:
    """Changes whose effects were not known to be over when the simulator died."""
    copy = state.parent / "journal-copy"
    shutil.copy(state / "journal", copy)
    journal = FileJournal(copy)
    decode = msgspec.msgpack.Decoder(JournalRecord).decode
    found: set[int] = set()
    for record in map(decode, journal.replay()):
        if isinstance(record, Prepared):
            found.add(record.change)
        elif isinstance(record, Committed | Aborted):
            found.discard(record.change)
    journal.close()
    return len(found)


@contextmanager
def writer(devices: list[str]) -> Iterator[None]:
    words = [sys.executable, str(HERE / "writers.py"), "ordered", *devices]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None and started.stdout.readline() == "writing\n"
            yield
        finally:
            # Were a gate still closed, nothing could kill it.
            for device in devices:
                throttle.limit(int(device.removeprefix("/dev/loop")), throttle.NONE)
            started.kill()


def left_rules(number: int) -> dict[str, int]:
    """Of a device that is gone: they would slow down whoever gets its number next."""
    found = rules(number) if loop.backing(number) is None else {}
    # Another simulator of this machine may have taken the number meanwhile.
    return found if loop.backing(number) is None else {}


class Machine:
    """What the kernel and the pool have of one state directory."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._numbers: set[int] = set()
        """Of every loop device that was ever seen to be ours."""

    def check(self, running: Running, clients: list[Client]) -> None:
        """Nothing that was acknowledged is lost, and nothing is there that no client knows."""
        listed = settle(clients, running)
        numbers = {entry["name"]: number for number, entry in listed.items()}
        attached = {name: known for client in clients for name, known in client.world.items() if known.at}
        links = {
            str(path.relative_to(self._state / "clients")): str(path.readlink()) for path in all_links(self._state)
        }
        devices = {tuple(map(int, status.tag.split(":")[2:])): status for status in pool_devices(self._state)}
        assert set(devices) == {(numbers[name], known.at) for name, known in attached.items()}
        assert len(pool.image_devices(self._state)) == 1
        wanted: dict[str, str] = {}
        for name, known in attached.items():
            status = devices[numbers[name], known.at]
            assert status.read_only == known.snapshot and not status.fenced and not status.leaving
            for folder, link in (("storpool", name), ("storpool-byid", listed[numbers[name]]["globalId"])):
                wanted[f"{known.at}/{folder}/{link}"] = status.path
            iops = dict.fromkeys(("read_iops", "write_iops"), known.iops) if known.iops else {}
            assert rules(status.number) == iops, name
        assert links == wanted
        self._numbers |= {status.number for status in devices.values()}
        assert not [number for number in self._numbers if left_rules(number)]
        assert not (self._state / "gate.json").exists()
        # What was deleted leaves the pool a moment after the list.
        eventually(
            "the pool has what is listed",
            lambda: (
                {str(entry["id"]) for entry in running.get("VolumesAndSnapshotsList")["volumes"]} == running.objects()
            ),
        )

    def gate_closed(self) -> bool:
        mine = [status.number for status in pool_devices(self._state) if status.tag.endswith(f":{GATED}")]
        return any(rules(number).get("write_bps") == throttle.STOPPED for number in mine)

    def written(self) -> list[tuple[int, int]]:
        """What the devices under the writer have finished."""
        mine = [status.number for status in pool_devices(self._state) if status.tag.endswith(f":{GATED}")]
        return [throttle.changes_finished(number) for number in mine]


@dataclass
class Tally:
    kills: int = 0
    open: int = 0
    """Either of the next two."""
    unanswered: int = 0
    """With calls that were sent and not answered."""
    undone: int = 0
    """With changes open in the journal."""
    gates: int = 0
    """While a gate was closed."""
    starts: int = 0
    """Of processes that were not ready yet."""


def prepare(grouper: Grouper, running: Running) -> None:
    while not grouper.ready:
        order = grouper.next()
        running.post(order.path, order.body)
        grouper.answered()


def work_until_killed(made: Zygote, running: Running, clients: list[Client], pause: float | None, tally: Tally) -> None:
    """Killed after the pause, or, without one, as soon as a gate is closed."""
    machine = Machine(running.state)
    loads = [Load(client, running) for client in clients]
    with ThreadPoolExecutor(len(loads)) as threads:
        working = [threads.submit(load.run) for load in loads]
        if pause is None:
            eventually("a gate is closed", lambda: machine.gate_closed() or any(done.done() for done in working))
        else:
            time.sleep(pause)
        closed, killed_at = machine.gate_closed(), time.monotonic()
        assert made.end(signal.SIGKILL) == -signal.SIGKILL
    for done in working:
        done.result()
    sent = [load for load in loads if load.client.order and 0 < load.connection.sent_at < killed_at]
    left = changes_open(running.state)
    tally.kills += 1
    tally.open += bool(sent or left)
    tally.unanswered += bool(sent)
    tally.undone += bool(left)
    tally.gates += closed


def await_writes(machine: Machine) -> None:
    before = machine.written()
    eventually("writes end", lambda: all(now > then for now, then in zip(machine.written(), before, strict=True)))


def test_killed_at_any_moment_it_loses_nothing_leaks_nothing_and_holds_nobody_up(state: Path) -> None:
    draw, machine, tally = Random(1), Machine(state), Tally()
    grouper = Grouper("g", GATED)
    clients = [Client("a", 1), Client("b", 2), grouper]
    with zygote(state, "--pool-size", "1G") as made:
        running = made.start()
        prepare(grouper, running)
        with writer([str((state / f"clients/{GATED}/storpool/g-{at}").resolve()) for at in (0, 1)]):
            while tally.kills < KILLS:
                pause = None if tally.kills % 4 == 0 else draw.uniform(0.02, 0.15)
                work_until_killed(made, running, clients, pause, tally)
                if draw.random() < 0.1:
                    made.launch()
                    time.sleep(draw.uniform(0.01, 0.1))
                    made.end(signal.SIGKILL)
                    tally.kills, tally.starts = tally.kills + 1, tally.starts + 1
                running = made.start()
                machine.check(running, clients)
                await_writes(machine)
        assert made.end(signal.SIGTERM) == 0
    print(tally)
    assert tally.open >= OPEN and tally.gates >= GATES
