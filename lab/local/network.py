"""The lab's network: one bridge in the management namespace, a cable from it to each machine and to this one.

Nothing is forwarded or translated, and this machine's own firewall never sees the lab's traffic.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from lab.errors import LabError
from lab.local.layout import (
    BRIDGE,
    CLIENT_ADDRESS,
    CLIENT_LINK,
    KVM_HOSTS,
    MANAGEMENT,
    MEMBERS,
    NETWORK,
    PREFIX_LENGTH,
    SECONDARY,
    Member,
)
from lab.local.ledger import Kind, Ledger
from lab.shell import run

NETNS_ROOT = Path("/run/netns")
SWITCH = "lab0"
CABLE = "eth0"


def refuse_conflict() -> None:
    """Raises `LabError` when this machine already routes into the lab's network."""
    lab = ipaddress.ip_network(NETWORK)
    for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]).text or "[]"):
        destination = route["dst"]
        if destination == "default" or route.get("dev") in (CLIENT_LINK, "lo"):
            continue
        if ipaddress.ip_network(destination, strict=False).overlaps(lab):
            raise LabError(
                f"this machine routes {destination} over {route.get('dev')}; the local lab needs {NETWORK} for itself"
            )


def namespaces() -> list[str]:
    """Named network namespaces of this machine that carry the lab's prefix."""
    if not NETNS_ROOT.is_dir():
        return []
    return sorted(path.name for path in NETNS_ROOT.iterdir() if path.name.startswith("splab-"))


def is_mounted(path: Path) -> bool:
    """Whether something is mounted there; `Path.is_mount` does not see a directory mounted on itself."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def link_exists(name: str) -> bool:
    return run(["ip", "link", "show", "dev", name], check=False).returncode == 0


def make(ledger: Ledger) -> None:
    """Namespaces, bridge and cables, with addresses, up."""
    if not is_mounted(NETNS_ROOT):
        ledger.record(Kind.NETNS_ROOT, NETNS_ROOT)
    for member in MEMBERS:
        ledger.record(Kind.NETNS, member.netns)
        run(["ip", "netns", "add", member.netns])
        _in(member, "link", "set", "lo", "up")
    _bridge(MANAGEMENT, SWITCH)
    _in(MANAGEMENT, "addr", "add", f"{MANAGEMENT.ip}/{PREFIX_LENGTH}", "dev", SWITCH)
    _in(MANAGEMENT, "link", "set", SWITCH, "up")
    for member in KVM_HOSTS:
        _cable(member)
        _bridge(member, BRIDGE)
        _in(member, "link", "set", CABLE, "master", BRIDGE)
        _in(member, "addr", "add", f"{member.ip}/{PREFIX_LENGTH}", "dev", BRIDGE)
        _in(member, "link", "set", BRIDGE, "up")
    _cable(SECONDARY)
    _in(SECONDARY, "addr", "add", f"{SECONDARY.ip}/{PREFIX_LENGTH}", "dev", CABLE)
    ledger.record(Kind.LINK, CLIENT_LINK)
    run(["ip", "link", "add", CLIENT_LINK, "type", "veth", "peer", "name", "client", "netns", MANAGEMENT.netns])
    _in(MANAGEMENT, "link", "set", "client", "master", SWITCH, "up")
    run(["ip", "addr", "add", f"{CLIENT_ADDRESS}/{PREFIX_LENGTH}", "dev", CLIENT_LINK])
    run(["ip", "link", "set", CLIENT_LINK, "up"])


def _bridge(member: Member, name: str) -> None:
    """With an address that stays: else it is the lowest of its ports', which may change when a guest starts or ends,
    and nobody reaches the machine until the neighbours ask for its address again, up to a minute later."""
    _in(member, "link", "add", name, "address", member.mac, "type", "bridge", "stp_state", "0", "forward_delay", "0")


def _cable(member: Member) -> None:
    _in(member, "link", "add", CABLE, "type", "veth", "peer", "name", member.name, "netns", MANAGEMENT.netns)
    _in(member, "link", "set", CABLE, "up")
    _in(MANAGEMENT, "link", "set", member.name, "master", SWITCH, "up")


def _in(member: Member, *words: str) -> None:
    run(["ip", "-n", member.netns, *words])


def remove_link(name: str) -> None:
    if link_exists(name):
        run(["ip", "link", "delete", name])


def remove_namespace(name: str) -> None:
    path = NETNS_ROOT / name
    if path.exists():
        # A namespace that was made only half is a plain file; `ip netns delete` copes with both.
        run(["ip", "netns", "delete", name], check=False)
    path.unlink(missing_ok=True)


def remove_netns_root() -> None:
    """Undo the mount on /run/netns that `ip netns add` made; kept while others have namespaces there."""
    if NETNS_ROOT.is_dir() and any(NETNS_ROOT.iterdir()):
        return
    for _ in range(8):
        if not is_mounted(NETNS_ROOT):
            break
        run(["umount", NETNS_ROOT])
    if NETNS_ROOT.is_dir():
        NETNS_ROOT.rmdir()
