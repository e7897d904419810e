"""A plan: everything that one explored run needs, as plain data.

Objects are named by slots, small numbers that an action of the plan fills. An action on a slot that is empty does
nothing, so a plan from which actions were removed still runs.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from harness.faults import Fault, parse_fault

ActionKind = Literal[
    "deploy",
    "create",
    "attach",
    "detach",
    "stop",
    "force-stop",
    "start",
    "migrate",
    "destroy",
    "destroy-expunge",
    "recover",
    "expunge",
    "delete",
    "power-off",
    "kill-qemu",
    "agent-down",
    "snapshot",
    "clone",
    "revert",
    "delete-snapshot",
    "resize",
    "change-offering",
]

MAX_CLIENTS = 4
MAX_ACTIONS = 32
"""Of all clients together."""
MAX_SLOTS = 16
MAX_FAULTS = 16
MAX_PAUSE = 1200.0
OFFERINGS = 3
"""Disk offerings that a volume may be changed to: a plain one, one with a limit, and one with a tier."""
MAX_GIB = 4

Slot = Annotated[int, msgspec.Meta(ge=0, lt=MAX_SLOTS)]


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Action(_Data, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a client does next. Which of the slots it needs follows from its kind."""

    kind: ActionKind
    vm: Slot | None = None
    volume: Slot | None = None
    template: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    """Of a deploy; the second one was never used."""
    snapshot: Slot | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_GIB)] = 0
    """Of a volume that changes size or offering, in GiB."""
    offering: Annotated[int, msgspec.Meta(ge=0, lt=OFFERINGS)] = 0
    """Of a volume that changes its offering."""
    pause: Annotated[float, msgspec.Meta(ge=0, le=MAX_PAUSE)] = 0.0
    """Seconds that the client waits before it."""
    write: bool = False
    """Whether the client writes a mark through the guest when the action has succeeded and the guest is up."""

    def __str__(self) -> str:
        parts: list[str] = [self.kind]
        if self.vm is not None:
            parts.append(f"vm{self.vm}")
        if self.volume is not None:
            parts.append(f"volume{self.volume}")
        if self.snapshot is not None:
            parts.append(f"snapshot{self.snapshot}")
        if self.size:
            parts.append(f"to {self.size} GiB")
        if self.kind == "change-offering":
            parts.append(f"and offering{self.offering}")
        if self.kind == "deploy":
            parts.append(f"of template{self.template}")
        text = " ".join(parts)
        return f"{text} after {self.pause:g} s" if self.pause else text


NEEDS_VM: frozenset[str] = frozenset(
    {
        "deploy",
        "attach",
        "stop",
        "force-stop",
        "start",
        "migrate",
        "destroy",
        "destroy-expunge",
        "recover",
        "expunge",
        "power-off",
        "kill-qemu",
        "agent-down",
    }
)
NEEDS_VOLUME: frozenset[str] = frozenset(
    {"create", "attach", "detach", "delete", "snapshot", "clone", "resize", "change-offering"}
)
NEEDS_SNAPSHOT: frozenset[str] = frozenset({"snapshot", "clone", "revert", "delete-snapshot"})
NEEDS_SIZE: frozenset[str] = frozenset({"resize", "change-offering"})


class Plan(_Data, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    """Of the schedule, and of everything else that the world draws."""
    vms: Annotated[int, msgspec.Meta(ge=0, le=4)] = 0
    """Running at the beginning, in the first slots, of the first template."""
    seeded: bool = False
    """Whether the first template was used before, so that its snapshot is on the pool."""
    compares: bool = True
    """Whether the driver compares with StorPool every 25 minutes, and so heals, or once a day: not within the run."""
    volumes: Annotated[int, msgspec.Meta(ge=0, le=4)] = 0
    """DATA volumes that exist at the beginning, never used, in the first slots."""
    bypass: bool = False
    """Whether snapshots stay on StorPool, and are not backed up to secondary storage."""
    delete_after: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 0
    """Value of `storpool.delete.after.interval`, seconds."""
    clients: tuple[tuple[Action, ...], ...] = ()
    faults: tuple[str, ...] = ()
    """Each `kind@n`, see `harness.faults.parse_fault`."""

    @property
    def actions(self) -> int:
        return sum(len(client) for client in self.clients)

    @property
    def shrinks(self) -> bool:
        """Whether a volume may be asked to shrink to a size that it had: clients take turns as they like."""
        sizes: dict[int | None, set[int]] = {}
        for action in (action for client in self.clients for action in client if action.size):
            sizes.setdefault(action.volume, set()).add(action.size)
        return any(len(asked) > 1 for asked in sizes.values())

    def parsed_faults(self) -> list[Fault]:
        return [parse_fault(text) for text in self.faults]


def check(plan: Plan) -> Plan:
    """The plan; raises `ValueError` that says what is wrong with it."""
    if len(plan.clients) > MAX_CLIENTS:
        raise ValueError(f"{len(plan.clients)} clients are more than {MAX_CLIENTS}")
    if plan.actions > MAX_ACTIONS:
        raise ValueError(f"{plan.actions} actions are more than {MAX_ACTIONS}")
    if len(plan.faults) > MAX_FAULTS:
        raise ValueError(f"{len(plan.faults)} faults are more than {MAX_FAULTS}")
    for action in (action for client in plan.clients for action in client):
        for noun, given, kinds in (
            ("VM", action.vm is not None, NEEDS_VM),
            ("volume", action.volume is not None, NEEDS_VOLUME),
            ("snapshot", action.snapshot is not None, NEEDS_SNAPSHOT),
            ("size", action.size > 0, NEEDS_SIZE),
        ):
            if given != (action.kind in kinds):
                raise ValueError(f"action {action}: {f'it takes no {noun}' if given else f'a {noun} is missing'}")
    plan.parsed_faults()
    return plan


def decode(text: bytes | str) -> Plan:
    """From JSON; raises `ValueError` that says what is wrong."""
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a plan: {error}") from None
    return check(plan)


def encode(plan: Plan) -> bytes:
    return msgspec.json.encode(plan)
