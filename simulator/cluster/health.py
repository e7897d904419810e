"""Which disks and servers are up, and how far what they do by themselves has come (spec storpool-api 6.4, 7.9).

Recovery, draining and scrubbing take the seconds that the settings say. How far they are follows from when they began,
so nothing has to be remembered as they go on, and a restart changes nothing.
"""

from __future__ import annotations

from simulator.cluster.plan import Call
from simulator.cluster.records import Disk, Server
from simulator.cluster.state import State


def server_up(server: Server) -> bool:
    return server.left_generation < 0


def disk_up(state: State, disk: Disk) -> bool:
    return disk.left_generation < 0 and server_up(state.servers[disk.server])


def generation_left(state: State, disk: Disk) -> int:
    """The last generation in which the disk was active; -1 while it is."""
    return disk.left_generation if disk.left_generation >= 0 else state.servers[disk.server].left_generation


def operational(state: State) -> bool:
    """More than half of the servers run: the others cannot form a second cluster."""
    return 2 * sum(server_up(server) for server in state.servers.values()) > len(state.servers)


def recovered(call: Call, disk: Disk) -> float:
    """How much of a disk that came back is up to date, from 0 to 1."""
    since = max(disk.back_since, call.state.servers[disk.server].back_since)
    if not since:
        return 1.0
    return share(call.now - since, call.settings.disk_recovery_seconds)


def undisturbed(call: Call) -> bool:
    """Whether every disk is in use, up to date and to stay."""
    return all(
        in_sync(call, disk) and disk.soft_eject == "off" and not disk.ejected for disk in call.state.disks.values()
    )


def in_sync(call: Call, disk: Disk) -> bool:
    return disk_up(call.state, disk) and recovered(call, disk) >= 1.0


def drained(call: Call, disk: Disk) -> float:
    """How much of a disk in soft-eject was moved away, from 0 to 1."""
    if disk.soft_eject == "off":
        return 0.0
    moved = disk.drained_seconds + (call.now - disk.drained_since if disk.soft_eject == "on" else 0.0)
    return share(moved, call.settings.disk_drain_seconds)


def blocks_balancing(state: State, disk: Disk) -> bool:
    """Whether the balancer leaves alone what is on it: it is down, or is being drained."""
    return disk.soft_eject != "off" or disk.ejected or not disk_up(state, disk)


def scrubbed(call: Call, disk: Disk) -> float:
    """How much of the disk the scrub under way has read, from 0 to 1; 0 without one."""
    if not disk.scrub_started:
        return 0.0
    until = disk.scrub_paused_since or call.now
    return share(until - disk.scrub_started - disk.scrub_paused_seconds, call.settings.disk_scrub_seconds)


def last_scrub(call: Call, disk: Disk) -> int:
    """Unix seconds at which the last whole scrub ended; 0 for never."""
    if disk.scrub_started and scrubbed(call, disk) >= 1.0:
        return int(disk.scrub_started + disk.scrub_paused_seconds + call.settings.disk_scrub_seconds)
    return disk.last_scrub


def share(seconds: float, whole: float) -> float:
    """How much of what takes the whole time is done, from 0 to 1."""
    return min(1.0, max(0.0, seconds) / whole) if whole else 1.0
