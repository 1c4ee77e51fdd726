"""Reads losses that a training loop logged: CSV (Keras CSVLogger, Lightning metrics.csv) or JSON (Keras history)."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxgain.errors import OnnxgainError, text_problem, unique_keys
from onnxgain.files import read_text

LIMIT = 1 << 28
"""The largest log that is read, bytes."""

_TRAINING = ("loss", "train_loss", "training_loss", "train_loss_epoch", "loss_train", "trn_loss")
_VALIDATION = ("val_loss", "valid_loss", "validation_loss", "val_loss_epoch", "loss_val", "test_loss", "eval_loss")
_REMEDY = "write columns epoch, loss and val_loss (or train_loss), or JSON with lists of these names"


@dataclass(frozen=True)
class TrainingLog:
    """Losses by epoch. Losses that were not logged or are not finite are left out."""

    training: Mapping[int, float]
    validation: Mapping[int, float]

    def aligned(self, epochs: Sequence[int]) -> TrainingLog:
        """The log with its epochs renumbered from 1 if it counts from 0 and the snapshots' `epochs` do not."""
        known = [*self.training, *self.validation]
        if not known or not epochs or min(known) != 0 or epochs[0] == 0:
            return self
        return TrainingLog(*({e + 1: loss for e, loss in part.items()} for part in (self.training, self.validation)))


def read_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Read the losses in a file.

    CSV: a header line and one row per epoch (or several rows with empty cells: the last number of an epoch counts).
    JSON: an object of lists, or a list of objects. Without a column of epochs, rows are epochs 1, 2, ...

    Raises:
        OnnxgainError: the file cannot be read, or holds no losses.
    """
    where = str(path)
    text = read_text(path, LIMIT).removeprefix("\ufeff")
    try:
        json_like = text.lstrip()[:1] in ("{", "[")
        rows: list[Any] = _json_rows(text) if json_like else list(csv.DictReader(io.StringIO(text)))
    except (ValueError, csv.Error, RecursionError) as error:
        raise OnnxgainError(f"is neither CSV nor JSON ({text_problem(error)})", where=where, remedy=_REMEDY) from error
    log = TrainingLog(_column(rows, _TRAINING), _column(rows, _VALIDATION))
    if not log.training and not log.validation:
        raise OnnxgainError("holds no column of losses", where=where, remedy=_REMEDY)
    return log


def _json_rows(text: str) -> list[dict[str, Any]]:
    document = json.loads(text, object_pairs_hook=unique_keys)
    if isinstance(document, dict) and isinstance(document.get("history"), dict):
        document = document["history"]
    if isinstance(document, dict):
        lists = {name: values for name, values in document.items() if isinstance(values, list)}
        length = max(map(len, lists.values()), default=0)
        return [{name: values[i] for name, values in lists.items() if i < len(values)} for i in range(length)]
    if isinstance(document, list) and all(isinstance(row, dict) for row in document):
        return document
    raise ValueError("not an object of lists or a list of objects")


def _column(rows: Iterable[Mapping[Any, Any]], names: Sequence[str]) -> dict[int, float]:
    losses: dict[int, float] = {}
    for number, row in enumerate(rows, 1):
        cells = {str(key).strip().lower().replace("/", "_").replace(" ", "_"): value for key, value in row.items()}
        loss = next((loss for name in names if (loss := _number(cells.get(name))) is not None), None)
        epoch = _number(cells.get("epoch")) if "epoch" in cells else number
        if loss is not None and epoch is not None:
            losses[int(epoch)] = loss
    return losses


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
