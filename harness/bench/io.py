"""I/O on attached volumes beside a plain loop device over a file of the same file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.bench.attach import attach, create, detach, device, settle
from harness.bench.fio_parser import FioError, parse
from harness.bench.measure import Bench, Missing, in_turns
from harness.bench.rig import MIB, Simulator, loop_simulator, pool_root, require_devices
from simulator.blocks import loop

LEG = "io"
_TAG = "splab-bench"
_DEPTH = 16
_SNAPSHOT_SECONDS = 1.0
_PATIENCE = 120


def measure(bench: Bench) -> None:
    require_devices()
    if shutil.which("fio") is None:
        raise Missing("fio (apt install fio)")
    size = bench.effort.disk_mib * MIB
    state = bench.directory / "state"
    with loop_simulator(state, 4 * size + (1 << 30)) as running:
        key = create(running, "volume", size)
        root = pool_root(running, key)
        attach(running, "volume")
        volume = device(state, "volume")
        with _plain_device(root / _TAG, size) as plain:
            for each in (volume, plain):
                _fio(each, "write", MIB, None)
            settle(root / str(key))
            _compare(bench, volume, plain)
            _with_snapshots(bench, running, volume, plain)
        detach(running, "volume")


@contextmanager
def _plain_device(file: Path, size: int) -> Iterator[Path]:
    """Over a new file, with the flags that the simulator's devices have."""
    try:
        with file.open("xb") as made:
            os.truncate(made.fileno(), size)
        with loop.configured(file, _TAG, read_only=False, leaving=True) as status:
            yield Path(status.path)
    finally:
        file.unlink(missing_ok=True)


def _compare(bench: Bench, volume: Path, plain: Path) -> None:
    for kind in ("randread", "randwrite"):
        pairs = in_turns(
            bench.effort.turns,
            _iops(volume, kind, bench.effort.fio_seconds),
            _iops(plain, kind, bench.effort.fio_seconds),
        )
        name = f"4 KiB {kind} on a volume never snapshotted"
        bench.compared(LEG, name, "IOPS", _against(), pairs, at_least=0.95)


def _against() -> str:
    return f"a plain loop device over a file beside it, direct I/O, depth {_DEPTH}"


def _iops(device: Path, kind: str, lasting: int) -> Callable[[], float]:
    return lambda: _fio(device, kind, 4096, lasting)


def _with_snapshots(bench: Bench, running: Simulator, volume: Path, plain: Path) -> None:
    over = threading.Event()
    errors: list[Exception] = []

    def snapshots() -> None:
        while not over.wait(_SNAPSHOT_SECONDS):
            try:
                running.call("POST", "VolumeSnapshot/volume")
            except Exception as error:
                errors.append(error)
                return

    def written() -> float:
        over.clear()
        thread = threading.Thread(target=snapshots)
        thread.start()
        try:
            return _fio(volume, "randwrite", 4096, bench.effort.fio_seconds)
        finally:
            over.set()
            thread.join()

    turns = max(2, bench.effort.turns // 3)
    pairs = in_turns(turns, written, _iops(plain, "randwrite", bench.effort.fio_seconds))
    if errors:
        raise errors[0]
    bench.compared(LEG, "4 KiB randwrite with a snapshot a second", "IOPS", _against(), pairs)


def _fio(device: Path, kind: str, block: int, lasting: int | None) -> float:
    """Requests a second; without `lasting` the whole device once. Raises `FioError`."""
    words = ["--time_based", f"--runtime={lasting}"] if lasting is not None else []
    done = subprocess.run(
        [
            "fio",
            "--name=bench",
            f"--filename={device}",
            f"--rw={kind}",
            f"--bs={block}",
            "--direct=1",
            "--ioengine=libaio",
            f"--iodepth={_DEPTH}",
            "--output-format=json+",
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=_PATIENCE + (lasting or 0),
        check=False,
    )
    if done.returncode:
        raise FioError(f"fio on {device}: {done.stderr.strip()[-500:]}")
    result = parse(done.stdout)
    if result.failed:
        raise FioError(f"fio on {device}: {', '.join(result.failed)}")
    return sum(job.read.iops + job.write.iops for job in result.jobs)
