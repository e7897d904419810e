"""Plans drawn from seeds: the same number gives the same plan on every machine and Python version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from harness.explore.plan import NEEDS_SIZE, OFFERINGS, Action, ActionKind, Plan, check
from harness.runtime.generator import Generator

SCENARIO = "cloud"
"""Name of the one scenario that exists, the middle of a seed's text."""
VERSION = "v1"

_WEIGHTS: dict[ActionKind, int] = {
    "deploy": 9,
    "create": 6,
    "attach": 12,
    "detach": 9,
    "stop": 6,
    "force-stop": 2,
    "start": 7,
    "migrate": 7,
    "destroy": 3,
    "destroy-expunge": 5,
    "recover": 3,
    "expunge": 3,
    "delete": 5,
    "power-off": 2,
    "kill-qemu": 2,
    "agent-down": 1,
    "snapshot": 7,
    "clone": 5,
    "revert": 5,
    "delete-snapshot": 4,
    "resize": 6,
    "change-offering": 6,
}
_FAULTS: dict[str, tuple[int, int]] = {
    "request-lost": (6, 24),
    "request-late": (4, 21),
    "request-very-late": (2, 21),
    "request-doubled": (6, 21),
    "copy-late": (4, 21),
    "refused": (2, 24),
    "transient": (2, 10),
    "busy": (2, 5),
    "answer-lost": (8, 21),
    "answer-late": (2, 24),
    "broken": (8, 21),
    "killed": (8, 88),
    "peer-killed": (6, 44),
    "peer-gone": (2, 24),
    "management-killed": (6, 26),
    "agent-killed": (2, 3),
    "storpool-killed-before": (4, 7),
    "storpool-killed-after": (4, 7),
    "hang": (4, 88),
    "host-lost": (4, 40),
    "guests-killed": (2, 40),
    "libvirtd-restarts": (2, 6),
    "libvirtd-gone": (2, 6),
    "device-late": (2, 4),
    "device-missing": (2, 4),
    "device-stale": (2, 4),
    "secondary-stalled": (2, 4),
    "pool-full": (2, 4),
    "clock-forward": (1, 64),
    "clock-back": (1, 64),
    "storpool-clock": (1, 9),
}
"""How often each kind of fault is drawn, and how many points it fits in a run of middling length: what is numbered
higher would seldom strike. No template is registered during a run, so nothing would fill the secondary storage."""
_STALE = ("request-doubled", "request-late", "request-very-late", "copy-late")
"""What comes of a StorPool request that arrives when its operation is over is found by comparing, and by nothing else.
Of plans without such about two thirds do not compare, so that nothing heals what should not have come to be."""
_On = tuple[int | None, int | None, int | None]
"""Slots of VM, volume and snapshot."""
_TAKEOVERS, _SNAPSHOTS = 10, 4
"""One plan of so many has a takeover, see `_takeover`; of the others one of so many begins as `_with_snapshot`."""
_SIZES = (1, 2, 2, 3)
"""In GiB; volumes begin with 1."""
_PAUSES = (*(0.0,) * 16, 1.0, 5.0, 30.0, 90.0)


def seed_text(number: int) -> str:
    return f"{VERSION}:{SCENARIO}:{number}"


def parse_seed(text: str) -> int:
    """The number of a seed like `v1:cloud:42`; raises `ValueError` that says what is wrong."""
    parts = text.split(":")
    if len(parts) != 3 or parts[:2] != [VERSION, SCENARIO]:
        raise ValueError(f"{text!r} is not a seed like {VERSION}:{SCENARIO}:NUMBER")
    if not (parts[2].isascii() and parts[2].isdigit()) or int(parts[2]) >= 1 << 63:
        raise ValueError(f"{text!r}: {parts[2]!r} is not a number from 0 to 2**63 - 1")
    return int(parts[2])


@dataclass(slots=True)
class _Sketch:
    """What the cloud would look like if the actions drawn so far went well, one after the other."""

    vms: dict[int, str] = field(default_factory=dict)
    """State by slot: running, stopped, destroyed or gone."""
    volumes: dict[int, int | None] = field(default_factory=dict)
    """By slot the VM that has it; those that are deleted are taken out."""
    made: set[int] = field(default_factory=set)
    """Volumes that are on a pool."""
    snapshots: dict[int, int] = field(default_factory=dict)
    """By slot the volume that it is of; those that are deleted are taken out."""
    owners: dict[str, int] = field(default_factory=dict)
    """Which client made `vm3` or `volume1`."""
    next_volume: int = 0
    next_snapshot: int = 0
    used: dict[str, int] = field(default_factory=dict)
    """How often each kind of action was drawn."""


def draw(number: int) -> Plan:
    """The plan of this seed."""
    generator = Generator.of(number, "plan")
    takeover = generator.below(_TAKEOVERS) == 0
    snapshot = not takeover and generator.below(_SNAPSHOTS) == 0
    vms, volumes = generator.choice((0, 0, 0, 1, 1, 2)), generator.choice((0, 1, 1, 2))
    if takeover or snapshot:
        vms, volumes = max(vms, 2 if takeover else 1), max(1, volumes)
    sketch = _Sketch(
        vms=dict.fromkeys(range(vms), "running"),
        volumes=dict.fromkeys(range(volumes)),
        next_volume=volumes,
    )
    clients: list[list[Action]] = [[] for _ in range(2 + generator.below(3))]
    if takeover:
        clients[0].extend(_begun(generator, sketch, _takeover(generator)))
    if snapshot:
        clients[0].extend(_begun(generator, sketch, _with_snapshot(generator, sketch.next_volume)))
    for _ in range((0 if takeover else 2 if snapshot else 4) + generator.below(3)):
        client = generator.below(len(clients))
        action = _action(generator, sketch, client)
        clients[client].append(action)
    faults = _faults(generator)
    plan = Plan(
        seed=number,
        vms=vms,
        seeded=generator.below(3) > 0,
        compares=generator.below(3) == 0 or any(fault.partition("@")[0] in _STALE for fault in faults),
        volumes=volumes,
        bypass=generator.below(2) == 0,
        delete_after=generator.choice((0, 0, 0, 900)),
        clients=tuple(tuple(actions) for actions in clients if actions),
        faults=faults,
    )
    return check(plan)


def _begun(generator: Generator, sketch: _Sketch, steps: Iterable[tuple[ActionKind, _On]]) -> list[Action]:
    """These actions of the first client."""
    actions = []
    for kind, (vm, volume, snapshot) in steps:
        _follow(sketch, 0, kind, (vm, volume, snapshot))
        sketch.used[kind] = sketch.used.get(kind, 0) + 1
        actions.append(
            Action(
                kind=kind,
                vm=vm,
                volume=volume,
                snapshot=snapshot,
                size=generator.choice(_SIZES) if kind in NEEDS_SIZE else 0,
                pause=generator.choice(_PAUSES),
                write=kind == "attach",
            )
        )
    return actions


def _takeover(generator: Generator) -> list[tuple[ActionKind, _On]]:
    """A VM is stopped by force while its host does not answer, and another VM is given its volume.

    What must not happen then, that both have it open, needs all of this in this order, which is seldom drawn by chance.
    """
    one, other = generator.choice(((0, 1), (1, 0)))
    loses: tuple[tuple[ActionKind, _On], ...] = (
        ("destroy", (one, None, None)),
        ("destroy-expunge", (one, None, None)),
        ("detach", (None, 0, None)),
    )
    return [
        ("attach", (one, 0, None)),
        ("agent-down", (one, None, None)),
        ("force-stop", (one, None, None)),
        generator.choice(loses),
        ("attach", (other, 0, None)),
    ]


def _with_snapshot(generator: Generator, volume: int) -> list[tuple[ActionKind, _On]]:
    """A volume is written to and its snapshot taken, and then something is made of that, or of the volume.

    `volume` is a slot that nothing has. Snapshots are of volumes that were used, so chance seldom gets that far.
    """
    after: tuple[list[tuple[ActionKind, _On]], ...] = (
        [("clone", (None, volume, 0)), ("attach", (0, volume, None))],
        [("detach", (None, 0, None)), ("revert", (None, None, 0)), ("attach", (0, 0, None))],
        [("stop", (0, None, None)), ("revert", (None, None, 0)), ("start", (0, None, None))],
        [("resize", (None, 0, None)), ("detach", (None, 0, None)), ("revert", (None, None, 0))],
        [("clone", (None, volume, 0)), ("delete-snapshot", (None, None, 0))],
    )
    return [("attach", (0, 0, None)), ("snapshot", (None, 0, 0)), *generator.choice(after)]


def _action(generator: Generator, sketch: _Sketch, client: int) -> Action:
    possible = {kind: made for kind in _WEIGHTS if (made := _choices(sketch, client, kind))}
    # What was drawn before is drawn again eight times less often, so that a short plan has several kinds.
    weights = [max(1, (_WEIGHTS[kind] * 8) >> (3 * sketch.used.get(kind, 0))) for kind in possible]
    at = generator.below(sum(weights))
    kind = next(kind for kind, end in zip(possible, accumulate(weights), strict=True) if at < end)
    vm, volume, snapshot = generator.choice(possible[kind])
    sketch.used[kind] = sketch.used.get(kind, 0) + 1
    _follow(sketch, client, kind, (vm, volume, snapshot))
    return Action(
        kind=kind,
        vm=vm,
        volume=volume,
        snapshot=snapshot,
        size=generator.choice(_SIZES) if kind in NEEDS_SIZE else 0,
        offering=generator.below(OFFERINGS) if kind == "change-offering" else 0,
        template=generator.choice((0, 0, 0, 1)) if kind == "deploy" else 0,
        pause=generator.choice(_PAUSES),
        write=kind in ("deploy", "attach", "start", "migrate") and generator.below(2) == 0,
    )


def _choices(sketch: _Sketch, client: int, kind: ActionKind) -> list[_On]:
    """On what the action may be drawn: what is the client's own, or nobody's, twice as often as what is another's."""

    def often(name: str, on: _On) -> list[_On]:
        return [on] * (2 if sketch.owners.get(name, client) == client else 1)

    def vms(*states: str) -> list[_On]:
        return [on for vm, state in sketch.vms.items() if state in states for on in often(f"vm{vm}", (vm, None, None))]

    def volumes(wanted: Iterable[int], snapshot: int | None = None) -> list[_On]:
        return [on for volume in wanted for on in often(f"volume{volume}", (None, volume, snapshot))]

    if kind == "deploy":
        return [(len(sketch.vms), None, None)] if len(sketch.vms) < 4 else []
    if kind == "create":
        return [(None, sketch.next_volume, None)] if sketch.next_volume < 4 else []
    if kind in ("detach", "delete"):
        return volumes(volume for volume, vm in sketch.volumes.items() if (vm is None) == (kind == "delete"))
    if kind in ("resize", "change-offering"):
        return volumes(sketch.volumes)
    if kind == "snapshot":
        return volumes(sorted(sketch.made & sketch.volumes.keys()), sketch.next_snapshot)
    if kind in ("clone", "revert", "delete-snapshot"):
        return _of_snapshots(sketch, kind)
    if kind == "attach":
        free = [volume for volume, vm in sketch.volumes.items() if vm is None]
        return [
            (vm, volume, None) for vm, _, _ in vms("running", "running", "stopped") for volume in free if vm is not None
        ]
    states = {
        "stop": ("running",),
        "force-stop": ("running",),
        "power-off": ("running",),
        "kill-qemu": ("running",),
        "migrate": ("running",),
        "agent-down": ("running",),
        "start": ("stopped",),
        "destroy": ("running", "stopped"),
        "destroy-expunge": ("running", "stopped"),
        "recover": ("destroyed",),
        "expunge": ("destroyed",),
    }
    return vms(*states[kind])


def _of_snapshots(sketch: _Sketch, kind: ActionKind) -> list[_On]:
    if kind == "clone":
        return [(None, sketch.next_volume, snapshot) for snapshot in sketch.snapshots if sketch.next_volume < 4]
    if kind == "delete-snapshot":
        return [(None, None, snapshot) for snapshot in sketch.snapshots]
    return [
        (None, None, snapshot)
        for snapshot, volume in sketch.snapshots.items()
        if volume in sketch.volumes and sketch.vms.get(_slot(sketch.volumes[volume])) != "running"
    ]


def _slot(vm: int | None) -> int:
    return -1 if vm is None else vm


def _follow(sketch: _Sketch, client: int, kind: ActionKind, on: _On) -> None:
    vm, volume, snapshot = on
    after = {
        "deploy": "running",
        "start": "running",
        "stop": "stopped",
        "force-stop": "stopped",
        "power-off": "stopped",
        "kill-qemu": "stopped",
        "recover": "stopped",
        "destroy": "destroyed",
        "destroy-expunge": "gone",
        "expunge": "gone",
    }
    if vm is not None and kind in after:
        sketch.vms[vm] = after[kind]
    if kind == "deploy":
        sketch.owners[f"vm{vm}"] = client
    if kind in ("destroy", "destroy-expunge"):
        sketch.volumes = {slot: None if of == vm else of for slot, of in sketch.volumes.items()}
    if kind == "delete-snapshot" and snapshot is not None:
        del sketch.snapshots[snapshot]
    if volume is None:
        return
    if kind in ("create", "clone"):
        sketch.next_volume = volume + 1
        sketch.owners[f"volume{volume}"] = client
    if kind in ("attach", "clone"):
        sketch.made.add(volume)
    if kind == "snapshot" and snapshot is not None:
        sketch.snapshots[snapshot] = volume
        sketch.next_snapshot = snapshot + 1
    if kind == "delete":
        del sketch.volumes[volume]
    elif kind in ("create", "clone", "attach", "detach"):
        sketch.volumes[volume] = vm


def _faults(generator: Generator) -> tuple[str, ...]:
    """A swarm: some kinds of faults only, and a few of those."""
    share = generator.choice((4, 3, 2))
    swarm = [name for name in _FAULTS if generator.below(share) == 0] or [generator.choice(list(_FAULTS))]
    weighted = [name for name in swarm for _ in range(_FAULTS[name][0])]
    faults: dict[str, None] = {}
    for _ in range(3 + generator.below(2)):
        name = generator.choice(weighted)
        faults[f"{name}@{1 + generator.below(_FAULTS[name][1])}"] = None
    return tuple(faults)
