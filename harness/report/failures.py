"""A folder for every failed case, for who looks into it without a browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from harness.report.result import CaseResult, Outcome, Result

FOLDER = "failures"


def write_failures(directory: Path, result: Result) -> None:
    """Make `failures/WORLD-CASE/` anew; `why.txt` begins with the one command that repeats the case."""
    folder = directory / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    for case in result.cases:
        if case.outcome == Outcome.FAILED:
            _write(folder / _name(f"{case.world}-{case.id}"), case)


def _write(folder: Path, case: CaseResult) -> None:
    folder.mkdir(parents=True)
    checks = [f"{'ok  ' if check.passed else 'FAIL'} {check.name} {check.error}".rstrip() for check in case.checks]
    why = [case.reproduce, "", case.title, case.why, "", *checks, "", *case.violated, case.detail]
    (folder / "why.txt").write_text("\n".join(why) + "\n", encoding="utf-8")
    lines = [f"{entry.at - case.started_at:9.3f}  {entry.source:20}  {entry.text}" for entry in case.timeline]
    (folder / "timeline.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for number, item in enumerate(case.evidence, 1):
        text = f"{item.title}\n\n{item.text}\n"
        (folder / f"evidence-{number:02}-{_name(item.title)[:60]}.txt").write_text(text, encoding="utf-8")


def _name(text: str) -> str:
    """Fit for a file's name, and never one that leaves the folder."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "case"
