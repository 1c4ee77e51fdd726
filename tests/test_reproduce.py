"""The corpus of training runs and the report on it: what is written is what comes of the data in the repository."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgain.diagnosis import Thresholds

FOLDER = Path(__file__).parent.parent / "scripts" / "reproduce"
RESULTS = FOLDER / "results"


@pytest.fixture(scope="module")
def scripts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


def losses(*parts: float) -> np.ndarray:
    return np.array(parts, float)


FALLING = 2.3 - 0.1 * np.arange(16)


@pytest.mark.parametrize(
    ("values", "verdict", "onset"),
    [
        (FALLING, "too-low", 15),
        (np.concatenate([[2.3], 0.5 + 1.5 * np.exp(-np.arange(1, 16) / 1.5)]), "converged", 5),
        (np.concatenate([[2.3, 1.5, 1.0, 0.8, 0.7], 0.7 + 0.05 * np.arange(1, 12)]), "overfitting", 4),
        (np.concatenate([[2.3], 1.0 + 0.4 * (-1.0) ** np.arange(15)]), "too-high", 1),
        (np.full(16, 2.303), "too-high", 1),
        (np.append(FALLING, np.nan), "too-high", 1),
        (2.3 - 0.001 * np.arange(16), "too-low", 15),
        (np.concatenate([[4.0], np.full(15, 2.303)]), "too-high", 1),
    ],
    ids=["falls", "settles", "rises again", "jumps", "learns nothing", "diverges", "learns slowly", "stuck at chance"],
)
def test_true_labels(scripts: Any, values: np.ndarray, verdict: str, onset: int) -> None:
    found = scripts("truth").truth(values)
    assert (found.verdict, found.onset) == (verdict, onset)


def test_the_corpus_is_what_it_should_be(scripts: Any) -> None:
    runs = scripts("runs")
    found = runs.load()
    assert (RESULTS / "corpus.npz").stat().st_size < 5_000_000
    assert len(found) >= 120
    assert {run.cell for run in found} == {*runs.TUNING, *runs.TEST} and not {*runs.TUNING} & {*runs.TEST}
    assert len({tuple(run.plan.values()) for run in found}) == len(found)
    for run in found:
        assert len(run.losses) == len(run.witness) == len(run.weights) == len(run.channels)


def test_the_report_says_what_the_package_finds(scripts: Any) -> None:
    verdicts, runs = scripts("verdicts"), scripts("runs")
    test = runs.half(runs.load(), runs.TEST)
    found = verdicts.verdicts(test, verdicts.CURVES[verdicts.PAPER], Thresholds())
    report = (RESULTS / "verdicts.md").read_text()
    for line in verdicts.confusion(found, test):
        assert line in report
    assert re.search(r"^Agreement 0\.\d\d \[0\.\d\d, 0\.\d\d\]\.$", report, re.MULTILINE)
