"""Which of several runs to take."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from onnxgain.analysis.advice import Advice, advise, last_losses
from onnxgain.analysis.series import Series
from onnxgain.analysis.training_log import TrainingLog

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("curves", "epoch", "losses"),
    [
        # The mean of the last three, at the epochs that all have; the untrained network does not count.
        ([{0: 9.0, 1: 3.0, 2: 2.0, 3: 1.0, 4: 9.0}, {0: 9.0, 1: 1.0, 2: 2.0, 3: 6.0}], 3, (2.0, 3.0)),
        ([{0: 9.0, 1: 3.0}, {0: 1.0, 1: 4.0}], 1, (3.0, 4.0)),
        # Only some epochs have a snapshot.
        ([{5: 4.0, 10: 2.0, 15: 3.0, 20: 1.0}, {10: 3.0, 20: 2.0}], 20, (2.0, 2.5)),
        # A run that diverged is the worst, even before its end, and does not shorten the others.
        ([{1: 0.1, 2: INF}, {1: 3.0, 2: 2.0, 3: 1.0, 4: 0.0}], 4, (INF, 1.0)),
        ([{1: 0.1, 2: NAN, 3: 0.1}, {1: 3.0, 2: 2.0, 3: 1.0}], 3, (INF, 2.0)),
        # There is nothing to compare.
        ([{1: INF}, {1: NAN}], None, (INF, INF)),
        ([{0: 1.0}, {0: 2.0}], None, (INF, INF)),
        # One starts after the other ended.
        ([{1: 1.0, 2: 1.0}, {3: 0.5}], 2, (1.0, INF)),
    ],
)
def test_last_losses(curves: list[dict[int, float]], epoch: int | None, losses: tuple[float, ...]) -> None:
    assert last_losses(curves) == (epoch, losses)


def logged(name: str, validation: dict[int, float]) -> Series:
    return Series(name, (), log=TrainingLog({}, validation))


def test_validation_losses_go_before_all_else() -> None:
    runs = [logged("a", {1: 3.0, 2: 2.0}), logged("b", {1: 2.0, 2: 1.0}), logged("c", {1: 9.0, 2: INF})]
    assert advise(runs) == Advice(
        1, "validation", (2.5, 1.5, INF), 2, "take b: of 3 runs it has the least validation loss, 1.500, up to epoch 2"
    )


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([Series("a", ()), Series("b", ())], "gains do not say which run to take: give --images, or validation losses"),
        ([logged("a", {1: 1.0}), Series("b", ())], "gains do not say which run to take"),
        ([logged("a", {1: INF}), logged("b", {1: NAN})], "no run has a loss that is finite after training began"),
    ],
)
def test_no_advice(runs: list[Series], why: str) -> None:
    found = advise(runs)
    assert found is not None
    assert found.sentence.startswith(f"no advice: {why}")
    assert (found.run, found.basis, found.losses, found.certainty) == (None, None, (), "")


def test_a_single_run_has_no_rival() -> None:
    assert advise([logged("a", {1: 1.0})]) is None


def test_other_images_do_not_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    digests: dict[str, str] = {"a": "1", "b": "2"}
    monkeypatch.setattr(Series, "has_sample", True)
    monkeypatch.setattr(Series, "sample_digest", property(lambda self: digests[self.name]))
    curves: dict[str, Any] = {"a": {1: 2.0}, "b": {1: 1.0}}
    monkeypatch.setattr(Series, "surrogates", property(lambda self: curves[self.name]))
    runs = [Series("a", ()), Series("b", ())]
    found = advise(runs)
    assert found is not None
    assert found.sentence == "no advice: the runs were measured on different images, so their losses do not compare"
    digests["b"] = "1"
    found = advise(runs)
    assert found is not None
    assert dataclasses.astuple(found)[:4] == (1, "images", (2.0, 1.0), 1)
    assert found.certainty.startswith("a hint: ")
