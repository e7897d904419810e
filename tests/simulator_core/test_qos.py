"""storpool_qos keeps volumes at the limits of their tier, and touches no other volume (spec 9.1)."""

from __future__ import annotations

import json
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from core_rig import configure, problems
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simulator.cluster.effects import Failure
from simulator.effects import Done, Work
from simulator.inprocess import InProcess
from simulator.ports import BlocksError
from simulator.services import tiers
from simulator.services.kept import ConfigError
from simulator.settings import Settings

GIB = 1 << 30
MIB = 1 << 20
UNIT = 1000
BUCKET = Settings().qos_bucket
EXAMPLE = Path(tiers.__file__).parent / "examples" / "qos.json"
NAMES = st.sampled_from(["a", "b", "c"])
LIMITS = st.sampled_from(["-", 0, 1, 7, 500])


def limits(simulator: InProcess, name: str) -> tuple[Any, Any]:
    [shown] = simulator.get(f"Volume/{name}")
    return shown["iops"], shown["bw"]


def naive(size: int, per_gib: float, low: int, high: int, unit: Fraction) -> int | str:
    """Of the numbers of a tier, one limit as it is shown."""
    value = Fraction(size, GIB) * Fraction(per_gib)
    if value < low:
        value = Fraction(low)
    if high and (value > high or value == 0):
        value = Fraction(high)
    return max(1, floor(value * unit)) if value else "-"


@st.composite
def a_tier(draw: st.DrawFn) -> dict[str, float]:
    tier: dict[str, float] = {}
    for low, high, per_gib in (("min_iops", "max_iops", "iops_gb"), ("min_bw", "max_bw", "mbps_gb")):
        numbers = sorted(draw(st.tuples(*[st.sampled_from([0, 1, 3, 40, 1000])] * 2)))
        if draw(st.booleans()):
            tier[low] = numbers[0]
        if draw(st.booleans()):
            tier[high] = numbers[1]
        tier[per_gib] = draw(st.sampled_from([0, 0.25, 0.5, 1, 20]))
    return tier


class Tiers(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.simulator = InProcess(Settings(bandwidth_unit_bytes=UNIT))
        self.tiers: dict[str, dict[str, float]] = {}
        self.left_alone: dict[str, tuple[Any, Any]] = {}
        """Limits of volumes that are of no tier."""
        for template in ("gold", "plain"):
            self.simulator.post("VolumeTemplateCreate", {"name": template, "placeAll": "hdd"})
        self.volumes: dict[str, dict[str, Any]] = {}
        for name in ("a", "b", "c"):
            self.simulator.post("VolumeCreate", {"name": name, "size": GIB, "template": "plain"})
            self.volumes[name] = {"size": GIB, "template": "plain", "tags": {}}

    def tier(self, name: str) -> dict[str, float] | None:
        found = self.volumes[name]
        return self.tiers.get(found["tags"].get("qc")) or self.tiers.get(found["template"])

    @rule(found=st.dictionaries(st.sampled_from(["gold", "fast"]), a_tier()))
    def configure(self, found: dict[str, dict[str, float]]) -> None:
        self.tiers = found
        configure(self.simulator, BUCKET, json.dumps({"tiers": found}))

    @rule(text=st.sampled_from(["{", '{"tiers": {"gold": {"max_iops": -1}}}', '{"tiers": {"fast": {"max": 1}}}']))
    def configure_badly(self, text: str) -> None:
        self.tiers = {}
        configure(self.simulator, BUCKET, text)
        [told] = problems(self.simulator, BUCKET)
        assert told.startswith("the tiers cannot be read")

    @rule(name=NAMES, tier=st.sampled_from(["", "gold", "fast", "none"]))
    def tag(self, name: str, tier: str) -> None:
        self.simulator.post(f"VolumeUpdate/{name}", {"tags": {"qc": tier}})
        self.volumes[name]["tags"] = {"qc": tier} if tier else {}

    @rule(name=NAMES, template=st.sampled_from(["gold", "plain"]))
    def switch_template(self, name: str, template: str) -> None:
        self.simulator.post(f"VolumeUpdate/{name}", {"template": template})
        self.volumes[name]["template"] = template

    @rule(name=NAMES, size=st.sampled_from([512, GIB // 2, 3 * GIB, 7 * GIB]))
    def resize(self, name: str, size: int) -> None:
        self.simulator.post(f"VolumeUpdate/{name}", {"size": size, "shrinkOk": True})
        self.volumes[name]["size"] = size

    @rule(name=NAMES, iops=LIMITS, bw=LIMITS, kind=st.sampled_from(["total", "perGiB"]))
    def set_by_hand(self, name: str, iops: int | str, bw: int | str, kind: str) -> None:
        self.simulator.post(f"VolumeUpdate/{name}", {"iops": iops, "bw": bw, "limitType": kind})
        self.left_alone[name] = (iops, bw)

    @rule(name=NAMES, client=st.sampled_from([1, 2]), attach=st.booleans())
    def attach_or_detach(self, name: str, client: int, attach: bool) -> None:
        self.simulator.post("VolumesReassignWait", [{"volume": name, "rw" if attach else "detach": [client]}])

    @rule()
    def restart(self) -> None:
        self.simulator.restart()

    @rule(seconds=st.sampled_from([1, 30, 59]))
    def time_passes(self, seconds: float) -> None:
        self.simulator.advance(seconds)

    @rule()
    def a_quiet_minute(self) -> None:
        self.simulator.advance(60)
        self.simulator.service.tick()
        for shown in self.simulator.get("VolumesList"):
            tier = self.tier(shown["name"])
            if tier is None:
                continue
            iops, bw = (
                naive(shown["size"], tier.get(per, 0), int(tier.get(low, 0)), int(tier.get(high, 0)), unit)
                for per, low, high, unit in (
                    ("iops_gb", "min_iops", "max_iops", Fraction(1)),
                    ("mbps_gb", "min_bw", "max_bw", Fraction(MIB, UNIT)),
                )
            )
            assert (shown["iops"], shown["bw"]) == (iops, bw), (shown, tier)
            assert shown.get("limitType", "total") == "total"

    @invariant()
    def leaves_alone_what_is_of_no_tier(self) -> None:
        for shown in self.simulator.get("VolumesList"):
            name = shown["name"]
            assert {"size": shown["size"], "template": shown["templateName"], "tags": shown["tags"]} == self.volumes[
                name
            ]
            if self.tier(name) is not None:
                self.left_alone.pop(name, None)
            else:
                now = (shown["iops"], shown["bw"])
                assert self.left_alone.setdefault(name, now) == now


TestTiers = Tiers.TestCase
TestTiers.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_the_tag_wins_over_the_template_and_snapshots_keep_what_they_have() -> None:
    tiers_of_both = '{"tiers": {"gold": {"max_iops": 9}, "fast": {"max_iops": 5}}}'
    simulator = InProcess(configurations={BUCKET: tiers_of_both})
    simulator.post("VolumeTemplateCreate", {"name": "gold", "placeAll": "hdd"})
    simulator.post("VolumeCreate", {"name": "v", "size": GIB, "template": "gold", "tags": {"qc": "fast"}})
    simulator.post("VolumeSnapshot/v", {"name": "s", "tags": {"qc": "fast"}})
    simulator.advance(60)
    assert limits(simulator, "v") == (5, "-")
    assert simulator.get("Snapshot/s")[0]["iops"] == "-"
    # One that no tier has leaves it to the template.
    simulator.post("VolumeUpdate/v", {"tags": {"qc": "none"}})
    simulator.advance(60)
    assert limits(simulator, "v") == (9, "-")


def test_it_costs_nothing_without_tiers() -> None:
    simulator = InProcess()
    simulator.post("VolumeCreate", {"name": "v", "size": GIB, "tags": {"qc": "gold"}})
    simulator.post(f"KV/Create/{BUCKET}")
    assert simulator.service.due_in() is None
    configure(simulator, BUCKET, '{"tiers": {}}')
    assert simulator.service.due_in() == 60.0
    assert problems(simulator, BUCKET) == ["tier 'gold' is not configured, and the tag qc of 1 volumes names it"]
    simulator.post(f"KV/Set/{BUCKET}", {"set": {"config": ""}})
    simulator.service.tick()
    assert simulator.service.due_in() is None and problems(simulator, BUCKET) == []


def test_the_sample_and_the_period() -> None:
    simulator = InProcess(Settings(qos_seconds=10), configurations={BUCKET: EXAMPLE.read_text()})
    simulator.post("VolumeCreate", {"name": "v", "size": 100 * GIB, "tags": {"qc": "silver"}})
    simulator.advance(10)
    assert limits(simulator, "v") == (1000, 50 * 1024)
    simulator.post("VolumeUpdate/v", {"iops": 5})
    simulator.advance(9)
    assert limits(simulator, "v")[0] == 5
    simulator.advance(1)
    assert limits(simulator, "v")[0] == 1000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"tiers": {"": {}}}', "cannot be read"),
        ('{"tiers": {"a b": {}}}', "cannot be read"),
        ('{"tiers": {"a": {"iops_gb": 1e300}}}', "cannot be read"),
        ('{"tiers": {"a": {"max_bw": 1.5}}}', "max_bw"),
        ('{"tiers": {"a": {"min_bw": 2, "max_bw": 1}}}', "tier 'a': min_bw is more than max_bw"),
        ('{"tiers": {"a": {"min_iops": 2, "max_iops": 1}}}', "tier 'a': min_iops is more than max_iops"),
    ],
)
def test_tiers_that_are_not_taken(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        tiers.parse(text)


def test_no_limit_is_more_than_the_wire_can_carry() -> None:
    [tier] = tiers.parse('{"tiers": {"a": {"iops_gb": 1e9, "mbps_gb": 1e9}}}').values()
    assert tier.limits(1 << 60, 1024) == (10**9 << 30, (1 << 63) - 1)


class OneByOne:
    """Effects that wait for the test, and may be made to fail."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Work, Done]] = []

    def start(self, work: Work, done: Done) -> None:
        self.waiting.append((work, done))

    def finish(self) -> Failure | None:
        work, done = self.waiting.pop(0)
        outcome = work()
        done(outcome)
        return outcome


def test_a_volume_that_is_being_changed_is_left_until_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    effects = OneByOne()
    simulator = InProcess(effects=effects, configurations={BUCKET: '{"tiers": {"t": {"iops_gb": 10}}}'})
    for name in ("v", "w"):
        simulator.ask("POST", "VolumeCreate", json.dumps({"name": name, "size": GIB, "tags": {"qc": "t"}}).encode())
        effects.finish()
    simulator.ask("POST", "VolumesReassignWait", b'[{"volume": "v", "rw": [1]}]')
    effects.finish()
    resized = simulator.ask("POST", "VolumeUpdate/v", json.dumps({"size": 2 * GIB}).encode())
    simulator.advance(60)
    assert limits(simulator, "w") == (10, "-") and limits(simulator, "v") == ("-", "-")
    effects.finish()
    assert resized.data["ok"] and effects.waiting == []
    # The device refuses to be limited: it is told, and tried again.
    simulator.advance(60)
    with monkeypatch.context() as broken:
        broken.setattr(simulator.blocks, "limit", lambda *_: (_ for _ in ()).throw(BlocksError("the kernel says no")))
        simulator.service.tick()
        assert effects.finish() is not None
    assert limits(simulator, "v") == ("-", "-")
    simulator.advance(60)
    assert problems(simulator, BUCKET) == ["v: the limits could not be set: the kernel says no"]
    assert effects.finish() is None
    assert limits(simulator, "v") == (20, "-") and simulator.blocks.limits(1) == (20, 0)
    simulator.advance(60)
    assert problems(simulator, BUCKET) == []
