"""Recordings: what is in them, what is not, and that a replay finds every difference and no other."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import hypothesis.strategies as st
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from served import served
from session import session
from wire_calls import one_call

from simulator.inprocess import TOKEN, InProcess
from simulator.settings import Settings
from simulator.transcript import Comparison, Exchange, Header, Transcript, TranscriptError, check, hold, read
from simulator.transcript.__main__ import main
from simulator.transcript.compare import TIMES
from simulator.transcript.record import Recorder, target
from simulator.transcript.redact import Redaction
from simulator.transcript.replay import Simulated

HEADER = Header(started=1_700_000_000.0)
MB = 1 << 20


def other() -> InProcess:
    return InProcess(Settings(cluster_id="loc.x9"))


def ask(address: str, verb: str, path: str, body: object = None, token: str = TOKEN) -> dict[str, Any]:
    text = b"" if body is None else json.dumps(body).encode()
    whole = quote(path if path.startswith("/") else f"/ctrl/1.0/{path}", safe="/~@*:")
    with closing(http.client.HTTPConnection(*target(f"http://{address}"), timeout=20)) as connection:
        if verb == "GET" and text:
            whole += f"?json={quote(text, safe='')}"
        connection.request(verb, whole, text if verb == "POST" else None, {"Authorization": f"Storpool v1:{token}"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer


@contextmanager
def recording(exchanges: list[Exchange], simulator: InProcess, redaction: Redaction | None = None) -> Iterator[str]:
    with served(simulator) as address:
        recorder = Recorder(
            ("127.0.0.1", 0),
            target(f"http://{address}"),
            exchanges.append,
            HEADER,
            redaction or Redaction(),
            lambda: HEADER.started,  # the simulator's clock stands too
        )
        thread = threading.Thread(target=recorder.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{recorder.server_address[1]}"
        finally:
            recorder.shutdown()
            recorder.server_close()
            thread.join()


@pytest.fixture(scope="module")
def recorder() -> Iterator[tuple[str, list[Exchange]]]:
    exchanges: list[Exchange] = []
    with recording(exchanges, InProcess()) as address:
        yield address, exchanges


Leaf = tuple[tuple[str | int, ...], Any]
"""Way to a value in an answer, and the value."""


MAY_BE_ANYTHING = ("descr", "clusterName", "cluster")
"""Texts that nobody looks for, and what another cluster may call itself."""


def leaves(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in MAY_BE_ANYTHING:
                yield from leaves(inner, (*way, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from leaves(inner, (*way, at))
    else:
        yield way, value


def changed(leaf: Leaf) -> Any:
    """Something else; where clusters may differ, something of another kind."""
    way, value = leaf
    name = str(way[-1])
    if isinstance(value, bool):
        return not value
    free = name in TIMES or "eneration" in name or name in ("id", "templateId") or name.endswith("olumeId")
    return value + 1 if isinstance(value, int) and not free else "?"


def with_change(transcript: Transcript, number: int, leaf: Leaf) -> Transcript:
    copy: list[Exchange] = msgspec.convert(msgspec.to_builtins(transcript.exchanges), list[Exchange])
    way = leaf[0]
    inner: Any = copy[number].answer
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = changed(leaf)
    return Transcript(transcript.header, tuple(copy))


@settings(max_examples=25, deadline=None)
@given(calls=st.lists(one_call(), min_size=5, max_size=15), data=st.data())
def test_a_random_session_is_held_by_a_fresh_simulator_and_any_change_is_found(
    recorder: tuple[str, list[Exchange]], calls: list[Any], data: st.DataObject
) -> None:
    address, exchanges = recorder
    ask(address, "POST", "/_sim/reset", {})
    exchanges.clear()
    for name in ("a", "b"):
        ask(address, "POST", "VolumeCreate", {"name": name, "size": MB})
    ask(address, "POST", "VolumeSnapshot/a", {"name": "s"})
    for operation, path, body in calls:
        ask(address, str(operation.verb), path, body)
    for query in ("VolumesList", "SnapshotsList", "VolumesGetStatus", "MultiCluster/AttachmentsList"):
        ask(address, "GET", query)
    transcript = Transcript(HEADER, tuple(exchanges))
    assert len(exchanges) == len(calls) + 7
    assert list(check(transcript, simulator=other())) == []
    number = data.draw(st.integers(0, len(exchanges) - 1), "exchange")
    leaf = data.draw(st.sampled_from(list(leaves(exchanges[number].answer))), "leaf")
    differences = list(check(with_change(transcript, number, leaf), simulator=other()))
    assert differences and differences[0].exchange >= number + 1


def vendors() -> Transcript:
    """The session of the bindings, as far as it is one that a recorder could hear."""
    exchanges: list[Exchange] = []
    at = 0.0
    for found in session():
        if found.path == "/_sim/clock":
            at += found.json["advance"]
            continue
        if found.operation is None:
            break
        fields = {"at": at, "took": 0, "verb": found.verb, "path": found.path.removeprefix("/ctrl/1.0/"), "status": 200}
        json_sent = {"json": found.json} if found.body else {}
        exchanges.append(msgspec.convert({**fields, **json_sent, "answer": json.loads(found.answer)}, Exchange))
    return Transcript(HEADER, tuple(exchanges))


class Leaping(Simulated):
    """As the session's clock: it goes in leaps, and nothing happens before the next call."""

    def __init__(self, simulator: InProcess) -> None:
        super().__init__(simulator)
        self._leap = simulator.advance

    def pause(self, seconds: float) -> None:
        self._leap(seconds)


def test_the_bindings_session_is_held_by_another_cluster() -> None:
    transcript = vendors()
    for simulator in (InProcess(), other()):
        assert list(hold(Leaping(simulator), transcript)) == []


def test_what_may_differ_is_the_same_everywhere_or_told() -> None:
    simulator = InProcess()
    asked: list[Exchange] = []

    def note(verb: str, path: str, body: Any = None) -> None:
        reply = simulator.ask(verb, path, b"" if body is None else json.dumps(body).encode()).reply
        assert reply is not None
        more = {} if body is None else {"json": body}
        exchange = {"at": 0, "took": 0, "verb": verb, "path": path, "status": reply.status} | more
        asked.append(msgspec.convert({**exchange, "answer": json.loads(reply.body)}, Exchange))

    for _ in range(2):
        note("POST", "VolumeCreate", {"size": MB})
    note("GET", "Volume/~splab.b.2")
    note("POST", "VolumesReassign", [{"volume": "~splab.b.2", "rw": [1]}])
    note("POST", "RemoteCommand/~splab.b/VolumeDelete/~splab.b.2")
    note("GET", "VolumesList")
    transcript = Transcript(HEADER, tuple(asked))

    shifted = other()
    shifted.post("VolumeCreate", {"size": MB})
    shifted.post("VolumeDelete/~loc.x9.1")
    assert list(check(transcript, simulator=shifted)) == []

    swapped = json.loads(json.dumps(asked[5].answer).replace("b.1", "b.?").replace("b.2", "b.1").replace("b.?", "b.2"))
    [told, *_] = check(
        Transcript(HEADER, (*asked[:5], msgspec.structs.replace(asked[5], answer=swapped))), simulator=other()
    )
    assert (told.exchange, told.call) == (6, "GET VolumesList")
    turned = msgspec.structs.replace(asked[5], answer={**asked[5].answer, "data": asked[5].answer["data"][::-1]})
    assert list(check(Transcript(HEADER, (*asked[:5], turned)), simulator=other())) == []


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda answer: answer["data"][0].update(size=512), "$.data[0].size: expected 512, got 1048576"),
        (lambda answer: answer["data"][0].update(colour="red"), "$.data[0].colour: expected 'red', got '(absent)'"),
        (lambda answer: answer["data"][0].pop("size"), "$.data[0].size: expected '(absent)', got 1048576"),
        (lambda answer: answer["data"].clear(), "$.data length: expected 0, got 1"),
        (lambda answer: answer["data"][0].update(creationTimestamp=0), "$.data[0].creationTimestamp"),
        (lambda answer: answer.update(generation=1), "$.generation: expected"),
        (lambda answer: answer["data"][0].update(name="~splab.b.zz"), "$.data[0].name"),
    ],
)
def test_a_difference_is_told_as_path_expected_and_got(edit: Any, told: str) -> None:
    simulator = InProcess()
    created = {"generation": 2, "data": {"ok": True, "generation": 2, "globalId": "splab.b.1", "name": "~splab.b.1"}}
    simulator.post("VolumeCreate", {"size": MB})
    answer = simulator.ask("GET", "VolumesList").envelope()
    edit(answer)
    exchanges = (
        Exchange(at=0, took=0, verb="POST", path="VolumeCreate", json={"size": MB}, status=200, answer=created),
        Exchange(at=0, took=0, verb="GET", path="VolumesList", status=200, answer=answer),
    )
    differences = [str(found) for found in check(Transcript(HEADER, exchanges), simulator=InProcess())]
    assert differences and any(found.startswith(f"2 GET VolumesList: {told}") for found in differences), differences


@pytest.mark.parametrize(
    ("recorded", "got", "same"),
    [
        ((7, 8), (3, 5), True),
        ((7, 8), (3, 3), False),
        ((7, 7), (3, 4), False),
        ((8, 7), (3, 4), False),
        ((8, 7), (4, 3), True),
        ((7, "8"), (3, 4), False),
    ],
)
def test_generations_go_as_they_went(recorded: tuple[Any, Any], got: tuple[Any, Any], same: bool) -> None:
    comparison = Comparison(frozenset())
    pairs = zip(recorded, got, strict=True)
    found = [comparison.differences(1, "", {"generation": a}, {"generation": b}, (200, 200)) for a, b in pairs]
    assert (found == [[], []]) is same


def test_one_cluster_is_not_two() -> None:
    recorded = {"data": ["~splab.b.1", "splab.b.2@4", "splab.b.2@4"]}
    for data, same in (
        (["~x.y.a", "x.y.c@9", "x.y.c@9"], True),
        (["~x.y.a", "x.z.c@9", "x.z.c@9"], False),
        (["~x.y.a", "x.y.a@9", "x.y.a@9"], False),
        (["~x.y.a", "x.y.c@9", "x.y.c@8"], False),
    ):
        comparison = Comparison(frozenset({"splab.b"}))
        assert (comparison.differences(1, "", recorded, {"data": data}, (200, 200)) == []) is same


def test_time_passes_in_a_replay_as_it_did() -> None:
    removed = {"generation": 4, "data": []}
    simulator = InProcess()
    simulator.post("VolumeCreate", {"name": "a", "size": 512})
    taken = simulator.ask("POST", "VolumeSnapshot/a", b'{"name": "s", "deleteAfter": 60}').envelope()
    exchanges = [
        Exchange(at=0, took=0, verb="POST", path="VolumeCreate", status=200, answer={},
                 json={"name": "a", "size": 512}),
        Exchange(at=1, took=0, verb="POST", path="VolumeSnapshot/a", status=200, answer=taken,
                 json={"name": "s", "deleteAfter": 60}),
        Exchange(at=65, took=0, verb="GET", path="SnapshotsList", status=200, answer=removed),
    ]  # fmt: skip
    late = Transcript(HEADER, tuple(exchanges))
    early = Transcript(HEADER, (*exchanges[:2], msgspec.structs.replace(exchanges[2], at=30)))
    assert [found for found in check(late) if found.exchange > 1 and "eneration" not in found.where] == []
    assert [found.where for found in check(early) if found.exchange == 3][-1] == "$.data length"


SECRETS = ("hush-iscsi-1", "hush-value", TOKEN, "wrong-token-7")


@contextmanager
def started(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and where it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.transcript", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("ready http://127.0.0.1:"), ready
        yield process, ready.split("//")[1].strip()
    finally:
        process.kill()
        process.communicate()


def test_the_command_records_without_secrets_and_replays(tmp_path: Path) -> None:
    file = tmp_path / "session.jsonl"
    options = ("--listen", "127.0.0.1:0", "--redact-values", file)
    with (
        served(InProcess()) as upstream,
        started("record", "--to", f"http://{upstream}", *options) as (process, address),
    ):
        ask(address, "POST", "VolumeCreate", {"name": "a", "size": MB, "tags": {"note": TOKEN}})
        initiator = {"name": "iqn.a", "username": "u", "secret": SECRETS[0]}
        base = {"setBaseName": {"name": "iqn.2019-08.com.example:alpha"}}
        done = ask(address, "POST", "iSCSIConfig", {"commands": [base, {"createInitiator": initiator}]})
        assert done["data"]["ok"]
        assert SECRETS[0] in json.dumps(ask(address, "GET", "iSCSIConfig"))
        ask(address, "POST", "KV/Create/b")
        ask(address, "POST", "KV/Set/b", {"set": {"k": SECRETS[1], "gone": ""}})
        assert ask(address, "GET", "KV/Get/b/k")["data"]["pairs"] == {"k": SECRETS[1]}
        assert ask(address, "GET", "VolumesList", token=SECRETS[3])["error"]["name"] == "accessDenied"
        ask(address, "GET", f"Volume/{TOKEN}")
        process.send_signal(signal.SIGTERM)
        output = "".join(process.communicate(timeout=20))
        assert process.returncode == 0
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(secret in text or secret in output for secret in SECRETS)
    assert len(read(file).exchanges) == 8
    kept = [found for found in read(file).exchanges if found.answer.get("error", {}).get("name") != "accessDenied"]
    assert len(kept) == 7
    assert [str(found) for found in check(Transcript(HEADER, tuple(kept[1:6])), frozenset({"generation"}))] == []

    for refused in (
        ("--listen", "0.0.0.0:0", tmp_path / "new"),
        (file,),
        ("--listen", "127.0.0.1:0", "--to", "x", file),
    ):
        arguments = ["record", "--to", "http://127.0.0.1:9", *map(str, refused)]
        with mock.patch.object(Recorder, "serve_forever", side_effect=AssertionError("it serves")):
            ended = CliRunner().invoke(main, arguments)
        assert ended.exit_code in (1, 2) and "Error: " in ended.output
    assert not (tmp_path / "new").exists()


def test_the_command_holds_a_simulator_and_a_server_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "session.jsonl"
    exchanges: list[Exchange] = []
    with recording(exchanges, InProcess()) as address:
        ask(address, "POST", "VolumeCreate", {"name": "a", "size": MB})
        ask(address, "POST", "VolumeUpdate/a", {"rename": "b"})
        ask(address, "GET", "Volume/b")
        ask(address, "GET", "iSCSISessionsInfo", {"controllerIds": [1, 2]})
    assert exchanges[3].json == {"controllerIds": [1, 2]}
    file.write_bytes(b"\n".join(msgspec.json.encode(line) for line in (HEADER, *exchanges)))
    held = CliRunner().invoke(main, ["replay", "--check", str(file)])
    assert (held.exit_code, held.output) == (0, "4 exchanges, no difference\n")

    monkeypatch.setenv("SPLAB_TOKEN", TOKEN)
    with served(other()) as address:
        held = CliRunner().invoke(main, ["replay", "--against", f"http://{address}", str(file)])
    assert (held.exit_code, held.output) == (0, "4 exchanges, no difference\n")
    taken = other()
    taken.post("VolumeCreate", {"name": "a", "size": 512})
    with served(taken) as address:
        stopped = CliRunner().invoke(main, ["replay", "--against", f"http://{address}", str(file)])
    assert stopped.exit_code == 1 and stopped.output.startswith(
        "1 POST VolumeCreate: HTTP status: expected 200, got 409"
    )
    assert [volume["name"] for volume in taken.get("VolumesList")] == ["a"], "nothing more was changed"

    file.write_text(file.read_text().replace(f'"size":{MB},"replication"', '"size":512,"replication"'))
    wrong = CliRunner().invoke(main, ["replay", "--check", str(file)])
    assert wrong.exit_code == 1
    assert re.match(rf"3 GET Volume/b: \$\.data\[0\]\.size: expected 512, got {MB}\n", wrong.output)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "is empty"),
        (['{"transcript": 2, "started": 1}'], "line 1"),
        (['{"transcript": 1, "started": 1}', '{"at": 0}'], "line 2"),
        (['{"transcript": 1, "started": 1}', "{"], "line 2"),
    ],
)
def test_a_file_that_is_no_transcript_is_refused(tmp_path: Path, lines: list[str], told: str) -> None:
    file = tmp_path / "file"
    file.write_text("\n".join(lines))
    with pytest.raises(TranscriptError, match=told):
        read(file)


def test_a_recorder_answers_in_json_when_the_cluster_is_away() -> None:
    exchanges: list[Exchange] = []
    recorder = Recorder(("127.0.0.1", 0), ("127.0.0.1", 9), exchanges.append, HEADER, Redaction())
    thread = threading.Thread(target=recorder.serve_forever, args=(0.01,))
    thread.start()
    try:
        answer = ask(f"127.0.0.1:{recorder.server_address[1]}", "GET", "VolumesList")
    finally:
        recorder.shutdown()
        recorder.server_close()
        thread.join()
    assert answer["error"]["name"] == "unavailable" and answer["error"]["transient"]
    assert exchanges == []
