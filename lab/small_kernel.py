"""A kernel for guests with nothing that they do not need, built from the distribution's source when it is asked for.

Without KVM most of what a guest costs is its kernel's start: this one takes a quarter (`splab bench boot`). The
build takes some minutes, so it pays for who runs the whole local world again and again. It is kept in the cache; once
it is there, guest images are made with it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from lab import apt
from lab.errors import LabError, MissingPrerequisite
from lab.kernel import Kernel, exclusive
from lab.shell import Progress, run, silent

METAPACKAGE = "linux-source"
"""Debian's and Ubuntu's name of the package that depends on the newest source."""
CONFIG = Path(__file__).with_name("guest-kernel.config")
TOOLS = ("gcc", "make", "flex", "bison", "bc", "tar", "xz", "bzip2", "lz4", "apt-get", "dpkg-deb")
LIBELF = Path("/usr/include/libelf.h")
FREE_BYTES = 4 << 30
BUILD_SECONDS = 3600.0


def built(cache: Path) -> Kernel | None:
    """The small kernel of this cache; None when there is none of today's configuration."""
    directory = _directory(cache)
    version = directory / "version"
    return Kernel(version.read_text(), directory / "vmlinuz", (), (), small=True) if version.exists() else None


def build(cache: Path, progress: Progress = silent) -> Kernel:
    """Build it, if it is not there. Some minutes, 4 GiB of disk meanwhile and 140 MB of downloads.

    Raises `MissingPrerequisite` for what this machine has not, `LabError` when it cannot be built.
    """
    found = built(cache)
    if found is not None:
        return found
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    missing += [] if LIBELF.exists() else [str(LIBELF)]
    if missing:
        raise MissingPrerequisite(f"a kernel cannot be built without {', '.join(missing)}; run `make setup` as root")
    cache.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache).free < FREE_BYTES:
        raise MissingPrerequisite(f"{cache} has less than {FREE_BYTES >> 30} GiB free, which building a kernel takes")
    with tempfile.TemporaryDirectory(dir=cache, prefix="kernel-source.") as work:
        tree = _source(Path(work), progress)
        progress("configuring a small kernel")
        _configure(tree)
        progress("building a small kernel, some minutes")
        name = "LOCALVERSION=-splab"
        run(["make", "-s", f"-j{os.cpu_count() or 1}", name, "bzImage"], cwd=tree, timeout=BUILD_SECONDS)
        version = run(["make", "-s", name, "kernelrelease"], cwd=tree).text
        partial = Path(work, "made")
        partial.mkdir()
        shutil.copyfile(tree / "arch/x86/boot/bzImage", partial / "vmlinuz")
        (partial / "version").write_text(version)
        with exclusive(cache):
            _forget(cache)
            partial.rename(_directory(cache))
    made = built(cache)
    assert made is not None
    return made


def remove(cache: Path) -> bool:
    """Whether there was one; guest images are made with the distribution's kernel again."""
    if not cache.is_dir():
        return False
    with exclusive(cache):
        return _forget(cache)


def _forget(cache: Path) -> bool:
    """Also those of earlier configurations."""
    found = list(cache.glob("small-kernel.*"))
    for directory in found:
        shutil.rmtree(directory)
    return bool(found)


def _directory(cache: Path) -> Path:
    return cache / f"small-kernel.{hashlib.sha256(CONFIG.read_bytes()).hexdigest()[:16]}"


def _source(work: Path, progress: Progress) -> Path:
    """The unpacked source tree."""
    progress("downloading the source of the newest kernel")
    (package,) = apt.download(lambda: apt.depends(METAPACKAGE, "linux-source-")[:1], [METAPACKAGE], work)
    run(["dpkg-deb", "-x", package, work / "package"], timeout=300)
    archives = sorted(path for path in work.glob("package/usr/src/**/linux-source-*.tar.*") if path.is_file())
    if not archives:
        raise LabError(f"package {package.name} has no source archive")
    progress("unpacking its source")
    run(["tar", "-xf", archives[0]], cwd=work, timeout=600)
    return next(path for path in work.glob("linux-source-*") if path.is_dir())


def _configure(tree: Path) -> None:
    """Raises `LabError` when an asked-for option is not there, or a left-out one is."""
    run(["make", "-s", "tinyconfig"], cwd=tree, timeout=300)
    with (tree / ".config").open("a") as config:
        config.write(CONFIG.read_text())
    run(["make", "-s", "olddefconfig"], cwd=tree, timeout=300)
    lines = set((tree / ".config").read_text().splitlines())
    wrong = [line for line in CONFIG.read_text().splitlines() if line.startswith("CONFIG_") and line not in lines]
    wrong += [name for name in re.findall(r"# (CONFIG_\w+) is not set", CONFIG.read_text()) if f"{name}=y" in lines]
    if wrong:
        raise LabError(f"the source in {tree} cannot be configured as {CONFIG.name} says: {', '.join(wrong)}")
