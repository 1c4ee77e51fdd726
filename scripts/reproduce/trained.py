"""Trained classifiers of known error: reads `trained.csv` and measures the models.

The table has one row per model: file name, data set, error in per cent (top5_error or top1_error: published or measured
on the whole test set; sample_top5_error: on 1000 images, one per class, which were probably used in training), input
scale, image shape if the file leaves it open, and the source of the error. Another table may be given.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).parent / "trained.csv"
DATA = {"imagenet": "ImageNet", "cifar10": "CIFAR-10"}
ERRORS = {"top5_error": "top-5 error", "top1_error": "top-1 error", "sample_top5_error": "top-5 error on 1000 images"}
POSITIONS = ((0.25, 0.25), (0.25, 0.72), (0.72, 0.25), (0.72, 0.72))
AMPLITUDES = (64, 128, 512, -255)


@dataclass(frozen=True, eq=False)
class Trained:
    """A classifier of the table, and its file."""

    row: dict[str, str]
    path: Path

    @property
    def name(self) -> str:
        """File name without the extension."""
        return self.path.stem

    def error(self, kind: str) -> float | None:
        """Error in per cent; None if it is not known."""
        return float(self.row[kind]) if self.row.get(kind) else None

    def classifier(self) -> Any:
        """The classifier, read with the scale and shape from the table."""
        from onnxgain.model.classifier import Reading, load_classifier
        from onnxgain.model.input_scale import input_scale

        cell = self.row["preprocess"]
        scale = None if not cell else input_scale(**json.loads(cell)) if cell.startswith("{") else input_scale(cell)
        shape = tuple(int(side) for side in self.row["shape"].split("x")) if self.row.get("shape") else None
        return load_classifier(self.path, Reading(scale=scale, image_shape=shape))


def names(table: Path = TABLE) -> list[str]:
    """The names of all models in the table, without the extension."""
    with table.open(newline="") as file:
        return [Path(row["model"]).stem for row in csv.DictReader(file)]


def find(folders: Sequence[Path], table: Path = TABLE) -> Iterator[Trained]:
    """The models of the table that are in the folders, in the order of the table."""
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            found = [folder / row["model"] for folder in folders if (folder / row["model"]).exists()]
            if found:
                yield Trained(row, found[0])
            else:
                print(f"not there: {row['model']}")


def measure(model: Trained) -> list[Any]:
    """Measure at the impulse, and at eight others: four amplitudes, and four positions off the centre."""
    from onnxgain.measure.measure import score
    from onnxgain.model.stimulus import impulse

    classifier = model.classifier()
    shape = classifier.image.image_shape
    places = [(round(y * shape[1]), round(x * shape[2])) for y, x in POSITIONS]
    stimuli = [impulse(shape, classifier.scale)]
    stimuli += [impulse(shape, classifier.scale, amplitude=amplitude) for amplitude in AMPLITUDES]
    stimuli += [impulse(shape, classifier.scale, position=place) for place in places]
    return score(classifier, stimuli, threads=1)


def log_odds_gain(measured: Sequence[Any]) -> float:
    """The mean over impulses of the gain of log z/(1 - z), which does not fall as the network becomes confident."""
    rest = [np.log1p(-m.record.score) if m.record.score < 0.999 else -m.record.margin for m in measured]
    return float(np.mean([m.record.gain.mean for m in measured] - 20 / np.log(10) * np.array(rest)))
