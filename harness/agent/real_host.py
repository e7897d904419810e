"""`harness.spi.ports.Host` on Linux: block devices, programs without a shell, small files.

A program inherits an open memory file that is named after the operation it is run for, and so do its children. The
kernel shows that name for as long as one of them lives, from the fork on; so programs are found again without a record
of process numbers, which come again.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import selectors
import signal
import stat
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.spi.errors import Conflict, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.ports import CommandResult, Output
from harness.spi.runtime import Runtime

_log = logging.getLogger("harness.agent")

BLKGETSIZE64 = 0x80081272
"""ioctl of linux/fs.h: size of a block device in bytes, as 64 bits."""
OUTPUT_LIMIT = 1024 * 1024
"""Bytes kept of each of a program's outputs; the rest is read and dropped, so that the program does not stall."""
TEXT_LIMIT = 1024 * 1024
POLL_SECONDS = 0.05
KILL_SECONDS = 5.0


class RealHost:
    """The machine this process runs on."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def block_device_size(self, path: str) -> int | None:
        try:
            # Looked at before it is opened: opening a pipe or a tape drive would have effects.
            if not stat.S_ISBLK(os.stat(path).st_mode):  # noqa: PTH116 - beside os.open, one idea of a path
                return None
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Unavailable(f"{path} cannot be opened: {error.strerror}; the agent must run as root") from error
            return None
        try:
            if not stat.S_ISBLK(os.fstat(device).st_mode):
                return None
            (size,) = struct.unpack("Q", fcntl.ioctl(device, BLKGETSIZE64, bytes(8)))
        except OSError:
            return None
        finally:
            os.close(device)
        return int(size) or None

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        operation: str | None = None,
        output: Output | None = None,
    ) -> CommandResult:
        """Its whole process group is killed when the time is over; what it prints is kept up to a limit."""
        source = _memory_file("stdin", stdin)
        mark = () if operation is None else (_memory_file(_mark_of(operation), b""),)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=mark,
                start_new_session=True,
                env=os.environ | {"LC_ALL": "C"},
            )
        except (OSError, ValueError) as error:
            raise Unavailable(f"{argv[0]} cannot be started on this host: {error}; is it installed?") from error
        finally:
            for file in (source, *mark):
                os.close(file)
        try:
            return self._finish(tuple(argv), process, timeout, output)
        finally:
            if process.returncode is None:
                _kill_group(process)

    def end_programs(self, operation: str, *, timeout: float) -> None:
        deadline = self._runtime.monotonic() + timeout
        while pids := self._kill_programs(operation):
            if self._runtime.monotonic() >= deadline:
                raise Unknown(
                    f"processes {', '.join(map(str, pids))} of operation {operation} were killed but are still there "
                    f"after {timeout:g} s; do they hang in I/O?"
                )
            self._runtime.sleep(POLL_SECONDS)

    def _kill_programs(self, operation: str) -> list[int]:
        try:
            return _kill_holders(f"/memfd:{_mark_of(operation)} (deleted)")
        except OSError as error:
            raise Unavailable(
                f"whether a program of operation {operation} still runs cannot be seen: {error.strerror}"
            ) from error

    def read_text(self, path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                data = file.read(TEXT_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{path} does not exist") from error
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > TEXT_LIMIT:
            raise InvalidParameter(f"{path} is larger than {TEXT_LIMIT} bytes")
        return data.decode(errors="replace")

    def write_durably(self, path: str, text: str) -> None:
        target = Path(path)
        fresh = target.with_name(f"{target.name}.new")
        try:
            _make_directory(target.parent)
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as writer:
                writer.write(text)
                writer.flush()
                os.fsync(file)
            fresh.replace(target)
            _sync_directory(target.parent)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise Unavailable(f"{path} cannot be written: {error.strerror}; is the disk full or read-only?") from error

    def remove(self, path: str) -> None:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            # A read-only file system refuses before it looks.
            if error.errno == errno.EROFS and not os.path.lexists(path):
                return
            raise Unavailable(f"{path} cannot be removed: {error.strerror}") from error

    def list_directory(self, path: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - names are wanted, not paths
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise Unavailable(f"{path} cannot be listed: {error.strerror}") from error

    def _finish(
        self, argv: tuple[str, ...], process: subprocess.Popen[bytes], timeout: float, tell: Output | None
    ) -> CommandResult:
        deadline = self._runtime.monotonic() + timeout
        with _Outputs(process, tell) as output:
            while True:
                output.read(min(POLL_SECONDS, timeout))
                # Asked after reading: what it wrote before it ended is in the pipes by then.
                if _ended(process):
                    output.drain()
                    _kill_group(process)
                    return CommandResult(argv, process.returncode, output.kept("stdout"), output.kept("stderr"))
                if self._runtime.monotonic() >= deadline:
                    _kill_group(process)
                    raise Unknown(f"{argv[0]} did not end within {timeout:g} s and was killed")


def check_kernel() -> None:
    """Raises `Unavailable` when processes cannot be named safely here, so that programs could not be ended."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise Unavailable(f"pidfd_open fails: {error.strerror}; the agent needs Linux 5.3 or newer") from error


def hold_directory(path: str) -> None:
    """Make it this process's alone for as long as it lives; raises `Conflict` when it is another one's.

    Without a directory, on a disk that is read-only, there is nothing to hold: that is logged.
    """
    try:
        _make_directory(Path(path))
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        _log.error("%s cannot be made this agent's alone: %s", path, error.strerror)
        return
    try:
        # Never closed again: the kernel lets go of it when the process has ended, however that happens.
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(directory)
        if error.errno == errno.EWOULDBLOCK:
            raise Conflict(f"{path} is in use by another agent that runs on this host; stop that one first") from error
        _log.error("%s cannot be made this agent's alone: %s", path, error.strerror)


class _Outputs:
    """Both outputs of a program, read without blocking."""

    def __init__(self, process: subprocess.Popen[bytes], tell: Output | None) -> None:
        self._tell = tell
        self._selector = selectors.DefaultSelector()
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._pipes = {"stdout": process.stdout, "stderr": process.stderr}
        for name, pipe in self._pipes.items():
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, name)

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for pipe in self._pipes.values():
            if pipe is not None:
                pipe.close()

    def kept(self, name: str) -> bytes:
        return bytes(self._kept[name])

    def read(self, wait: float) -> bool:
        """Take what is there, waiting up to `wait` seconds; whether anything came."""
        if not self._selector.get_map():
            # Both closed by a program that goes on: nothing to select, but its end is still to be waited for.
            select.select([], [], [], wait)
            return False
        came = False
        for key, _ in self._selector.select(wait):
            came = True
            try:
                data = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if not data:
                self._selector.unregister(key.fileobj)
                continue
            kept = self._kept[key.data]
            kept += data[: OUTPUT_LIMIT - len(kept)]
            if self._tell is not None and key.data == "stdout":
                self._tell(data)
        return came

    def drain(self) -> None:
        """Take what is left in the pipes, without waiting for a child that inherited them and lives on."""
        for _ in range(2 * OUTPUT_LIMIT // 65536):
            if not self.read(0):
                return


def _make_directory(directory: Path) -> None:
    """Make it durably, with those above it."""
    if not directory.is_dir():
        _make_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mark_of(operation: str) -> str:
    return f"splab-agent:{operation}"


def _kill_holders(link: str) -> list[int]:
    """Kill every other process that has a file open which /proc shows as `link`; their numbers."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are wanted, not paths
        if not name.isdigit() or int(name) == os.getpid():
            continue
        pid = int(name)
        try:
            if _kill_holder(pid, link):
                found.append(pid)
        except OSError:
            # Not to see into a process is not to know that it holds nothing.
            if not _has_ended(pid):
                raise
    return found


def _kill_holder(pid: int, link: str) -> bool:
    # Opened before the look: were the number used again, the signal would still go to what was looked at.
    process = os.pidfd_open(pid)
    try:
        holds = _holds(pid, link)
        if holds:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        return holds
    finally:
        os.close(process)


def _holds(pid: int, link: str) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        return any(_link(f"{directory}/{name}") == link for name in os.listdir(directory))  # noqa: PTH208
    except PermissionError:
        user, capabilities = _credentials(pid)
        own_user, own_capabilities = _credentials(os.getpid())
        if user == own_user and not capabilities & ~own_capabilities:
            raise
        # Another user's, or one that may do more than this process: no agent started that.
        return False


def _credentials(pid: int) -> tuple[str, int]:
    """User ids and permitted capabilities, as the kernel shows them to everybody."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    shown = dict(line.split(":\t", 1) for line in lines if line.startswith(("Uid:", "CapPrm:")))
    return shown["Uid"], int(shown["CapPrm"], 16)


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - many thousands of them
    except FileNotFoundError:
        return ""


def _has_ended(pid: int) -> bool:
    """Whether there is no such process, or only what its parent has not yet asked for: that has no files."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in (b"Z", b"X")


def _memory_file(name: str, data: bytes) -> int:
    """A file that only this process and the program know: input may be a secret, and never blocks."""
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(file, data)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped, so that its process group's number stays its own."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the program and every child that stayed in its session's group, and reap it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    try:
        process.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unknown(f"process {process.pid} was killed but hangs in the kernel, in I/O that does not end") from error
