"""VolumeCare: takes and expires group snapshots of VMs by policy (spec 7.5, 9.2).

A group is one change of the cluster, and goes in one change, so a kill leaves all of its snapshots or none. When it
goes is said by the policy that it was taken by, also after its VM is gone or has another policy. Nothing is done about
a VM whose volumes do not agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from simulator.api.errors import Refused
from simulator.api.schema.answers import Ok
from simulator.api.schema.requests import GroupSnapshotSpec, GroupSnapshotsSpec
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Object
from simulator.cluster.snapshots import snapshot_create_group, snapshot_delete_by_id
from simulator.cluster.state import State
from simulator.services import groups, kept, policies
from simulator.services.groups import Entity, Group
from simulator.services.policies import NO, Config
from simulator.settings import Settings


class VolumeCare:
    """Implements `simulator.cluster.background.Companion`. Its calls must know how full the pool is."""

    def __init__(self) -> None:
        self._looks = kept.Looks()
        self._failures: dict[str, str] = {}
        """Since the last look, by name of the VM."""

    def due_at(self, state: State, settings: Settings) -> float | None:
        return self._looks.due_at(state, settings.volumecare_bucket)

    def due_plans(self, call: Call) -> Iterator[Plan]:
        state, settings = call.state, call.settings
        due = self.due_at(state, settings)
        if due is None or due > call.now:
            return
        text = kept.config(state, settings.volumecare_bucket)
        self._looks.begin(text, call.now, settings.volumecare_seconds)
        problems = [f"{name}: no snapshots were taken: {why}" for name, why in sorted(self._failures.items())]
        self._failures.clear()
        if text is not None:
            try:
                config = policies.parse(text)
            except kept.ConfigError as error:
                problems.append(str(error))
            else:
                yield from self._look(call, config, problems)
        shown = kept.report(state, settings.volumecare_bucket, problems)
        if shown is not None:
            yield shown

    def _look(self, call: Call, config: Config, problems: list[str]) -> Iterator[Plan]:
        """Adds to the problems what it leaves undone, and why."""
        taken = groups.taken(call.state)
        for entity, volumes in groups.entities(call.state, call.settings.cluster_id, config).items():
            named = sorted({groups.policy_of(call.state, config, volume) for volume in volumes})
            if named == [NO]:
                continue
            if len(named) > 1 or named[0] not in config.policies:
                taken.pop(entity, None)
                why = "is not configured" if len(named) == 1 else "differ between its volumes"
                problems.append(f"{entity.name} is skipped: policy {', '.join(named)} {why}")
                continue
            [policy] = named
            times = [group.created for group in taken.get(entity, ()) if group.policy == policy]
            if policies.due(config.policies[policy], times, call.now):
                yield from self._take(call, config, entity, volumes, policy, problems)
        for found in taken.values():
            yield from _expire(call, config, found, problems)

    def _take(
        self,
        call: Call,
        config: Config,
        entity: Entity,
        volumes: list[Object],
        policy: str,
        problems: list[str],
    ) -> Iterator[Plan]:
        tags = {
            groups.GROUP: f"{int(call.now)}.{call.state.next_serial}",
            groups.TAG: entity.tag,
            groups.ID: entity.value,
            groups.BY: policy,
        }
        items = [
            GroupSnapshotSpec(
                volume="~" + volume.global_id,
                tags={groups.VOLUME_ID: volume.tags[config.id_tag]} if config.id_tag in volume.tags else None,
            )
            for volume in volumes
        ]
        try:
            plan = snapshot_create_group(call, GroupSnapshotsSpec(volumes=items, tags=tags))
        except Refused as refused:
            problems.append(f"{entity.name}: no snapshots are taken: {refused.descr}")
            return
        plan.failed = partial(self._failed, entity)
        yield plan

    def _failed(self, entity: Entity, refused: Refused) -> None:
        self._failures[entity.name] = refused.descr


def _expire(call: Call, config: Config, found: list[Group], problems: list[str]) -> Iterator[Plan]:
    """Of one entity. Groups of a policy that is configured no more are kept: nobody knows how long they are wanted."""
    for name in dict.fromkeys(group.policy for group in found):
        of_policy = [group for group in found if group.policy == name]
        policy = config.policies.get(name)
        if policy is None:
            problems.append(f"{found[0].entity.name}: snapshots of policy {name} are kept: it is not configured")
            continue
        wanted = policies.kept(policy, [group.created for group in of_policy], call.now)
        for group in of_policy:
            if group.created in wanted:
                continue
            try:
                yield _deletion(call, group)
            except Refused as refused:
                problems.append(f"{group.entity.name}: snapshots of {group.created} are kept: {refused.descr}")


def _deletion(call: Call, group: Group) -> Plan:
    """Of all its snapshots at once: half a group must not be taken for a whole one."""
    plans = [snapshot_delete_by_id(replace(call, args=(found.global_id,))) for found in group.snapshots]
    return Plan(
        Ok(),
        [event for plan in plans for event in plan.events],
        [effect for plan in plans for effect in plan.effects],
        tuple(touched for plan in plans for touched in plan.touches),
        tuple(use for plan in plans for use in plan.uses),
        [late for plan in plans for late in plan.late],
    )
