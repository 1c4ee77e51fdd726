"""What `compare` prints: the order of the models and its reason, the parts of the gain, assumptions and cautions."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

import pytest

from onnxgain.analysis.comparison import Comparison, compare_records, to_csv
from onnxgain.measure.caveats import CaveatsRecord, TieRecord
from onnxgain.measure.confidence import confidence_db, odds_db
from onnxgain.measure.record import Record, SteadinessRecord
from onnxgain.report.html.compare import render_html
from onnxgain.report.text.comparison import order_text, render_markdown, render_table
from tests.support import reports


def sure_and_unsure() -> list[Record]:
    """A sure model with the lower gain and the higher log-odds gain, and an unsure one."""
    gain = dataclasses.replace(reports.a_record().gain, channels=(-40.0,) * 3, mean=-40.0, confidence=None)
    other = dataclasses.replace(gain, channels=(-20.0,) * 3, mean=-20.0)
    sure = reports.a_record(name="sure.onnx", gain=gain, score=0.999)
    return [reports.a_record(name="unsure.onnx", gain=other, score=0.5), sure]


def names(comparison: Comparison) -> list[str]:
    return [entry.label for group in comparison.groups for entry in group.entries]


def test_confidence_does_not_decide_the_order() -> None:
    records = sure_and_unsure()
    assert names(compare_records(records)) == ["sure.onnx", "unsure.onnx"]
    assert names(compare_records(records, sort="gain")) == ["unsure.onnx", "sure.onnx"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "highest log-odds gain first (the part that is not confidence)"),
        ({"reverse": True}, "lowest log-odds gain first (the part that is not confidence)"),
        ({"sort": "gain"}, "highest gain first"),
        ({"sort": "name"}, "by name"),
        ({"sort": "name", "reverse": True}, "by name, reversed"),
        ({"sort": "score"}, "highest score first"),
        ({"sort": "error", "metrics": ["top1 error"]}, "lowest top1 error first"),
    ],
)
def test_the_heading_says_the_order(options: dict[str, Any], words: str) -> None:
    comparison = compare_records(sure_and_unsure(), **options)
    assert order_text(comparison, comparison.groups[0]) == words
    assert render_table(comparison, colour=False).splitlines()[0].endswith(f"projection 1/score; {words}")
    assert words.partition(" (")[0] in render_markdown(comparison).splitlines()[0]
    assert f"{words[:1].upper()}{words[1:]}." in reports.Elements(render_html(comparison)).text()


def test_gains_of_logits_are_ordered_by_the_gain() -> None:
    records = [dataclasses.replace(record, projection="logit") for record in sure_and_unsure()]
    first, heading, *_ = render_table(compare_records(records), colour=False).splitlines()
    assert first.endswith("projection logit; highest gain first")
    assert "log-odds" not in heading


def test_one_model_has_no_order() -> None:
    text = render_table(compare_records(sure_and_unsure()[:1]), colour=False)
    assert text.splitlines()[0].endswith("projection 1/score")


@pytest.mark.parametrize(("sort", "main"), [("log-odds", "log-odds dB"), ("gain", "mean dB"), ("name", "log-odds dB")])
def test_the_page_highlights_the_column_that_models_are_judged_by(sort: str, main: str) -> None:
    elements = reports.Elements(render_html(compare_records(sure_and_unsure(), sort=sort)))
    assert [a["data-label"] for a in elements.all("th", class_="number main")] == [main]
    assert len(elements.all("td", class_="number main")) == 2


def test_csv_ends_with_the_two_parts() -> None:
    from onnxgain.analysis.comparison import Failure

    records = sure_and_unsure()
    rows = list(csv.reader(io.StringIO(to_csv(compare_records(records, failures=(Failure("a", "is bad"),))))))
    assert rows[0][-4:] == ["failure", "log_odds_db", "confidence_db", "assumptions"]
    by_path = {record.model.path: record for record in records}
    for row in rows[1:3]:
        record = by_path[row[2]]
        assert (float(row[-3]), float(row[-2])) == (odds_db(record, record.gain.mean), confidence_db(record))
        assert float(row[-3]) + float(row[-2]) == pytest.approx(record.gain.mean)
    assert rows[3][-4:] == ["is bad", "", "", ""]
    assert {len(row) for row in rows} == {len(rows[0])}


HINT = "raw fits the first layers better than imagenet: on 0..1 the scores hardly depend on the image"


def test_hints_are_printed_once_with_their_models() -> None:
    records = [reports.a_record(i, assumptions=(HINT,) if i < 2 else ()) for i in range(3)]
    comparison = compare_records(records, sort="name")
    for text in (render_table(comparison, colour=False), render_markdown(comparison)):
        assert text.replace("\\", "").count(f"assumed for 2 models (model_0.onnx, model_1.onnx): {HINT}") == 1


def test_a_hint_for_many_models_is_kept_among_many_sentences() -> None:
    records = [reports.a_record(i, assumptions=(f"only of model {i}",)) for i in range(20)]
    records += [reports.a_record(i, assumptions=(HINT,)) for i in range(20, 23)]
    text = render_table(compare_records(records), colour=False)
    assert f": {HINT}" in text
    assert "assumed: 9 more sentences, see --format json" in text


def test_cautions_are_printed_before_the_units() -> None:
    caveats = CaveatsRecord(tie=TieRecord(1, 0.1, 0.2, 0.4, (-20.0,) * 3, -20.0))
    records = [reports.a_record(0, caveats=caveats), reports.a_record(1)]
    assert records[0].warnings
    lines = render_table(compare_records(records), colour=False).splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith("caution for model_0.onnx: tie: ")]
    (units,) = [i for i, line in enumerate(lines) if line.startswith("gain in dB per 8-bit level")]
    assert place < units == len(lines) - 2


def test_the_table_says_that_its_order_is_none_of_quality() -> None:
    several, single = ([reports.a_record(n) for n in range(count)] for count in (2, 1))
    for render in (render_table, render_markdown):
        assert "not a ranking by quality" in render(compare_records(several))
        assert "not a ranking by quality" not in render(compare_records(single))


def test_steadiness_is_compared_with_what_the_models_are_ordered_by() -> None:
    noisy = SteadinessRecord(8, 1.0, -20.0, 0.5, 8, 0)
    records = [reports.a_record(n, steadiness=noisy) for n in range(2)]
    assert compare_records(records).sort == "gain"
    assert compare_records(records, sort="name").sort == "name"
    assert compare_records([reports.a_record(n) for n in range(2)]).sort == "log-odds"
