"""The lab file: everything a run must know of the machines it may use (design section 6).

The local lab writes one for itself, so that worlds two and three are one code path. Unknown keys are refused.
Addresses are `ip:port`, sizes bytes, paths absolute.
"""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec
import yaml

from lab.errors import LabFileError


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the lab file's sections."""


class Ssh(Strict, frozen=True, kw_only=True):
    """How to log in; never asks, never learns a host key by itself."""

    address: str
    key_file: Path
    known_hosts_file: Path
    user: str = "root"
    port: int = 22


class StorPoolCluster(Strict, frozen=True, kw_only=True):
    endpoints: tuple[str, ...]
    """Management API addresses, tried in turn."""
    token_file: Path
    cluster_id: str
    """SP_CLUSTER_ID."""
    templates: tuple[str, str]
    """StorPool templates for two CloudStack pools; they must exist."""
    simulator: bool = False
    """Whether the control API under /_sim/ may be used."""
    location: str = ""
    """What StorPool calls where it is; needed where there are two."""


class Accelerator(enum.StrEnum):
    KVM = "kvm"
    TCG = "tcg"


class KvmHost(Strict, frozen=True, kw_only=True):
    name: str
    ssh: Ssh
    client_id: int
    """SP_OURID."""
    agent_address: str
    agent_directory: Path
    """Where the agent is put on that host."""
    agent_python: Path
    """An interpreter there that has requests, msgspec and libvirt."""
    bridge: str
    """Bridge that guests' interfaces are put on."""
    accelerator: Accelerator
    cgroup: Path | None = None
    """Local hosts only: the cgroup that everything of this host runs in."""
    second_storpool: bool = False
    """Whether it is a client of the lab's second StorPool cluster, not of the first."""
    fence_command: tuple[str, ...] = ()
    """Run on this machine, it switches the host off and ends with status 0 once that is done; without it the host is
    never fenced."""


class Access(enum.StrEnum):
    """How a KVM host reads the NFS export."""

    QEMU = "qemu"
    MOUNT = "mount"


class SecondaryStorage(Strict, frozen=True, kw_only=True):
    ssh: Ssh
    nfs_url: str
    export_directory: Path
    """The same directory as the NFS server sees it."""
    agent_address: str
    agent_directory: Path
    agent_python: Path
    access: Access


class GuestAddress(Strict, frozen=True, kw_only=True):
    mac: str
    ip: str


class GuestImage(Strict, frozen=True, kw_only=True):
    """qcow2 image with an SSH server, whose first disk it boots from."""

    url: str
    """As the secondary storage host can fetch it."""
    virtual_size: int
    sha256: str
    """Of the disk's bytes (raw)."""
    iso_url: str
    """A bootable ISO, as the secondary storage host can fetch it: the same system, which runs from memory."""
    iso_size: int
    idle_url: str = ""
    """An image with no system, as the secondary storage host can fetch it (lab/idle.py makes one): VMs that nobody
    looks into boot it, which saves most of their time where there is no KVM. Without it they boot the guest image."""
    idle_sha256: str = ""
    """Of its disk's bytes (raw), which VMs that boot it must never change. Without it, whether their disks have the
    image's bytes is not looked at."""
    ssh_user: str
    ssh_key_file: Path
    known_hosts_file: Path | None = None
    """Host key that every guest of this image shows, under any address; without it guests are taken as they come."""


class Management(Strict, frozen=True, kw_only=True):
    """Where the CloudStack stand-in runs: on this machine."""

    api_address: str
    network_namespace: str | None = None
    """Local lab: the namespace it listens in."""
    state_directory: Path
    cgroup: Path | None = None


class Site(enum.StrEnum):
    """How a lab with two StorPool clusters is divided."""

    ONE = ""
    """It has one."""
    CLUSTERS = "clusters"
    """One zone; a CloudStack cluster for each."""
    ZONES = "zones"
    """A zone for each, which are in two locations."""


class Tls(Strict, frozen=True, kw_only=True):
    """Certificates for commands between management server and agents, all from one CA of this lab.

    `directory` holds ca.pem and, for each of `management`, `secondary` and every host's name, NAME.pem and NAME.key.
    """

    directory: Path


class Lab(Strict, frozen=True, kw_only=True):
    version: int
    name: str
    storpool: StorPoolCluster
    hosts: tuple[KvmHost, ...]
    site: Site = Site.ONE
    second_storpool: StorPoolCluster | None = None
    secondary: SecondaryStorage
    guest_addresses: tuple[GuestAddress, ...]
    guest_image: GuestImage
    management: Management
    tls: Tls
    writable_devices: tuple[str, ...] = ()
    """Devices of this machine or its hosts that a run may overwrite. Nothing reads the list yet: a run writes only to
    volumes that it made itself."""


def storpool_of(lab: Lab, host: KvmHost) -> StorPoolCluster:
    """The cluster that the host is a client of."""
    return lab.second_storpool if host.second_storpool and lab.second_storpool is not None else lab.storpool


def load(path: Path) -> Lab:
    """Read and check a lab file; raises `LabFileError` and uses nothing of a file that is only half valid."""
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LabFileError(f"cannot read lab file {path}: {error}") from error
    try:
        lab = msgspec.convert(raw, Lab, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise LabFileError(f"lab file {path}: {error}") from error
    if lab.version != 1:
        raise LabFileError(f"lab file {path}: version {lab.version} is not known; this splab reads version 1")
    if len(lab.hosts) < 2:
        raise LabFileError(f"lab file {path}: {len(lab.hosts)} hosts; scenarios need two")
    if lab.guest_image.idle_sha256 and not lab.guest_image.idle_url:
        raise LabFileError(f"lab file {path}: guest_image has idle_sha256 but no idle_url that it would be of")
    second = [host.name for host in lab.hosts if host.second_storpool]
    if (lab.second_storpool is None) != (lab.site is Site.ONE) or bool(second) != (lab.site is not Site.ONE):
        raise LabFileError(
            f"lab file {path}: site, second_storpool and hosts with second_storpool: true belong together;"
            " give all of them or none"
        )
    unique: tuple[tuple[str, list[str]], ...] = (
        ("host name", [host.name for host in lab.hosts]),
        ("client_id", [f"{host.client_id}{' of the second cluster' * host.second_storpool}" for host in lab.hosts]),
        ("guest MAC", [guest.mac for guest in lab.guest_addresses]),
        ("guest address", [guest.ip for guest in lab.guest_addresses]),
    )
    for what, values in unique:
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise LabFileError(f"lab file {path}: {what} {twice} is there twice")
    return lab


def dump(lab: Lab) -> str:
    """The lab file's text."""
    text: str = yaml.safe_dump(msgspec.to_builtins(lab, enc_hook=_encode), sort_keys=False)
    return text


def _decode(kind: type, value: object) -> object:
    if kind is not Path:
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise ValueError(f"expected a path, got {value!r}")
    if not Path(value).is_absolute():
        raise ValueError(f"expected an absolute path, got {value!r}")
    return Path(value)


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))
