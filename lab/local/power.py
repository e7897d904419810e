"""A KVM host of the local lab, switched off and on again: its processes end at once, its disks are as they were."""

from __future__ import annotations

import time

from lab.errors import LabError
from lab.local import cgroup
from lab.local.layout import KVM_HOSTS, Member, State, default_state, login
from lab.local.machines import folder_of, start
from lab.shell import CommandFailed
from lab.ssh import SshHost

READY_SECONDS = 60.0


def off(name: str) -> None:
    """Kill everything that runs on the host; returns when nothing does. Raises `LabError`."""
    folder = folder_of(_member(name).name)
    cgroup.kill(folder)
    if not cgroup.wait_empty(folder):
        raise LabError(f"processes of host {name} were killed and do not end")


def on(name: str) -> None:
    """Start its system; returns when that answers over SSH, with libvirt. Nothing when it runs."""
    member, state = _member(name), State(default_state().resolve())
    folder = folder_of(member.name)
    if not cgroup.processes(folder):
        start(state, member, state.member(member) / "machine.json", folder)
    host = SshHost(login(state, member), shared=False)
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(host):
        if time.monotonic() > deadline:
            raise LabError(f"host {name} did not come up within {READY_SECONDS:g} s")
        time.sleep(0.2)


def _answers(host: SshHost) -> bool:
    command = ["virsh", "--connect", "qemu:///system", "version"]
    try:
        return host.run(command, check=False, timeout=15).returncode == 0
    except CommandFailed:
        return False


def _member(name: str) -> Member:
    for member in KVM_HOSTS:
        if member.name == name:
            return member
    raise LabError(f"{name} is no KVM host of the local lab")
