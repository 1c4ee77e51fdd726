"""Records to JSON and back, records to CSV, and when two records are comparable."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.measure.fingerprint import packed
from onnxgain.measure.measure import score
from onnxgain.measure.record import (
    SCHEMA,
    Record,
    channel_names,
    from_json,
    stimulus_label,
    to_json,
)
from onnxgain.measure.record_csv import CSV_COLUMNS, to_csv
from onnxgain.model.classifier import describe
from onnxgain.model.stimulus import grating, impulse, noise
from tests.support import models


@pytest.fixture(scope="module")
def records() -> list[Record]:
    found = []
    for channels in (3, 1):
        classifier = describe(ir.from_proto(models.conv_net(channels=channels)))
        shape, scale = classifier.image.image_shape, classifier.scale
        stimuli = [impulse(shape, scale), noise(shape, scale, seed=2), grating(shape, scale, frequency=0.1)]
        found += [measurement.record for measurement in score(classifier, stimuli, threads=1)]
    path = replace(found[0].model, path='models/"a", b.onnx', name="ö.onnx")
    hole = replace(found[0].gain, channels=(None, -1.5, 2.0), mean=None)
    taken = packed(np.arange(96.0).reshape(48, 2), "logits")
    return [*found, replace(found[0], model=path, gain=hole, assumptions=("one", "two; three"), fingerprint=taken)]


def test_json_round_trip_loses_nothing(records: list[Record]) -> None:
    text = to_json(records)
    assert from_json(text) == records
    assert to_json(from_json(text)) == text
    assert text.endswith("}\n")


def test_json_has_no_nan(records: list[Record]) -> None:
    """JSON without NaN and Infinity, which most readers refuse."""

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    document = json.loads(to_json(records), parse_constant=refuse)
    assert document["schema"] == SCHEMA
    given = [field.name for field in dataclasses.fields(Record) if field.default is not None]
    assert list(document["records"][0]) == given, "optional fields that hold nothing are left out"
    assert list(document["records"][-1]) == [*given, "fingerprint"]
    gain = document["records"][-1]["gain"]
    assert list(gain) == ["channels", "mean", "confidence"] and gain["channels"] == [None, -1.5, 2.0]
    assert gain["mean"] is None


def test_unknown_fields_of_a_later_version_are_ignored(records: list[Record]) -> None:
    document = json.loads(to_json(records))
    document["records"][0]["colour"] = "red"
    document["records"][0]["model"]["licence"] = "MIT"
    assert from_json(json.dumps(document)) == records


def remove(*path: str | int) -> Callable[[Any], None]:
    def damage(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return damage


def put(value: Any, *path: str | int) -> Callable[[Any], None]:
    def damage(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("schema"), "holds schema None"),
        (put("onnxgain.records/99", "schema"), "'onnxgain.records/99', this version reads 'onnxgain.records/1'"),
        (remove("records"), "damaged record: records is not a list"),
        (put({}, "records"), "damaged record: records is not a list"),
        (put(float("nan"), "records", 0, "score"), "NaN is not a JSON number"),
        (put("text", "records", 0), r"records\[0\] is not an object"),
        (remove("records", 0, "gain"), r"records\[0\] lacks gain"),
        (remove("records", 0, "model", "sha256"), r"records\[0\]\.model lacks sha256"),
        (put("high", "records", 0, "score"), r"records\[0\]\.score is str, expected float"),
        (put(True, "records", 0, "score"), r"records\[0\]\.score is bool"),
        (put(1, "records", 0, "class_given"), r"records\[0\]\.class_given is int, expected bool"),
        (put(1.5, "records", 0, "class_index"), r"records\[0\]\.class_index is float, expected int"),
        (put([3, 8], "records", 0, "interface", "image_shape"), "damaged record"),
        (put("abc", "records", 0, "assumptions"), r"records\[0\]\.assumptions is not a list"),
        (put([["x"]], "records", 0, "spectrum", "profile_db"), r"records\[0\]\.spectrum\.profile_db"),
        (put([], "records", 0, "stimulus", "parameters"), r"records\[0\]\.stimulus\.parameters"),
    ],
)
def test_damaged_documents_are_refused(records: list[Record], damage: Callable[[Any], None], message: str) -> None:
    document = json.loads(to_json(records))
    damage(document)
    with pytest.raises(OnnxgainError, match=message) as raised:
        from_json(json.dumps(document), where="old.json")
    assert raised.value.where == "old.json"
    assert raised.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"records"', '{"records": []}'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(OnnxgainError, match=r"not JSON|holds schema None"):
        from_json(text)


def test_csv_has_one_row_a_record(records: list[Record]) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(records))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 1 + len(records)
    for record, row in zip(records, rows[1:], strict=True):
        cells = dict(zip(CSV_COLUMNS, row, strict=True))
        assert cells["model"] == record.model.path
        assert cells["stimulus"] == record.stimulus.name
        assert cells["gain_mean_db"] == ("" if record.gain.mean is None else repr(record.gain.mean))
        gains = cells["gain_channels_db"].split(" ")
        assert [None if gain == "" else float(gain) for gain in gains] == list(record.gain.channels)
        assert float(cells["score"]) == record.score
        assert cells["assumptions"] == "; ".join(record.assumptions)
    assert to_csv([]).splitlines() == [",".join(CSV_COLUMNS)]


def test_comparable_key(records: list[Record]) -> None:
    base = records[0]
    assert base.comparable_key == replace(base, score=0.5, model=records[-1].model).comparable_key
    assert base.comparable_key == replace(base, scale=replace(base.scale, step=(1.0,))).comparable_key
    others = [
        records[1],
        records[3],
        replace(base, projection="one"),
        replace(base, class_given=True),
        replace(base, stimulus=replace(base.stimulus, parameters={**base.stimulus.parameters, "x": 0})),
    ]
    assert len({base.comparable_key, *(other.comparable_key for other in others)}) == 6


def test_names_for_people(records: list[Record]) -> None:
    assert channel_names(records[0]) == ("R", "G", "B")
    assert channel_names(replace(records[0], scale=replace(records[0].scale, bgr=True))) == ("B", "G", "R")
    assert channel_names(records[3]) == ("grey",)
    four = replace(records[0], interface=replace(records[0].interface, image_shape=(4, 8, 8)))
    assert channel_names(four) == ("R", "G", "B", "A")
    assert stimulus_label(records[1]) == "noise"
    photo = replace(records[0].stimulus, name="photograph", parameters={"file": "cat.jpg"})
    assert stimulus_label(replace(records[0], stimulus=photo)) == "cat.jpg"


@pytest.mark.parametrize("field", ["device", "tf32", "custom_ops"])
def test_baselines_written_before_a_field_are_read(field: str, records: list[Record]) -> None:
    """Each optional field of the engine, with the value assumed if a record lacks it."""
    document = json.loads(to_json(records[:1]))
    del document["records"][0]["engine"][field]
    assert from_json(json.dumps(document)) == records[:1]


def test_missing_required_field_is_refused(records: list[Record]) -> None:
    document = json.loads(to_json(records[:1]))
    del document["records"][0]["engine"]["threads"]
    with pytest.raises(OnnxgainError, match=r"records\[0\].engine lacks threads"):
        from_json(json.dumps(document))
