"""The agent's way to the OS: programs that hang, flood or leave children, and block devices that are none."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.agent import real_host
from harness.agent.config import AgentConfig
from harness.agent.real_host import OUTPUT_LIMIT, RealHost
from harness.agent.storpool_conf import read_host_configuration
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import InvalidParameter, NotFound, Unavailable, Unknown

PYTHON = sys.executable


@pytest.fixture
def host() -> RealHost:
    return RealHost(ThreadRuntime("agent"))


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("needs root and losetup (package mount)")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(3 * 1024 * 1024)
    device = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_output_exit_status_and_input_of_a_program_are_kept_apart(host: RealHost) -> None:
    script = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('oops'); sys.exit(3)"
    result = host.run([PYTHON, "-c", script], stdin=b"secret", timeout=20)
    assert (result.rc, result.stdout, result.stderr) == (3, b"SECRET", b"oops")


def test_no_shell_reads_the_arguments(host: RealHost) -> None:
    assert host.run(["echo", "$HOME; id `id`"], timeout=20).stdout == b"$HOME; id `id`\n"


def test_a_program_that_floods_is_read_to_its_end_and_kept_to_the_limit(host: RealHost) -> None:
    script = f"import sys; sys.stdout.write('x' * {3 * OUTPUT_LIMIT}); sys.stderr.write('end')"
    result = host.run([PYTHON, "-c", script], timeout=30)
    assert len(result.stdout) == OUTPUT_LIMIT
    assert result.stderr == b"end"


def test_a_program_that_hangs_is_killed_with_its_children(host: RealHost, tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    script = f"sleep 600 & echo $! > {pid_file}; wait"
    with pytest.raises(Unknown, match="killed"):
        host.run(["sh", "-c", script], timeout=1.0)
    assert_gone(int(pid_file.read_text()))


def test_a_child_left_behind_neither_delays_the_answer_nor_lives_on(host: RealHost, tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    result = host.run(["sh", "-c", f"sleep 600 & echo $! > {pid_file}; echo done"], timeout=20)
    assert (result.rc, result.stdout) == (0, b"done\n")
    assert_gone(int(pid_file.read_text()))


def assert_gone(pid: int) -> None:
    """Dead, or a zombie that its new parent has not collected yet."""
    runtime = ThreadRuntime("test")
    deadline = runtime.monotonic() + 10
    while runtime.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        runtime.sleep(0.05)
    raise AssertionError(f"process {pid} lives on")


def test_a_program_that_closes_its_outputs_is_still_waited_for(host: RealHost) -> None:
    script = "import os, time; os.close(1); os.close(2); time.sleep(0.3); os._exit(7)"
    assert host.run([PYTHON, "-c", script], timeout=20).rc == 7


def test_what_a_program_printed_last_is_not_lost(host: RealHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(process: subprocess.Popen[bytes]) -> bool:
        # The slowest look there can be: it is over by now, and nothing of this was read.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return True

    monkeypatch.setattr(real_host, "_ended", ended)
    assert host.run(["sh", "-c", "printf first; sleep 0.2; printf last"], timeout=20).stdout == b"firstlast"


def test_a_program_that_is_not_there_was_not_started(host: RealHost) -> None:
    with pytest.raises(Unavailable, match="no-such-program"):
        host.run(["no-such-program"], timeout=5)


def test_what_is_no_block_device_has_no_size(host: RealHost, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 512)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (file, fifo, tmp_path, tmp_path / "dangling", tmp_path / "missing", Path("/dev/null")):
        assert host.block_device_size(str(path)) is None


@pytest.mark.local
def test_a_block_device_is_measured_through_a_link_and_after_it_has_grown(
    host: RealHost, loop_device: Path, tmp_path: Path
) -> None:
    link = tmp_path / "d.n.1"
    link.symlink_to(loop_device)
    assert host.block_device_size(str(link)) == 3 * 1024 * 1024
    with (tmp_path / "image").open("r+b") as file:
        file.truncate(5 * 1024 * 1024)
    subprocess.run(["losetup", "--set-capacity", str(loop_device)], check=True)
    assert host.block_device_size(str(link)) == 5 * 1024 * 1024


@pytest.mark.local
def test_a_device_without_a_medium_has_no_size(host: RealHost, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a device node")
    # Major 240 is left to experiments: no driver answers for it.
    node = tmp_path / "stale"
    os.mknod(node, 0o600 | 0o060000, os.makedev(240, 77))
    assert host.block_device_size(str(node)) is None


@pytest.mark.local
def test_a_loop_device_without_a_file_has_no_size(host: RealHost) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a loop device")
    number = 700_000 + os.getpid() % 100_000
    add, remove = 0x4C80, 0x4C81  # LOOP_CTL_ADD, LOOP_CTL_REMOVE of linux/loop.h
    with open("/dev/loop-control", "rb") as control:  # noqa: PTH123 - a device, not a path to work with
        fcntl.ioctl(control, add, number)
        try:
            assert Path(f"/dev/loop{number}").is_block_device()
            assert host.block_device_size(f"/dev/loop{number}") is None
        finally:
            fcntl.ioctl(control, remove, number)


def test_text_files_are_read_up_to_a_limit(host: RealHost, tmp_path: Path) -> None:
    file = tmp_path / "storpool.conf"
    file.write_text("SP_OURID=1\n")
    assert host.read_text(str(file)) == "SP_OURID=1\n"
    with pytest.raises(NotFound):
        host.read_text(str(tmp_path / "missing"))
    with pytest.raises(Unavailable):
        host.read_text(str(tmp_path))
    with file.open("wb") as big:
        big.truncate(2 * 1024 * 1024)
    with pytest.raises(InvalidParameter):
        host.read_text(str(file))


WRITER = """
import os, sys
from harness.agent.real_host import RealHost
from harness.runtime.threads import ThreadRuntime
host = RealHost(ThreadRuntime("writer"))
stop = int(sys.argv[2])
calls = 0

def deadly(name):
    real = getattr(os, name)
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == stop:
            os.kill(os.getpid(), 9)
        return real(*arguments, **named)
    setattr(os, name, call)

for name in ("open", "fdopen", "fsync", "replace", "rename", "close"):
    deadly(name)
host.write_durably(sys.argv[1], "new" * 1000)
print("ended", calls)
"""


def test_a_durable_file_is_whole_whenever_its_writer_is_killed(host: RealHost, tmp_path: Path) -> None:
    """Killed before each system call of the write, as far as Python makes them."""
    seen = []
    for stop in range(1, 30):
        path = tmp_path / str(stop) / "operations/op.json"
        path.parent.mkdir(parents=True)
        path.write_text("old")
        path.with_name("op.json.new").write_text("left by another kill" * 1000)
        argv = [PYTHON, "-c", WRITER, str(path), str(stop)]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
        assert ran.returncode in (0, -9), ran.stderr
        seen.append(path.read_text())
        assert set(host.list_directory(str(path.parent))) <= {"op.json", "op.json.new"}
        if ran.returncode == 0:
            break
    assert set(seen) == {"old", "new" * 1000}
    assert len(seen) > 4
    assert seen == sorted(seen, reverse=True), "once it is new it stays so"


def test_a_durable_file_that_cannot_be_written_leaves_the_one_before_and_nothing_half_written(
    host: RealHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "record"
    host.write_durably(str(target), "before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left on device; is the disk full"):
        host.write_durably(str(target), "after")
    assert [file.name for file in tmp_path.iterdir()] == ["record"]
    assert target.read_text() == "before"


def test_what_is_not_there_is_removed_on_a_read_only_file_system_too(host: RealHost, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        (tmp_path / "there").write_text("x")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        host.remove(str(tmp_path / "gone"))
        with pytest.raises(Unavailable, match="Read-only file system"):
            host.remove(str(tmp_path / "there"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_durable_files_are_made_with_their_directory_for_root_alone_and_removed(host: RealHost, tmp_path: Path) -> None:
    directory = tmp_path / "a/b"
    path = str(directory / "op.json")
    assert host.list_directory(str(directory)) == ()
    host.remove(path)
    for text in ("{}", "[1]"):
        host.write_durably(path, text)
        assert host.read_text(path) == text
    assert host.list_directory(str(directory)) == ("op.json",)
    assert (directory.stat().st_mode & 0o777, Path(path).stat().st_mode & 0o777) == (0o700, 0o600)
    host.remove(path)
    assert host.list_directory(str(directory)) == ()
    (tmp_path / "file").touch()
    for refused in (
        lambda: host.write_durably(str(tmp_path / "file/x"), ""),
        lambda: host.list_directory(f"{tmp_path}/file"),
    ):
        with pytest.raises(Unavailable, match="file"):
            refused()


RUNNER = """
import sys
from harness.agent.real_host import RealHost
from harness.runtime.threads import ThreadRuntime
RealHost(ThreadRuntime("agent")).run(sys.argv[2:], stdin=b"secret", timeout=600, operation=sys.argv[1])
"""


def kill(processes: list[int]) -> None:
    """Those that a failed test left."""
    for process in processes:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)


def orphan(operation: str, *argv: str) -> subprocess.Popen[str]:
    """An agent that runs a program; the caller kills the agent alone."""
    return subprocess.Popen([PYTHON, "-c", RUNNER, operation, *argv], text=True, cwd=Path(__file__).parents[2])


def wait_for(file: Path) -> str:
    runtime = ThreadRuntime("test")
    deadline = runtime.monotonic() + 20
    while runtime.monotonic() < deadline:
        if file.exists() and file.read_text().endswith("\n"):
            return file.read_text()
        runtime.sleep(0.02)
    raise AssertionError(f"{file} was not written")


def test_a_program_that_outlives_its_agent_is_found_and_ended_with_its_children(
    host: RealHost, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    processes = {}
    for name in ("mine", "other"):
        said = tmp_path / name
        # Writes on for ever, as a copy would; its child too.
        script = f"(while :; do echo >> {said}.child; sleep 0.02; done) & echo $$ $! > {said}; wait"
        processes[name] = orphan(f"{tmp_path.name}-{name}", "sh", "-c", script)
    pids = {name: [int(pid) for pid in wait_for(tmp_path / name).split()] for name in processes}
    for process in processes.values():
        process.kill()
        process.wait(20)
    # It fails for what does not outlive the agent.
    opened = [os.pidfd_open(pid) for pid in (*pids["mine"], *pids["other"])]
    request.addfinalizer(lambda: kill(opened))
    host.end_programs(f"{tmp_path.name}-mine", timeout=20)
    for pid in pids["mine"]:
        assert_gone(pid)
    written = (tmp_path / "mine.child").stat().st_size
    for pid in pids["other"]:
        assert Path(f"/proc/{pid}/cmdline").read_bytes(), "another operation's program lives on"
    host.end_programs(f"{tmp_path.name}-other", timeout=20)
    for pid in pids["other"]:
        assert_gone(pid)
    assert (tmp_path / "mine.child").stat().st_size == written
    host.end_programs(f"{tmp_path.name}-mine", timeout=0.01)


def test_programs_are_not_taken_for_gone_when_they_cannot_be_looked_for(
    host: RealHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    agent = orphan(tmp_path.name, "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    pid = int(wait_for(tmp_path / "pid"))
    agent.kill()
    agent.wait(20)
    opened = [os.pidfd_open(pid)]
    request.addfinalizer(lambda: kill(opened))
    for module, call, error in (
        (os, "pidfd_open", errno.ENOSYS),
        (os, "pidfd_open", errno.EMFILE),
        (os, "listdir", errno.EMFILE),
        (os, "readlink", errno.EACCES),
        (signal, "pidfd_send_signal", errno.EPERM),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, call, refusing(pid, getattr(module, call), error))
            with pytest.raises(Unavailable, match=f"{tmp_path.name} still runs cannot be seen: {os.strerror(error)}"):
                host.end_programs(tmp_path.name, timeout=0.01)
        assert Path(f"/proc/{pid}/cmdline").read_bytes(), call
    host.end_programs(tmp_path.name, timeout=20)
    assert_gone(pid)


def refusing(pid: int, call: Callable[..., object], error: int) -> Callable[..., object]:
    """Fails for this process, whose number, directory or handle the first argument is."""

    def refused(first: object, *others: object) -> object:
        handle = Path(f"/proc/self/fdinfo/{first}")
        named = f"/proc/{pid}/" in f"{first}/" or first == pid
        if named or (isinstance(first, int) and handle.exists() and f"Pid:\t{pid}\n" in handle.read_text()):
            raise OSError(error, os.strerror(error))
        return call(first, *others)

    return refused


def test_processes_that_end_while_programs_are_looked_for_are_no_hindrance(
    host: RealHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first is there no more, the second has not been asked for by its parent.
    with subprocess.Popen(["true"]) as gone:
        gone.wait(20)
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        names = os.listdir
        monkeypatch.setattr(
            os, "listdir", lambda path: [*names(path), str(gone.pid)] if path == "/proc" else names(path)
        )
        for call, error in (("pidfd_open", errno.EINVAL), ("listdir", errno.EACCES)):
            with monkeypatch.context() as patch:
                patch.setattr(os, call, refusing(zombie.pid, getattr(os, call), error))
                host.end_programs("of-nobody", timeout=0.01)


def test_an_agent_does_not_start_where_processes_cannot_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real_host.check_kernel()
    monkeypatch.setattr(os, "pidfd_open", refusing(os.getpid(), os.pidfd_open, errno.ENOSYS))
    with pytest.raises(Unavailable, match=r"Linux 5\.3"):
        real_host.check_kernel()


def test_a_program_that_cannot_be_ended_is_told(host: RealHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        real_host, "_kill_holders", lambda link: [77] if link == "/memfd:splab-agent:op (deleted)" else []
    )
    with pytest.raises(Unknown, match="processes 77 of operation op"):
        host.end_programs("op", timeout=0.1)


def test_storpools_configuration_is_read_as_storpool_reads_it(host: RealHost, tmp_path: Path) -> None:
    main = tmp_path / "storpool.conf"
    main.write_text("SP_OURID=1\nSP_CLUSTER_ID=a.b\nSP_AUTH_TOKEN=x\n[kvm2]\nSP_OURID=2\n")
    directory = tmp_path / "storpool.conf.d"
    config = AgentConfig(
        host_uuid="h", host_name="kvm2", storpool_conf=str(main), storpool_conf_directory=str(directory)
    )
    assert read_host_configuration(host, config).client_id == 2
    directory.mkdir()
    (directory / ".30.conf").write_text("[kvm2]\nSP_OURID=7\n")
    for name, cluster in (("20.conf", "c.c"), ("10.conf", "b.b"), ("40.conf.bak", "e.e")):
        (directory / name).write_text(f"SP_CLUSTER_ID={cluster}\n")
    assert read_host_configuration(host, config).cluster_id == "c.c"
    assert read_host_configuration(host, config).client_id == 2
    (directory / "50.conf").write_text("no setting: secret-token\n")
    with pytest.raises(InvalidParameter, match="kvm2") as raised:
        read_host_configuration(host, config)
    assert "secret-token" not in str(raised.value)
