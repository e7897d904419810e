"""The pool: one sparse file with a file system of its own, mounted for the simulator alone below its state directory.

STATE/pool.json     what the pool is; written last, so that without it nothing else counts
STATE/pool.img      the file system's image
STATE/pool/         where it is mounted (kind `plain`: an ordinary directory)

The image's own loop device goes with the mount. A crash leaves the mount, which the next start takes over.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from simulator.blocks import loop
from simulator.blocks.stores import Store, explained, program, store, sync_path
from simulator.ports import BlocksError

KINDS = ("btrfs", "xfs", "plain")
DEFAULT_SIZE = 64 << 30
SMALLEST = 512 << 20
"""xfs refuses less than 300 MiB; below this no kind has room for its own tables and some volumes."""
_FORMAT_SECONDS = 120
_MOUNT_DATA = {"btrfs": b"nodatacow", "xfs": b""}
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME = 2, 4, 8, 1024


@dataclass(frozen=True, slots=True)
class Description:
    kind: str
    id: str
    """12 hexadecimal digits; begins the tag of every loop device of this pool."""
    size: int
    """Bytes of the image."""


class Pool:
    """A pool that is mounted."""

    def __init__(self, state: Path, description: Description) -> None:
        self.root = mount_point(state)
        self.description = description
        self.store: Store = store(description.kind, self.root)

    def capacity(self) -> tuple[int, int]:
        """(all, free) bytes."""
        disk = os.statvfs(self.root)
        free = disk.f_bavail * disk.f_frsize
        if self.description.kind != "plain":
            return disk.f_blocks * disk.f_frsize, free
        with os.scandir(self.root) as entries:
            used = sum(entry.stat().st_blocks * 512 for entry in entries)
        return self.description.size, max(0, min(free, self.description.size - used))


def mount_point(state: Path) -> Path:
    return state / "pool"


def image(state: Path) -> Path:
    return state / "pool.img"


def describe(state: Path) -> Description | None:
    """The pool of this state directory; None when none was finished."""
    path = state / "pool.json"
    try:
        fields = json.loads(path.read_text())
        return Description(kind=str(fields["kind"]), id=str(fields["id"]), size=int(fields["size"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BlocksError(
            f"{path} is damaged ({error}); restore it, or remove this simulator with --destroy"
        ) from error


def open_pool(state: Path, *, kind: str | None, size: int | None) -> Pool:
    """Mount the pool of `state`, made now if there is none.

    A pool that exists keeps its kind and size. Without `kind` the first of btrfs, xfs and plain that works is taken.
    Without `size` it is `DEFAULT_SIZE`, or less where the disk has less.
    """
    description = describe(state)
    if description is None:
        return _make(state, kind, size)
    if kind is not None and kind != description.kind:
        raise BlocksError(f"{state} holds a {description.kind} pool, not {kind}; remove it with --destroy first")
    _mount(state, description)
    return Pool(state, description)


def _make(state: Path, kind: str | None, size: int | None) -> Pool:
    _forget_unfinished(state)
    chosen = size or _default_size(state)
    if chosen < SMALLEST:
        raise BlocksError(f"a pool of {chosen} bytes in {state} is too small; it needs {SMALLEST}")
    why = []
    for candidate in KINDS if kind is None else (kind,):
        description = Description(kind=candidate, id=os.urandom(6).hex(), size=chosen)
        try:
            _format(state, description)
            _mount(state, description)
        except BlocksError as error:
            why.append(str(error))
            _forget_unfinished(state)
            continue
        _write_description(state, description)
        return Pool(state, description)
    raise BlocksError(f"no pool can be made in {state}: " + "; ".join(why))


def _default_size(state: Path) -> int:
    disk = os.statvfs(state)
    return min(DEFAULT_SIZE, disk.f_bavail * disk.f_frsize * 4 // 5 // (1 << 20) * (1 << 20))


def _forget_unfinished(state: Path) -> None:
    unmount(state)
    image(state).unlink(missing_ok=True)


def _format(state: Path, description: Description) -> None:
    mount_point(state).mkdir(mode=0o700, exist_ok=True)
    if description.kind == "plain":
        return
    make = program(f"mkfs.{description.kind}")
    if make is None:
        package = {"btrfs": "btrfs-progs", "xfs": "xfsprogs"}[description.kind]
        raise BlocksError(f"mkfs.{description.kind} is missing (apt install {package})")
    path = image(state)
    with explained(f"making {path} of {description.size} bytes"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, description.size)
        finally:
            os.close(descriptor)
    options = {"btrfs": ["-m", "single", "-d", "single"], "xfs": ["-m", "reflink=1"]}[description.kind]
    try:
        subprocess.run(
            [make, *options, str(path)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_FORMAT_SECONDS,
            env=_ENVIRONMENT,
        )
    except subprocess.CalledProcessError as error:
        raise BlocksError(f"{make} on {path}: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise BlocksError(f"{make} on {path} did not end in {_FORMAT_SECONDS} s") from error


_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def _write_description(state: Path, description: Description) -> None:
    new = state / "pool.json.new"
    new.write_text(json.dumps(asdict(description)) + "\n")
    sync_path(new)
    new.rename(state / "pool.json")
    sync_path(state)


def tag(description: Description) -> str:
    """Tag of the image's own loop device."""
    return f"splab:{description.id}:pool"


def mounted(point: Path) -> bool:
    """Whether something is mounted exactly there, in this mount namespace."""
    wanted = str(point)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Spaces and the like come as octal escapes of their bytes.
        if line.split(" ")[4].encode().decode("unicode_escape").encode("latin-1").decode() == wanted:
            return True
    return False


def _mount(state: Path, description: Description) -> None:
    if description.kind == "plain" or mounted(mount_point(state)):
        return
    mount_point(state).mkdir(mode=0o700, exist_ok=True)
    with _image_device(state, description) as device:
        arguments = (device.encode(), str(mount_point(state)).encode(), description.kind.encode())
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME
        _call(f"mounting {image(state)}", _libc.mount, *arguments, flags, _MOUNT_DATA[description.kind])


@contextmanager
def _image_device(state: Path, description: Description) -> Iterator[str]:
    """The image's device, held open. A second device over one image would ruin the file system, so one that another
    mount namespace keeps alive is taken again."""
    for status in loop.find(image(state), tag(description)):
        descriptor = os.open(status.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Now that it is open it cannot go; before, it could.
            if status in loop.find(image(state), tag(description)):
                yield status.path
                return
        finally:
            os.close(descriptor)
    with loop.configured(image(state), tag(description), read_only=False, leaving=True) as status:
        yield status.path


def unmount(state: Path) -> bool:
    """Unmount the pool; False when something still uses it."""
    if not mounted(mount_point(state)):
        return True
    try:
        _call(f"unmounting {mount_point(state)}", _libc.umount2, str(mount_point(state)).encode(), 0)
    except BlocksError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EBUSY:
            return False
        raise
    return True


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def _call(what: str, function: ctypes._NamedFuncPointer, *arguments: bytes | int) -> None:
    with explained(what):
        if function(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
