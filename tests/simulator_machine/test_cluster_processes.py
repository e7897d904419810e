"""Several clusters as a user runs them: two in one process with real devices, a third in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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

    def __init__(self, path: Path) -> None:
        self.path = path
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
        argv += ["--token-file", str(self.path / "token")]
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
