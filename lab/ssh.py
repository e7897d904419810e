"""SSH to a machine of the lab: OpenSSH with one shared connection, never asking, never learning a host key."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import testinfra
import testinfra.host

from lab.file import Ssh
from lab.shell import Completed, run


def _control_directory() -> Path:
    """Short enough for a socket's path (104 bytes), private to this user."""
    directory = Path(tempfile.gettempdir()) / f"splab-ssh-{Path('/proc/self').stat().st_uid}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        directory.chmod(0o700)
    return directory


@dataclass(frozen=True)
class SshHost:
    """A machine reached over SSH. Commands share one connection, which closes a minute after the last."""

    ssh: Ssh
    shared: bool = True
    """Whether to share one connection; false for what must notice at once that the machine went away."""
    _control: Path = field(default_factory=_control_directory)

    @property
    def connected(self) -> bool:
        """Whether there is a shared connection; the other end may be gone meanwhile."""
        return self.shared and self._socket.exists()

    @property
    def _socket(self) -> Path:
        ssh = self.ssh
        # In another network namespace the same address is another machine.
        network = Path("/proc/self/ns/net").stat().st_ino
        peer = f"{network} {ssh.user}@{ssh.address}:{ssh.port} {ssh.key_file}"
        return self._control / hashlib.sha256(peer.encode()).hexdigest()[:16]

    def options(self) -> list[str]:
        """OpenSSH's options, for `ssh`, `scp` and others of the family."""
        ssh = self.ssh
        pairs = [
            ("BatchMode", "yes"),
            ("StrictHostKeyChecking", "yes"),
            ("UserKnownHostsFile", str(ssh.known_hosts_file)),
            ("GlobalKnownHostsFile", "/dev/null"),
            ("IdentitiesOnly", "yes"),
            ("IdentityFile", str(ssh.key_file)),
            ("ConnectTimeout", "10"),
            ("ServerAliveInterval", "5"),
            ("ServerAliveCountMax", "3"),
            ("LogLevel", "ERROR"),
        ]
        if self.shared:
            pairs += [("ControlMaster", "auto"), ("ControlPath", str(self._socket)), ("ControlPersist", "60")]
        return ["-F", "none", *(word for key, value in pairs for word in ("-o", f"{key}={value}"))]

    def argv(self, command: Sequence[str]) -> list[str]:
        """The local command line that runs `command` there, each of its words quoted."""
        ssh = self.ssh
        return ["ssh", *self.options(), "-p", str(ssh.port), f"{ssh.user}@{ssh.address}", "--", shlex.join(command)]

    def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60, check: bool = True) -> Completed:
        """Run `command` there. Raises `lab.shell.CommandFailed` when it fails (with `check`) or takes too long."""
        return run(self.argv(command), stdin=stdin, timeout=timeout, check=check)

    def close(self) -> None:
        """End the shared connection, if there is one."""
        if self.connected:
            target = f"{self.ssh.user}@{self.ssh.address}"
            run(["ssh", *self.options(), "-p", str(self.ssh.port), "-O", "exit", target], check=False, timeout=10)

    def inspector(self) -> testinfra.host.Host:
        """testinfra's view of the machine, over the same connection."""
        ssh = self.ssh
        options = " ".join(shlex.quote(word) for word in self.options())
        return testinfra.get_host(
            f"ssh://{ssh.user}@{ssh.address}:{ssh.port}", ssh_extra_args=options, controlpersist=0
        )
