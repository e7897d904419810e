"""The guest's kernel: from a distribution package that is unpacked, never installed: this machine boots as before."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import apt
from lab.errors import LabError, MissingPrerequisite
from lab.shell import Progress, run, silent

METAPACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")
"""Debian's, then Ubuntu's name of the newest kernel for virtual machines."""

MODULES = (
    "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk",
    "failover", "net_failover", "virtio_net", "rng_core", "virtio-rng", "button", "evdev",
)  # fmt: skip
"""What a guest needs for virtio disks, network and power button; dependencies are added, built-in ones skipped."""
OTHER_DISKS = (
    "scsi_common", "scsi_mod", "sd_mod", "virtio_scsi", "cdrom", "sr_mod", "isofs", "libata", "ata_piix",
)  # fmt: skip
"""What it needs beside them when its root is on none of those."""

ENTROPY_OPTIONAL = frozenset({"rng_core", "virtio-rng"})


@dataclass(frozen=True, slots=True)
class Kernel:
    version: str
    vmlinuz: Path
    modules: tuple[Path, ...]
    """Module files, in the order in which they can be loaded."""
    other_disk_modules: tuple[Path, ...]
    """The same, of those to be loaded after them."""
    small: bool = False
    """It has one CPU, and all that a guest needs to mount its root built in (lab/small_kernel.py)."""


@contextmanager
def exclusive(cache: Path) -> Iterator[None]:
    """While inside, nobody else makes or removes an image or a kernel of this cache; waits for whoever does."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def packages(cache: Path, progress: Progress = silent) -> tuple[Path, ...]:
    """The kernel's .deb files, downloaded once into `cache`. Raises `MissingPrerequisite` when apt has none."""
    directory = cache / "kernel"
    found = tuple(sorted(directory.glob("linux-*.deb")))
    if found:
        return found
    if shutil.which("apt-get") is None:
        raise MissingPrerequisite("the guest's kernel comes from a Debian or Ubuntu package, and apt-get is not here")
    progress("downloading a kernel for guests")
    partial = cache / f"kernel.partial.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    apt.download(_package_names, METAPACKAGES, partial)
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    return tuple(sorted(directory.glob("linux-*.deb")))


def _package_names() -> list[str]:
    for metapackage in METAPACKAGES:
        for image in apt.depends(metapackage, "linux-image-"):
            return [image, *apt.depends(image, "linux-modules-")]
    return []


def unpack(debs: Iterable[Path], directory: Path) -> Kernel:
    """Unpack the packages below `directory` and find the kernel and the modules there."""
    for deb in debs:
        run(["dpkg-deb", "-x", deb, directory])
    images = sorted(directory.glob("boot/vmlinuz-*"))
    if not images:
        raise LabError(f"no kernel in the packages unpacked to {directory}; remove the cache's kernel folder")
    version = images[-1].name.removeprefix("vmlinuz-")
    tree = next(
        (
            path
            for path in (directory / "lib/modules" / version, directory / "usr/lib/modules" / version)
            if path.is_dir()
        ),
        None,
    )
    if tree is None:
        raise LabError(f"kernel {version} has no modules in {directory}")
    order = _load_order(tree, MODULES)
    others = [module for module in _load_order(tree, OTHER_DISKS) if module not in order]
    return Kernel(version, images[-1], tuple(order), tuple(others))


def _load_order(tree: Path, names: Iterable[str]) -> list[Path]:
    files = {_plain(path): path for path in tree.rglob("*.ko*")}
    built_in = {_plain(Path(line)) for line in (tree / "modules.builtin").read_text().splitlines()}
    order: list[str] = []
    for name in names:
        wanted = name.replace("-", "_")
        if wanted in files:
            _add(wanted, files, order)
        elif wanted not in built_in and name not in ENTROPY_OPTIONAL:
            raise LabError(f"the kernel in {tree} has no module {name}, neither built in nor as a file")
    return [files[name] for name in order]


def _add(name: str, files: dict[str, Path], order: list[str]) -> None:
    if name in order or name not in files:
        return
    path = files[name]
    if path.suffix == ".ko":
        text = run(["modinfo", "-F", "depends", path]).text
    else:
        text = run(["modinfo", "-F", "depends", _plain_file(path)]).text
    for dependency in text.split(","):
        if dependency:
            _add(dependency.replace("-", "_"), files, order)
    order.append(name)
    files[name] = _plain_file(path)


def _plain(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _plain_file(path: Path) -> Path:
    """The module uncompressed: the guest's insmod knows no compression."""
    if path.suffix == ".ko":
        return path
    plain = path.with_suffix("")
    if not plain.exists():
        program = {".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[path.suffix]
        plain.write_bytes(run([program, "-d", "-c", path]).stdout)
    return plain


def digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
