"""The guest's ISO image: the same system as the guest image's, all of it in memory, whatever its disks hold."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.guesttree import BUSYBOX, MODULES_INIT, command_line, pack, write_modules
from lab.kernel import Kernel
from lab.shell import run

ISO_WORD = "splab.boot=iso"
"""On the kernel's command line of a guest that booted the ISO, and of no other."""
ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
LDLINUX = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")

_INIT = f"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
{MODULES_INIT}
exec /sbin/init
"""


def write_iso(iso: Path, kernel: Kernel, root: Path, work: Path) -> None:
    """An ISO with isolinux, the kernel, and the tree at `root` as its initrd; `work` is an empty directory."""
    tree = work / "tree"
    shutil.copytree(root, tree, symlinks=True)
    shutil.copy2(BUSYBOX, tree / "bin/busybox")
    (tree / "modules").mkdir()
    write_modules(tree, "order", kernel.modules)
    init = tree / "init"
    init.write_text(_INIT)
    init.chmod(0o755)
    content = work / "iso"
    boot = content / "isolinux"
    boot.mkdir(parents=True)
    shutil.copyfile(kernel.vmlinuz, boot / "vmlinuz")
    pack(tree, boot / "initrd")
    shutil.copyfile(ISOLINUX, boot / "isolinux.bin")
    shutil.copyfile(LDLINUX, boot / "ldlinux.c32")
    (boot / "isolinux.cfg").write_text(
        "DEFAULT linux\nPROMPT 0\nTIMEOUT 0\nLABEL linux\n  KERNEL /isolinux/vmlinuz\n"
        f"  APPEND initrd=/isolinux/initrd {command_line(kernel)} {ISO_WORD}\n"
    )
    options = ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4"]
    run(["xorriso", "-as", "mkisofs", "-quiet", "-V", "SPLAB", "-o", iso, *options, "-boot-info-table", content])
