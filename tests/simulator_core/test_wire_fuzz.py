"""Whatever is sent, the answer is JSON with a known error name or data, and a restart knows it all again."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from wire_calls import check, one_call

from simulator.effects import Done, Work
from simulator.inprocess import Asked, InProcess, connected
from simulator.settings import KnownCluster


def neighbours() -> list[InProcess]:
    """Three clusters, each with a volume and an exported snapshot of it."""
    clusters = connected(
        KnownCluster(cluster_id="splab.b", name="splab", location="sofia"),
        KnownCluster(cluster_id="splab.c", name="beta", location="sofia"),
        KnownCluster(cluster_id="zz.b", name="gamma", location="varna"),
    )
    for simulator, location in zip(clusters[1:], ("varna", "sofia"), strict=True):
        simulator.post("VolumeCreate", {"size": 1 << 20})
        snapshot = simulator.post(f"VolumeSnapshot/~{simulator.settings.cluster_id}.1", {})["snapshotGlobalId"]
        simulator.post("SnapshotExport", {"snapshot": "~" + snapshot, "location": location})
    return clusters


@settings(max_examples=100, deadline=None)
@given(calls=st.lists(st.tuples(one_call(), st.integers(0, 2)), min_size=12, max_size=30), alone=st.booleans())
def test_any_sequence_of_plausible_and_absurd_calls(calls: list[Any], alone: bool) -> None:
    clusters = [InProcess()] if alone else neighbours()
    for name in ("a", "b"):
        clusters[0].post("VolumeCreate", {"name": name, "size": 1 << 20})
    clusters[0].post("VolumeSnapshot/a", {"name": "s"})
    clusters[0].post("VolumeTemplateCreate", {"name": "t", "size": 512})
    for (operation, path, body), at in calls:
        target = clusters[at % len(clusters)]
        target.service.tick()
        before = target.service.encoded_state()
        asked = target.ask(operation.verb, path, b"" if body is None else json.dumps(body).encode())
        assert asked.reply is not None
        answer = json.loads(asked.reply.body)
        check(answer, asked.reply.status, operation, path)
        # One that takes several steps in several clusters may be refused after the first of them.
        assert "error" not in answer or not alone or target.service.encoded_state() == before
        for simulator in clusters:
            simulator.advance(0.3)
    for simulator in clusters:
        simulator.service.tick()
    states = [simulator.service.encoded_state() for simulator in clusters]
    for simulator in clusters:
        simulator.restart()
        assert simulator.service.mended == []
    assert [simulator.service.encoded_state() for simulator in clusters] == states


class InAnyOrder:
    """Effects that end when Hypothesis says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Work, Done]] = []

    def start(self, work: Work, done: Done) -> None:
        self.waiting.append((work, done))

    def finish(self, at: int) -> None:
        work, done = self.waiting.pop(at % len(self.waiting))
        done(work())


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(one_call() | st.integers(0, 5) | st.just("kill"), min_size=15, max_size=40))
def test_effects_that_end_in_any_order_leave_blocks_and_journal_agreed(steps: list[Any]) -> None:
    effects = InAnyOrder()
    simulator = InProcess(effects=effects)
    answered: list[Asked] = []
    for name in ("a", "b"):
        simulator.ask("POST", "VolumeCreate", b'{"name": "%s", "size": 1048576}' % name.encode())
        effects.finish(0)
    for step in steps:
        simulator.advance(0.2)
        if step == "kill":
            simulator.restart()
            effects.waiting.clear()
            answered.clear()
        elif isinstance(step, int):
            if effects.waiting:
                effects.finish(step)
        else:
            operation, path, body = step
            answered.append(simulator.ask(operation.verb, path, b"" if body is None else json.dumps(body).encode()))
    while effects.waiting:
        effects.finish(-1)
    assert all(asked.reply is not None for asked in answered)
    state = simulator.service.encoded_state()
    simulator.restart()
    assert simulator.service.encoded_state() == state
    assert simulator.service.mended == []


@settings(max_examples=150, deadline=None)
@given(
    verb=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.text(st.characters(exclude_categories=()), max_size=30),
    body=st.binary(max_size=30),
)
def test_noise_is_refused_in_json(verb: str, path: str, body: bytes) -> None:
    simulator = InProcess()
    for start in ("/", "/ctrl/1.0/", "/ctrl/1.0/KV/", "/ctrl/1.0/VolumeCreate/", "/_sim/", "/ctrl/1.0/RemoteCommand/"):
        asked = simulator.ask(verb, start + path, body)
        assert asked.reply is not None
        check(json.loads(asked.reply.body), asked.reply.status)
