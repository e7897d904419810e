"""The files inside a guest: the initrd that finds the root file system, and the root itself."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.kernel import Kernel
from lab.shell import run

_COMMAND_LINE = "console=ttyS0 quiet panic=-1 net.ifnames=0"
_SAVES_TRACING = "initcall_blacklist=init_kprobe_trace,tracer_init_tracefs"
"""Two initcalls prepare for tracing the kernel, for some 0.4 seconds of CPU where there is no KVM."""
_SAVES_TIMERS = "no_timer_check nolapic_timer"
"""The kernel tries one timer and measures another, busy for 0.2 seconds; with one CPU it can do without."""
BUSYBOX = Path("/bin/busybox")

MODULES_INIT = "while read -r module; do /bin/busybox insmod /modules/$module; done < /modules/order"
# busybox has no blkid here: an ext4 file system keeps its UUID in bytes 1128 to 1143.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
@MODULES@
tries=0
while [ $tries -lt 100 ]; do
  for device in /dev/vda2 /dev/sda2 /dev/vd[b-z]2 /dev/sd[b-z]2; do
    [ -b $device ] || continue
    if /bin/busybox dd if=$device bs=8 skip=141 count=2 2>/dev/null | /bin/busybox cmp -s - /uuid &&
        /bin/busybox mount -t ext4 -o rw $device /root; then
      /bin/busybox mount --move /dev /root/dev
      /bin/busybox mount --move /proc /root/proc
      exec /bin/busybox switch_root /root /sbin/init
    fi
  done
  [ $tries = 0 ] && while read -r module; do /bin/busybox insmod /modules/$module; done < /modules/other-disks
  tries=$((tries + 1))
  /bin/busybox usleep 100000
done
echo "splab guest: no root file system @UUID@ on any disk"
exec /bin/busybox poweroff -f
"""

START = """#!/bin/sh
[ -e /proc/self ] || mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /run
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
hostname guest
ip link set lo up
dropbear -s -R -E -p 22 -P /run/dropbear.pid
acpid -l /run/acpid.log -p /run/acpid.pid
echo "@READY@" > /dev/ttyS0
[ -e /sys/class/net/eth0 ] || exit 0
ip link set eth0 up
exec udhcpc -i eth0 -S -t 10 -T 1 -A 2 -p /run/udhcpc.pid -s /etc/udhcpc
"""

INITTAB = """::sysinit:/etc/start
::respawn:/sbin/getty -L ttyS0 115200 vt100
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sync
::shutdown:/bin/umount -a -r
"""

# busybox's init would sleep for two seconds between the signals that it sends to what still runs.
POWER_BUTTON = """#!/bin/sh
sync
mount -o remount,ro /
poweroff -f
"""

UDHCPC = """#!/bin/sh
case "$1" in
  bound|renew)
    ip addr flush dev $interface
    ip addr add $ip/${mask:-24} dev $interface
    [ -z "$hostname" ] || hostname "$hostname" ;;
esac
"""


def command_line(kernel: Kernel) -> str:
    """What every boot loader gives this kernel; it may add to it."""
    return f"{_COMMAND_LINE} {_SAVES_TIMERS if kernel.small else _SAVES_TRACING}"


def write_initrd(initrd: Path, kernel: Kernel, uuid: str, tree: Path) -> None:
    """An initrd whose init loads the kernel's modules and moves to the file system with this UUID."""
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, tree / "bin/busybox")
    write_modules(tree, "order", kernel.modules)
    write_modules(tree, "other-disks", kernel.other_disk_modules)
    (tree / "uuid").write_bytes(bytes.fromhex(uuid.replace("-", "")))
    _script(tree / "init", INIT.replace("@UUID@", uuid.replace("-", "")).replace("@MODULES@", MODULES_INIT))
    pack(tree, initrd)


def write_modules(tree: Path, name: str, modules: Sequence[Path]) -> None:
    """Into the tree's /modules, with a list of them there."""
    for module in modules:
        shutil.copyfile(module, tree / "modules" / module.name)
    (tree / "modules" / name).write_text("".join(f"{module.name}\n" for module in modules))


def pack(tree: Path, initrd: Path) -> None:
    """Everything below the tree, as root's, in the form that the kernel unpacks."""
    files = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    archive = run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=tree, stdin=files.encode()).stdout
    initrd.write_bytes(run(["gzip", "-1", "-n"], stdin=archive).stdout)


def write_root(tree: Path, public_key: Path, host_key: Path, ready: str) -> None:
    """The root file system's tree: busybox, dropbear, and the few files that tie them together."""
    for name in (
        "bin",
        "sbin",
        "usr/bin",
        "usr/sbin",
        "lib",
        "lib64",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "mnt",
        "var/log",
        "etc/dropbear",
    ):
        (tree / name).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    (tree / "var/run").symlink_to("/run")
    shutil.copy2(BUSYBOX, tree / "bin/busybox")
    for applet in run([BUSYBOX, "--list-full"]).text.split():
        link = tree / applet
        if not link.exists() and link.parent.is_dir():
            link.symlink_to("/bin/busybox")
    _with_libraries(tree, Path("/usr/sbin/dropbear"))
    _script(tree / "etc/start", START.replace("@READY@", ready))
    _script(tree / "etc/udhcpc", UDHCPC)
    (tree / "etc/inittab").write_text(INITTAB)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    (tree / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (tree / "etc/shadow").chmod(0o600)
    (tree / "etc/shells").write_text("/bin/sh\n")
    (tree / "etc/acpi/PWRF").mkdir(parents=True)
    _script(tree / "etc/acpi/PWRF/00000080", POWER_BUTTON)
    (tree / "root/.ssh").mkdir(parents=True, mode=0o700)
    (tree / "root").chmod(0o700)
    shutil.copyfile(public_key, tree / "root/.ssh/authorized_keys")
    (tree / "root/.ssh/authorized_keys").chmod(0o600)
    shutil.copyfile(host_key, tree / "etc/dropbear/dropbear_ed25519_host_key")
    (tree / "etc/dropbear/dropbear_ed25519_host_key").chmod(0o600)


def _with_libraries(tree: Path, program: Path) -> None:
    target = tree / str(program).lstrip("/")
    shutil.copy2(program.resolve(), target)
    for found in re.findall(r"(?:=> |^\s*)(/\S+)", run(["ldd", program]).text, re.MULTILINE):
        library = Path(found)
        place = tree / found.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), place)


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
