"""The whole operation table, plausible and absurd, over HTTP to a process on loop devices."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from simulator_processes import Connection, Running, eventually, pool_devices, zygote
from wire_calls import check, one_call

from simulator.blocks import loop
from simulator.blocks.destroy import destroy

pytestmark = [pytest.mark.local, pytest.mark.timeout(1800)]
EXAMPLES = 500 if os.environ.get("SPLAB_COUNTS") == "full" else 40
QUERIES = (
    "VolumesAndSnapshotsList",
    "AttachmentsList",
    "VolumeTemplatesList",
    "PlacementGroupsList",
    "LocationsList",
    "ClustersList",
    "ExportsList",
    "iSCSIConfig",
)


def test_any_sequence_of_calls_is_answered_in_json_and_a_refused_one_changes_nothing(tmp_path: Path) -> None:
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    state = tmp_path / "state"
    try:
        with zygote(state, "--pool-size", "1G", "--control") as made:
            running = made.start()

            # It is too slow to look for the shortest way to a failure.
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate],
                database=None,
            )
            @given(calls=st.lists(one_call(), min_size=15, max_size=30))
            def sequence(calls: list[Any]) -> None:
                with closing(Connection(running.port)) as connection:
                    begin(connection)
                    carry_out(connection, calls)
                    hold_to_machine(connection, running)

            sequence()
            assert made.end(signal.SIGTERM) == 0
    finally:
        destroy(state)


def begin(connection: Connection) -> None:
    eventually("it is reset", lambda: connection.ask("POST", "/_sim/reset")[0] == 200)
    for name in ("a", "b"):
        connection.call("POST", "VolumeCreate", {"name": name, "size": 1 << 20})
    connection.call("POST", "VolumeSnapshot/a", {"name": "s"})
    connection.call("POST", "VolumeTemplateCreate", {"name": "t", "size": 512})


def carry_out(connection: Connection, calls: list[Any]) -> None:
    before = shown(connection)
    for operation, path, body in calls:
        address = quote(f"/ctrl/1.0/{path}")
        text = "" if body is None else json.dumps(body)
        if operation.verb == "GET":
            status, answer = connection.ask("GET", address + (f"?json={quote(text)}" if text else ""))
        else:
            status, answer = connection.ask("POST", address, text.encode())
        check(answer, status, operation, path)
        after = shown(connection)
        if operation.verb == "GET" or ("error" in answer and answer["error"]["name"] != "timeout"):
            assert after == before, (path, body, answer)
        before = after


def shown(connection: Connection) -> list[Any]:
    """What is there, without what passes with time: space, and snapshots that are on their way out."""
    found = {query: connection.call("GET", query) for query in QUERIES}
    found["VolumesAndSnapshotsList"] = [
        {field: value for field, value in entry.items() if field not in ("storedSize", "spaceUsed", "parentVolumeId")}
        for entry in found["VolumesAndSnapshotsList"]["volumes"]
        if not entry.get("deleted") and not entry.get("transient")
    ]
    return list(found.values())


def hold_to_machine(connection: Connection, running: Running) -> None:
    """The pool has what is listed, and devices are there for what is attached."""
    attached = sorted(
        (int(one["globalId"].split(".")[-1], 36), one["client"]) for one in connection.call("GET", "AttachmentsList")
    )
    devices = [status.tag.split(":")[2:] for status in pool_devices(running.state)]
    assert sorted((int(number), int(client)) for number, client in devices) == attached
    eventually(
        "the pool has what is listed",
        lambda: (
            {str(entry["id"]) for entry in connection.call("GET", "VolumesAndSnapshotsList")["volumes"]}
            == running.objects()
        ),
    )
