"""Kinds of faults, the points each fits, and what it does there.

Long ones outlast every time-out of driver, agent and stand-in that waits for what they befall; short ones do not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from harness.faults.points import AGENT, MANAGEMENT, SECONDARY, STORPOOL, Point
from harness.faults.target import FaultTarget
from harness.runtime.messages import MessageFate, MessageFault

SHORT = 8.0
LATE = 40.0
"""Seconds after its sender gave up that a late request arrives: other requests have been made since."""
VERY_LATE = 300.0
"""As `LATE`: all that came after it is over, answered and recorded, and yet it is not taken to be dead."""
LONG = 700.0
"""Longer than any command may take, and than the settle time of requests without an answer."""
RESTART = 5.0
"""Until a service manager has a killed process up again."""
HOST_DOWN = 240.0
JUMP = 7200.0

_CHANGES = (
    "VolumeCreate",
    "VolumeUpdate",
    "VolumeDelete",
    "VolumeRevert",
    "VolumeSnapshot",
    "VolumesGroupSnapshot",
    "SnapshotUpdate",
    "SnapshotDelete",
    "SnapshotExport",
    "SnapshotFromRemote",
    "SnapshotReconcile",
    "SnapshotUnexport",
    "VolumesReassignWait",
)
_BUSY = ("VolumeDelete", "VolumeRevert", "SnapshotDelete", "VolumesReassignWait")
_EFFECTS = (
    "VolumeCreate",
    "VolumeDelete",
    "VolumeRevert",
    "VolumeSnapshot",
    "VolumesGroupSnapshot",
    "SnapshotDelete",
    "SnapshotFromRemote",
    "VolumesReassignWait",
)
"""Calls that change blocks or devices."""
_FILLS = ("VolumeCreate", "VolumeRevert", "VolumeSnapshot", "VolumesGroupSnapshot", "SnapshotFromRemote")
_PING = "PingCommand "
_MIGRATION = "migration of "
"""In what libvirtds do among themselves."""
_LIBVIRT = (
    "create",
    "shutdown",
    "destroy",
    "undefine",
    "attach-device",
    "detach-device",
    "update-device",
    "migrate",
)


@dataclass(frozen=True, slots=True)
class FaultKind:
    name: str
    title: str
    """What happens, in a few words."""
    fits: Callable[[Point], bool]
    strike: Callable[[FaultTarget, Point], MessageFault | None]
    ends_guests: bool = False
    """Whether VMs of a host may be off afterwards, without anybody having asked for it."""

    def __reduce__(self) -> tuple[Callable[[str], FaultKind], tuple[str]]:
        """Goes to another process by its name."""
        return _named, (self.name,)


def _named(name: str) -> FaultKind:
    return KINDS[name]


def _message(fate: MessageFate, seconds: float = 0.0, answer: bytes = b"") -> Callable[..., MessageFault]:
    fault = MessageFault(fate, seconds, answer)
    return lambda _target, _point: fault


def _at(point: Point, kind: str) -> bool:
    return point.kind == kind and point.peer is not None


def _changing(point: Point) -> bool:
    """A message that asks for a change: every call of CloudStack's API that is a point, every command but a ping."""
    if point.call is not None:
        return point.call in _CHANGES
    return point.peer is not None and not point.detail.startswith(_PING)


def _own(point: Point) -> bool:
    """A place inside a process that can be killed."""
    return point.process in (MANAGEMENT, SECONDARY) or point.agent


def _libvirt(point: Point) -> bool:
    if point.machine and _MIGRATION in point.detail:
        return True
    if not point.agent or not point.kind.startswith("effect"):
        return False
    verb = point.detail.partition(": ")[2].partition(" ")[0]
    return verb in _LIBVIRT


def _attaching(point: Point) -> bool:
    return point.agent and point.kind == "send" and point.call == "VolumesReassignWait"


def _on_secondary(point: Point) -> bool:
    return (_at(point, "send") and point.peer == SECONDARY) or point.process == SECONDARY or "qemu-img" in point.detail


def _filling(point: Point) -> bool:
    return (point.kind == "send" and point.call in _FILLS) or "qemu-img" in point.detail


def _host(act: Callable[[FaultTarget, str], None]) -> Callable[[FaultTarget, Point], None]:
    """`act` on the host that the point concerns; the kind fits no other point."""

    def strike(target: FaultTarget, point: Point) -> None:
        assert point.host is not None, "the kind fits points of a host only"
        act(target, point.host)

    return strike


def _error(name: str, text: str, *, transient: bool) -> bytes:
    flag = "true" if transient else "false"
    return f'{{"error":{{"name":"{name}","descr":"{text}","transient":{flag}}}}}'.encode()


_TRANSIENT = _error("unavailable", "Try again later", transient=True)
_HELD = _error("busy", "The object is busy", transient=False)

_ALL: tuple[FaultKind, ...] = (
    FaultKind("request-lost", "request lost", lambda p: _at(p, "send"), _message(MessageFate.LOST)),
    FaultKind(
        "request-late",
        "request applied late, after its time-out and after later requests",
        lambda p: _at(p, "send") and _changing(p),
        _message(MessageFate.LATE, LATE),
    ),
    FaultKind(
        "request-very-late",
        "request applied late, when all that came after it is over",
        lambda p: _at(p, "send") and _changing(p),
        _message(MessageFate.LATE, VERY_LATE),
    ),
    FaultKind(
        "request-doubled",
        "request delivered twice at once",
        lambda p: _at(p, "send") and _changing(p),
        _message(MessageFate.TWICE),
    ),
    FaultKind(
        "copy-late",
        "a copy of the request arrives after later requests",
        lambda p: _at(p, "send") and _changing(p),
        _message(MessageFate.TWICE, LATE),
    ),
    FaultKind("refused", "connection refused", lambda p: _at(p, "send"), _message(MessageFate.REFUSED)),
    FaultKind(
        "transient",
        "StorPool asks to come again",
        lambda p: p.kind == "send" and p.call is not None,
        _message(MessageFate.REJECTED, answer=_TRANSIENT),
    ),
    FaultKind(
        "busy",
        "StorPool says that the object is busy",
        lambda p: p.kind == "send" and p.call in _BUSY,
        _message(MessageFate.REJECTED, answer=_HELD),
    ),
    FaultKind(
        "answer-lost",
        "answer lost after the effect",
        lambda p: _at(p, "answer") and _changing(p),
        _message(MessageFate.ANSWER_LOST),
    ),
    FaultKind("answer-late", "answer late", lambda p: _at(p, "answer"), _message(MessageFate.ANSWER_LATE, SHORT)),
    FaultKind(
        "broken",
        "connection broken after the effect",
        lambda p: _at(p, "answer") and _changing(p),
        _message(MessageFate.BROKEN),
    ),
    FaultKind("killed", "its process killed", _own, lambda target, p: target.kill(p.process, RESTART)),
    FaultKind(
        "peer-killed",
        "the other side killed",
        lambda p: p.peer is not None,
        lambda target, p: target.kill(p.peer or "", RESTART),
    ),
    FaultKind(
        "peer-gone",
        "the other side killed and away for longer than anybody tries",
        lambda p: _at(p, "send"),
        lambda target, p: target.kill(p.peer or "", LONG),
    ),
    FaultKind(
        "management-killed",
        "management server killed while an agent, or its program, works",
        lambda p: p.agent or p.machine,
        lambda target, p: target.kill(MANAGEMENT, RESTART),  # noqa: ARG005
    ),
    FaultKind(
        "storpool-killed-before",
        "StorPool killed with the change in its journal and nothing done",
        lambda p: p.kind == "send" and p.call in _EFFECTS,
        lambda target, p: target.storpool_dies(RESTART, after=False),  # noqa: ARG005
    ),
    FaultKind(
        "storpool-killed-after",
        "StorPool killed with the change done and not committed",
        lambda p: p.kind == "send" and p.call in _EFFECTS,
        lambda target, p: target.storpool_dies(RESTART, after=True),  # noqa: ARG005
    ),
    FaultKind(
        "agent-killed",
        "agent killed while its program goes on",
        lambda p: p.machine,
        _host(lambda target, host: target.kill(f"{AGENT}{host}", RESTART)),
    ),
    FaultKind("hang", "its task hangs", lambda p: _own(p) or p.machine, lambda target, p: target.hang(LONG)),  # noqa: ARG005
    FaultKind(
        "host-lost",
        "host lost and back",
        lambda p: p.host is not None,
        _host(lambda target, host: target.lose_host(host, HOST_DOWN)),
        ends_guests=True,
    ),
    FaultKind(
        "guests-killed",
        "every QEMU of the host killed",
        lambda p: p.host is not None,
        _host(lambda target, host: target.kill_guests(host)),
        ends_guests=True,
    ),
    FaultKind(
        "libvirtd-restarts",
        "libvirtd away for a moment",
        _libvirt,
        _host(lambda target, host: target.libvirtd_gone(host, SHORT)),
    ),
    FaultKind(
        "libvirtd-gone",
        "libvirtd away for long",
        _libvirt,
        _host(lambda target, host: target.libvirtd_gone(host, LONG)),
    ),
    FaultKind(
        "device-late",
        "device late, in time",
        _attaching,
        _host(lambda target, host: target.devices_late(host, SHORT)),
    ),
    FaultKind(
        "device-missing",
        "device later than the agent waits",
        _attaching,
        _host(lambda target, host: target.devices_late(host, LONG)),
    ),
    FaultKind(
        "device-stale",
        "device of the wrong size",
        _attaching,
        _host(lambda target, host: target.devices_stale(host, LONG)),
    ),
    FaultKind(
        "secondary-stalled",
        "secondary storage stalled",
        _on_secondary,
        lambda target, p: target.secondary_stalled(LONG),  # noqa: ARG005
    ),
    FaultKind(
        "secondary-full",
        "secondary storage full",
        _on_secondary,
        lambda target, p: target.secondary_full(LONG),  # noqa: ARG005
    ),
    FaultKind("pool-full", "StorPool full", _filling, lambda target, p: target.pool_full(LONG)),  # noqa: ARG005
    FaultKind(
        "clock-forward",
        "wall clock two hours forward",
        lambda p: p.process == MANAGEMENT or p.agent,
        lambda target, p: target.set_clock(p.process, JUMP),
    ),
    FaultKind(
        "clock-back",
        "wall clock two hours back",
        lambda p: p.process == MANAGEMENT or p.agent,
        lambda target, p: target.set_clock(p.process, -JUMP),
    ),
    FaultKind(
        "storpool-clock",
        "wall clock of StorPool two hours forward",
        lambda p: p.kind == "send" and p.call in _CHANGES,
        lambda target, p: target.set_clock(p.peer or STORPOOL, JUMP),
    ),
)
KINDS: dict[str, FaultKind] = {kind.name: kind for kind in _ALL}


@functools.cache
def fitting(point: Point) -> tuple[FaultKind, ...]:
    """The kinds that fit the point."""
    if point.process != "scenario" or point.peer is not None:
        return tuple(kind for kind in _ALL if kind.fits(point))
    return ()
