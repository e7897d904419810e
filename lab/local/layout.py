"""Names and addresses of the local lab. Everything it makes outside its own namespaces carries the prefix `splab`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lab.file import Ssh

NETWORK = "10.77.0.0/24"
PREFIX_LENGTH = 24
CLIENT_ADDRESS = "10.77.0.1"
"""This machine's own address in the lab; nothing serves there but a proxy that is put between the lab's processes."""
CLIENT_LINK = "splab0"
CGROUP = "splab"
BRIDGE = "cloudbr0"
"""CloudStack's usual name of the bridge that guests are put on."""
STORPOOL_PORT = 81
SECOND_STORPOOL_PORT = 82
AGENT_PORT = 8250
API_PORT = 8080
TEMPLATES = ("hdd", "ssd")
GUESTS = 24


@dataclass(frozen=True, slots=True)
class Member:
    """One machine of the lab: a network namespace, and a cgroup that everything of it runs in."""

    name: str
    ip: str
    client_id: int = 0
    """SP_OURID; 0 = no StorPool client."""

    @property
    def mac(self) -> str:
        """Of its bridge, if it has one."""
        return f"02:00:77:01:00:{int(self.ip.rpartition('.')[2]):02x}"

    @property
    def netns(self) -> str:
        return f"splab-{self.name}"


MANAGEMENT = Member("mgmt", "10.77.0.2")
KVM_HOSTS = (Member("kvm1", "10.77.0.11", 1), Member("kvm2", "10.77.0.12", 2))
SECONDARY = Member("nfs", "10.77.0.20")
SSH_MEMBERS = (*KVM_HOSTS, SECONDARY)
MEMBERS = (MANAGEMENT, *SSH_MEMBERS)
STAND_IN = "management"
"""Name of the cgroup that the CloudStack stand-in runs in, so that it can be killed without the StorPool cluster."""


def guest_addresses() -> list[tuple[str, str]]:
    """(MAC, IP) of every guest that DHCP knows."""
    return [(f"02:00:77:00:00:{100 + number:02x}", f"10.77.0.{100 + number}") for number in range(GUESTS)]


@dataclass(frozen=True, slots=True)
class State:
    """Where one lab keeps what it has on disk."""

    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def lab_file(self) -> Path:
        return self.root / "lab.yaml"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def token(self) -> Path:
        return self.root / "keys/storpool.token"

    @property
    def known_hosts(self) -> Path:
        return self.root / "keys/known_hosts"

    @property
    def login_key(self) -> Path:
        return self.root / "keys/lab"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def storpool(self) -> Path:
        """The simulator's state."""
        return self.root / "storpool"

    @property
    def second_storpool(self) -> Path:
        """The state of the simulator's second cluster."""
        return self.root / "storpool-2"

    @property
    def second_token(self) -> Path:
        return self.root / "keys/storpool-2.token"

    @property
    def clusters_file(self) -> Path:
        """What the simulator is told of two clusters."""
        return self.root / "clusters.json"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def management(self) -> Path:
        return self.root / "management"

    def member(self, member: Member) -> Path:
        return self.root / "members" / member.name


def login(state: State, member: Member) -> Ssh:
    return Ssh(address=member.ip, key_file=state.login_key, known_hosts_file=state.known_hosts)


def default_state() -> Path:
    """SPLAB_STATE, else /var/lib/splab."""
    return Path(os.environ.get("SPLAB_STATE", "/var/lib/splab"))
