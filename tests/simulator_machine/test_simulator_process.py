"""`splab-simulator` as a process: started, spoken to by the vendor's client, killed, started again, removed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import requests
from storpool.spapi import Api, ApiError

from simulator.blocks import loop, pool
from simulator.blocks.destroy import destroy

ROOT = Path(__file__).parents[2]
TOKEN = "1234567890123456789"
EXAMPLES = ROOT / "simulator" / "services" / "examples"
MB = 1 << 20
SECONDS = 30.0


class Simulator:
    """A process that printed its ready line."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rsplit(":", 1)[1])
        self.api = Api(host="127.0.0.1", port=self.port, auth=TOKEN, transientRetries=0, timeout=SECONDS)

    def raw(self, path: str, **kwargs: Any) -> requests.Response:
        headers = {"Authorization": f"Storpool v1:{TOKEN}"} | kwargs.pop("headers", {})
        return requests.get(f"{self.url}{path}", timeout=SECONDS, headers=headers, **kwargs)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)

    def stop(self) -> tuple[int, str]:
        """(exit status, what it printed after the ready line)."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        return self.process.wait(SECONDS), rest


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "simulator.main", *arguments]


def environment(token: str | None) -> dict[str, str]:
    return {"PATH": os.environ["PATH"]} | ({} if token is None else {"SPLAB_TOKEN": token})


def fails(*arguments: str, token: str | None = TOKEN) -> str:
    """The error text of a start that must fail."""
    done = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(token),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def simulator(*arguments: str, host: str = "127.0.0.1") -> Iterator[Simulator]:
    process = subprocess.Popen(
        command("--listen", f"{host}:0", *arguments),
        cwd=ROOT,
        env=environment(TOKEN),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        if not line.startswith(f"ready http://{host}:"):
            process.kill()
            pytest.fail(f"not ready: {line!r} {process.stderr.read()}")
        try:
            yield Simulator(process, line.removeprefix("ready ").strip().replace(host, "127.0.0.1"))
        finally:
            process.kill()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory that leaves nothing on the machine."""
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    directory = tmp_path / "state"
    yield directory
    destroy(directory)


def left(state: Path, pool_id: str) -> list[str]:
    return [status.path for status in pool.devices(pool_id) + pool.image_devices(state)]


def pool_id(state: Path) -> str:
    description = pool.describe(state)
    assert description is not None
    return description.id


def test_it_prints_one_line_serves_and_ends_cleanly_without_devices() -> None:
    with simulator("--blocks", "memory") as running:
        assert [volume.name for volume in running.api.volumesList()] == []
        running.api.volumeCreate({"name": "v", "size": MB})
        assert running.api.volumeInfo("v").size == MB
        assert running.stop() == (0, "")


def test_without_devices_records_outlive_a_kill_where_they_are_kept_and_volumes_begin_empty(tmp_path: Path) -> None:
    arguments = ("--blocks", "memory", "--state", str(tmp_path / "state"))
    with simulator(*arguments) as running:
        running.api.volumeCreate({"name": "v", "size": 2 * MB, "tags": {"a": "b"}})
        running.api.snapshotCreate("v", {"name": "s"})
        running.api.volumesReassignWait({"reassign": [{"volume": "v", "rw": [1]}]})
        running.kill()
    with simulator(*arguments) as running:
        assert running.api.volumeInfo("v").tags == {"a": "b"}
        assert [attachment.volume for attachment in running.api.attachmentsList()] == ["v"]
        running.api.volumeCreate({"name": "w", "parent": "s"})
        assert running.stop() == (0, "")
    (tmp_path / "state" / "pool.json").write_text('{"kind": "plain", "id": "0", "size": 1}')
    assert "holds the volumes of --blocks loop" in fails("--listen", "127.0.0.1:0", *arguments)


@pytest.mark.parametrize(
    ("setup", "why"),
    [
        (lambda _path: None, "cannot read token file"),
        (lambda path: path.write_text(""), "is empty"),
        (lambda path: path.write_text(" \n"), "is empty"),
        (lambda path: (path.write_text(TOKEN), path.chmod(0o640)), "mode 640.*chmod 600"),
        (lambda path: path.write_text("two words"), "blanks"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot read token file"),
    ],
)
def test_a_bad_token_file_is_refused_and_never_quoted(
    tmp_path: Path, setup: Callable[[Path], object], why: str
) -> None:
    path = tmp_path / "token"
    old = os.umask(0o077)
    setup(path)
    os.umask(old)
    text = fails("--listen", "127.0.0.1:0", "--blocks", "memory", "--token-file", str(path))
    assert TOKEN not in text and "two words" not in text
    assert re.search(why, text) is not None


@pytest.mark.parametrize(("token", "why"), [(None, "no token: set SPLAB_TOKEN"), ("", "is empty"), ("a b", "blanks")])
def test_without_a_token_it_does_not_start(token: str | None, why: str) -> None:
    assert why in fails("--listen", "127.0.0.1:0", "--blocks", "memory", token=token)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--blocks", "memory", "--listen", "nowhere"), "is not HOST:PORT"),
        (("--blocks", "memory", "--listen", "127.0.0.1:70000"), "is not HOST:PORT"),
        (("--blocks", "memory", "--cluster-id", "A.b"), "--cluster-id"),
        (("--blocks", "memory", "--pool-size", "many"), "is not a size"),
        (("--blocks", "memory", "--pool-size", "0"), "is not a size"),
        (("--blocks", "memory", "--token", TOKEN), "No such option"),
        (("--blocks", "loop"), "--state DIR is needed"),
        (("--blocks", "memory", "--control", "--listen", "0.0.0.0:0"), "give --control-anywhere"),
        (("--blocks", "memory", "--control-anywhere"), "give both"),
        (("--destroy",), "needs --state"),
        (("--blocks", "memory", "--qos", "/nowhere"), "cannot take /nowhere: [Errno 2]"),
        (("--blocks", "memory", "--qos", str(EXAMPLES / "volumecare.conf")), "the tiers cannot be read"),
        (("--blocks", "memory", "--volumecare", str(EXAMPLES / "qos.json")), "no text of sections"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(arguments: tuple[str, ...], why: str) -> None:
    assert why in fails(*arguments)


def test_a_port_in_use_is_named() -> None:
    with simulator("--blocks", "memory") as running:
        assert f"cannot listen on 127.0.0.1:{running.port}: Address already in use" in fails(
            "--blocks", "memory", "--listen", f"127.0.0.1:{running.port}"
        )


@pytest.mark.parametrize("token", ["wrong", "", TOKEN[:-1], TOKEN + "0"])
def test_a_wrong_token_changes_nothing_and_is_told_in_json(token: str) -> None:
    with simulator("--blocks", "memory") as running:
        stranger = Api(host="127.0.0.1", port=running.port, auth=token, transientRetries=0)
        for call in (stranger.volumesList, lambda: stranger.volumeCreate({"name": "v", "size": MB})):
            with pytest.raises(ApiError) as caught:
                call()
            assert (caught.value.status, caught.value.name) == (401, "accessDenied")
        assert [volume.name for volume in running.api.volumesList()] == []


def test_the_control_api_is_served_only_when_asked_for() -> None:
    with simulator("--blocks", "memory") as running:
        assert running.raw("/_sim/calls").status_code == 404
    with simulator("--blocks", "memory", "--control") as running:
        assert running.raw("/_sim/calls").json()["data"] == {"calls": {}}


def test_tiers_and_policies_are_imported_from_files() -> None:
    files = ("--qos", str(EXAMPLES / "qos.json"), "--volumecare", str(EXAMPLES / "volumecare.conf"))
    with simulator("--blocks", "memory", "--control", *files) as running:
        running.api.volumeCreate({"name": "v", "size": MB, "tags": {"qc": "bronze", "cvm": "x", "vc-policy": "daily"}})
        token = {"Authorization": f"Storpool v1:{TOKEN}"}
        requests.post(f"{running.url}/_sim/clock", json={"advance": 60}, headers=token, timeout=SECONDS)
        assert (running.api.volumeInfo("v").size, running.api.volumeList("v")[0].iops) == (MB, 500)
        [vm] = running.raw("/_sim/volumecare").json()["data"]
        assert vm["id"] == {"name": "cvm=x"} and len(vm["history"]) == 1
        assert running.stop() == (0, "")


def test_beyond_loopback_the_control_api_is_asked_for_twice() -> None:
    with simulator("--blocks", "memory", "--control", "--control-anywhere", host="0.0.0.0") as running:
        assert running.raw("/_sim/faults").json()["data"] == {"faults": []}
        assert requests.get(f"http://127.0.0.1:{running.port}/", timeout=SECONDS).status_code == 200
    with simulator("--blocks", "memory", host="0.0.0.0") as running:
        assert running.raw("/_sim/faults").status_code == 404


def test_unknown_calls_are_json_and_unknown_fields_are_dropped_only_when_loose() -> None:
    with simulator("--blocks", "memory", "--loose", "--cluster-id", "lab.z") as running:
        answer = running.raw("/nowhere")
        assert answer.status_code == 404 and answer.json()["error"]["name"] == "unknownCall"
        made = requests.post(
            f"{running.url}/ctrl/1.0/VolumeCreate",
            data=json.dumps({"name": "v", "size": MB, "nonsense": 1}),
            headers={"Authorization": f"Storpool v1:{TOKEN}"},
            timeout=SECONDS,
        )
        assert made.status_code == 200
        assert running.api.volumeInfo("v").globalId.startswith("lab.z.")


@pytest.mark.local
def test_the_vendors_client_gets_a_device_that_keeps_its_data_over_kill_and_restart(state: Path) -> None:
    arguments = ("--state", str(state), "--pool-size", "1G")
    with simulator(*arguments) as running:
        running.api.volumeCreate({"name": "v", "size": 4 * MB})
        running.api.volumesReassignWait({"reassign": [{"volume": "v", "rw": [1]}]})
        link = state / "clients/1/storpool/v"
        global_id = running.api.volumeInfo("v").globalId
        by_id = state / "clients/1/storpool-byid" / global_id
        assert link.resolve() == by_id.resolve() and link.is_block_device()
        with link.open("r+b", buffering=0) as device:
            assert os.lseek(device.fileno(), 0, os.SEEK_END) == 4 * MB
            os.pwrite(device.fileno(), b"payload", 0)
            os.fsync(device.fileno())
            running.api.snapshotCreate("v", {"name": "s"})
            os.pwrite(device.fileno(), b"changed", 0)
            os.fsync(device.fileno())
            with pytest.raises(ApiError) as caught:
                running.api.volumesReassignWait({"reassign": [{"volume": "v", "detach": [1]}]})
            assert caught.value.name == "busy" and "is open at client 1" in caught.value.desc
            running.kill()
            # The device of a running guest outlives the simulator.
            assert os.pread(device.fileno(), 7, 0) == b"changed"
    with simulator(*arguments) as running:
        assert by_id.read_bytes()[:7] == b"changed"
        running.api.volumeCreate({"name": "w", "parent": "s"})
        running.api.volumesReassignWait({"reassign": [{"volume": "w", "ro": [2]}, {"volume": "v", "detach": "all"}]})
        assert (state / "clients/2/storpool/w").read_bytes()[:7] == b"payload"
        assert list((state / "clients/1/storpool").iterdir()) == []
        running.api.volumesReassignWait({"reassign": [{"volume": "w", "detach": "all"}]})
        assert running.stop() == (0, "")
    assert left(state, pool_id(state)) == []
    with simulator(*arguments) as running:
        assert sorted(volume.name for volume in running.api.volumesList()) == ["v", "w"]


@pytest.mark.local
def test_a_reset_takes_open_devices_away_and_the_next_volumes_begin_empty(state: Path) -> None:
    with simulator("--state", str(state), "--pool-size", "1G", "--control") as running:
        for number in range(2):
            running.api.volumeCreate({"name": "v", "size": MB})
            running.api.volumesReassignWait({"reassign": [{"volume": "v", "rw": [1]}]})
            with (state / "clients/1/storpool/v").open("r+b", buffering=0) as device:
                assert os.pread(device.fileno(), 4, 0) == bytes(4), number
                os.pwrite(device.fileno(), b"data", 0)
                headers = {"Authorization": f"Storpool v1:{TOKEN}"}
                assert requests.post(f"{running.url}/_sim/reset", headers=headers, timeout=SECONDS).status_code == 200
                with pytest.raises(OSError):
                    os.pwrite(device.fileno(), b"late", 0)
                    os.fsync(device.fileno())
            assert list((state / "clients/1/storpool").iterdir()) == []
            assert pool.devices(pool_id(state)) == []


@pytest.mark.local
def test_a_second_simulator_and_a_removal_are_refused_while_one_runs_and_removal_leaves_nothing(state: Path) -> None:
    arguments = ("--state", str(state), "--pool-size", "1G")
    with simulator(*arguments) as running:
        text = fails(*arguments, "--listen", "127.0.0.1:0")
        assert f"in use by the simulator with process id {running.process.pid}" in text
        running.api.volumeCreate({"name": "v", "size": MB})
        running.api.volumesReassignWait({"reassign": [{"volume": "v", "rw": [1, 2]}]})
        running.kill()
    kept = pool_id(state)
    assert len(left(state, kept)) == 3
    for _ in range(2):
        subprocess.run(
            command("--state", str(state), "--destroy"), cwd=ROOT, check=True, timeout=SECONDS, env=environment(None)
        )
        assert left(state, kept) == [] and not state.exists()


@pytest.mark.local
def test_a_damaged_journal_stops_the_start_and_names_file_and_byte(state: Path) -> None:
    arguments = ("--state", str(state), "--pool-size", "1G")
    with simulator(*arguments) as running:
        running.api.volumeCreate({"name": "v", "size": MB})
        running.kill()
    journal = state / "journal"
    content = bytearray(journal.read_bytes())
    content[20] ^= 1
    journal.write_bytes(content)
    assert f"journal {journal} is damaged at byte 16" in fails(*arguments, "--listen", "127.0.0.1:0")
    journal.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:-3])
    with simulator(*arguments) as running:
        assert running.api.volumesList() is not None


@pytest.mark.local
def test_many_clients_at_once_each_get_their_volume_and_its_device(state: Path) -> None:
    with simulator("--state", str(state), "--pool-size", "1G") as running:

        def one(number: int) -> int:
            api = Api(host="127.0.0.1", port=running.port, auth=TOKEN, transientRetries=0)
            api.volumeCreate({"name": f"v{number}", "size": MB * (number + 1)})
            api.volumesReassignWait({"reassign": [{"volume": f"v{number}", "rw": [1]}]})
            path = state / f"clients/1/storpool/v{number}"
            with path.open("rb") as device:
                size = os.lseek(device.fileno(), 0, os.SEEK_END)
            api.volumesReassignWait({"reassign": [{"volume": f"v{number}", "detach": "all"}]})
            api.volumeDelete(f"v{number}")
            return size

        with ThreadPoolExecutor(8) as pool_of_clients:
            assert list(pool_of_clients.map(one, range(24))) == [MB * (number + 1) for number in range(24)]
        assert running.stop() == (0, "")
    assert left(state, pool_id(state)) == []


class Load:
    """One client that changes its own volumes for as long as the simulator answers, and remembers what it was told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = 0
        self.attached: dict[str, bool] = {}
        """Every volume that is acknowledged, and whether it is attached to client 1."""
        self.doubtful: str | None = None
        """The volume of the call that was not answered."""

    def run(self, port: int) -> None:
        api = Api(host="127.0.0.1", port=port, auth=TOKEN, transientRetries=0, timeout=SECONDS)
        while True:
            self.turn += 1
            volume = f"{self.name}-{self.turn}"
            oldest = next(iter(self.attached), volume)
            try:
                self.doubtful = volume
                api.volumeCreate({"name": volume, "size": MB})
                self.attached[volume] = False
                api.volumesReassignWait({"reassign": [{"volume": volume, "rw": [1]}]})
                self.attached[volume] = True
                if len(self.attached) > 3:
                    self.doubtful = oldest
                    api.volumesReassignWait({"reassign": [{"volume": oldest, "detach": "all"}]})
                    self.attached[oldest] = False
                    api.volumeDelete(oldest)
                    del self.attached[oldest]
            except (OSError, HTTPException, ValueError):
                return


@pytest.mark.local
def test_killed_under_load_it_keeps_all_that_it_acknowledged_and_nothing_else(state: Path) -> None:
    clients = [Load(name) for name in "abc"]
    for kill in range(4):
        with simulator("--state", str(state), "--pool-size", "1G") as running:
            check_against(running, state, clients)
            with ThreadPoolExecutor(len(clients)) as threads:
                working = [threads.submit(client.run, running.port) for client in clients]
                target = max(client.turn for client in clients) + 3 + kill
                wait_until_turn(clients, target)
                running.kill()
            for done in working:
                done.result()
    with simulator("--state", str(state), "--pool-size", "1G") as running:
        check_against(running, state, clients)


def wait_until_turn(clients: list[Load], target: int) -> None:
    deadline = time.monotonic() + SECONDS
    while max(client.turn for client in clients) < target:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check_against(running: Simulator, state: Path, clients: list[Load]) -> None:
    """The API shows what the clients were told, and the machine has what the API shows."""
    there = {volume.name for volume in running.api.volumesList()}
    attached = {attachment.volume for attachment in running.api.attachmentsList()}
    for client in clients:
        doubtful = {client.doubtful} if client.doubtful is not None else set()
        mine = {name for name in there if name.startswith(client.name)}
        assert mine - doubtful == set(client.attached) - doubtful
        assert {name for name in attached if name.startswith(client.name)} - doubtful == {
            name for name, yes in client.attached.items() if yes
        } - doubtful
        client.attached = {name: name in attached for name in sorted(mine, key=lambda name: int(name.split("-")[1]))}
        client.doubtful = None
    links = state / "clients/1/storpool"
    assert {link.name for link in links.iterdir()} == attached
    devices = {str(link.resolve()) for link in links.iterdir()}
    assert devices == {status.path for status in pool.devices(pool_id(state))} and len(devices) == len(attached)
    for link in links.iterdir():
        with link.open("rb", buffering=0) as device:
            assert os.lseek(device.fileno(), 0, os.SEEK_END) == MB
