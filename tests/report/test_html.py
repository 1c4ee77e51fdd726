"""HTML reports: every name is escaped, all content is present, and the page needs no network."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from onnxgain.analysis.comparison import Failure, compare_records
from onnxgain.analysis.difference import measured_difference, recorded_difference
from onnxgain.analysis.gate_result import Commands, not_judged
from onnxgain.analysis.pairing import Change
from onnxgain.analysis.policy import Policy
from onnxgain.analysis.verdict import evaluate
from onnxgain.errors import OnnxgainError
from onnxgain.measure.measurement import KnownArrays
from onnxgain.measure.record import Record
from onnxgain.report.charts import compare as charts
from onnxgain.report.charts.diff import DiffPanel
from onnxgain.report.charts.vega import javascript
from onnxgain.report.html import compare as html_compare
from onnxgain.report.html import diff as html_diff
from onnxgain.report.html import gate as html_gate
from onnxgain.report.html import model_table
from onnxgain.report.html.elements import listed, steps
from onnxgain.report.html.markup import Markup, element, joined, json_script, text
from onnxgain.report.html.page import Page
from onnxgain.report.text.diff import DiffReport, sentences
from tests.support import reports
from tests.support.reports import Elements, a_preview, a_record, comparison_of

pytest.importorskip("vl_convert")

WHEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = (
    "</script><script>alert(1)</script>.onnx",
    "<img src=x onerror=alert(2)>.onnx",
    '"><svg onload=alert(3)>.onnx',
    "' onmouseover='alert(4)' x='.onnx",
    "<!-- --><b>.onnx",
    "&lt;i&gt; &amp; ]]>.onnx",
    "\u202egnp.onnx\n\x00\x1b[31m",
    "caf\udce9.onnx",
    "{{constructor}} ${alert(5)} datum['x'].onnx",
    "https://example.org/spy.png",
)


def without_library(page: str) -> str:
    library = javascript()[0]
    assert page.count(library) == 1
    return page.replace(library, "")


def data_of(page: str) -> Any:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


# --------------------------------------------------------------------------------------------------- markup
def test_text_is_escaped_wherever_it_enters() -> None:
    assert element("b", "<i>", title='"&') == '<b title="&quot;&amp;">&lt;i&gt;</b>'
    assert element("p", joined("a<", element("i", "&"), None, 3)) == "<p>a&lt;<i>&amp;</i>3</p>"
    assert element("input", type="checkbox", checked=True, hidden=False, id=None) == '<input type="checkbox" checked>'
    assert text("a\u202eb\x00") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    assert element("td", Markup("<b>")) == "<td><b></td>"


def test_data_cannot_end_its_script_element() -> None:
    value = {"</script>": ["<!--", "&amp;", "\u2028", "é"]}
    found = str(json_script("x", value))
    assert found.count("<") == 2 and found.isascii()
    assert json.loads(found[found.index(">") + 1 : found.rindex("<")]) == value


# --------------------------------------------------------------------------------------------- the comparison
def hostile_page() -> str:
    records = []
    for number, name in enumerate(HOSTILE):
        record = a_record(number, name=name)
        records.append(
            dataclasses.replace(
                record,
                model=dataclasses.replace(record.model, producer=name, path=name, sha256=name),
                interface=dataclasses.replace(record.interface, input=name, output=name),
                scale=dataclasses.replace(record.scale, name=name),
                stimulus=dataclasses.replace(record.stimulus, parameters={"file": name}),
                engine=dataclasses.replace(record.engine, package=name),
                assumptions=(name,),
                projection=name,
            )
        )
    comparison = comparison_of(
        records,
        previews=[a_preview(), *[None] * (len(records) - 1)],
        failures=tuple(Failure(name, name) for name in HOSTILE),
        unfinished=HOSTILE,
        unmatched=HOSTILE,
        without_accuracy=HOSTILE,
    )
    return html_compare.render_html(comparison, title=HOSTILE[0], when=WHEN)


def assert_harmless(page: str) -> Elements:
    """The page has only elements that this program makes."""
    elements = Elements(page)
    assert [a.get("type") for a in elements.all("script")] == ["application/json", None, None]
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert tag not in ("svg", "iframe", "object", "embed", "form", "base"), tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    return elements


def test_hostile_names_are_escaped() -> None:
    page = hostile_page()
    elements = assert_harmless(page)
    shown = elements.text()
    for name in HOSTILE:
        printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
        assert shown.count(printable) >= 6, printable
    labels = [model["label"] for group in data_of(page)["groups"] for model in group["models"]]
    assert len(labels) == len(HOSTILE)
    page.encode("utf-8")


def test_page_has_no_external_references() -> None:
    page = comparison_page(5)
    assert re.findall(r"https?:|(?:src|href|action)=\W*//|@import|url\(", without_library(page)) == []
    assert "default-src &#x27;none&#x27;" in page
    assert "unsafe-eval" not in page


def test_policy_allows_only_the_two_scripts() -> None:
    page = comparison_page(3)
    scripts = [
        script for kind, script in re.findall(r"<script( type=[^>]*| id=[^>]*|)>(.*?)</script>", page, re.DOTALL)
    ][1:]
    policy = next(a["content"] for a in Elements(page).all("meta", **{"http-equiv": "Content-Security-Policy"}))
    assert policy is not None
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert len(digests) == 2
    assert "\r" not in page  # a browser would normalize it, which changes the hash


def comparison_page(count: int, *, pictures: bool = True, **rest: Any) -> str:
    records = [a_record(number, assumed=number % 4 == 0) for number in range(count)]
    previews = [a_preview(i % 8) for i in range(count)] if pictures else []
    return html_compare.render_html(comparison_of(records, previews=previews, **rest), title="Comparison", when=WHEN)


def test_each_model_has_a_row_with_sort_keys() -> None:
    page = comparison_page(12, failures=(Failure("bad.onnx", "not an ONNX model"),))
    elements = Elements(page)
    rows = [a for a in elements.all("tr") if "data-model" in a]
    assert [row["data-model"] for row in rows] == [f"0.{i}" for i in range(12)]
    heads = [a["data-label"] for a in elements.all("th") if "data-label" in a]
    assert heads == [
        "", "#", "derivative", "response", "model", "class", "score", "log-odds dB", "confidence dB", "R dB", "G dB",
        "B dB", "mean dB", "−3 dB at", "top5 error %", "scale",
    ]  # fmt: skip
    means = [float(a["data-value"] or "") for a in elements.all("td", class_="number main")]
    assert means == sorted(means, reverse=True) and len(means) == 12
    errors = [a.get("data-value") for a in elements.all("td") if a.get("data-label") == "top5 error"]
    assert len([e for e in errors if e is None]) == 4
    assert len(elements.all("abbr")) == 3
    assert len([a for a in elements.all("input", type="checkbox") if "checked" in a]) == model_table.SELECTED
    shown = elements.text()
    for expected in ("bad.onnx", "not an ONNX model", "with an assumed input scale", "Spearman rho", "03:04 UTC"):
        assert expected in shown


def test_data_has_all_models_in_row_order() -> None:
    page = comparison_page(9)
    data = data_of(page)
    found = data["groups"][0]["models"]
    labels = [model["label"] for model in found]
    assert [button for tag, button in Elements(page).texts if tag == "button" and button.startswith("model_")][:1]
    assert sorted(labels) == sorted(f"model_{i}.onnx" for i in range(9))
    record = reports.measured().record
    for model in found:
        assert model["frequency"] == [round(f, 4) for f in record.spectrum.profile_frequency]
        assert model["profile"]["R"] == [round(g, 2) for g in record.spectrum.profile_db[0] if g is not None]
        assert len(model["others"]) == 2
    assert data["profiles"]["data"] == {"name": "profiles", "values": []}


def test_incomparable_groups_have_sections_of_their_own() -> None:
    one = [a_record(i) for i in range(3)]
    shape = dataclasses.replace(one[0].interface, image_shape=(3, 32, 32))
    other = [a_record(i, interface=shape) for i in range(3, 5)]
    page = html_compare.render_html(comparison_of([*one, *other]), title="x", when=WHEN)
    elements = Elements(page)
    assert [a["href"] for a in elements.all("a")] == ["#group0", "#group1"]
    assert len(elements.all("div", class_="listing")) == 2
    assert "data-gallery" not in page.partition("<script")[0]


def lone(count: int) -> list[Record]:
    """Records that cannot be compared, as each has its own image size."""
    base = a_record(0)
    shapes = (dataclasses.replace(base.interface, image_shape=(3, 16 + i, 16)) for i in range(count))
    return [a_record(10 + i, interface=shape) for i, shape in enumerate(shapes)]


def test_single_records_share_a_section() -> None:
    elements = Elements(
        html_compare.render_html(comparison_of([*(a_record(i) for i in range(3)), *lone(4)]), when=WHEN)
    )
    assert len(elements.all("div", class_="listing")) == 2
    assert len([a for a in elements.all("figure") if "data-profiles" in a]) == 1
    rows = [a["data-model"] for a in elements.all("tr") if "data-model" in a]
    assert rows == ["0.0", "0.1", "0.2", "1.0", "2.0", "3.0", "4.0"]
    assert "Measured in another way (4)" in elements.text("h2")
    assert "image 3x19x16" in elements.text("small")


def test_a_model_at_many_photographs_is_one_table() -> None:
    elements = Elements(html_compare.render_html(comparison_of(lone(5)), when=WHEN))
    assert len(elements.all("div", class_="listing")) == 1
    assert len([a for a in elements.all("figure") if "data-profiles" in a]) == 1


def test_equal_failures_are_merged() -> None:
    failures = tuple(Failure(f"m{i}.onnx", f"m{i}.onnx: not an ONNX model") for i in range(8))
    text = Elements(html_compare.render_html(comparison_of([a_record(0)], failures=failures), when=WHEN)).text("li")
    assert text.count("not an ONNX model") == 1
    assert "8 times" in text


def test_a_failed_model_is_inspected_by_a_command_that_can_be_pasted() -> None:
    failure = Failure("my model.onnx", "not an ONNX model")
    page = Elements(html_compare.render_html(comparison_of([a_record(0)], failures=(failure,)), when=WHEN))
    assert "1 model could not be measured" in page.text("li")
    assert "onnxgain inspect 'my model.onnx'" in page.text("code")


@pytest.mark.parametrize(("count", "said"), [(1, False), (2, True)])
def test_a_ranking_says_that_it_is_none_of_quality(count: int, said: bool) -> None:
    page = html_compare.render_html(compare_records([a_record(i) for i in range(count)]), when=WHEN)
    assert ("This is not a ranking by quality: a higher gain is not a better model" in page) is said


def test_commands_break_between_their_words_only() -> None:
    page = str(steps([("to accept", "onnxgain gate a.onnx --update-baseline")]))
    words = ("onnxgain", "gate", "a.onnx", "--update-baseline")
    assert f"<code>{' '.join(f'<span>{word}</span>' for word in words)}</code>" in page


def test_a_report_without_errors_has_no_scatter() -> None:
    page = html_compare.render_html(compare_records([a_record(0), a_record(1)]), title="x", when=WHEN)
    assert data_of(page)["charts"] == []
    assert "Spearman" not in page.partition("<script")[0]


def test_equal_comparisons_give_equal_pages() -> None:
    assert comparison_page(3) == comparison_page(3)


def test_200_models_stay_below_5_megabytes() -> None:
    page = comparison_page(200)
    size = len(without_library(page).encode())
    assert size < 5_000_000
    assert len(Elements(page).all("img")) == 400


# --------------------------------------------------------------------------------------------------- charts
def test_the_scatter_has_a_panel_a_channel_with_its_correlation() -> None:
    comparison = comparison_of([a_record(i, assumed=i == 0) for i in range(9)])
    group = comparison.groups[0]
    spec = charts.gain_against_error(group, "top5 error")
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["red", "green", "blue", "mean of the channels"]
    found = {c.channel: c for c in group.correlations}
    for panel, channel in zip(spec["concat"], ("R", "G", "B", "mean"), strict=True):
        assert panel["title"]["subtitle"] == charts.correlation_text(found[channel])
        assert panel["transform"] == [{"filter": {"field": "channel", "equal": channel}}]
    values = spec["data"]["values"]
    assert len(values) == 6 * 4
    for value in values:
        entry = group.entries[value["rank"] - 1]
        assert (value["model"], value["gain"]) == (entry.label, entry.gains[value["channel"]])
        assert value["error"] == entry.errors["top5 error"]
        assert value["assumed"] == entry.assumed_scale
    spearman, kendall = found["R"].spearman, found["R"].kendall
    numbers = re.findall(r"-?\d\.\d\d", charts.correlation_text(found["R"]).replace("\N{MINUS SIGN}", "-"))
    assert numbers == [f"{x:.2f}" for x in (spearman.value, spearman.low, spearman.high, kendall.value)]


def test_too_many_points_have_no_numbers() -> None:
    few, many = (
        charts.gain_against_error(comparison_of([a_record(i) for i in range(n)]).groups[0], "top5 error")
        for n in (60, 63)
    )
    assert len(few["concat"][0]["layer"]) == 2
    assert len(many["concat"][0]["layer"]) == 1


def test_the_profiles_before_and_after() -> None:
    before = a_record(0)
    spectrum = before.spectrum
    louder = tuple(tuple(g + 3.0 if g is not None else None for g in row) for row in spectrum.profile_db)
    after = dataclasses.replace(before, spectrum=dataclasses.replace(spectrum, profile_db=louder))
    spec = charts.profile_change(Change(before, after))
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["red", "green", "blue", "after less before"]
    assert len(spec["data"]["values"]) == 3 * len(spectrum.profile_frequency)
    assert all(value["change"] == pytest.approx(3.0) for value in spec["data"]["values"])
    damaged = dataclasses.replace(after, spectrum=dataclasses.replace(spectrum, profile_db=()))
    assert charts.profile_change(Change(before, damaged)) == {}


def test_missing_library_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(OnnxgainError, match=r"pip install vl-convert-python"):
        Page("x", [listed(["y"])]).render(WHEN)


# ------------------------------------------------------------------------------------------- diff and gate
def changed_report(name: str = "after.onnx", factor: float = 2.0) -> DiffReport:
    before = reports.measured()
    model = dataclasses.replace(before.record.model, name=name, path=name, sha256="other", producer=name)
    after = dataclasses.replace(
        before,
        record=dataclasses.replace(before.record, model=model, gain=a_record(3).gain),
        arrays=KnownArrays(before.derivative * factor, before.spectrum),
    )
    panel = DiffPanel(
        "x", (before.derivative, after.derivative), (before.spectrum.db, after.spectrum.db), ("R", "G", "B")
    )
    return DiffReport((measured_difference(before, after),), panels=(panel,))


def test_a_huge_change_is_told_as_a_multiple() -> None:
    (difference,) = changed_report(factor=1e9).differences
    assert any(line.startswith("derivative changed by 1e+09 times its size") for line in sentences(difference))


def test_diff_page_has_pictures() -> None:
    report = changed_report()
    page = html_diff.render_html(report, when=WHEN)
    elements = assert_harmless(page)
    assert len(elements.all("img")) == 3 * 6
    assert [len(spec["concat"]) for spec in data_of(page)["charts"]] == [4]
    shown = elements.text()
    for expected in (
        "net.onnx → after.onnx",
        "the file differs",
        "cycles/pixel",
        "derivative changed by 100 % of its size",
        "rms dB",
    ):
        assert expected in shown


def test_diff_page_of_records_has_no_pictures() -> None:
    report = changed_report()
    recorded = DiffReport((recorded_difference(report.differences[0].change),))
    elements = assert_harmless(html_diff.render_html(recorded, when=WHEN))
    assert elements.all("img") == []
    assert "from records" in elements.text()


def test_a_difference_of_records_says_what_is_compared() -> None:
    report = changed_report()
    recorded = DiffReport((recorded_difference(report.differences[0].change),), from_records=True)
    assert "Compared: records, which hold gains" in html_diff.render_html(recorded, when=WHEN)
    assert "Compared: records" not in html_diff.render_html(report, when=WHEN)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_in_a_diff_page(name: str) -> None:
    report = changed_report(name)
    page = html_diff.render_html(report, when=WHEN)
    assert_harmless(page)
    page.encode("utf-8")


def test_gate_page_of_one_model_says_what_changed_beside_the_verdict() -> None:
    result = dataclasses.replace(
        evaluate(Policy(max_gain=-1000.0), [a_record(0)], [], model="m.onnx"),
        notes=("weights of all 4 layers changed", "bytes 8 -> 9", "opset 17 -> 18", "fourth"),
    )
    verdict = "Model: weights of all 4 layers changed; bytes 8 → 9; opset 17 → 18"
    page = html_gate.render_html([result], when=WHEN)
    shown = assert_harmless(page).text()
    assert shown.index(verdict) < shown.index("What to do") if "What to do" in shown else verdict in shown
    assert "What else changed" in shown and "fourth" in shown
    assert verdict not in assert_harmless(html_gate.render_html([result, result], when=WHEN)).text()
    passed = evaluate(Policy(max_gain=1000.0), [a_record(0)], [], model="m.onnx")
    assert verdict not in assert_harmless(html_gate.render_html([passed], when=WHEN)).text()


def test_gate_page_has_no_column_of_places_where_no_check_has_one() -> None:
    broken = not_judged("broken.onnx", Policy(), "measured", "not an ONNX model")
    bound = evaluate(Policy(max_gain=-1000.0), [a_record(0)], [], model="m.onnx")
    for result, heads in ((broken, ["outcome", "check", "what was found"]), (bound, ["where"])):
        page = html_gate.render_html([result], when=WHEN)
        found = page.partition("<details")[2]
        assert all((f">{name}</th>" in found) for name in heads)
        assert (">where</th>" in found) is (result is bound)


def test_gate_page_lists_failures_first() -> None:
    before, after = a_record(0), a_record(3)
    before = dataclasses.replace(before, model=after.model)
    policy = Policy(max_change=0.1, per_channel=True, same_class=True)
    results = [
        evaluate(policy, [after], [after], model="good.onnx"),
        evaluate(policy, [after], [before], model=HOSTILE[0]),
        dataclasses.replace(
            not_judged("broken.onnx", policy, "measured", HOSTILE[1]), commands=Commands("onnxgain inspect broken.onnx")
        ),
    ]
    page = html_gate.render_html(results, when=WHEN)
    elements = assert_harmless(page)
    shown = elements.text()
    assert "ERROR: 1 of 3 models could not be judged, 1 of 3 models failed" in shown
    links = [a["href"] for a in elements.all("a")]
    assert links[:3] == ["#model0", "#model1", "#model2"]
    # A finding links to its chart, and a check to how it was measured.
    assert set(links[3:]) == {"#method", "#model1-0", "#model2-0"}
    assert elements.all("h3", id="model1-0") != []
    commands = elements.text("code")
    assert "onnxgain inspect broken.onnx" in commands
    order = [shown.index(name) for name in ("broken.onnx: ", f"{HOSTILE[0]}: ", "good.onnx: 4 checks passed")]
    assert order == sorted(order)
    opened = [("open" in a) for a in elements.all("details", class_="judged")]
    assert opened == [True, True, False]
    assert [a["class"] for a in elements.all("div") if (a.get("class") or "").startswith("verdict")] == [
        "verdict error"
    ]
    assert "gain changed by" in shown and "class 0 became 3" in shown
    assert len(data_of(page)["charts"]) == 2
