"""What the hosts of a lab keep of a case: what guests said on their consoles; of a failed one also logs."""

from __future__ import annotations

from harness.recording import Recorder
from lab.errors import LabError
from lab.file import KvmHost, Lab
from lab.ssh import SshHost

TAIL = 6000
"""Bytes of the end of each file."""
_RECENT = """for directory in "$@"; do
find "$directory" -type f -newermt "@$0" 2>/dev/null | while read -r file; do
printf '== %s\\n' "$file"; tail -c TAIL "$file"; echo; done
done""".replace("TAIL", str(TAIL))
KERNEL = "dmesg --time-format iso 2>/dev/null | tail -n 60"


def add_evidence(lab: Lab, recorder: Recorder, since: int) -> None:
    """Files written since `since` (Unix seconds). A host that cannot be asked is noted, never raised."""
    for host in lab.hosts:
        try:
            _of_host(host, recorder, since)
        except (LabError, OSError) as error:
            recorder.evidence(f"{host.name}: could not be asked", str(error))


def _of_host(host: KvmHost, recorder: Recorder, since: int) -> None:
    ssh = SshHost(host.ssh)
    consoles = ssh.run(["sh", "-c", _RECENT, str(since), str(host.agent_directory / "consoles")]).text
    if consoles:
        recorder.evidence(f"{host.name}: serial consoles of guests", consoles)
    if recorder.failed:
        logs = ssh.run(["sh", "-c", _RECENT, str(since), "/var/log/libvirt"]).text
        recorder.evidence(f"{host.name}: logs of libvirtd and QEMU", logs or "nothing was logged")
        recorder.evidence(f"{host.name}: end of the kernel's log", ssh.run(["sh", "-c", KERNEL]).text)
