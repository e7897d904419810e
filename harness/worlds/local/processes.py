"""Which processes a lab runs, and how each is told what it must know."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.worlds.local.deploy import ROOMS, AgentProcess
from lab.errors import LabError
from lab.file import Accelerator, Access, KvmHost, Lab, Site, storpool_of
from lab.local import cgroup

MANAGEMENT = "management"
SECONDARY = "secondary"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
REPOSITORY = Path(__file__).parents[3]
OVERRIDES = "storpool.conf.d"
"""Beside an agent's code, where its host's own storpool.conf is not to be followed."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Where the processes of a lab reach each other, as `ip:port`: where the lab file says, or what is put between."""

    storpool: Mapping[str, tuple[str, ...]]
    """Of `management` and of each host."""
    agents: Mapping[str, str]
    """Of each host, for the management server."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of the management server in seconds; all None means its own defaults."""

    ping_interval: float = 3.0
    """CloudStack's default of a minute would make every case wait for what its hosts know already."""
    cleanup_interval: float | None = None
    settle_time: float | None = None
    answer_time: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Global settings that differ from CloudStack's defaults."""


def direct(lab: Lab) -> Routes:
    """Nothing in between."""
    return Routes(
        storpool={
            MANAGEMENT: lab.storpool.endpoints,
            **{host.name: storpool_of(lab, host).endpoints for host in lab.hosts},
        },
        agents={host.name: host.agent_address for host in lab.hosts},
    )


def agents_of(lab: Lab, routes: Routes) -> list[AgentProcess]:
    """The agents of the KVM hosts, and the secondary storage role."""
    found = [_kvm_agent(lab, host, routes.storpool[host.name]) for host in lab.hosts]
    second = lab.secondary
    config: dict[str, object] = {
        "listen": second.agent_address,
        "export_directory": str(second.export_directory),
        "downloads_listen": _next_port(second.agent_address),
        "tls": _tls(second.agent_directory),
    }
    found.append(
        AgentProcess(
            name=SECONDARY,
            ssh=second.ssh,
            directory=second.agent_directory,
            python=second.agent_python,
            module="harness.cloudstack.secondary.main",
            config=config,
            rooms=(*ROOMS, "cloudstack/__init__.py", "cloudstack/secondary"),
        )
    )
    return found


def _next_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + 1}"


def _kvm_agent(lab: Lab, host: KvmHost, storpool: Sequence[str]) -> AgentProcess:
    config: dict[str, object] = {
        "host_uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{host.name}.{lab.name}")),
        "host_name": host.name,
        "listen": host.agent_address,
        "tls": _tls(host.agent_directory),
        "bridge": host.bridge,
        "accelerator": "kvm" if host.accelerator is Accelerator.KVM else "qemu",
        "secondary_access": "qemu-nfs" if lab.secondary.access is Access.QEMU else "kernel-mount",
        "log_directory": str(host.agent_directory / "consoles"),
        "operations_directory": str(host.agent_directory / "operations"),
        "download_directory": str(host.agent_directory / "downloads"),
    }
    files = {}
    if tuple(storpool) != storpool_of(lab, host).endpoints:
        config["storpool_conf_directory"] = str(host.agent_directory / OVERRIDES)
        files[f"{OVERRIDES}/endpoints.conf"] = f"SP_API_HTTP_HOST={','.join(storpool)}\n".encode()
    return AgentProcess(
        name=host.name,
        ssh=host.ssh,
        directory=host.agent_directory,
        python=host.agent_python,
        module="harness.agent.main",
        config=config,
        files=files,
    )


def _tls(directory: Path) -> dict[str, str]:
    return {
        "ca": str(directory / "tls/ca.pem"),
        "certificate": str(directory / "tls/certificate.pem"),
        "key": str(directory / "tls/key.pem"),
    }


class ManagementProcess:
    """The CloudStack stand-in, in the network namespace and cgroup that the lab gives it."""

    def __init__(self, lab: Lab, routes: Routes, pace: Pace) -> None:
        self._lab = lab
        self._routes = routes
        self._pace = pace
        self._directory = lab.management.state_directory
        self._process: subprocess.Popen[bytes] | None = None

    def keys(self) -> tuple[str, str]:
        """API key and secret key of the admin; made once, then kept beside the records that know them."""
        path = self._directory / "keys.json"
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._private(path, json.dumps([secrets.token_urlsafe(32), secrets.token_urlsafe(32)]))
        api_key, secret_key = json.loads(path.read_text())
        return str(api_key), str(secret_key)

    def _database_key(self) -> str:
        """What passphrases are encrypted with in the records; made once, then kept beside them."""
        path = self._directory / "database.key"
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._private(path, secrets.token_urlsafe(32))
        return path.read_text()

    def start(self) -> None:
        """Start it; returns once it serves. Raises `LabError` with the end of its log."""
        config = self._directory / "management.json"
        self._private(config, json.dumps(self.configuration(), indent=1))
        out = self._directory / "management.out"
        with out.open("wb") as stdout, self._log.open("ab") as stderr:
            self._process = subprocess.Popen(
                self._argv(config),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not out.read_text().startswith("ready "):
            if self._process.poll() is not None:
                raise LabError(f"the CloudStack stand-in ended as it started: {self._log.read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise LabError(f"the CloudStack stand-in was not ready in {READY_SECONDS:g} s; see {self._log}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is None:
            raise LabError("the CloudStack stand-in does not run, so it cannot be killed")
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """End it, politely first; one that an earlier run left in the lab's cgroup is killed. Nothing if none runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_SECONDS)
        self._process = None
        folder = self._lab.management.cgroup
        if folder is not None and folder.is_dir() and cgroup.processes(folder):
            cgroup.kill(folder)
            cgroup.wait_empty(folder)

    def open_operations(self) -> list[str]:
        """Operations of the storage driver that are not over, as the records of the running server say."""
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=STOP_SECONDS)) as records:
            found = records.execute("SELECT kind, subject, step FROM operations WHERE outcome IS NULL ORDER BY id")
            return [f"{kind} {subject}, step {step}" for kind, subject, step in found]

    def log(self, since: int) -> tuple[int, str]:
        """What it logged after byte `since`, and where the log ends now."""
        with self._log.open("rb") as file:
            file.seek(since)
            data = file.read()
        return since + len(data), data.decode(errors="replace")

    @property
    def _database(self) -> Path:
        return self._directory / "cloud.db"

    @property
    def _log(self) -> Path:
        return self._directory / "management.log"

    def _argv(self, config: Path) -> list[str]:
        management = self._lab.management
        argv = [sys.executable, "-m", "harness.worlds.management", "--config", str(config)]
        if management.network_namespace is not None:
            argv = ["nsenter", f"--net=/run/netns/{management.network_namespace}", "--", *argv]
        if management.cgroup is not None:
            argv = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(management.cgroup), *argv]
        return argv

    def configuration(self) -> dict[str, object]:
        """What the process reads when it starts; holds secrets."""
        lab, tls, pace = self._lab, self._lab.tls.directory, self._pace
        api_key, secret_key = self.keys()
        return {
            "listen": lab.management.api_address,
            "database": str(self._database),
            "agents": {name: f"https://{address}" for name, address in self._routes.agents.items()},
            "secondary": f"https://{lab.secondary.agent_address}",
            "tls": {
                "ca": str(tls / "ca.pem"),
                "certificate": str(tls / "management.pem"),
                "key": str(tls / "management.key"),
            },
            "cloud": {
                "hosts": [host.name for host in lab.hosts if not host.second_storpool],
                "further_clusters": _further_clusters(lab),
                "image_store_url": lab.secondary.nfs_url,
                "guest_addresses": [{"mac": guest.mac, "ip": guest.ip} for guest in lab.guest_addresses],
                "bridge": lab.hosts[0].bridge,
                "api_key": api_key,
                "secret_key": secret_key,
                "database_key": self._database_key(),
                "settings": dict(pace.settings),
                **_given(ping_interval=pace.ping_interval, cleanup_interval=pace.cleanup_interval),
            },
            "fences": {host.name: fence for host in lab.hosts if (fence := _fence(host))},
            **_given(settle_time=pace.settle_time, answer_time=pace.answer_time),
        }

    def _private(self, path: Path, text: str) -> None:
        """Write a file that only its owner reads."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


def _further_clusters(lab: Lab) -> list[dict[str, object]]:
    """CloudStack's cluster of the hosts of the second StorPool cluster, in a zone of its own or in the first."""
    hosts = [host.name for host in lab.hosts if host.second_storpool]
    if not hosts:
        return []
    place = {"zone": "zone2", "pod": "pod2"} if lab.site is Site.ZONES else {}
    return [{"name": "cluster2", "hosts": hosts, **place}]


def _fence(host: KvmHost) -> dict[str, object]:
    if host.cgroup is not None:
        return {"cgroup": str(host.cgroup)}
    return {"command": list(host.fence_command)} if host.fence_command else {}


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
