"""The guest image: boots from its own disk, gets its address over DHCP, lets the lab's key in over SSH.

MBR; a FAT partition with syslinux, the kernel and, unless that is small, an initrd; an ext4 root. Written file by file
into a sparse raw file, so neither a mount nor a loop device is needed. Kept in the cache under a hash of all that goes
into it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab import kernel, small_kernel
from lab.errors import MissingPrerequisite
from lab.guesttree import command_line, write_initrd, write_root
from lab.idle import write_idle
from lab.iso import ISOLINUX, LDLINUX, write_iso
from lab.kernel import Kernel
from lab.shell import Progress, run, silent

MIB = 1 << 20
VIRTUAL_SIZE = 128 * MIB
BOOT_START, BOOT_SIZE = 1 * MIB, 32 * MIB
ROOT_START = BOOT_START + BOOT_SIZE
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
READY = "splab guest ready"
"""The line that a guest writes to its first serial port when its SSH server runs, or when it is idle."""
TOOLS = (
    "sfdisk",
    "mformat",
    "mcopy",
    "syslinux",
    "mke2fs",
    "cpio",
    "qemu-img",
    "dropbear",
    "dropbearkey",
    "ssh-keygen",
    "dpkg-deb",
    "modinfo",
    "xorriso",
)


class Facts(msgspec.Struct, frozen=True):
    """What is kept beside an image."""

    virtual_size: int
    sha256: str
    """Of the raw bytes."""
    idle_sha256: str
    """Of those of the idle image."""
    kernel: str


@dataclass(frozen=True, slots=True)
class Image:
    qcow2: Path
    virtual_size: int
    sha256: str
    """Of the disk's bytes, that is of the image converted to raw."""
    key_file: Path
    """Private key of the guests' root."""
    known_hosts_file: Path
    """The host key that every guest of this image shows, under any address."""
    iso: Path
    """The same system, which boots from a CD and runs in memory."""
    idle: Path
    """qcow2 of the same virtual size, with no system (lab/idle.py)."""
    idle_sha256: str
    """Of its disk's bytes."""


def cache_directory() -> Path:
    """Where images, kernels and probe results are kept between labs: SPLAB_CACHE, else /var/cache/splab for root."""
    given = os.environ.get("SPLAB_CACHE")
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/splab")
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "splab"


def build(cache: Path | None = None, progress: Progress = silent, *, small: bool = True) -> Image:
    """The image from the cache, built first when something it is made of has changed. Takes about 5 s then.

    With `small` it has the small kernel, where one was built (lab/small_kernel.py), else the distribution's.
    """
    cache = cache or cache_directory()
    missing = [
        tool for tool in TOOLS if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None
    ]
    missing += [str(path) for path in (MBR, ISOLINUX, LDLINUX) if not path.exists()]
    if missing:
        raise MissingPrerequisite(
            f"cannot build the guest image without {', '.join(missing)}; run `make setup` as root"
        )
    with kernel.exclusive(cache):
        return _build(cache, progress, small_kernel.built(cache) if small else None)


def _build(cache: Path, progress: Progress, small: Kernel | None) -> Image:
    keys = _keys(cache)
    sources = kernel.packages(cache, progress) if small is None else (small.vmlinuz,)
    directory = cache / "images" / _content_hash(sources, keys)
    if not (directory / "facts.json").exists():
        progress("building the guest image")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="image.") as work:
            _assemble(Path(work), directory, small or kernel.unpack(sources, Path(work, "kernel")), keys)
    facts = msgspec.json.decode((directory / "facts.json").read_bytes(), type=Facts)
    return Image(
        directory / "guest.qcow2",
        facts.virtual_size,
        facts.sha256,
        keys / "guest",
        keys / "guest_known_hosts",
        directory / "guest.iso",
        directory / "idle.qcow2",
        facts.idle_sha256,
    )


def _keys(cache: Path) -> Path:
    """Login key and host key of the guests; they live as long as the images that carry them."""
    keys = cache / "keys"
    if not (keys / "guest_known_hosts").exists():
        shutil.rmtree(keys, ignore_errors=True)
        keys.mkdir(mode=0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "splab guest", "-f", keys / "guest"])
        made = run(["dropbearkey", "-t", "ed25519", "-f", keys / "guest_host"]).text
        public = next(line for line in made.splitlines() if line.startswith("ssh-"))
        (keys / "guest_known_hosts").write_text("* " + " ".join(public.split()[:2]) + "\n")
    return keys


def _content_hash(kernel_files: tuple[Path, ...], keys: Path) -> str:
    total = hashlib.sha256(kernel.digest(kernel_files).encode())
    here = Path(__file__).parent
    sources = [here / name for name in ("image.py", "idle.py", "iso.py", "guesttree.py", "kernel.py")]
    sources += [keys / "guest.pub", keys / "guest_host", ISOLINUX, LDLINUX]
    for path in [*sources, Path("/bin/busybox"), Path("/usr/sbin/dropbear"), MBR]:
        total.update(path.read_bytes())
    return total.hexdigest()[:32]


def _assemble(work: Path, directory: Path, guest_kernel: Kernel, keys: Path) -> None:
    uuid = _uuid(directory.name)
    write_root(work / "root.tree", keys / "guest.pub", keys / "guest_host", READY)
    raw = work / "guest.raw"
    with raw.open("wb") as file:
        file.truncate(VIRTUAL_SIZE)
    _partition(raw, uuid)
    _boot_partition(raw, work, guest_kernel, uuid)
    size_kib = (VIRTUAL_SIZE - ROOT_START) // 1024
    options = ["-t", "ext4", "-U", uuid, "-L", "splab", "-E", f"offset={ROOT_START},root_owner=0:0"]
    run(["mke2fs", "-q", *options, "-d", work / "root.tree", raw, f"{size_kib}k"])
    idle = work / "idle.raw"
    write_idle(idle, VIRTUAL_SIZE, READY)
    for source, name in ((raw, "guest.qcow2"), (idle, "idle.qcow2")):
        run(["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", source, directory / name])
    (work / "iso.work").mkdir()
    write_iso(directory / "guest.iso", guest_kernel, work / "root.tree", work / "iso.work")
    facts = msgspec.json.encode(Facts(VIRTUAL_SIZE, _sha256(raw), _sha256(idle), guest_kernel.version))
    partial = directory / "facts.partial"
    partial.write_bytes(facts)
    partial.rename(directory / "facts.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uuid(text: str) -> str:
    digits = hashlib.sha256(text.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def _partition(raw: Path, uuid: str) -> None:
    boot = f"start={BOOT_START // 512}, size={BOOT_SIZE // 512}, type=c, bootable"
    root = f"start={ROOT_START // 512}, type=83"
    run(["sfdisk", "-q", raw], stdin=f"label: dos\nlabel-id: 0x{uuid[:8]}\n{boot}\n{root}\n".encode())
    code = MBR.read_bytes()
    with raw.open("r+b") as file:
        file.write(code[:440])


def _boot_partition(raw: Path, work: Path, guest_kernel: Kernel, uuid: str) -> None:
    files = {"vmlinuz": guest_kernel.vmlinuz, "syslinux.cfg": work / "syslinux.cfg"}
    if guest_kernel.small:
        # Reading and unpacking an initrd takes a fifth of this kernel's start.
        options = f"root=PARTUUID={uuid[:8]}-02 rw {command_line(guest_kernel)}"
    else:
        files["initrd"] = work / "initrd"
        write_initrd(files["initrd"], guest_kernel, uuid, work / "initrd.tree")
        options = f"initrd=/initrd {command_line(guest_kernel)}"
    files["syslinux.cfg"].write_text(
        f"DEFAULT linux\nPROMPT 0\nTIMEOUT 0\nLABEL linux\n  KERNEL /vmlinuz\n  APPEND {options}\n"
    )
    at = f"{raw}@@{BOOT_START}"
    run(["mformat", "-i", at, "-T", str(BOOT_SIZE // 512), "-h", "64", "-s", "32", "-H", str(BOOT_START // 512), "::"])
    for name, source in files.items():
        run(["mcopy", "-i", at, source, f"::{name}"])
    run(["syslinux", "--offset", str(BOOT_START), "--install", raw])
