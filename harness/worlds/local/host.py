"""`harness.observers.Host` over SSH and the host's own programs: virsh, blockdev, dd, ip."""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.bench.fio_parser import FioError, parse
from harness.observers import DomainDisk
from harness.worlds.local.deploy import AgentProcess
from lab.errors import LabError
from lab.file import KvmHost
from lab.local import power
from lab.ssh import SshHost

BY_ID = "/dev/storpool-byid"
BLOCK = 4096
CONSOLE_BYTES = 16384
LIBVIRT_FOLDERS = ("/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt")
WRONG_KEY, NOT_LUKS = 2, 1
"""Exit statuses of cryptsetup."""
LIBVIRT_PORT = 16509
_VANISHED = (": No such file or directory", ": No such process")
"""How grep's words about a file end that was there when it was listed."""
VIRSH = ("virsh", "--connect", "qemu:///system")
_STATES = """for name in $(virsh --connect qemu:///system list --all --name); do
printf '%s\\t%s\\n' "$name" "$(virsh --connect qemu:///system domstate "$name")"
done"""
_KILL = """pid=$(cat "/run/libvirt/qemu/$0.pid") || exit 1
kill -9 "$pid" || exit 1
for i in $(seq 100); do
[ -d "/proc/$pid" ] || exit 0
grep -q '^State:.Z' "/proc/$pid/status" && exit 0
sleep 0.1
done
exit 2"""


_SETTINGS = "/etc/storpool.conf.d/zz-splab.conf"
_SET = 'mkdir -p "$(dirname "$0")" && umask 077 && cat > "$0"'
_LATE = "mount -t tmpfs -o mode=755 tmpfs " + BY_ID
"""Over the directory that StorPool makes links in."""
_NOT_LATE = f"umount -l {BY_ID}"


_COPIES = "pgrep --ns $$ --nslist mnt -a -f '(^|/)qemu-img convert'"
"""Of this host: those of a local lab see each other's processes, but no mounts of each other."""
_SLOW = "/run/splab-slow"
_SLOW_DOWN = """place=$(command -v qemu-img) && mkdir "$0" && mount -t tmpfs -o mode=700 tmpfs "$0" || exit 1
touch "$0/on" "$0/qemu-img" && mount --bind "$place" "$0/qemu-img" || exit 1
modules=$(dirname "$(ls /usr/lib*/qemu*/block-*.so /usr/lib*/*/qemu*/block-*.so 2> /dev/null | head -n 1)")
printf '#!/bin/sh\\n[ "$1" != convert ] || { kill -STOP $$; shift; set -- convert -r 32M "$@"; }\\n%s "$@"\\n' \\
    "QEMU_MODULE_DIR=$modules exec $0/qemu-img" > "$0/slow" || exit 1
chmod 700 "$0/slow" && mount --bind "$0/slow" "$place" || exit 1
setsid sh -c 'of="--ns $$ --nslist mnt -x qemu-img"; for i in $(seq 3600); do
for j in 1 2 3 4 5 6 7 8 9 10; do pkill -STOP $of; sleep 0.1; done
pkill -CONT $of; [ -e "$0/on" ] || break
done
umount "$1"; for i in 1 2 3; do pkill -CONT $of; sleep 0.2; done
umount -l "$0/qemu-img"; umount -l "$0"; rmdir "$0"' "$0" "$place" < /dev/null > /dev/null 2>&1 &"""
"""A copy stops before it begins, and then runs for as long as the next pkill takes to start, some hundredths of a
second, in each second. It writes, zeros too, no more than 32 MiB a second. For an hour at most, so that what a run
leaves that was killed ends by itself. QEMU looks for its modules beside the place that it is started from."""
_SLOW_OVER = """rm -f "$0/on"; i=0; while [ -e "$0" ] && [ $((i += 1)) -lt 200 ]; do sleep 0.1; done; [ ! -e "$0" ]"""


class SshKvmHost:
    def __init__(
        self,
        host: KvmHost,
        storpool_endpoints: Sequence[str],
        cluster_id: str = "",
        agent: AgentProcess | None = None,
    ) -> None:
        """`storpool_endpoints` are the addresses (`ip:port`) that a cut takes away from this host.

        `cluster_id` is for a world with several StorPool clusters. `agent` is ours to kill and start.
        """
        self._cluster_id = cluster_id
        self._host = host
        self._ssh = SshHost(host.ssh)
        self._folders = (str(host.agent_directory), *LIBVIRT_FOLDERS)
        self._endpoints = tuple(endpoint.rpartition(":")[::2] for endpoint in storpool_endpoints)
        self._agent = agent

    @property
    def name(self) -> str:
        return self._host.name

    @property
    def client_id(self) -> int:
        return self._host.client_id

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    def console(self, name: str) -> str:
        """The end of what the domain has written to its serial console here, in all its boots."""
        path = self._host.agent_directory / f"consoles/{name}.console"
        return self._ssh.run(["sh", "-c", '[ ! -e "$1" ] || tail -c "$0" "$1"', str(CONSOLE_BYTES), str(path)]).text

    def devices(self) -> Sequence[str]:
        return sorted(self._ssh.run(["ls", "-1", BY_ID]).text.split())

    def device_size(self, path: str) -> int | None:
        script = 'if [ -b "$0" ]; then exec blockdev --getsize64 "$0"; fi'
        text = self._ssh.run(["sh", "-c", script, path]).text
        return int(text) if text else None

    def read_device(self, path: str, offset: int, length: int) -> bytes:
        """Past the host's page cache where the range allows it: a guest writes past it too."""
        flags = "skip_bytes,count_bytes" + ("" if (offset | length) % BLOCK else ",direct")
        block = f"bs={1 << 20}"
        place = [f"skip={offset}", f"count={length}", f"iflag={flags}"]
        data = self._ssh.run(["dd", f"if={path}", block, *place, "status=none"], timeout=300).stdout
        if len(data) != length:
            raise OSError(f"{self.name}: {path} gave {len(data)} bytes at {offset}, {length} were asked for")
        return data

    def reads_a_second(self, path: str, seconds: int) -> float:
        job = ["--name=rate", f"--filename={path}", "--readonly", "--rw=randread", f"--bs={BLOCK}", "--direct=1"]
        load = ["--ioengine=libaio", "--iodepth=16", "--time_based", f"--runtime={seconds}"]
        done = self._ssh.run(["fio", *job, *load, "--output-format=json"], timeout=seconds + 120)
        result = parse(done.text)
        if result.failed:
            raise FioError(f"fio on {path} at {self.name}: {', '.join(result.failed)}")
        return sum(job.read.iops for job in result.jobs)

    def unlocks(self, path: str, passphrase: bytes) -> bool:
        argv = ["cryptsetup", "open", "--test-passphrase", "--type", "luks1", "--key-file", "-", path]
        done = self._ssh.run(argv, stdin=passphrase, check=False, timeout=120)
        if done.returncode not in (0, WRONG_KEY, NOT_LUKS):
            raise OSError(f"{self.name}: cryptsetup ended with {done.returncode}")
        return done.returncode == 0

    def secrets(self) -> Sequence[str]:
        lines = self._ssh.run([*VIRSH, "secret-list"]).text.splitlines()
        return sorted(words[2] for line in lines if (words := line.split())[1:2] == ["volume"])

    def traces(self, text: bytes) -> Sequence[str]:
        """The text goes to grep on its standard input: as an argument it would be found in grep's own.

        To grep what it reads is binary. As text a device of zeros would be one line, which does not fit into memory.
        """
        if not text or b"\n" in text or b"\0" in text:
            raise ValueError(f"{text!r} cannot be looked for: grep reads by lines")
        devices = [f"{BY_ID}/{name}" for name in self.devices()]
        found = self._grep(text, '"$@"', *devices) if devices else []
        # The host lives on meanwhile: processes end, and files go.
        found += self._grep(text, '-r "$@"', *self._folders, lives=True)
        found += self._grep(text, "/proc/[0-9]*/cmdline", lives=True)
        return sorted(found)

    def _grep(self, text: bytes, where: str, *places: str, lives: bool = False) -> list[str]:
        """Files with the text. With `lives` one that is gone before it is read is none, unless it is of `places`."""
        script = f"LC_ALL=C; export LC_ALL; exec grep -lF -f - {where}"
        done = self._ssh.run(["sh", "-c", script, "traces", *places], stdin=text, check=False, timeout=300)
        if done.returncode > 1:
            gone = [f"grep: {place}:" for place in places]
            wrong = [
                line
                for line in done.error_text.splitlines() or [f"grep ended with {done.returncode}"]
                if not lives or not line.endswith(_VANISHED) or line.startswith(tuple(gone))
            ]
            if wrong:
                raise OSError(f"{self.name}: not all could be searched: {'; '.join(wrong)[:2000]}")
        return done.text.splitlines()

    @contextmanager
    def without_encryption(self) -> Iterator[None]:
        """In the host's own view of the file system only."""
        place = self._ssh.run(["sh", "-c", "command -v cryptsetup"]).text.strip()
        try:
            self._ssh.run(["mount", "--bind", "/dev/null", place])
            yield
        finally:
            self._ssh.run(["umount", place])

    def domains(self) -> Mapping[str, str]:
        lines = self._ssh.run(["sh", "-c", _STATES]).text.splitlines()
        pairs = (line.split("\t", 1) for line in lines if "\t" in line)
        return {name: state.strip() for name, state in pairs if state.strip()}

    def domain_disks(self, name: str) -> Sequence[DomainDisk]:
        done = self._ssh.run([*VIRSH, "dumpxml", name], check=False)
        return () if done.returncode else disks_of(done.text)

    def disk_capacity(self, name: str, target: str) -> int:
        lines = self._ssh.run([*VIRSH, "domblkinfo", name, target]).text.splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(told["Capacity"])

    def domain_xml(self, name: str) -> str:
        return self._ssh.run([*VIRSH, "dumpxml", name]).text

    def cd_image(self, name: str) -> str | None:
        done = self._ssh.run([*VIRSH, "dumpxml", name], check=False)
        if done.returncode:
            # As of its disks: it was listed a moment ago, and is gone.
            return None
        source = ET.fromstring(done.text).find("devices/disk[@device='cdrom']/source")
        path = "" if source is None else source.get("name") or source.get("file") or ""
        return path.rpartition("/")[2] or None

    def kill_qemu(self, name: str) -> None:
        self._ssh.run(["sh", "-c", _KILL, name])

    def suspend(self, name: str) -> None:
        self._ssh.run([*VIRSH, "suspend", name])

    def resume(self, name: str) -> None:
        self._ssh.run([*VIRSH, "resume", name])

    def kill_agent(self) -> None:
        self._our_agent().kill()

    def start_agent(self) -> None:
        self._our_agent().start()

    def power_cut(self) -> None:
        self._local()
        power.off(self.name)

    def power_on(self) -> None:
        self._local()
        power.on(self.name)
        self._our_agent().start()

    @contextmanager
    def storpool_conf(self, **settings: str) -> Iterator[None]:
        """In a section of the host's own, which wins over what its other files say."""
        text = "".join([f"[{self.name}]\n", *(f"{key}={value}\n" for key, value in settings.items())])
        self._ssh.run(["sh", "-c", _SET, _SETTINGS], stdin=text.encode())
        try:
            yield
        finally:
            self._ssh.run(["rm", "-f", _SETTINGS])

    @contextmanager
    def devices_late(self) -> Iterator[None]:
        self._ssh.run(["sh", "-c", _LATE])
        try:
            yield
        finally:
            self._ssh.run(["sh", "-c", _NOT_LATE])

    def _our_agent(self) -> AgentProcess:
        if self._agent is None:
            raise LabError(f"the agent of host {self.name} is not ours to kill and start")
        return self._agent

    def _local(self) -> None:
        if self._host.cgroup is None:
            raise LabError(f"host {self.name} is no host of the local lab, so its power is not cut")

    def copies(self) -> Sequence[str]:
        found = self._ssh.run(["sh", "-c", _COPIES], check=False).text.splitlines()
        return sorted(line.partition(" ")[2] for line in found)

    @contextmanager
    def slow_copies(self) -> Iterator[None]:
        """Stopped for most of the time. What is killed meanwhile ends all the same."""
        self._ssh.run(["sh", "-c", _SLOW_DOWN, _SLOW])
        try:
            yield
        finally:
            self._ssh.run(["sh", "-c", _SLOW_OVER, _SLOW])

    def slow_migration(self, name: str) -> None:
        self._ssh.run([*VIRSH, "migrate-setspeed", name, "1"])

    @contextmanager
    def libvirt_cut(self) -> Iterator[None]:
        """By a routing rule for libvirtd's answers, so that only what comes from other hosts is concerned."""
        rule = f"unreachable ipproto tcp sport {LIBVIRT_PORT} priority 77"
        try:
            self._ssh.run(["sh", "-c", f"ip rule add {rule} && ip route flush cache"])
            yield
        finally:
            self._ssh.run(["sh", "-c", f"while ip rule del {rule} 2>/dev/null; do :; done; ip route flush cache"])

    @contextmanager
    def storpool_api_cut(self) -> Iterator[None]:
        """By a routing rule for the API's address and port: other traffic of the same machine must go on."""
        rules = [shlex.join(["to", address, "ipproto", "tcp", "dport", port]) for address, port in self._endpoints]
        add = " && ".join(f"ip rule add unreachable {rule} priority 77" for rule in rules)
        remove = "; ".join(
            f"while ip rule del unreachable {rule} priority 77 2>/dev/null; do :; done" for rule in rules
        )
        try:
            self._ssh.run(["sh", "-c", f"{add} && ip route flush cache"])
            yield
        finally:
            self._ssh.run(["sh", "-c", f"{remove}; ip route flush cache"])


def disks_of(xml: str) -> tuple[DomainDisk, ...]:
    """Disks (no CD-ROMs) in a domain's XML."""
    return tuple(_disk(disk) for disk in ET.fromstring(xml).iterfind("devices/disk[@device='disk']"))


def _disk(disk: ET.Element) -> DomainDisk:
    source, target, driver = (_attributes(disk, name) for name in ("source", "target", "driver"))
    return DomainDisk(
        source=source.get("dev") or source.get("file") or source.get("name") or "",
        target=target.get("dev", ""),
        serial=disk.findtext("serial") or "",
        driver_type=driver.get("type", ""),
        discard=driver.get("discard"),
        cache=driver.get("cache"),
        encryption=_attributes(disk, "source/encryption").get("format"),
    )


def _attributes(disk: ET.Element, name: str) -> Mapping[str, str]:
    found = disk.find(name)
    return {} if found is None else found.attrib
