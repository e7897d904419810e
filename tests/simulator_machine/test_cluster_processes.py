"""Several clusters as a user runs them: two in one process with real devices, a third in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from simulator.blocks import loop
from simulator.blocks.destroy import destroy
from simulator.blocks.links import client_directories

pytestmark = pytest.mark.local
ROOT = Path(__file__).parents[2]
TOKEN = "4242424242424242424"
SECONDS = 60.0
ESTABLISHED = "01"
"""State in /proc/net/tcp."""
MB = 1 << 20


@dataclass
class Cluster:
    port: int
    state: Path

    def call(self, verb: str, path: str, body: Any = None) -> Any:
        answer = requests.request(
            verb,
            f"http://127.0.0.1:{self.port}/{path.lstrip('/') if path.startswith('/') else 'ctrl/1.0/' + path}",
            json=body,
            headers={"Authorization": f"Storpool v1:{TOKEN}"},
            timeout=SECONDS,
        ).json()
        assert "error" not in answer, answer
        return answer["data"]

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, {} if body is None else body)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def error(self, path: str, body: Any) -> str:
        with pytest.raises(AssertionError) as refused:
            self.post(path, body)
        return str(refused.value)

    def device(self, client: int, global_id: str) -> Path:
        return client_directories(self.state, client)[1] / global_id


class Site:
    """`here` and `near` are one process, `far` is another."""

    def __init__(self, path: Path, blocks: str = "loop") -> None:
        self.path = path
        self.blocks = blocks
        names = ("here", "near", "far")
        self.here, self.near, self.far = (Cluster(free_port(), path / name) for name in names)
        (path / "token").write_text(TOKEN)
        (path / "token").chmod(0o600)
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, which: str) -> None:
        """`both` or `far`."""
        entries = []
        for cluster, id, name, location in (
            (self.here, "aa.b", "alpha", "sofia"),
            (self.near, "aa.c", "beta", "sofia"),
            (self.far, "zz.b", "gamma", "varna"),
        ):
            entry: dict[str, Any] = {"id": id, "name": name, "location": location}
            if (cluster is self.far) == (which == "far"):
                entry |= {"listen": f"127.0.0.1:{cluster.port}", "state": cluster.state.name}
            else:
                entry["url"] = f"http://127.0.0.1:{cluster.port}"
            entries.append(entry)
        file = self.path / f"{which}.json"
        file.write_text(json.dumps({"clusters": entries}))
        argv = [sys.executable, "-m", "simulator.main", "--clusters", str(file), "--pool-size", "1G", "--control"]
        argv += ["--token-file", str(self.path / "token"), "--blocks", self.blocks]
        process = self.running[which] = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for cluster in (self.far,) if which == "far" else (self.here, self.near):
            assert process.stdout.readline() == f"ready http://127.0.0.1:{cluster.port}\n"

    def kill(self) -> None:
        for which in list(self.running):
            self.end(which)

    def end(self, which: str) -> None:
        with self.running.pop(which) as process:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    made = Site(tmp_path)
    try:
        made.start("both")
        made.start("far")
        yield made
    finally:
        made.kill()
        for cluster in (made.here, made.near, made.far):
            destroy(cluster.state)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, "memory")
    try:
        made.start("both")
        made.start("far")
        yield made
    finally:
        made.kill()


def write(path: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def test_a_volume_travels_with_what_was_written_through_its_devices(site: Site) -> None:
    volume = site.here.post("VolumeCreate", {"name": "v", "size": 64 * MB})["globalId"]
    site.here.post("VolumesReassignWait", {"reassign": [{"volume": "v", "rw": [1]}]})
    write(site.here.device(1, volume), 0, b"here")
    # A client of the other cluster of the location has the same contents, through a device of its own.
    site.near.post("MultiCluster/VolumesReassignWait", {"reassign": [{"volume": f"~{volume}", "rw": [2]}]})
    write(site.near.device(2, volume), 4096, b"near")
    assert read(site.here.device(1, volume), 4096, 4) == b"near"
    site.kill()
    site.start("both")
    assert read(site.near.device(2, volume), 0, 4) == b"here"
    snapshot = site.near.post(f"MultiCluster/VolumeSnapshot/~{volume}", {"name": "s"})["snapshotGlobalId"]
    site.near.post("MultiCluster/VolumesReassignWait", {"reassign": [{"volume": f"~{volume}", "detach": [2]}]})
    assert not os.path.lexists(site.near.device(2, volume))
    site.here.post("VolumesReassignWait", {"reassign": [{"volume": "v", "detach": "all"}]})
    site.start("far")
    # To another process, over HTTP.
    site.here.post("SnapshotExport", {"snapshot": "s", "location": "varna"})
    assert [one["remoteId"] for one in site.far.get("SnapshotsRemoteList")["snapshots"]] == [snapshot]
    site.far.post("SnapshotFromRemote", {"remoteLocation": "sofia", "remoteId": snapshot, "name": "copy"})
    site.here.post("RemoteCommand/gamma/VolumeCreate", {"name": "w", "parent": "copy"})
    backup = site.here.post("VolumeBackup", {"volume": "v", "location": "varna"})["remoteId"]
    site.here.post("SnapshotUnexport", {"snapshot": "s", "all": True, "force": True})
    site.here.post("VolumeMoveToRemote/v", {"clusterId": "zz.b"})
    assert site.here.get("VolumesList") == []
    for name, global_id in (("w", None), ("v", volume), (None, backup)):
        item = {"volume": name, "ro": [3]} if name else {"snapshot": f"~{global_id}", "ro": [3]}
        site.far.post("VolumesReassignWait", {"reassign": [item]})
        global_id = global_id or site.far.get("Volume/w")[0]["globalId"]
        assert read(site.far.device(3, global_id), 0, 4) == b"here"
        assert read(site.far.device(3, global_id), 4096, 4) == b"near"
    text = site.here.error("VolumesReassign", [{"volume": f"~{volume}", "rw": [1], "allowRemoteExported": True}])
    assert "objectDoesNotExist" in text
    site.far.post("VolumeExport/v", {"clusterId": "aa.b"})
    text = site.here.error("VolumesReassign", [{"volume": f"~{volume}", "rw": [1], "allowRemoteExported": True}])
    assert "notImplemented" in text and "another process" in text


def test_a_move_whose_target_dies_is_settled_when_it_is_back(site: Site) -> None:
    volume = site.here.post("VolumeCreate", {"name": "v", "size": 64 * MB})["globalId"]
    site.end("far")
    assert "unavailable" in site.here.error("VolumeMoveToRemote/v", {"clusterId": "zz.b"})
    site.start("far")
    deadline = time.monotonic() + SECONDS
    while volume not in [one["globalId"] for one in site.far.get("VolumesList")]:
        assert time.monotonic() < deadline
        try:
            site.here.post("VolumeMoveToRemote/v", {"clusterId": "zz.b"})
        except AssertionError as error:
            assert "unavailable" in str(error)
    assert site.here.get("VolumesList") == []


def test_many_moves_in_both_directions_do_not_wait_for_each_other(in_memory: Site) -> None:
    moves = [
        (cluster, f"VolumeMoveToRemote/{name}{at}", {"clusterId": to})
        for at in range(16)
        for cluster, name, to in ((in_memory.here, "h", "zz.b"), (in_memory.far, "f", "aa.b"))
    ]
    for cluster, path, _ in moves:
        cluster.post("VolumeCreate", {"name": path.partition("/")[2], "size": MB})
    with ThreadPoolExecutor(len(moves)) as clients, stopped(in_memory.running["both"], in_memory.running["far"]):
        asked = [clients.submit(cluster.post, path, body) for cluster, path, body in moves]
        while any(connected_to().count(one.port) < 16 for one in (in_memory.here, in_memory.far)):
            assert not any(one.done() for one in asked)
    assert all(one.result()["ok"] for one in asked)
    for cluster, name in ((in_memory.here, "f"), (in_memory.far, "h")):
        assert {one["name"] for one in cluster.get("VolumesList")} == {f"{name}{at}" for at in range(16)}


def test_a_process_ends_although_another_one_does_not_answer_it(in_memory: Site) -> None:
    both = in_memory.running["both"]
    with ThreadPoolExecutor(1) as clients, stopped(in_memory.running["far"]):
        asked = clients.submit(in_memory.here.error, "RemoteCommand/gamma/MaintenanceComplete", {"nodeId": 1})
        while in_memory.far.port not in connected_to():
            assert not asked.done()
        both.terminate()
        assert both.wait(SECONDS / 2) == 0
        assert "The simulator stops" in asked.result()


@contextmanager
def stopped(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """What they are asked meanwhile comes to them all at once afterwards."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def connected_to() -> list[int]:
    """Ports that connections over IPv4 lead to, of everybody on this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[2].rpartition(":")[2], 16) for row in rows if row[3] == ESTABLISHED]


def test_the_clock_moves_for_all_clusters_of_a_process(in_memory: Site) -> None:
    near = in_memory.near
    near.post("VolumeCreate", {"name": "v", "size": MB})
    near.post("/_sim/client/3", {"running": False})
    body = {"reassign": [{"volume": "v", "rw": [3]}], "attachTimeout": 3600}
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(near.error, "VolumesReassignWait", body)
        while near.get("AttachmentsList") == []:
            assert not waiting.done()
        in_memory.here.post("/_sim/clock", {"advance": 3601})
        begun = time.monotonic()
        assert "timeout" in waiting.result()
        assert time.monotonic() - begun < 5.0
