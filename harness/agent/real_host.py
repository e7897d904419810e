"""`harness.spi.ports.Host` on Linux: block devices, programs without a shell, small files."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import selectors
import signal
import stat
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.spi.errors import InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.ports import CommandResult
from harness.spi.runtime import Runtime

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

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> CommandResult:
        """Its whole process group is killed when the time is over; what it prints is kept up to a limit."""
        source = _memory_file(stdin)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=os.environ | {"LC_ALL": "C"},
            )
        except (OSError, ValueError) as error:
            raise Unavailable(f"{argv[0]} cannot be started on this host: {error}; is it installed?") from error
        finally:
            os.close(source)
        try:
            return self._finish(tuple(argv), process, timeout)
        finally:
            if process.returncode is None:
                _kill_group(process)

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

    def _finish(self, argv: tuple[str, ...], process: subprocess.Popen[bytes], timeout: float) -> CommandResult:
        deadline = self._runtime.monotonic() + timeout
        with _Output(process) as output:
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


class _Output:
    """Both outputs of a program, read without blocking."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._selector = selectors.DefaultSelector()
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._pipes = {"stdout": process.stdout, "stderr": process.stderr}
        for name, pipe in self._pipes.items():
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, name)

    def __enter__(self) -> _Output:
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
        return came

    def drain(self) -> None:
        """Take what is left in the pipes, without waiting for a child that inherited them and lives on."""
        for _ in range(2 * OUTPUT_LIMIT // 65536):
            if not self.read(0):
                return


def _memory_file(data: bytes) -> int:
    """A file that only this process and the program know: input may be a secret, and never blocks."""
    file = os.memfd_create("stdin", os.MFD_CLOEXEC)
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
