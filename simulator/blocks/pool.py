"""The pool: one sparse file with a file system of its own, mounted for the simulator alone.

STATE/pool.json     what the pool is; written last, so that without it nothing else counts
STATE/pool.img      the file system's image
STATE/pool/         the objects where the kind is `plain`, which has no file system of its own

The mount is attached to no directory: it lives as long as this process or a device over one of its files does. So
hosts' mount namespaces cannot inherit it and keep it alive, and a killed simulator leaves no mount to be found and
removed. The image's own loop device goes with the mount.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
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
_OPTIONS = {"btrfs": (b"nodatacow",), "xfs": ()}

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_NOSUID, _NODEV, _NOEXEC, _NOATIME = 2, 4, 8, 16


@dataclass(frozen=True, slots=True)
class Description:
    kind: str
    id: str
    """12 hexadecimal digits; begins the tag of every loop device of this pool."""
    size: int
    """Bytes of the image."""


class Pool:
    """A pool that can be used until `close`."""

    def __init__(self, state: Path, description: Description) -> None:
        self.description = description
        self._mount = None if description.kind == "plain" else _mount(state, description)
        self.root = plain_directory(state) if self._mount is None else Path(f"/proc/self/fd/{self._mount}")
        self.store: Store = store(description.kind, self.root)

    def close(self) -> None:
        """Let go of the mount; devices over its files keep the file system."""
        if self._mount is not None:
            os.close(self._mount)
            self._mount = None

    def devices(self, key: int | None = None) -> list[loop.Status]:
        """Devices of one object, or of all."""
        return devices(self.description.id, key)

    def capacity(self) -> tuple[int, int]:
        """(all, free) bytes."""
        disk = os.statvfs(self.root)
        free = disk.f_bavail * disk.f_frsize
        if self.description.kind != "plain":
            return disk.f_blocks * disk.f_frsize, free
        with os.scandir(self.root) as entries:
            used = sum(entry.stat().st_blocks * 512 for entry in entries)
        return self.description.size, max(0, min(free, self.description.size - used))


def plain_directory(state: Path) -> Path:
    return state / "pool"


def image(state: Path) -> Path:
    return state / "pool.img"


def unfinished(state: Path) -> list[Path]:
    """What a start leaves that was killed before the pool was described."""
    return [image(state), state / "pool.json.new", *state.glob("pool-*.img")]


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
    return Pool(state, description)


def _make(state: Path, kind: str | None, size: int | None) -> Pool:
    _forget_unfinished(state)
    chosen = size or _default_size(state)
    if chosen < SMALLEST:
        raise BlocksError(f"a pool of {chosen} bytes in {state} is too small; it needs {SMALLEST >> 20}M (--pool-size)")
    why = []
    for candidate in KINDS if kind is None else (kind,):
        description = Description(kind=candidate, id=os.urandom(6).hex(), size=chosen)
        try:
            _format(state, description)
            made = Pool(state, description)
        except BlocksError as error:
            why.append(str(error))
            _forget_unfinished(state)
            continue
        _write_description(state, description)
        return made
    raise BlocksError(f"no pool can be made in {state}: " + "; ".join(why))


def _default_size(state: Path) -> int:
    disk = os.statvfs(state)
    return min(DEFAULT_SIZE, disk.f_bavail * disk.f_frsize * 4 // 5 // (1 << 20) * (1 << 20))


def _forget_unfinished(state: Path) -> None:
    for path in unfinished(state):
        path.unlink(missing_ok=True)


def _format(state: Path, description: Description) -> None:
    if description.kind == "plain":
        plain_directory(state).mkdir(mode=0o700, exist_ok=True)
        return
    make = program(f"mkfs.{description.kind}")
    if make is None:
        package = {"btrfs": "btrfs-progs", "xfs": "xfsprogs"}[description.kind]
        raise BlocksError(f"mkfs.{description.kind} is missing (apt install {package})")
    # A killed start may leave its mkfs running, so each writes to a file of its own until the file is whole.
    path = state / f"pool-{description.id}.img"
    with explained(f"making {path} of {description.size} bytes"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, description.size)
        finally:
            os.close(descriptor)
    # Mixed: a pool that was full could for a minute create nothing, as its empty chunks stayed those of data.
    options = {"btrfs": ["--mixed", "-m", "single", "-d", "single"], "xfs": ["-m", "reflink=1"]}[description.kind]
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
    path.rename(image(state))


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


def devices(pool_id: str, key: int | None = None) -> list[loop.Status]:
    """Devices of one object, or of all, of this pool."""
    # The path of a file on a mount without a place begins at the mount's root.
    file = re.compile(rf"(/.*/pool)?/{'[0-9]+' if key is None else key}([./].*)?")
    tag = f"splab:{pool_id}:" if key is None else f"splab:{pool_id}:{key}:"
    found = loop.find(tag, lambda path: file.fullmatch(str(path)) is not None)
    return [status for status in found if not status.tag.endswith(":pool")]


def image_devices(state: Path) -> list[loop.Status]:
    """The device of the image; none when the file system is not in use."""
    return loop.find("splab:", lambda path: path == image(state))


def _mount(state: Path, description: Description) -> int:
    """A descriptor of the root directory of the mounted file system."""
    with explained(f"mounting {image(state)}"), _image_device(state, description) as device:
        context = _syscall(_FSOPEN, description.kind.encode(), _CLOEXEC)
        try:
            _syscall(_FSCONFIG, context, _SET_STRING, b"source", device.encode(), 0)
            for flag in _OPTIONS[description.kind]:
                _syscall(_FSCONFIG, context, _SET_FLAG, flag, None, 0)
            _syscall(_FSCONFIG, context, _CREATE, None, None, 0)
            return _syscall(_FSMOUNT, context, _CLOEXEC, _NOSUID | _NODEV | _NOEXEC | _NOATIME)
        finally:
            os.close(context)


@contextmanager
def _image_device(state: Path, description: Description) -> Iterator[str]:
    """The image's device, held open. A second device over one image would ruin the file system, so one that devices of
    volumes, or a killed simulator's last breath, keep alive is taken again."""
    for status in image_devices(state):
        descriptor = os.open(status.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Now that it is open it cannot go; before, it could.
            if status in image_devices(state):
                yield status.path
                return
        finally:
            os.close(descriptor)
    with loop.configured(image(state), tag(description), read_only=False, leaving=True) as status:
        yield status.path


_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """The C library has had wrappers of these calls since 2022 only; their numbers are the same on every machine."""
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
