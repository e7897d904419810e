"""storpool_qos: puts the limits of volumes back to those of their tier, once a period (spec 9.1).

A volume is of the tier that its tag `qc` names, else of the one with the name of its template; others are left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import msgspec

from simulator.api.errors import Refused
from simulator.api.schema.answers import Ok
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Object, Put
from simulator.cluster.state import State
from simulator.services import kept, tiers
from simulator.services.tiers import Tier
from simulator.settings import Settings

TAG = "qc"


class Qos:
    """Implements `simulator.cluster.background.Companion`."""

    def __init__(self) -> None:
        self._looks = kept.Looks()
        self._failures: dict[str, str] = {}
        """Since the last look, by name of the volume."""

    def due_at(self, state: State, settings: Settings) -> float | None:
        return self._looks.due_at(state, settings.qos_bucket)

    def due_plans(self, call: Call) -> Iterator[Plan]:
        state, settings = call.state, call.settings
        due = self.due_at(state, settings)
        if due is None or due > call.now:
            return
        config = kept.config(state, settings.qos_bucket)
        self._looks.begin(config, call.now, settings.qos_seconds)
        problems = [f"{name}: the limits could not be set: {why}" for name, why in sorted(self._failures.items())]
        self._failures.clear()
        if config is not None:
            try:
                found = tiers.parse(config)
            except kept.ConfigError as error:
                problems.append(str(error))
            else:
                problems += _unknown(state, found)
                yield from self._set_back(call, found)
        shown = kept.report(state, settings.qos_bucket, problems)
        if shown is not None:
            yield shown

    def _set_back(self, call: Call, found: dict[str, Tier]) -> Iterator[Plan]:
        for volume in list(call.state.objects.values()):
            tier = None if volume.snapshot else _tier(call.state, found, volume)
            if tier is None:
                continue
            iops, bw = tier.limits(volume.size, call.settings.bandwidth_unit_bytes)
            # A tier's limits are of the whole volume.
            kind = "total" if volume.limit_type == "perGiB" else volume.limit_type
            new = msgspec.structs.replace(volume, iops=iops, bw=bw, limit_type=kind)
            if new != volume:
                failed = partial(self._failed, volume.shown_name)
                yield Plan(Ok(), [Put(new)], touches=(volume.id,), failed=failed)

    def _failed(self, volume: str, refused: Refused) -> None:
        self._failures[volume] = refused.descr


def _tier(state: State, found: dict[str, Tier], volume: Object) -> Tier | None:
    tier = found.get(volume.tags.get(TAG, ""))
    if tier is None and volume.template:
        tier = found.get(state.templates[volume.template].name)
    return tier


def _unknown(state: State, found: dict[str, Tier]) -> list[str]:
    """Most likely misspelt."""
    named = Counter(volume.tags[TAG] for volume in state.objects.values() if not volume.snapshot and TAG in volume.tags)
    return [
        f"tier '{name}' is not configured, and the tag {TAG} of {count} volumes names it"
        for name, count in sorted(named.items())
        if name not in found
    ]
