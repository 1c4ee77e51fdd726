"""Tables of accuracies from any source: their columns, their numbers, and the model that a row belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxgain.analysis.accuracy import AccuracyRow, AccuracyTable, read_accuracy
from onnxgain.errors import OnnxgainError


def read(folder: Path, text: str, encoding: str = "utf-8") -> AccuracyTable:
    (folder / "t.csv").write_bytes(text.encode(encoding))
    return read_accuracy(folder / "t.csv")


def errors(table: AccuracyTable) -> list[dict[str, float]]:
    return [dict(row.errors) for row in table.rows]


@pytest.mark.parametrize(
    ("heading", "metric", "accuracy"),
    [
        ("top1", "top1 error", True), ("Top-1", "top1 error", True), ("top-5 acc.", "top5 error", True),
        ("TOP5_ERROR", "top5 error", False), ("top5 err (%)", "top5 error", False), ("error", "error", False),
        ("accuracy", "error", True), ("val acc", "val error", True), ("Error rate", "error", False),
    ],
)  # fmt: skip
def test_columns_are_recognized_by_name(tmp_path: Path, heading: str, metric: str, accuracy: bool) -> None:
    table = read(tmp_path, f"year,model,{heading},notes\n2018,a,30,x\n2019,b,40,y\n")
    assert table.metrics == (metric,)
    assert errors(table) == [{metric: 70.0}, {metric: 60.0}] if accuracy else [{metric: 30.0}, {metric: 40.0}]


@pytest.mark.parametrize(
    ("heading", "cells", "expected"),
    [
        ("error", ("0.3", "0.05"), (30, 5)),  # fractions
        ("error", ("0.3", "5"), (0.3, 5)),  # per cent, as one exceeds 1
        ("error %", ("0.3", "0.5"), (0.3, 0.5)),
        ("error", ("0.3%", "0.5"), (0.3, 0.5)),
        ("accuracy", ("1", "0.9"), (0, 10)),
        ("accuracy", ("99.5 %", ""), (0.5, None)),
        ("error", ("n/a", "7"), (None, 7)),
    ],
)
def test_per_cent_or_fractions(
    tmp_path: Path, heading: str, cells: tuple[str, str], expected: tuple[float | None, float | None]
) -> None:
    table = read(tmp_path, f"model,{heading}\na,{cells[0]}\nb,{cells[1]}\n")
    for row, value in zip(table.rows, expected, strict=True):
        assert list(row.errors.values()) == ([] if value is None else [pytest.approx(value)])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("model;error\na;7,5\n", "utf-8"), ("model\terror\na\t7.5\n", "utf-8"),
        ("model,error\r\na,7.5\r\n", "utf-8-sig"),
        ("\n\nmodel,error\n\na , 7.5 \n", "utf-8"), ('"model","error"\n"a","7.5"\n', "utf-8"),
    ],
)  # fmt: skip
def test_dialects(tmp_path: Path, text: str, encoding: str) -> None:
    assert read(tmp_path, text, encoding).rows == (AccuracyRow("a", {"error": 7.5}, None),)


def test_input_scales(tmp_path: Path) -> None:
    table = read(tmp_path, 'model,preprocess\na,caffe\nb,\nc,"{""mean"": [1, 2, 3], ""std"": 4}"\n')
    scales = [row.scale for row in table.rows]
    assert table.metrics == ()
    assert scales[0] is not None and scales[0].bgr
    assert scales[1] is None
    assert scales[2] is not None and (scales[2].mean, scales[2].std, scales[2].source) == ((1, 2, 3), (4,), "option")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"), ("model,error\n", "has no rows"), ("net,error\na,1\n", "no column that names the model"),
        ("model,size\na,1\n", "no column of accuracies or errors"), ("model,error\na,1\na,2\n", "names 'a' twice"),
        ("model,error\na,many\n", "error: 'many' is not a share"), ("model,error\na,101\n", "'101' is not a share"),
        ("model,error\na,-1\n", "'-1' is not a share"), ("model,error\na,inf\n", "'inf' is not a share"),
        ("model,acc,error\na,1,2\n", "has a metric twice"),
        ("model,preprocess\na,photoshop\n", "is not an input scale"),
        ('model,preprocess\na,"{""mean"": 1"\n', "is not an input scale"),
        ('model,preprocess\na,"{""gamma"": 1}"\n', "is not an input scale"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OnnxgainError, match=message) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(f"--accuracy {tmp_path / 't.csv'}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OnnxgainError, match="no such file"):
        read_accuracy(tmp_path / "missing.csv")
    with pytest.raises(OnnxgainError, match="not UTF-8"):
        read(tmp_path, "model,error\nmodèle,1\n", "latin-1")


def matched(rows: list[str], *paths: str) -> list[str | None]:
    table = AccuracyTable((), tuple(AccuracyRow(name, {}, None) for name in rows))
    found = table.match(paths)
    return [found[path].model if path in found else None for path in paths]


def test_rows_match_models_by_the_end_of_the_path() -> None:
    assert matched(["resnet18"], "exports/resnet18.onnx") == ["resnet18"]
    assert matched(["ResNet18.onnx"], "exports/resnet18.ONNX") == ["ResNet18.onnx"]
    assert matched(["net_v1_1.0_224"], "net_v1_1.0_224.onnx") == ["net_v1_1.0_224"]
    assert matched(["resnet"], "resnet18.onnx", "my_resnet.onnx") == [None, None]
    assert matched(["exports/a"], "exports/a.onnx", "other/a.onnx") == ["exports/a", None]
    assert matched(["b\\a.onnx"], "x/b/a.onnx") == ["b\\a.onnx"]
    assert matched(["/abs/a"], "a.onnx", "/abs/a.onnx") == [None, "/abs/a"]


def test_longest_match_wins_and_ambiguous_matches_are_dropped() -> None:
    assert matched(["a", "fp16/a"], "fp32/a.onnx", "fp16/a.onnx") == ["a", "fp16/a"]
    assert matched(["a"], "fp32/a.onnx", "fp16/a.onnx") == [None, None]
    assert matched(["a", "A.onnx"], "a.onnx") == [None]


def test_many_rows_and_models_are_matched_quickly() -> None:
    import time

    rows = [f"m{i}" for i in range(3000)]
    start = time.perf_counter()
    assert matched(rows, *(f"exports/m{i}.onnx" for i in range(3000))) == rows
    assert time.perf_counter() - start < 5
