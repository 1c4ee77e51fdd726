"""A gate's results as JUnit XML: one suite per model, one test case per check.

Only elements and attributes are used on which the XSDs of Jenkins' xUnit plugin and of Ant, and GitLab's reader agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from onnxgain.analysis.gate_result import Check, GateResult
from onnxgain.report.text.formatting import printable
from onnxgain.report.text.gate_text import assumed_of, reasons

_TAGS = {"finding": "failure", "review": "failure", "error": "error"}
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(results: Sequence[GateResult], *, now: datetime | None = None) -> str:
    """The results as an XML document.

    Args:
        now: the timestamp of the suites; None: the current time.
    """
    root = ET.Element("testsuites")
    stamp = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    for number, result in enumerate(results):
        _suite(root, number, result, stamp)
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(root: ET.Element, number: int, result: GateResult, stamp: str) -> None:
    outcomes = [check.outcome for check in result.checks]
    times = [record.time for record in result.records]
    seconds = sum(time.run for time in times) + sum(t.read + t.differentiate + t.load for t in times[:1])
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": _token(result.model),
            "package": "onnxgain.gate",
            "id": str(number),
            "tests": str(len(outcomes)),
            "failures": str(outcomes.count("finding")),
            "errors": str(outcomes.count("error")),
            "time": f"{seconds:.3f}",
            "timestamp": stamp,
            "hostname": "localhost",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(result):
        ET.SubElement(properties, "property", {"name": name, "value": _legal(value)})
    for check in result.checks:
        _case(suite, result, check)
    ET.SubElement(suite, "system-out").text = _legal("\n".join([*reasons(result), *assumed_of([result])]))
    ET.SubElement(suite, "system-err")


def _properties(result: GateResult) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = [("verdict", result.verdict)]
    if result.baseline is not None:
        found.append(("baseline", result.baseline))
    if result.records:
        found.append(("sha256", result.records[0].model.sha256))
    if result.compared_with is not None:
        found.append(("compared with", result.compared_with))
    return found


def _case(suite: ET.Element, result: GateResult, check: Check) -> None:
    name = f"{check.name} ({check.place})" if check.place else check.name
    case = ET.SubElement(suite, "testcase", {"name": _token(name), "classname": _token(result.model), "time": "0.000"})
    if check.outcome != "pass":
        message = _legal(check.message)
        problem = ET.SubElement(case, _TAGS[check.outcome], {"type": check.name, "message": message})
        problem.text = "\n".join([message, *map(_legal, [*reasons(result), *assumed_of([result])])])


def _token(text: str) -> str:
    """A name without the whitespace that XML Schema tokens forbid; never empty."""
    return " ".join(_legal(text).split()) or "model"


def _legal(text: str) -> str:
    """Text with characters replaced that XML does not allow or that are invisible; line breaks are kept."""
    return "\n".join(map(printable, _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text).split("\n")))
