"""Who can be killed, for real, and how each comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.observers import Host
from harness.worlds.local.deploy import AgentProcess
from harness.worlds.local.processes import MANAGEMENT, ManagementProcess
from harness.worlds.local.steps.proxy import AGENT, STORPOOL, Proxy
from lab.errors import LabError
from lab.file import Lab
from lab.local import storpool
from lab.local.layout import State
from lab.ssh import SshHost

LIBVIRTD = "libvirtd"
QEMU = "QEMU"
VICTIMS = (MANAGEMENT, AGENT, STORPOOL, LIBVIRTD, QEMU)
BACK_SECONDS = 30.0
_KILL_LIBVIRTD = 'pid=$(cat /run/libvirtd.pid) && kill -KILL "$pid" && echo "$pid"'
_NEW_LIBVIRTD = '[ "$(cat /run/libvirtd.pid)" != "$0" ] && virsh --connect qemu:///system version'


@dataclass(frozen=True, slots=True)
class Target:
    """Where the operation is at work."""

    host: str
    domain: str | None
    """The VM's, where its QEMU runs."""


class Victims:
    """The processes of one local lab."""

    def __init__(
        self,
        lab: Lab,
        state: State,
        proxy: Proxy,
        management: ManagementProcess,
        agents: Mapping[str, AgentProcess],
        hosts: Mapping[str, Host],
    ) -> None:
        self._ssh = {host.name: SshHost(host.ssh) for host in lab.hosts}
        self._state = state
        self._proxy = proxy
        self._management = management
        self._agents = agents
        self._hosts = hosts
        self._revive: Callable[[], None] | None = None

    @property
    def hosts(self) -> Mapping[str, Host]:
        return self._hosts

    def kill(self, victim: str, target: Target) -> None:
        """SIGKILL; returns when the process is gone, and whoever calls it is refused."""
        match victim:
            case "management":
                self._management.kill()
                self._revive = self._management.start
            case "agent":
                self._agents[target.host].kill()
                self._proxy.dead(target.host)
                self._revive = lambda: self._back(target.host, self._agents[target.host].start)
            case "StorPool":
                storpool.kill()
                self._proxy.dead(STORPOOL)
                self._revive = lambda: self._back(STORPOOL, lambda: storpool.start(self._state))
            case "libvirtd":
                killed = self._ssh[target.host].run(["sh", "-c", _KILL_LIBVIRTD]).text
                self._revive = lambda: self._wait_for_libvirtd(target.host, killed)
            case "QEMU":
                if target.domain is None:
                    raise LabError("no QEMU runs at this step, so it cannot be killed")
                self._hosts[target.host].kill_qemu(target.domain)
            case _:
                raise ValueError(f"{victim} is nobody that can be killed")

    def start_again(self) -> None:
        """Whoever was killed last; nothing when it runs, or is not to be started: libvirt starts no QEMU by itself."""
        revive, self._revive = self._revive, None
        if revive is not None:
            revive()

    def _back(self, party: str, start: Callable[[], None]) -> None:
        start()
        self._proxy.alive(party)

    def _wait_for_libvirtd(self, host: str, killed: str) -> None:
        """The first process of its host starts it again, as after any end of it."""
        deadline = time.monotonic() + BACK_SECONDS
        while self._ssh[host].run(["sh", "-c", _NEW_LIBVIRTD, killed], check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise LabError(f"libvirtd of {host} was killed and is not back within {BACK_SECONDS:.0f} s")
            time.sleep(0.1)
