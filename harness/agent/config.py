"""Settings of one host's agent, read from a JSON file. Unknown keys are refused. Times are seconds."""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from harness.spi.errors import InvalidParameter


class Accelerator(enum.StrEnum):
    """libvirt's domain type: hardware virtualisation, or QEMU's own emulation (TCG)."""

    KVM = "kvm"
    QEMU = "qemu"


class SecondaryAccess(enum.StrEnum):
    """How this host reads files of an NFS image store."""

    QEMU_NFS = "qemu-nfs"
    KERNEL_MOUNT = "kernel-mount"


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files of the command server; the key's contents are never shown."""

    ca: str
    """CA that the management server's certificate must come from."""
    certificate: str
    key: str


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent must be told. Client id, cluster id and access to the API come from storpool.conf."""

    host_uuid: str
    """Of the host in CloudStack; the ping answer carries it."""
    host_name: str
    """Names this host in errors, and is the section of storpool.conf that overrides the global settings."""
    listen: str = "127.0.0.1:8250"
    """`address:port`; port 0 takes a free one, which the ready line shows."""
    tls: TlsFiles | None = None
    """Needed by the command server, not by the handlers."""
    libvirt_uri: str = "qemu:///system"
    bridge: str = "cloudbr0"
    """For interfaces of which the command names no bridge."""
    accelerator: Accelerator = Accelerator.KVM
    secondary_access: SecondaryAccess = SecondaryAccess.KERNEL_MOUNT
    mount_directory: str = "/run/splab-agent/mnt"
    """Where image stores are mounted, one directory `splab-agent.<uuid>.<uuid>` a command."""
    migration_uri: str | None = None
    """How libvirtd of another host reaches the one here; without one, qemu+tcp://<host_name>/system."""
    log_directory: str | None = None
    """Serial consoles of guests go to `<name>.console` here; without it, to a pty."""
    storpool_conf: str = "/etc/storpool.conf"
    storpool_conf_directory: str | None = "/etc/storpool.conf.d"
    """Its `*.conf` override `storpool_conf`, in sorted order."""
    attach_timeout: int = 30
    """How long StorPool may wait for this host's client to take an attachment."""
    device_timeout: float = 20.0
    """How long the device may take to show up with the right size once StorPool has answered."""
    detach_busy_timeout: float = 10.0
    """How long a detach is repeated while StorPool says that the device is open."""
    shutdown_timeout: float = 60.0
    """How long a guest may take to power off by itself before it is destroyed."""
    operations_directory: str = "/var/lib/splab-agent/operations"
    """Records of operations that are not over, on a disk that survives a restart of the host; of this agent alone,
    which holds it for as long as it runs."""
    download_directory: str = "/var/lib/splab-agent/downloads"
    """Where images that this host fetches itself are kept until they are on StorPool; each needs room for its file."""
    max_download_bytes: int = 64 << 30
    """A longer image is not fetched."""
    max_commands: int = 32
    """Commands that may run at a time; more are turned away before they begin."""


def load_config(path: Path) -> AgentConfig:
    """Read and check a configuration file; raises `InvalidParameter` naming the file and the key."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=AgentConfig)
    except OSError as error:
        raise InvalidParameter(f"cannot read agent configuration {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"agent configuration {path}: {error}") from error
