"""The output of the gate in each format, for any names of models and any values."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from onnxgain.analysis.gate_result import Check, Commands, GateResult
from onnxgain.analysis.policy import Policy
from onnxgain.measure.record import from_json
from onnxgain.report.reporter import FORMATS, render
from onnxgain.report.text.gate_json import SCHEMA
from onnxgain.report.text.gate_markdown import LENGTH, render_markdown
from onnxgain.report.text.junit import render_junit

XSD = etree.XMLSchema(etree.parse(str(Path(__file__).parents[2] / "support" / "junit.xsd")))


def test_json(run: Any, folder: Path) -> None:
    code, out, _ = run("loud.onnx", "missing.onnx", "--baseline", "two.json", "--max-change", "0.0", "--format", "json")
    document = json.loads(out)
    assert code == document["exit_code"] == 2
    assert (document["schema"], document["verdict"]) == (SCHEMA, "error")
    assert document["counts"] == {
        "models": 2, "pass": 0, "fail": 1, "error": 1, "same function": 0, "review": 0,
    }  # fmt: skip
    code, out, _ = run("loud.onnx", "--baseline", "two.json", "--max-change", "0.0", "--format", "json")
    (model,) = json.loads(out)["models"]
    assert (code, model["verdict"], model["model"]) == (1, "fail", "loud.onnx")
    assert model["policy"] == {"max_change": 0.0, "fingerprint": True, "require": "pass"}
    assert model["function"] is None
    before = {record.stimulus.name: record.gain.mean for record in from_json((folder / "two.json").read_text())}
    for change, measured in zip(model["changes"], model["measurements"], strict=True):
        gain = change["gain_db"]["mean"]
        assert gain["before"] == before[change["stimulus"].partition(":")[0]]
        assert gain["after"] == measured["gain_db"]["mean"]
        assert gain["delta"] == gain["after"] - gain["before"]
    assert {check["outcome"] for check in model["checks"]} == {"finding"}
    assert model["checks"][0]["excess"] >= model["checks"][1]["excess"] > 0


def test_metrics_are_flat_numbers_with_stable_names(run: Any) -> None:
    _, out, _ = run("a.onnx", "--baseline", "two.json", "--format", "metrics")
    _, other, _ = run("loud.onnx", "a.onnx", "--max-gain", "-100", "--stimulus", "impulse", "--format", "metrics")
    metrics, more = json.loads(out), json.loads(other)
    assert all(value is None or isinstance(value, (int, float)) for value in metrics.values())
    assert metrics["failed_checks"] == 0
    assert more["failed_checks"] == 2
    assert metrics["a.onnx.exit_code"] == 0 and more["a.onnx.exit_code"] == more["loud.onnx.exit_code"] == 1
    assert set(metrics) & set(more) == {"failed_checks", "a.onnx.exit_code"} | {
        f"a.onnx.impulse.{what}"
        for what in ("gain_R_db", "gain_G_db", "gain_B_db", "gain_mean_db", "class", "score")
    }  # fmt: skip
    _, twice, _ = run("a.onnx", "several/a.onnx", "--max-gain", "100", "--format", "metrics")
    assert {"a.onnx.impulse.class", "several/a.onnx.impulse.class"} <= set(json.loads(twice))


def test_metrics_have_the_divergence_of_the_answers(run: Any, tmp_path: Any) -> None:
    baseline = tmp_path / "answers.json"
    assert run("a.onnx", "--baseline", baseline, "--update-baseline", "--fingerprint")[0] == 0
    _, out, _ = run("a.onnx", "--baseline", baseline, "--format", "metrics")
    assert json.loads(out)["a.onnx.divergence"] == pytest.approx(0.0, abs=1e-6)


def test_junit(run: Any) -> None:
    code, out, _ = run("loud.onnx", "a.onnx", "missing.onnx", "--max-gain", "-58.75", "--same-class", "--baseline",
                       "two.json", "--stimulus", "impulse", "--format", "junit")  # fmt: skip
    assert code == 2
    root = etree.fromstring(out.encode())
    XSD.assertValid(root)
    assert [suite.get("name") for suite in root] == ["loud.onnx", "a.onnx", "missing.onnx"]
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
    (error,) = root[2].findall("testcase/error")
    assert "no such file" in error.get("message")


HOSTILE = "a,b:%\r\n::error::x\x1b[31m\x00<b>&|`@everyone`]]>\ud800\ufffe.onnx"


@pytest.mark.parametrize("form", FORMATS["gate"])
def test_every_format_supports_any_name(form: str) -> None:
    assert render("gate", form, hostile_results()).encode()


def hostile_results() -> list[GateResult]:
    """Names and messages from an untrusted model."""
    check = Check("max-gain", "finding", HOSTILE, HOSTILE, HOSTILE, float("nan"), None, 1.0)
    error = Check("measured", "error", HOSTILE)
    return [GateResult(HOSTILE, Policy(max_gain=1.0), (check, error), notes=(HOSTILE,), baseline=HOSTILE)]


def test_junit_is_valid_for_any_name() -> None:
    text = render_junit(hostile_results(), now=datetime(2026, 1, 2, 3, 4, 5))
    root = etree.fromstring(text.encode())
    XSD.assertValid(root)
    assert root[0].get("timestamp") == "2026-01-02T03:04:05"
    assert len(root.findall(".//failure")) == len(root.findall(".//error")) == 1
    nameless = GateResult("\n", Policy(), (Check("measured", "error", ""),))
    XSD.assertValid(etree.fromstring(render_junit([nameless]).encode()))


def test_schema_refuses_invalid_documents() -> None:
    text = render_junit(hostile_results())
    for old, new in (('id="0"', ""), ('tests="2"', 'tests="two"'), ("system-err", "stderr"), ('type="max-gain"', "")):
        assert old in text
        assert not XSD.validate(etree.fromstring(text.replace(old, new).encode()))


def test_github_annotations_are_escaped(run: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from onnxgain.report.text.github import render_github

    lines = render_github(hostile_results()).split("\n")
    assert [line[:8] for line in lines] == ["::error ", "::error ", "ERROR: 1", ""]
    assert not {"\r", "\x1b", "\x00"} & set("".join(lines))
    assert lines[0].startswith("::error file=a%2Cb%3A%25%0D%0A%3A%3Aerror%3A%3Ax")
    assert ",title=onnxgain gate%3A max-gain::a,b:%25%0D%0A::error::x" in lines[0]

    _, out, _ = run("loud.onnx", "--baseline", "base.json", "--format", "github")
    annotations = [line for line in out.splitlines() if line.startswith("::error ")]
    assert len(annotations) == 3
    assert annotations[0].startswith("::error file=loud.onnx,title=onnxgain gate%3A max-change::loud.onnx: impulse, ")
    assert out.splitlines()[-1] == "FAIL: 1 of 1 model failed"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(folder.parent))
    _, out, _ = run("loud.onnx", "--baseline", "base.json", "--format", "github")
    assert out.startswith(f"::error file={folder.name}/loud.onnx,")


def test_the_job_summary_is_appended(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    _, markdown, _ = run("loud.onnx", "--baseline", "base.json", "--format", "markdown")
    assert summary.read_text() == "before\n"
    assert run("loud.onnx", "--baseline", "base.json", "--format", "github")[0] == 1
    assert summary.read_text() == "before\n" + markdown
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    code, _, err = run("a.onnx", "--baseline", "base.json", "--format", "github")
    assert code == 2
    assert "the job summary cannot be written" in err


def test_markdown(run: Any) -> None:
    _, out, _ = run("a.onnx", "loud.onnx", "--max-gain", "100", "--max-change", "0.1", "--baseline", "several.json")
    code, out, _ = run("loud.onnx", "--baseline", "base.json", "--max-change", "0.1", "--format", "markdown")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "<!-- onnxgain gate -->"
    assert lines[2] == "### onnxgain gate: FAIL: 1 of 1 model failed"
    heading = lines.index("| stimulus | channel | before dB | now dB | change dB | class | score | scale |")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[heading + 2 : heading + 6]]
    assert [row[1] for row in rows] == ["R", "G", "B", "mean"]
    for row in rows:
        assert float(row[4]) == pytest.approx(float(row[3]) - float(row[2]), abs=0.0101)
    # Code spans contain no markup.
    escaped = re.sub("`[^`]*`", "", render_markdown(hostile_results()))
    assert "<b>" not in escaped.replace("\\<b\\>", "")
    assert "@everyone" not in escaped.replace("\\@everyone", "")
    assert "\x1b" not in escaped


def test_markdown_fits_into_a_comment() -> None:
    check = Check("max-gain", "finding", "m" * 100)
    results = [GateResult(f"model{n}.onnx", Policy(), (check,)) for n in range(2000)]
    text = render_markdown(results)
    assert LENGTH * 0.9 < len(text) < LENGTH + 1000
    shown = text.count("**FAIL**")
    assert f"{2000 - shown} more models are not shown here." in text


def test_markdown_folds_many_models_that_passed() -> None:
    good = [GateResult(f"net|{n}.onnx", Policy(), (Check("max-gain", "pass", ""),)) for n in range(2000)]
    bad = GateResult("bad.onnx", Policy(), (Check("max-gain", "finding", "too high"),))
    for results, folded in (([bad, *good[:3]], 0), ([bad, *good[:4]], 4), ([*good[:2], bad, *good[2:]], 2000)):
        text = render_markdown(results)
        assert text.count("**PASS**") == (0 if folded else 3)
        assert (f"<summary>{folded} models passed</summary>" in text) is bool(folded)
        assert text.index("**FAIL** bad.onnx") < text.index("net\\|0.onnx") and len(text) < LENGTH
    rows = text.count("| pass | net")
    assert 100 < rows < 2000 and f"{2000 - rows} more are not shown here." in text
    noted = [dataclasses.replace(result, remarks=("read with care",)) for result in good[:4]]
    assert render_markdown(noted).count("**PASS**") == 4, "what has to be read is not folded"


def test_commands_in_markdown_can_be_copied() -> None:
    accept = "onnxgain gate 'a`b``c|d_e.onnx' --update-baseline"
    check = Check("max-gain", "finding", "too high")
    result = GateResult("a", Policy(max_gain=1.0), (check,), commands=Commands(inspect=accept))
    assert f"- to see inside: ```{accept}```\n" in render_markdown([result])


def test_failures_come_first(run: Any) -> None:
    code, out, _ = run("a.onnx", "loud.onnx", "missing.onnx", "--max-gain", "-58.75", "--preprocess", "imagenet")
    assert code == 2
    places = [out.index(text) for text in ("ERROR missing.onnx", "FAIL  loud.onnx", "PASS  a.onnx", "ERROR: 1 of 3")]
    assert places == sorted(places)


def test_control_characters_are_not_printed() -> None:
    from onnxgain.report.text.gate_table import render_table

    assert "\x1b" not in render_table(hostile_results(), colour=False)


def test_several_formats_in_one_run(run: Any, tmp_path: Path) -> None:
    writes = [f"--write={form}={tmp_path / form}" for form in FORMATS["gate"]]
    code, out, _ = run("loud.onnx", "--baseline", "base.json", *writes)
    assert code == 1
    assert (tmp_path / "table").read_text() == out
    XSD.assertValid(etree.parse(str(tmp_path / "junit")))
    assert json.loads((tmp_path / "json").read_text())["verdict"] == "fail"
