"""Reads a table of models and their accuracies from any source: CSV with a header line, one model per row.

    model,top5_error,preprocess
    resnet18.onnx,10.92,imagenet
    exports/b0.onnx,7.8%,"{""mean"": 127, ""std"": 128}"

One column (model, name, file or path) names the model: by its file name with or without the suffix, or by the end of
its path. Columns whose name contains error, err, accuracy, acc, top-1 or top-5 are metrics: errors if the name contains
err or error, otherwise accuracies; per cent if the header or a cell has a % or a value exceeds 1, otherwise fractions.
An optional column `preprocess` gives a model's own input scale: the name of a preset, or a JSON object with mean, std
and scale. Other columns are ignored.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from onnxgain.errors import OnnxgainError, text_problem, unique_keys
from onnxgain.files import read_text
from onnxgain.model.input_scale import InputScale, input_scale

LIMIT = 1 << 26
"""The largest table that is read, bytes."""

_MODEL_COLUMNS = ("model", "name", "file", "filename", "path")
_SCALE_COLUMNS = ("preprocess", "preprocessing")
_ABSENT = ("", "-", "n/a", "na", "nan", "none", "?")


@dataclass(frozen=True)
class AccuracyRow:
    """One row of the table: the model's name, its error in per cent by metric, its input scale if given."""

    model: str
    errors: Mapping[str, float]
    scale: InputScale | None


@dataclass(frozen=True)
class AccuracyTable:
    """The table: metrics in column order, named as errors ("top5 error"), and rows."""

    metrics: tuple[str, ...]
    rows: tuple[AccuracyRow, ...]

    def match(self, paths: Iterable[str]) -> dict[str, AccuracyRow]:
        """Map each path to its row; paths without a row are left out.

        A row matches a path that ends in the row's name, with or without the file suffix, ignoring case. If several
        rows match a path, the one with the most path parts is taken; paths that are still ambiguous get no row, and
        neither do several paths that would share one.
        """
        by_name: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            by_name.setdefault(_parts(row.model)[-1], []).append(i)
        best: dict[str, int] = {}
        taken: Counter[int] = Counter()
        for path in dict.fromkeys(paths):
            parts = _parts(path)
            candidates = {*by_name.get(parts[-1], ()), *by_name.get(PurePath(parts[-1]).stem, ())}
            names = {i: _parts(self.rows[i].model) for i in candidates}
            lengths = {i: len(name) for i, name in names.items() if _fits(name, parts)}
            longest = [i for i, length in lengths.items() if length == max(lengths.values())]
            if len(longest) == 1:
                best[path] = longest[0]
                taken[longest[0]] += 1
        return {path: self.rows[i] for path, i in best.items() if taken[i] == 1}


def read_accuracy(path: str | Path) -> AccuracyTable:
    """Read a table.

    Raises:
        OnnxgainError: the file cannot be read, has no column of models or no other known column, names a model twice,
            or has a cell that is not a number in 0..100 % or not an input scale.
    """
    where = f"--accuracy {path}"
    try:
        text = read_text(path, LIMIT).removeprefix("\ufeff")
    except OnnxgainError as error:
        raise OnnxgainError(error.what, where=where, remedy="name a CSV file") from error
    lines = text.splitlines()
    heading = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t", key=heading.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise OnnxgainError(f"is not CSV: {error}", where=where, remedy="save it as CSV") from error
    if len(rows) < 2:
        raise OnnxgainError("has no rows", where=where, remedy="give a heading and one model a row")
    return _table(rows[0], rows[1:], where, decimal_comma=delimiter == ";")


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], where: str, *, decimal_comma: bool) -> AccuracyTable:
    names = [_plain(cell) for cell in heading]
    model_column = next((names.index(name) for name in _MODEL_COLUMNS if name in names), None)
    if model_column is None:
        raise OnnxgainError(
            f"has no column that names the model (it has {', '.join(heading)})",
            where=where,
            remedy=f"call it {_MODEL_COLUMNS[0]!r}",
        )
    scale_column = next((names.index(name) for name in _SCALE_COLUMNS if name in names), None)
    metric_columns = {
        i: _metric(name) for i, name in enumerate(names) if i not in (model_column, scale_column) and _is_metric(name)
    }
    if not metric_columns and scale_column is None:
        raise OnnxgainError(
            f"has no column of accuracies or errors (it has {', '.join(heading)})",
            where=where,
            remedy="call one top1, top5, accuracy, top1_error, top5_error or error",
        )
    if len(set(metric_columns.values())) < len(metric_columns):
        raise OnnxgainError("has a metric twice", where=where, remedy="leave one of the columns out")
    cells = [[*map(str.strip, row), *[""] * (len(heading) - len(row))] for row in rows]
    models = [row[model_column] for row in cells]
    repeated = next((name for i, name in enumerate(models) if name in models[:i]), None)
    if repeated is not None:
        raise OnnxgainError(f"names {repeated!r} twice", where=where, remedy="keep one row a model")
    columns = {
        metric: _errors([row[i] for row in cells], heading[i], where, decimal_comma)
        for i, metric in metric_columns.items()
    }
    return AccuracyTable(
        tuple(columns),
        tuple(
            AccuracyRow(
                model,
                {metric: error for metric, values in columns.items() if (error := values[i]) is not None},
                None if scale_column is None else _scale(cells[i][scale_column], f"{where}: {model}"),
            )
            for i, model in enumerate(models)
        ),
    )


def _plain(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", heading.casefold()).strip()


def _is_metric(name: str) -> bool:
    words = name.split()
    return bool({"acc", "accuracy", "err", "error"} & set(words)) or bool(re.search(r"\btop ?[0-9]+\b", name))


def _is_error(name: str) -> bool:
    return bool({"err", "error"} & set(name.split()))


def _metric(name: str) -> str:
    """ "top 5 accuracy" -> "top5 error"; "val acc" -> "val error"."""
    words = re.sub(r"\btop ([0-9]+)\b", r"top\1", name).split()
    kept = [word for word in words if word not in ("acc", "accuracy", "err", "error", "rate", "percent", "pct")]
    return " ".join([*kept, "error"])


def _errors(cells: Sequence[str], heading: str, where: str, decimal_comma: bool) -> list[float | None]:
    """The cells of a column as errors in per cent."""
    numbers = [_number(cell, heading, where, decimal_comma) for cell in cells]
    known = [number for number in numbers if number is not None]
    words = _plain(heading).split()
    declared = "%" in heading or "percent" in words or "pct" in words or any("%" in cell for cell in cells)
    per_cent = declared or max(known, default=0.0) > 1
    scaled = [None if number is None else number if per_cent else 100 * number for number in numbers]
    return [None if number is None else number if _is_error(_plain(heading)) else 100 - number for number in scaled]


def _number(cell: str, heading: str, where: str, decimal_comma: bool) -> float | None:
    if cell.casefold() in _ABSENT:
        return None
    text = cell.removesuffix("%").strip()
    try:
        number = float(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 100:
        raise OnnxgainError(
            f"{heading}: {cell!r} is not a share", where=where, remedy="write per cent or a fraction, or leave it empty"
        )
    return number


def _scale(cell: str, where: str) -> InputScale | None:
    if cell.casefold() in _ABSENT:
        return None
    try:
        values = json.loads(cell, object_pairs_hook=unique_keys) if cell.startswith("{") else {"name": cell}
        return input_scale(**values, source="option")
    except (ArithmeticError, ValueError, TypeError, RecursionError, OnnxgainError) as error:
        raise OnnxgainError(
            f"{cell!r} is not an input scale: {text_problem(error)}",
            where=where,
            remedy="write a preset's name or JSON with mean, std and scale",
        ) from error


def _parts(name: str) -> tuple[str, ...]:
    return PurePath(name.replace("\\", "/").casefold()).parts or ("",)


def _fits(wanted: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether a path ends in a name, with or without the file suffix."""
    tail = parts[-len(wanted) :]
    return tail[:-1] == wanted[:-1] and wanted[-1] in (tail[-1], PurePath(tail[-1]).stem)
