"""Runs cases on a lab: the local one, brought up when it is not there, or that of a lab file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.observers import Environment
from harness.recording import Recorder
from harness.run import Body
from harness.worlds.local.cloud import CsCloud
from harness.worlds.local.evidence import add_evidence
from harness.worlds.local.host import SshKvmHost
from harness.worlds.local.processes import MANAGEMENT, ManagementProcess, Pace, Routes, agents_of, direct
from harness.worlds.local.secondary import SshSecondary
from harness.worlds.local.storpool import VendorStorPool
from harness.worlds.local.timeline import Log, Logs
from harness.worlds.local.world import LocalWorld
from harness.worlds.local.zone import fill_zone
from lab.claim import Claim, claim_local
from lab.errors import LabError
from lab.file import Lab, load, storpool_of
from lab.shell import CommandFailed
from lab.ssh import SshHost
from scenarios.registry import Case

VERSIONS = (
    ("kernel", ["uname", "-r"]),
    ("libvirt", ["virsh", "--version"]),
    ("QEMU", ["qemu-system-x86_64", "--version"]),
)


def why_not(lab_file: Path | None) -> str | None:
    """Why this machine cannot run the local world, and what would help; None when it can."""
    if lab_file is not None:
        return None
    if os.geteuid() != 0:
        return "it makes namespaces, loop devices and guests, for which splab must be root (or give --lab FILE)"
    return None


class LocalVenue:
    """One lab for all cases. Its processes are ours to start and stop; the lab itself only if we brought it up."""

    def __init__(
        self,
        lab_file: Path | None,
        *,
        routes: Callable[[Lab], Routes] = direct,
        pace: Pace = Pace(),  # noqa: B008 - a frozen value
        site: str = "",
    ) -> None:
        """`routes` may put something between the processes; it is called once, when the lab is up. `site` is of the lab
        that is brought up first; a case that needs another one gets it."""
        self._first_site = site
        self._say: Callable[[str], None] = lambda _text: None
        self._lab_file = lab_file
        self._routes = routes
        self._pace = pace
        self._claim: Claim | None = None
        self._lab: Lab | None = None
        self._brought_up = False
        self._processes: list[Callable[[], None]] = []
        self._logs = Logs()
        self._unshown: list[tuple[float, str, str]] = []
        self._cloud: CsCloud | None = None
        self._environment: Environment | None = None
        self._unique = f"{int(time.time()):x}"
        self._cases = 0

    @property
    def lab(self) -> Lab:
        """The lab that is open. Raises `RuntimeError` when none is."""
        if self._lab is None:
            raise RuntimeError("the lab is not open")
        return self._lab

    @property
    def name(self) -> str:
        return "local" if self._lab_file is None else "lab"

    def open(self, say: Callable[[str], None]) -> dict[str, str]:
        # First of all: everything below stops what another run has started.
        self._claim = claim_local() if self._lab_file is None else Claim(self._lab_file)
        self._say = say
        return self._open(self._first_site)

    def _change_site(self, site: str) -> None:
        """Another lab in the place of this one, for a case that needs other StorPool clusters."""
        if self._lab_file is not None:
            raise LabError(
                f"the case needs a lab of site {site or 'one StorPool cluster'!r}; {self._lab_file} is of"
                f" {self.lab.site or 'one StorPool cluster'!r}, see site in lab/file.py"
            )
        self._say(f"the next case needs another lab: {site or 'with one StorPool cluster'}")
        for stop in self._processes:
            stop()
        self._open(site)
        # Whatever lab was there before is gone.
        self._brought_up = True

    def _open(self, site: str) -> dict[str, str]:
        say = self._say
        lab = self._lab = self._lab_of(say, site)
        routes = self._routes(lab)
        management = self.management = ManagementProcess(lab, routes, self._pace)
        agents = self.agents = agents_of(lab, routes)
        self._processes = [management.stop, *(agent.stop for agent in agents)]
        management.stop()
        say(f"putting the agent on {', '.join(agent.name for agent in agents)}")
        with ThreadPoolExecutor(len(agents)) as pool:
            list(pool.map(lambda agent: agent.put(lab.tls.directory), agents))
            list(pool.map(lambda agent: agent.start(), agents))
        say("starting the CloudStack stand-in")
        management.start()
        self._logs = Logs([Log("management", management.log), *(Log(agent.name, agent.log) for agent in agents)])
        say("filling the zone: pools, offering, hosts")
        self._cloud = CsCloud(lab.management.api_address, *management.keys())
        endpoints = routes.storpool[MANAGEMENT]
        self._environment = fill_zone(self._cloud, lab, endpoints, lab.storpool.token_file.read_text().strip())
        return self._properties(lab)

    def run(self, case: Case, recorder: Recorder, body: Body) -> None:
        if case.site != self.lab.site:
            self._change_site(case.site)
        self._cases += 1
        world = self.world(f"{self._unique}-{self._cases}")
        self.read_logs()
        self._unshown.clear()
        # The recorder counts from the start of the run, logs from the epoch.
        began = time.time()
        epoch = began - recorder.now()
        try:
            body(world)
        finally:
            # What background tasks say again and again is worth one entry.
            recorder.polled = set()
            self.read_logs()
            for at, source, text in self._unshown:
                recorder.timeline(source, text, max(0.0, at - epoch))
            self._unshown.clear()
            recorder.polled = None
            if self._lab is not None:
                add_evidence(self._lab, recorder, int(began))

    def world(self, unique: str) -> LocalWorld:
        """A world for one case; `open` came before. Raises `RuntimeError` when it did not."""
        lab, cloud, environment = self.lab, self._cloud, self._environment
        if cloud is None or environment is None:
            raise RuntimeError("the lab is not open")
        clusters = [cluster for cluster in (lab.storpool, lab.second_storpool) if cluster is not None]
        several = len(clusters) > 1
        agents = {agent.name: agent for agent in self.agents}
        return LocalWorld(
            cloud=cloud,
            storpools=[
                VendorStorPool(
                    cluster.endpoints[0],
                    cluster.token_file.read_text().strip(),
                    simulator=cluster.simulator,
                    several=several,
                )
                for cluster in clusters
            ],
            secondary=SshSecondary(lab.secondary, [SshHost(host.ssh) for host in lab.hosts]),
            hosts=[
                SshKvmHost(host, cluster.endpoints, cluster.cluster_id if several else "", agents.get(host.name))
                for host in lab.hosts
                for cluster in [storpool_of(lab, host)]
            ],
            environment=environment,
            guest_image=lab.guest_image,
            unique=unique,
            management=self.management,
        )

    def case_properties(self, case: Case) -> dict[str, str]:
        del case
        return {"hosts": ", ".join(host.name for host in self._lab.hosts)} if self._lab else {}

    def reproduce(self, case: Case) -> str:
        return f"splab run {case.id} --world local" + (f" --lab {self._lab_file}" if self._lab_file else "")

    def close(self) -> None:
        """Every process is tried, whatever became of the one before."""
        try:
            self._tear_down()
        finally:
            if self._claim is not None:
                self._claim.release()

    def _tear_down(self) -> None:
        failed: list[Exception] = []
        for stop in self._processes:
            try:
                stop()
            except (LabError, OSError) as error:
                failed.append(error)
        if self._brought_up:
            from lab.local.down import down

            down()
        elif failed:
            raise LabError(f"{len(failed)} processes were perhaps not stopped: {failed[0]}")

    def read_logs(self) -> list[tuple[float, str, str]]:
        """What the processes logged since the last call: (Unix seconds, source, text). The case's timeline gets it too.

        A host that cannot be asked is one entry that says so: it must not hide why the case failed.
        """
        try:
            found = self._logs.entries()
        except (LabError, OSError) as error:
            found = [(time.time(), "splab", f"logs could not be read: {error}")]
        self._unshown += found
        return found

    def _lab_of(self, say: Callable[[str], None], site: str) -> Lab:
        if self._lab_file is not None:
            return load(self._lab_file)
        from lab.local.layout import State, default_state
        from lab.local.up import up

        there = State(default_state()).lab_file.exists()
        lab = up(progress=say, site_name=site)
        self._brought_up = not there
        return lab

    def _properties(self, lab: Lab) -> dict[str, str]:
        found = {"lab": lab.name, "StorPool": "simulator" if lab.storpool.simulator else "cluster"}
        for host in lab.hosts:
            for name, command in VERSIONS:
                found[f"{name} of {host.name}"] = _first_line(SshHost(host.ssh), command)
        return found


def _first_line(host: SshHost, command: Sequence[str]) -> str:
    try:
        return host.run(list(command)).text.splitlines()[0]
    except (CommandFailed, IndexError):
        return "not known"
