"""Readiness: what a machine or a lab lacks, each with the command that supplies it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import testinfra
import testinfra.host

from lab.errors import LabError
from lab.file import Access, KvmHost, Lab, SecondaryStorage, Ssh
from lab.local import cgroup, machine_lock, network
from lab.shell import CommandFailed
from lab.ssh import SshHost

PACKAGES = Path(__file__).with_name("packages.txt")
PYTHON_MODULES = (
    "libvirt",
    "click",
    "requests",
    "msgspec",
    "starlette",
    "uvicorn",
    "testinfra",
    "trustme",
    "yaml",
    "rich",
)
FREE_BYTES = 4 << 30
CONTROL_DEVICES = (("/dev/net/tun", "modprobe tun"), ("/dev/loop-control", "modprobe loop"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `supply` is the command that puts it right; empty when it is in order."""

    where: str
    what: str
    ok: bool
    supply: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + ("" if self.ok else f"  ->  {self.supply}")


def wanted_packages() -> list[str]:
    """Names in lab/packages.txt."""
    lines = (line.split("#", 1)[0].strip() for line in PACKAGES.read_text().splitlines())
    return [line for line in lines if line]


def examine_machine(state: Path) -> list[Finding]:
    """Whether this machine can run the local lab with its state in `state`."""
    here = platform.node()
    found = [Finding(here, "root", os.geteuid() == 0, "run it as root, for instance with sudo")]
    found += _packages(here, testinfra.get_host("local://"))
    missing = [name for name in PYTHON_MODULES if importlib.util.find_spec(name) is None]
    text = f"Python modules{' missing: ' + ', '.join(missing) if missing else ''}"
    found.append(Finding(here, text, not missing, "make setup"))
    found += [Finding(here, path, Path(path).exists(), supply) for path, supply in CONTROL_DEVICES]
    found.append(_attempt(here, "cgroup version 2", cgroup.mount_point, "mount -t cgroup2 none /sys/fs/cgroup/unified"))
    systems = Path("/proc/filesystems").read_text().split()
    pools = "btrfs" in systems or "xfs" in systems
    found.append(
        Finding(here, "btrfs or xfs for StorPool volumes (plain files otherwise, slower)", pools, "modprobe btrfs")
    )
    found.append(
        _attempt(here, "the lab's network is free", network.refuse_conflict, "remove the route that the text names")
    )
    found.append(
        _attempt(
            here, "no other local lab", lambda: machine_lock.refuse_other(state), "splab lab down, with its SPLAB_STATE"
        )
    )
    nearest = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    found.append(
        Finding(
            here,
            f"{free >> 20} MiB free for {state}",
            free >= FREE_BYTES,
            f"free {FREE_BYTES >> 30} GiB, or set SPLAB_STATE",
        )
    )
    return found


def _packages(where: str, machine: testinfra.host.Host) -> Iterator[Finding]:
    if not machine.exists("dpkg-query"):
        yield Finding(
            where, "system packages", False, "install the equivalents of lab/packages.txt; this machine has no dpkg"
        )
        return
    missing = [name for name in wanted_packages() if not machine.package(name).is_installed]
    text = f"system packages{' missing: ' + ', '.join(missing) if missing else ''}"
    yield Finding(where, text, not missing, f"apt-get install --no-install-recommends {' '.join(missing)}")


def _attempt(where: str, what: str, check: Callable[[], object], supply: str) -> Finding:
    try:
        check()
    except LabError as error:
        return Finding(where, f"{what}: {error}", False, supply)
    return Finding(where, what, True)


def examine_lab(lab: Lab) -> list[Finding]:
    """Whether every machine that the lab file names is ready. Reads only."""
    found = list(_storpool(lab))
    for host in lab.hosts:
        found += _reached(host.name, host.ssh) or _kvm_host(host, lab)
    secondary = lab.secondary
    found += _reached("secondary", secondary.ssh) or _secondary(secondary)
    for name in ("management", "secondary", *(host.name for host in lab.hosts)):
        for path in (lab.tls.directory / f"{name}.pem", lab.tls.directory / f"{name}.key"):
            if not path.exists():
                found.append(
                    Finding(
                        "here",
                        f"certificate {path}",
                        False,
                        "issue it from the lab's CA, or bring the local lab up again",
                    )
                )
    return found


def _storpool(lab: Lab) -> Iterator[Finding]:
    for endpoint in lab.storpool.endpoints:
        what = f"StorPool API at {endpoint}"
        try:
            token = lab.storpool.token_file.read_text().strip()
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(
                    f"http://{endpoint}/ctrl/1.0/VolumeTemplatesList",
                    headers={"Authorization": f"Storpool v1:{token}"},
                    timeout=10,
                )
            answer.raise_for_status()
            names = {template["name"] for template in answer.json()["data"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield Finding("storpool", f"{what}: {error}", False, "check endpoints and token_file in the lab file")
            continue
        yield Finding("storpool", what, True)
        for template in lab.storpool.templates:
            supply = f"storpool template {template} create replication 3"
            yield Finding("storpool", f"template {template}", template in names, supply)


def _reached(where: str, ssh: Ssh) -> list[Finding]:
    """Nothing when it answers; else the one finding that makes all others pointless."""
    try:
        SshHost(ssh).run(["true"], timeout=20)
    except CommandFailed as error:
        supply = f"check the key with: ssh -i {ssh.key_file} -p {ssh.port} {ssh.user}@{ssh.address}"
        return [Finding(where, f"SSH: {error}", False, supply)]
    return []


def _kvm_host(host: KvmHost, lab: Lab) -> Iterator[Finding]:
    machine = SshHost(host.ssh).inspector()
    yield Finding(host.name, "SSH", True)
    yield from _commands(host.name, machine, {"virsh": "libvirt-clients", "qemu-img": "qemu-utils"})
    yield from _commands(host.name, machine, {"cryptsetup": "cryptsetup-bin"})
    yield _python(host.name, machine, str(host.agent_python), "import libvirt, msgspec, requests")
    libvirt = machine.run("virsh --connect qemu:///system version").rc == 0
    yield Finding(host.name, "libvirtd", libvirt, "systemctl start libvirtd")
    config = machine.file("/etc/storpool.conf")
    ours = config.exists and f"SP_OURID={host.client_id}" in config.content_string.split()
    supply = f"set SP_OURID={host.client_id} there, or correct client_id in the lab file"
    yield Finding(host.name, f"/etc/storpool.conf with SP_OURID={host.client_id}", ours, supply)
    for path in ("/dev/storpool", "/dev/storpool-byid"):
        yield Finding(host.name, path, machine.file(path).is_directory, "start the StorPool client (storpool_block)")
    bridge = machine.file(f"/sys/class/net/{host.bridge}/bridge").is_directory
    yield Finding(host.name, f"bridge {host.bridge}", bridge, f"ip link add {host.bridge} type bridge")
    if lab.secondary.access is Access.QEMU:
        formats = machine.run("qemu-img info nfs://").stderr
        yield Finding(
            host.name, "QEMU's NFS client", "Unknown protocol" not in formats, "apt-get install qemu-block-extra"
        )
    else:
        yield from _commands(host.name, machine, {"mount.nfs": "nfs-common"})


def _secondary(secondary: SecondaryStorage) -> Iterator[Finding]:
    machine = SshHost(secondary.ssh).inspector()
    yield Finding("secondary", "SSH", True)
    yield from _commands("secondary", machine, {"qemu-img": "qemu-utils"})
    yield _python("secondary", machine, str(secondary.agent_python), "import msgspec, requests")
    export = str(secondary.export_directory)
    yield Finding(
        "secondary", f"export {export}", machine.file(export).is_directory, f"mkdir -p {export}, and export it"
    )


def _commands(where: str, machine: testinfra.host.Host, packages: dict[str, str]) -> Iterator[Finding]:
    for command, package in packages.items():
        yield Finding(where, command, machine.exists(command), f"apt-get install {package}")


def _python(where: str, machine: testinfra.host.Host, python: str, test: str) -> Finding:
    done = machine.run("%s -c %s", python, test)
    return Finding(
        where,
        f"{python} -c '{test}'",
        done.rc == 0,
        f"make a virtualenv there and install splab's agent: {done.stderr.strip()[-200:]}",
    )
