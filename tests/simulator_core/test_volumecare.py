"""VolumeCare takes whole groups when they are due, lets them go by policy, and deletes nothing else (spec 7.5, 9.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from core_rig import configure, problems
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simulator.effects import Done, Work
from simulator.inprocess import InProcess, connected
from simulator.ports import OutOfSpace
from simulator.services import policies
from simulator.services.kept import ConfigError
from simulator.settings import KnownCluster, Settings

MIB = 1 << 20
BUCKET = Settings().volumecare_bucket
EXAMPLE = (Path(policies.__file__).parent / "examples" / "volumecare.conf").read_text()
BEGINNING = "[format]\nversion=1.0\n[volumecare]\nmode=primary\n"
QUICK = "[policy:quick]\nmode=basic\ninterval=1h\nkeep=3\n[template:t]\npolicy=quick\n"
SLOW = "[policy:slow]\ninterval=4h\nkeep=2\nkeep_daily=3\n[template:*]\npolicy=no\n"
BOTH = BEGINNING + QUICK + SLOW
WITHOUT_QUICK = BEGINNING + SLOW
NAMES = st.sampled_from(["a", "b", "c"])


class Held:
    """Effects that are done at once, or kept until the simulator is killed."""

    def __init__(self) -> None:
        self.holding = False
        self.waiting: list[Work] = []

    def start(self, work: Work, done: Done) -> None:
        if self.holding:
            self.waiting.append(work)
        else:
            done(work())


@dataclass(frozen=True)
class Made:
    vm: str
    policy: str
    created: int
    volumes: frozenset[str]


def hours(count: int) -> Callable[[int], object]:
    return lambda time: time // (count * 3600)


def day(time: int) -> object:
    return datetime.fromtimestamp(time, UTC).date()


def newest_of_last(times: Iterable[int], now: int, slot: Callable[[int], object], step: int, count: int) -> set[int]:
    """Of each of the last slots, counted back from now, the newest."""
    last = [slot(now - step * back) for back in range(count)]
    return {max(time for time in times if slot(time) == wanted) for wanted in last if wanted in map(slot, times)}


def wanted(policy: str, times: set[int], now: int) -> set[int]:
    if policy == "quick":
        return newest_of_last(times, now, hours(1), 3600, 3)
    return newest_of_last(times, now, hours(4), 4 * 3600, 2) | newest_of_last(times, now, day, 86400, 3)


class Policies(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.effects = Held()
        self.simulator = InProcess(effects=self.effects)
        self.config = ""
        self.volumes: dict[str, dict[str, Any]] = {}
        self.made: dict[str, Made] = {}
        """Every group that was ever seen."""
        self.alive: set[str] = set()
        self.looked = False
        """Whether it has looked at the state as it is, at this moment."""
        self.others: dict[str, dict[str, str]] = {}
        self.simulator.post("VolumeTemplateCreate", {"name": "t", "placeAll": "hdd"})
        for name in ("a", "b"):
            self.create(name, "x", "quick")
        self.create("c", "y", "slow")
        self.configure(BOTH)

    def create(self, name: str, vm: str, policy: str) -> None:
        self.looked = False
        self.simulator.post("VolumeCreate", {"name": name, "size": MIB, "tags": {"cvm": vm, "vc-policy": policy}})
        self.volumes[name] = {"vm": vm, "policy": policy, "template": ""}

    def vm(self, name: str) -> str:
        found = self.volumes[name]
        if found["vm"]:
            return f"cvm={found['vm']}"
        [shown] = self.simulator.get(f"Volume/{name}")
        return f"volume={shown['globalId']}"

    def policies(self, vm: str) -> set[str]:
        by_template = {"t": "quick"} if "quick" in self.config else {}
        return {
            found["policy"] or by_template.get(found["template"], "no")
            for name, found in self.volumes.items()
            if self.vm(name) == vm
        }

    def skipped(self) -> set[str]:
        """VMs that nothing is done about."""
        known = {"no", "slow", "quick"} if "quick" in self.config else {"no", "slow"}
        vms = {self.vm(name) for name in self.volumes}
        return {vm for vm in vms if len(self.policies(vm)) > 1 or self.policies(vm) - known}

    @rule(text=st.sampled_from([BOTH, BOTH, WITHOUT_QUICK]))
    def configure(self, text: str) -> None:
        self.config = text
        configure(self.simulator, BUCKET, text)
        self.look()

    @rule()
    def configure_badly_for_a_day(self) -> None:
        configure(self.simulator, BUCKET, "[nonsense]")
        before = self.names_of_snapshots()
        self.simulator.advance(86400)
        assert self.names_of_snapshots() == before
        assert problems(self.simulator, BUCKET) != []
        self.configure(BOTH)

    @precondition(lambda self: len(self.volumes) < 3)
    @rule(name=NAMES, vm=st.sampled_from(["", "x", "y"]), policy=st.sampled_from(["", "quick", "slow", "no"]))
    def create_volume(self, name: str, vm: str, policy: str) -> None:
        if name not in self.volumes:
            self.create(name, vm, policy)

    @precondition(lambda self: self.volumes)
    @rule(
        data=st.data(),
        vm=st.sampled_from(["", "x", "x", "y"]),
        policy=st.sampled_from(["", "quick", "slow", "no", "?"]),
    )
    def tag(self, data: st.DataObject, vm: str, policy: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.volumes)))
        policy = policy.replace("?", "unknown")
        self.simulator.post(f"VolumeUpdate/{name}", {"tags": {"cvm": vm, "vc-policy": policy}})
        self.volumes[name].update(vm=vm, policy=policy)
        self.looked = False

    @precondition(lambda self: self.volumes)
    @rule(policy=st.sampled_from(["", "quick", "slow"]))
    def tag_all_alike(self, policy: str) -> None:
        for name, found in self.volumes.items():
            self.simulator.post(f"VolumeUpdate/{name}", {"tags": {"vc-policy": policy}, "template": "t"})
            found.update(policy=policy, template="t")
        self.looked = False

    @precondition(lambda self: self.volumes)
    @rule(data=st.data())
    def delete_volume(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.volumes)))
        self.simulator.post(f"VolumeDelete/{name}")
        del self.volumes[name]
        self.looked = False

    @precondition(lambda self: self.volumes)
    @rule(
        data=st.data(),
        tags=st.sampled_from([{}, {"cvm": "x", "vc-policy": "quick"}, {"vc-group": "1.1", "vc-id": "x"}]),
    )
    def snapshot_of_somebody_else(self, data: st.DataObject, tags: dict[str, str]) -> None:
        name = data.draw(st.sampled_from(sorted(self.volumes)))
        taken = self.simulator.post(f"VolumeSnapshot/{name}", {"tags": tags})["snapshotGlobalId"]
        self.others[taken] = tags

    @rule(seconds=st.sampled_from([30, 60, 1200, 3600, 5000, 4 * 3600, 86400, 5 * 86400]))
    def time_passes(self, seconds: int) -> None:
        self.see()
        before = self.alive
        self.simulator.advance(seconds)
        self.simulator.service.tick()
        self.looked = False
        self.see()
        assert self.skipped().isdisjoint(self.made[group].vm for group in before - self.alive)
        self.look()

    @rule()
    def restart(self) -> None:
        self.simulator.restart()
        self.look()

    @rule(done=st.booleans())
    def killed_in_the_middle_of_a_look(self, done: bool) -> None:
        self.effects.holding = True
        self.simulator.advance(3600)
        self.simulator.service.tick()
        for work in self.effects.waiting if done else ():
            work()
        self.effects.waiting.clear()
        self.simulator.restart()
        self.effects.holding = False
        self.see()
        self.look()

    def look(self) -> None:
        """Whatever it has to do at this moment is done after this."""
        self.simulator.advance(60)
        self.simulator.service.tick()
        self.looked = True

    def see(self) -> None:
        """New groups hold all volumes of their VM; others are what they were, or gone as a whole."""
        self.alive = set()
        for entity in self.simulator.get("/_sim/volumecare"):
            for entry in entity["history"]:
                found = [
                    self.simulator.get(f"Snapshot/{name}")[0] for name in entry["extra_info"]["sp"]["map"].values()
                ]
                [group] = {shown["tags"]["vc-group"] for shown in found}
                [policy] = {shown["tags"]["vc-by"] for shown in found}
                taken_on = {shown["createdFromVisibleVolumeId"] for shown in found}
                assert entity["type"] == ("vm" if entity["id"]["name"].startswith("cvm=") else "volume")
                vm, volumes = entity["id"]["name"], frozenset(str(number) for number in taken_on)
                new = Made(vm, policy, entry["create_ts"], volumes)
                assert self.made.setdefault(group, new) == new
                if new is self.made[group]:
                    members = {name for name in self.volumes if self.vm(name) == vm}
                    visible = {str(self.simulator.get(f"Volume/{name}")[0]["visibleVolumeId"]) for name in members}
                    assert volumes == visible
                    assert {policy} == self.policies(vm)
                self.alive.add(group)

    def names_of_snapshots(self) -> set[str]:
        return {shown["name"] for shown in self.simulator.get("SnapshotsList") if not shown["deleted"]}

    @invariant()
    def groups_are_what_the_policies_say(self) -> None:
        self.see()
        if not self.looked:
            return
        now = int(self.simulator.time)
        vms = {self.vm(name) for name in self.volumes}
        skipped = self.skipped()
        told = "\n".join(problems(self.simulator, BUCKET))
        assert {vm for vm in vms if f"{vm} is skipped" in told} == skipped
        for vm, policy in {(found.vm, found.policy) for found in self.made.values()}:
            if vm in skipped or f"policy:{policy}" not in self.config:
                continue
            all_times = {found.created for found in self.made.values() if (found.vm, found.policy) == (vm, policy)}
            times = {
                self.made[group].created
                for group in self.alive
                if (self.made[group].vm, self.made[group].policy) == (vm, policy)
            }
            # What is taken at this look does not take the place of another before the next one.
            before = {time for time in all_times if time < now}
            assert times == wanted(policy, before, now) | (all_times - before), (vm, policy)
        for vm in vms - skipped - {vm for vm in vms if self.policies(vm) == {"no"}}:
            [policy] = self.policies(vm)
            slot = hours(1 if policy == "quick" else 4)
            newest = max(found.created for found in self.made.values() if (found.vm, found.policy) == (vm, policy))
            assert slot(newest) == slot(now)

    @invariant()
    def snapshots_of_others_stay(self) -> None:
        shown = {found["globalId"]: found for found in self.simulator.get("SnapshotsList") if not found["deleted"]}
        assert {taken: shown[taken]["tags"] for taken in self.others} == self.others

    @invariant()
    def nothing_is_in_the_pool_that_nobody_knows(self) -> None:
        known = {found["id"] for found in self.simulator.get("VolumesAndSnapshotsList")["volumes"]}
        assert set(self.simulator.blocks.objects()) == known


TestPolicies = Policies.TestCase
TestPolicies.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_it_costs_nothing_without_a_configuration() -> None:
    simulator = InProcess()
    simulator.post("VolumeCreate", {"name": "v", "size": MIB, "tags": {"vc-policy": "hourly"}})
    assert simulator.service.due_in() is None
    configure(simulator, BUCKET, BOTH)
    assert problems(simulator, BUCKET) == ["volume=splab.b.1 is skipped: policy hourly is not configured"]
    simulator.post(f"KV/Set/{BUCKET}", {"set": {"config": ""}})
    simulator.service.tick()
    assert simulator.service.due_in() is None and problems(simulator, BUCKET) == []


def test_the_sample_and_the_history_of_a_vm_of_cloudstack() -> None:
    simulator = InProcess(configurations={BUCKET: EXAMPLE})
    for uuid in ("root", "data"):
        tags = {"cvm": "vm-1", "vc-policy": "hourly", "uuid": uuid, "cs": "volume"}
        simulator.post("VolumeCreate", {"name": "", "size": MIB, "tags": tags})
    simulator.blocks.write(1, 0, b"old")
    simulator.advance(60)
    [vm] = simulator.get("/_sim/volumecare")
    assert vm == {
        "type": "vm",
        "id": {"name": "cvm=vm-1"},
        "history": [
            {
                "create_ts": 1_700_000_060,
                "id": {"location": "splab"},
                "entity_id": {"name": "cvm=vm-1"},
                "extra_info": {"sp": {"map": {"root": "~splab.b.3", "data": "~splab.b.4"}}},
            }
        ],
    }
    [snapshot] = simulator.get("Snapshot/~splab.b.3")
    group = {"vc-group": "1700000060.3", "vc-tag": "cvm", "vc-id": "vm-1", "vc-by": "hourly", "vc-volume": "root"}
    assert snapshot["tags"] == group
    # It outlives a revert to it, and the VM, until its time is over: the last one of its day is kept for seven days.
    simulator.blocks.write(1, 0, b"new")
    simulator.post("VolumeRevert/~splab.b.1", {"toSnapshot": "~splab.b.3"})
    assert simulator.blocks.read(simulator.get("Volume/~splab.b.1")[0]["id"], 0, 3) == b"old"
    for uuid in ("~splab.b.1", "~splab.b.2"):
        simulator.post(f"VolumeDelete/{uuid}")
    simulator.advance(6 * 86400)
    assert simulator.get("/_sim/volumecare") == [vm]
    simulator.advance(86400)
    assert simulator.get("/_sim/volumecare") == []
    simulator.advance(1)
    assert simulator.get("SnapshotsList") == [] and simulator.blocks.objects() == []


def test_volumes_without_the_tag_of_the_configuration_have_their_names_in_the_history() -> None:
    simulator = InProcess(configurations={BUCKET: BOTH})
    for name in ("named", ""):
        simulator.post("VolumeCreate", {"name": name, "size": MIB, "tags": {"nvm": "7", "vc-policy": "quick"}})
    simulator.advance(60)
    [vm] = simulator.get("/_sim/volumecare")
    assert vm["history"][0]["extra_info"]["sp"]["map"] == {"named": "named@3", "~splab.b.2": "~splab.b.4"}
    simulator.post("VolumeDelete/named")
    [vm] = simulator.get("/_sim/volumecare")
    assert vm["history"][0]["extra_info"]["sp"]["map"] == {"~splab.b.1": "named@3", "~splab.b.2": "~splab.b.4"}


def test_what_keeps_it_from_its_work_is_told_and_the_work_is_done_later() -> None:
    simulator = InProcess(configurations={BUCKET: BOTH})
    simulator.post("VolumeCreate", {"name": "v", "size": MIB, "tags": {"cvm": "x", "vc-policy": "quick"}})
    free = simulator.blocks.capacity()[1]
    simulator.blocks.taken = free
    simulator.advance(60)
    [told] = problems(simulator, BUCKET)
    assert told.startswith("cvm=x: no snapshots are taken: Not enough free space")
    simulator.blocks.taken = 0
    simulator.advance(60)
    assert problems(simulator, BUCKET) == [] and len(simulator.get("SnapshotsList")) == 1
    # One that somebody uses stays until it is given back, and then goes with its group.
    simulator.post("VolumesReassignWait", [{"snapshot": "v@2", "ro": [1]}])
    simulator.advance(86400)
    assert "1700000120 are kept: Snapshot 'v@2' is attached to client 1" in problems(simulator, BUCKET)[0]
    simulator.post("VolumesReassignWait", [{"snapshot": "v@2", "detach": "all"}])
    simulator.advance(60)
    simulator.advance(60)
    assert [shown["name"] for shown in simulator.get("SnapshotsList") if not shown["deleted"]] == ["v@3"]
    assert problems(simulator, BUCKET) == []


def test_a_vm_with_a_volume_that_is_being_changed_waits_and_a_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    effects = Held()
    simulator = InProcess(effects=effects, configurations={BUCKET: BOTH})
    for name in ("v", "w"):
        simulator.post("VolumeCreate", {"name": name, "size": MIB, "tags": {"cvm": "x", "vc-policy": "quick"}})
    effects.holding = True
    asked = simulator.ask("POST", "VolumeSnapshot/w")
    simulator.advance(60)
    simulator.service.tick()
    assert len(effects.waiting) == 1 and asked.reply is None
    effects.waiting.clear()
    simulator.restart()
    effects.holding = False
    with monkeypatch.context() as full:
        full.setattr(simulator.blocks, "clone_group", raise_full)
        simulator.service.tick()
    assert simulator.get("SnapshotsList") == []
    simulator.advance(60)
    assert problems(simulator, BUCKET) == ["cvm=x: no snapshots were taken: Not enough free space: full"]
    assert len(simulator.get("SnapshotsList")) == 2
    simulator.advance(60)
    assert problems(simulator, BUCKET) == []


def raise_full(_clones: object) -> None:
    raise OutOfSpace("full")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "version is missing"),
        ("nonsense", "no text of sections"),
        ("[format]\nversion=2.0\n", "version is 2.0; only 1.0"),
        (BOTH + "[other]\n", r"\[other\] is no section"),
        (BOTH + "[policy:no]\n", r"\[policy:no\] is no section"),
        (BOTH + "[policy:a b]\n", "is no section"),
        (BOTH + "[policy:quick]\n", "already exists"),
        (BOTH + "[policy: quick]\n", "is there twice"),
        (BOTH + "[template:u]\npolicy=gone\n", r"there is no section \[policy:gone\]"),
        (BOTH + "[template:u]\npolicies=no\n", "'policies' is not known"),
        (BEGINNING + QUICK, r"\[template:\*\] is missing"),
        (BOTH.replace("mode=primary", "mode=other"), "mode 'other' is none of"),
        (BOTH.replace("mode=primary", "id_tag=a b"), "cannot be the name of a tag"),
        (BOTH.replace("mode=primary", "vm_tag=volume"), "cannot be the name of a tag"),
        (BOTH.replace("mode=primary", "vm_tag="), "has no value"),
        (BOTH.replace("mode=basic", "mode=exponential"), "mode 'exponential' is not implemented"),
        (BOTH.replace("interval=1h", ""), "'interval' is missing"),
        (BOTH.replace("interval=1h", "interval=59s"), "interval '59s'"),
        (BOTH.replace("interval=1h", "interval=99999w"), "interval '99999w'"),
        (BOTH.replace("keep=3", "keep=0"), "keep '0'"),
        (BOTH.replace("keep=3", "keep=1001"), "keep '1001'"),
        (BOTH + "# " + "x" * 500, "a line of more than"),
        ("#\n" * 40_000, "more than 65536 characters"),
        *[(BOTH.replace("primary", mode), f"mode {mode} is not implemented") for mode in ("backup", "multi_backup")],
        (BOTH.replace("primary", "primary_backup"), "mode primary_backup is not implemented"),
    ],
)
def test_configurations_that_are_not_taken(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        policies.parse(text)


def test_a_configuration_in_the_store_is_not_replaced_at_a_start() -> None:
    simulator = InProcess(configurations={BUCKET: EXAMPLE, "storpool_qos": '{"tiers": {}}'})
    buckets = simulator.get("KV")["buckets"]
    assert buckets == {BUCKET: 1, "storpool_qos": 1}
    configure(simulator, BUCKET, BOTH)
    before = simulator.service.encoded_state()
    simulator.restart()
    assert simulator.service.encoded_state() == before
    assert simulator.service.not_imported == [BUCKET]
    simulator.post("/_sim/reset")
    assert simulator.get(f"KV/List/{BUCKET}")["pairs"] == {"config": EXAMPLE}


def test_copies_that_came_from_another_cluster_are_not_its_own() -> None:
    here, there = connected(
        KnownCluster(cluster_id="aa.b", name="alpha", location="sofia"),
        KnownCluster(cluster_id="zz.b", name="gamma", location="varna"),
    )
    configure(here, BUCKET, BOTH)
    here.post("VolumeCreate", {"name": "v", "size": MIB, "tags": {"vc-policy": "quick"}})
    here.advance(60)
    [vm] = here.get("/_sim/volumecare")
    assert (vm["type"], vm["id"]) == ("volume", {"name": "volume=aa.b.1"})
    here.post("SnapshotExport", {"snapshot": "v@2", "location": "varna"})
    there.post("SnapshotFromRemote", {"remoteLocation": "sofia", "remoteId": "aa.b.2"})
    configure(there, BUCKET, BOTH)
    there.advance(86400)
    assert there.get("/_sim/volumecare") == []
    assert there.get("Snapshot/~aa.b.2")[0]["tags"]["vc-by"] == "quick"
    # One that is exported stays as long as that.
    here.advance(86400)
    assert problems(here, BUCKET)[0].endswith("are kept: Snapshot 'v@2' is exported")


def test_a_volume_that_another_cluster_takes_over_is_left_alone() -> None:
    here, _there = connected(
        KnownCluster(cluster_id="aa.b", name="alpha", location="sofia"),
        KnownCluster(cluster_id="aa.c", name="beta", location="sofia"),
    )
    here.post("VolumeCreate", {"name": "v", "size": MIB, "tags": {"vc-policy": "quick", "qc": "t"}})
    here.post("/_bridge/Depart", {"object": "v", "move": 1, "to": "aa.c"})
    configure(here, BUCKET, BOTH)
    configure(here, "storpool_qos", '{"tiers": {"t": {"max_iops": 7}}}')
    assert here.get("SnapshotsList") == [] and here.get("Volume/v")[0]["iops"] == "-"
    here.post("/_bridge/Stay", {"move": 1, "cluster": "aa.c"})
    here.advance(60)
    assert len(here.get("SnapshotsList")) == 1 and here.get("Volume/v")[0]["iops"] == 7
