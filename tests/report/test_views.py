"""What the views of a stream say, whatever names and errors are in it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from lxml import etree, html
from rich.console import Console

from harness.cli import main
from harness.report.as_json import to_json
from harness.report.html import BUDGET, to_html
from harness.report.junit import to_junit
from harness.report.result import Outcome, Result, collect
from harness.report.stream import (
    CaseEnded,
    CaseStarted,
    Check,
    Event,
    Evidence,
    Fault,
    Measured,
    StreamWriter,
    SuiteEnded,
    SuiteStarted,
    Timeline,
    WorldFailed,
    read_stream,
)
from harness.report.terminal import action_table, figures
from harness.report.write import write_views
from scenarios.table import RowId

EVIL = """<script>alert("x")</script> & '"]]> \x07 {{ 7*7 }}"""
AGAIN = "splab run 4.hot --world memory --seed 1"


def case(
    row: RowId, name: str, outcome: str, why: str = "", reproduce: str = "", detail: str = "", world: str = "memory"
) -> list[Event]:
    return [
        CaseStarted(
            at=1.0, world=world, row=row, case=f"{row}.{name}", title=f"title {name}", properties={"seed": "1"}
        ),
        Check(at=1.1, world=world, case=f"{row}.{name}", name="a check", passed=outcome == "passed"),
        Timeline(at=1.5, world=world, case=f"{row}.{name}", source="StorPool", text="VolumeCreate"),
        CaseEnded(
            at=2.0,
            world=world,
            case=f"{row}.{name}",
            outcome=outcome,
            seconds=1.0,
            invariants_checked=11,
            why=why,
            reproduce=reproduce,
            detail=detail,
        ),
    ]


def fault(world: str, text: str) -> Fault:
    return Fault(
        world=world,
        case="4.hot",
        operation=text,
        step=text,
        victim=text,
        asked=text,
        recovery=[text, "and more"],
        outcome=text,
    )


def suite(
    *cases: list[Event], worlds: tuple[str, ...] = ("memory",), rows: tuple[RowId, ...] = (3, 4, 6)
) -> list[Event]:
    """A run of rows 3 (two scenarios), 4 (one) and 6 (not built)."""
    built = {"3": ["3.one", "3.two"], "4": ["4.hot"], "6": []}
    started = SuiteStarted(
        properties={"kernel": "6.18"}, rows=list(rows), worlds=list(worlds), cases={str(r): built[str(r)] for r in rows}
    )
    return [started, *(event for events in cases for event in events), SuiteEnded(at=9.0, seconds=9.0)]


def outcomes(events: list[Event]) -> dict[RowId, Outcome]:
    return {row.row.id: row.outcome for row in collect(events).rows()}


PASSED = suite(case(3, "one", "passed"), case(3, "two", "passed"), case(4, "hot", "passed"))
FAILED = suite(
    case(3, "one", "passed"),
    case(3, "two", "passed"),
    case(4, "hot", "failed", why="check 'x': AssertionError: no", reproduce=AGAIN, detail="Traceback"),
)


def test_a_row_passes_only_when_every_scenario_ran_and_passed() -> None:
    assert outcomes(PASSED) == {3: "passed", 4: "passed", 6: "not built"}
    assert outcomes(suite(case(3, "one", "passed"), case(4, "hot", "failed")))[3] == "skipped"
    assert outcomes(suite(case(3, "one", "passed"), case(3, "two", "skipped")))[3] == "skipped"
    assert outcomes(suite(case(3, "one", "skipped"), case(3, "two", "failed")))[3] == "failed"
    assert outcomes(suite())[4] == "skipped"


def test_a_case_that_never_ended_failed() -> None:
    events = suite(case(3, "one", "passed"), case(3, "two", "passed")[:2])
    assert outcomes(events)[3] == "failed"
    assert "cut short" in collect(events).row(3, "memory").why


def test_a_run_passes_only_without_broken_worlds_and_violations() -> None:
    assert collect(PASSED).passed
    assert not collect(FAILED).passed
    assert not collect([*PASSED, WorldFailed(world="memory", why="left something")]).passed
    violated = [*PASSED[:-2], msgspec.structs.replace(PASSED[-2], invariants_violated=["leak"]), PASSED[-1]]
    assert not collect(violated).passed


def test_a_world_that_could_not_be_set_up_is_the_reason_of_its_rows() -> None:
    events = [*suite()[:-1], WorldFailed(world="memory", why="no loop devices"), SuiteEnded(seconds=1)]
    assert collect(events).row(4, "memory").why == "no loop devices"


def test_json_has_the_fixed_shape() -> None:
    document = json.loads(to_json(collect(FAILED)))
    assert document.keys() == {"rows", "invariants"}
    assert document["invariants"] == {"checked": 33, "violated": []}
    assert [row["row"] for row in document["rows"]] == [3, 4, 6]
    assert document["rows"][1] == {
        "row": 4,
        "world": "memory",
        "title": "attach ROOT/DATA (start VM, attach volume)",
        "outcome": "failed",
        "seconds": 1.0,
        "why": "4.hot: check 'x': AssertionError: no",
        "cases": [{"id": "4.hot", "outcome": "failed", "checks": ["a check"]}],
    }
    assert document["rows"][2]["outcome"] == "not built"


def test_junit_counts_what_did_not_run_as_skipped() -> None:
    root = etree.fromstring(to_junit(collect(suite(case(3, "one", "passed"), case(4, "hot", "failed", why=EVIL)))))
    counts = {s.get("name", "").split()[0]: (s.get("tests"), s.get("failures"), s.get("skipped")) for s in root}
    assert counts == {"memory.3": ("2", "0", "1"), "memory.4": ("1", "1", "0"), "memory.6": ("1", "0", "1")}
    assert len(root.findall(".//testcase")) == 4
    failure = root.find(".//failure")
    assert failure is not None and "<script>" in failure.get("message", "")


def evil() -> Result:
    events = suite(
        [
            CaseStarted(world=EVIL, row=4, case="4.hot", title=EVIL, properties={EVIL: EVIL}),
            Check(world=EVIL, case="4.hot", name=EVIL, passed=False, error=EVIL),
            Timeline(world=EVIL, case="4.hot", source=EVIL, text=EVIL),
            Evidence(world=EVIL, case="4.hot", title=EVIL, text=f"<domain>{EVIL}</domain>"),
            fault(EVIL, EVIL),
            CaseEnded(world=EVIL, case="4.hot", outcome="failed", seconds=1, why=EVIL, detail=EVIL, reproduce=EVIL),
            WorldFailed(world=EVIL, why=EVIL, detail=EVIL),
        ],
        worlds=(EVIL,),
    )
    return collect(events)


def test_no_name_or_text_becomes_markup() -> None:
    page = html.fromstring(to_html(evil()))
    assert page.findall(".//script") == [] and page.findall(".//domain") == []
    assert {e.tag for e in page.iter() if isinstance(e.tag, str)} >= {"details", "summary", "table"}
    assert page.text_content().count("{{ 7*7 }}") > 10
    assert not [name for e in page.iter() if isinstance(e.tag, str) for name in e.attrib if name.startswith("on")]
    etree.fromstring(to_junit(evil()))


def test_the_page_shows_every_row_of_the_table_and_needs_nothing_from_outside() -> None:
    text = to_html(collect(FAILED))
    page = html.fromstring(text)
    rows = page.xpath("//table[@class='table']/tbody/tr")
    assert len(rows) == 23 + 11
    marks = [row.xpath("string(td[2]/*[1])") for row in rows]
    assert marks[2:6] == ["passed", "failed", "not chosen", "not built"]
    links = page.xpath("//@src | //link/@href | //a/@href")
    assert links and all(link.startswith("#") for link in links)
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids)) and {link[1:] for link in links} <= set(ids)
    assert "url(" not in text and "prefers-color-scheme: dark" in text


def test_a_failing_case_is_open_and_begins_with_its_command() -> None:
    page = html.fromstring(to_html(collect(FAILED)))
    failing = page.xpath("//details[@class='case'][@open]")
    assert [case.get("id") for case in failing] == ["memory-4.hot"]
    assert failing[0].xpath("div[@class='body']/*[1]")[0].text == AGAIN


def test_timeline_and_evidence_are_on_the_page() -> None:
    shown = Evidence(world="memory", case="4.hot", title="h1: domain i-2-1-VM", text="<domain type='qemu'/>")
    page = html.fromstring(to_html(collect([*PASSED[:-2], shown, *PASSED[-2:]])))
    assert "VolumeCreate" in page.xpath("string(//details[@id='memory-4.hot']//table[@class='time'])")
    assert page.xpath("string(//details[@class='evidence']//pre)") == "<domain type='qemu'/>"


def test_what_was_struck_and_what_recovery_did_are_a_table_of_the_page_and_of_the_json() -> None:
    hot = case(4, "hot", "passed")
    result = collect(suite([*hot[:-1], fault("memory", "attach"), hot[-1]], rows=(4,)))
    rows = html.fromstring(to_html(result)).xpath("//table[@class='faults']/tbody/tr")
    assert [[cell.text_content().split()[0] for cell in row] for row in rows] == [
        ["4.hot", "attach", "attach", "attach", "2", "attach", "1.0"]
    ]
    assert "attach\nand more" in rows[0].text_content()
    assert json.loads(to_json(result))["faults"] == [
        {
            "case": "4.hot",
            "operation": "attach",
            "step": "attach",
            "victim": "attach",
            "asked": "attach",
            "recovery": ["attach", "and more"],
            "operation_outcome": "attach",
            "outcome": "passed",
            "seconds": 1.0,
        }
    ]
    assert "faults" not in html.fromstring(to_html(collect(PASSED))).xpath("//@id")


def test_a_long_run_keeps_the_page_within_its_budget_and_its_failures_whole() -> None:
    noise = [
        Timeline(at=1.0, world="memory", case="3.one", source="StorPool", text=f"call {n} " + "x" * 1500)
        for n in range(2000)
    ]
    evidence = [Evidence(world="memory", case="3.two", title=f"log {n}", text="y" * 60_000) for n in range(60)]
    steps = [Timeline(at=1.0, world="memory", case="4.hot", source="StorPool", text=f"step {n};") for n in range(1999)]
    one, two, hot = case(3, "one", "passed"), case(3, "two", "passed"), case(4, "hot", "failed", reproduce=AGAIN)
    page = to_html(collect(suite([*one, *noise], [*two, *evidence], [*hot[:-1], *steps, hot[-1]])))
    assert len(page.encode()) <= BUDGET
    assert AGAIN in page and "are shortened" in page
    failed = html.fromstring(page).xpath("string(//details[@id='memory-4.hot'])")
    assert "VolumeCreate" in failed and "step 1998;" in failed


def test_every_case_of_a_long_run_keeps_the_beginning_of_its_timeline() -> None:
    cases = []
    for number in range(300):
        started, *middle, ended = case(3, f"case{number}", "passed")
        calls = [
            Timeline(at=1.6, world="memory", case=f"3.case{number}", source="StorPool", text=f"call {n} " + "x" * 90)
            for n in range(200)
        ]
        cases.append([started, *middle, *calls, ended])
    page = to_html(collect(suite(*cases)))
    assert len(page.encode()) <= BUDGET
    assert len(html.fromstring(page).xpath("//table[@class='time'][.//td = 'VolumeCreate']")) == len(cases)


def test_the_terminal_shows_row_title_world_outcome_and_seconds() -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(action_table(collect(FAILED)))
    lines = [line for line in out.getvalue().splitlines() if "attach ROOT/DATA" in line and "hot" not in line]
    assert any("memory" in line and "failed" in line and "1.0" in line for line in lines)
    assert "not built" in out.getvalue()


def written(directory: Path, events: list[Event]) -> Path:
    writer = StreamWriter(directory / "results.jsonl")
    for event in events:
        writer(event)
    writer.close()
    return directory / "results.jsonl"


def test_a_stream_reads_back_as_written_and_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, FAILED)
    assert list(read_stream(path)) == FAILED
    path.write_bytes(path.read_bytes()[:-20])
    assert list(read_stream(path)) == FAILED[:-1]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, FAILED)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"event": "case-start", "colour": 1}\n', *lines[3:]]))
    with pytest.raises(ValueError, match="line 3"):
        list(read_stream(path))


def test_splab_report_rebuilds_every_view_from_the_stream(tmp_path: Path) -> None:
    written(tmp_path, PASSED)
    write_views(tmp_path)
    names = ("index.html", "junit.xml", "results.json")
    first = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {name: (tmp_path / name).read_bytes() for name in names} == first


def test_splab_report_without_a_stream_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 1
    assert "no result stream" in done.output


def test_a_failed_case_keeps_a_folder_that_begins_with_its_command(tmp_path: Path) -> None:
    shown = Evidence(world="memory", case="4.hot", title="../h1: <domain>", text="xml")
    written(tmp_path, [*FAILED[:-2], shown, *FAILED[-2:]])
    write_views(tmp_path)
    folder = tmp_path / "failures/memory-4.hot"
    assert (folder / "why.txt").read_text().splitlines()[0] == AGAIN
    assert "VolumeCreate" in (folder / "timeline.txt").read_text()
    assert {path.name for path in folder.iterdir()} == {"why.txt", "timeline.txt", "evidence-01-h1-domain.txt"}
    written(tmp_path, PASSED)
    write_views(tmp_path)
    assert not (tmp_path / "failures").exists()


def test_figures_of_a_benchmark_are_shown_beside_their_targets_and_no_action_table_is(tmp_path: Path) -> None:
    writer = StreamWriter(tmp_path / "results.jsonl")
    writer(SuiteStarted(properties={"kernel": "6"}, rows=[], worlds=[], cases={}))
    for name, ratio, met in ((EVIL, 0.25, False), ("fast", 4.0, True)):
        writer(
            Measured(
                leg="api",
                name=name,
                unit="answers/s",
                value=1234.5,
                baseline=1234.5 / ratio,
                against=EVIL,
                ratio=ratio,
                spread=(ratio, ratio),
                bound="at least",
                target=0.5,
                met=met,
                samples=[(1234.5, 1234.5 / ratio)],
            )
        )
    writer(Measured(leg="api", name="alone", unit="ms", value=3.0, samples=[(3.0, None)]))
    writer(SuiteEnded(seconds=3.0))
    writer.close()
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    page = html.fromstring((tmp_path / "index.html").read_text())
    assert page.xpath("//script") == [] and page.xpath("//table[@class='table']") == []
    assert "3 figures, 1 of 2 targets met" in page.text_content()
    rows = page.xpath("//table[@class='benchmarks']/tbody/tr")
    assert [row.xpath("string(td[7])").split()[0] for row in rows] == ["missed", "met", "reported"]
    # The bar of a ratio of half its target ends half way to the line, that of eight times its target at the end.
    assert [row.xpath("string(.//rect[2]/@width)") for row in rows] == ["40", "160", ""]
    console = Console(file=io.StringIO(), width=200)
    console.print(figures(write_views(tmp_path)))
    assert isinstance(console.file, io.StringIO)
    assert "missed: at least 0.5" in console.file.getvalue()
