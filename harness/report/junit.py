"""JUnit XML, for CI systems: a suite per row and world, a test case per scenario."""

from __future__ import annotations

import re
from xml.etree import ElementTree as xml

from harness.report.result import CaseResult, Outcome, Result, RowResult

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(result: Result) -> bytes:
    """The document. Characters that XML cannot hold are shown as their code."""
    root = xml.Element("testsuites", name="splab", time=f"{result.seconds:.3f}")
    for row in result.rows():
        root.append(_suite(row, result.properties))
    for world, broken in result.broken.items():
        suite = xml.SubElement(root, "testsuite", name=_text(f"world {world}"), tests="1", errors="1")
        case = xml.SubElement(suite, "testcase", name="set-up", classname=_text(world))
        xml.SubElement(case, "error", message=_text(broken.why)).text = _text(broken.detail)
    xml.indent(root)
    document: bytes = xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _suite(row: RowResult, properties: dict[str, str]) -> xml.Element:
    outcomes = [case.outcome for case in row.cases]
    absent = row.missing or (0 if row.built else 1)
    suite = xml.Element(
        "testsuite",
        name=_text(f"{row.world}.{row.row.id} {row.row.title}"),
        tests=str(len(outcomes) + absent),
        failures=str(outcomes.count(Outcome.FAILED)),
        skipped=str(outcomes.count(Outcome.SKIPPED) + absent),
        time=f"{row.seconds:.3f}",
    )
    _properties(suite, properties)
    for case in row.cases:
        suite.append(_case(case))
    for index in range(absent):
        missing = xml.SubElement(suite, "testcase", name=f"not run {index + 1}", classname=_text(f"row {row.row.id}"))
        xml.SubElement(missing, "skipped", message=_text(row.why))
    return suite


def _case(case: CaseResult) -> xml.Element:
    found = xml.Element(
        "testcase", name=_text(case.id), classname=_text(f"{case.world}.{case.row}"), time=f"{case.seconds:.3f}"
    )
    _properties(found, case.properties)
    if case.outcome == Outcome.FAILED:
        failure = xml.SubElement(found, "failure", message=_text(case.why))
        failure.text = _text(f"{case.reproduce}\n{case.detail}")
    elif case.outcome == Outcome.SKIPPED:
        xml.SubElement(found, "skipped", message=_text(case.why))
    return found


def _properties(parent: xml.Element, properties: dict[str, str]) -> None:
    if not properties:
        return
    holder = xml.SubElement(parent, "properties")
    for name, value in properties.items():
        xml.SubElement(holder, "property", name=_text(name), value=_text(value))


def _text(text: str) -> str:
    return _NOT_XML.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
