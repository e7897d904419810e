"""Writes the views of a stream into a report directory."""

from __future__ import annotations

from pathlib import Path

from harness.report.as_json import to_json
from harness.report.failures import write_failures
from harness.report.html import to_html
from harness.report.junit import to_junit
from harness.report.result import Result, collect
from harness.report.stream import STREAM_NAME, read_stream

PAGE_NAME = "index.html"


def write_views(directory: Path) -> Result:
    """Rebuild `index.html`, `junit.xml`, `results.json` and the folders of failed cases from the directory's stream.

    Raises `FileNotFoundError` when there is no stream, `ValueError` when it is damaged.
    """
    result = collect(read_stream(directory / STREAM_NAME))
    (directory / PAGE_NAME).write_text(to_html(result), encoding="utf-8")
    (directory / "junit.xml").write_bytes(to_junit(result))
    (directory / "results.json").write_bytes(to_json(result))
    write_failures(directory, result)
    return result
