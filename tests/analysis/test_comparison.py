"""Rank correlation against independent computations, and how records are grouped, sorted and shown."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from onnxgain.analysis.comparison import SORTS, Failure, compare_records, to_csv, to_json
from onnxgain.analysis.correlation import correlate
from onnxgain.measure.measure import score
from onnxgain.measure.record import Record
from onnxgain.report.text.comparison import render_markdown, render_table
from tests.support import models


# -------------------------------------------------------------------------------------------------- correlation
@pytest.mark.parametrize("count", [3, 5, 6, 12, 60])
@pytest.mark.parametrize("ties", [False, True])
def test_coefficients_equal_scipy(count: int, ties: bool) -> None:
    rng = np.random.default_rng(count)
    x, noise = rng.normal(size=(2, count))
    x, y = (np.round(v) if ties else v for v in (x, noise - x))
    found = correlate(list(x), list(y))
    assert found is not None
    rho, tau = found
    assert rho.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert tau.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert tau.p_value == pytest.approx(stats.kendalltau(x, y).pvalue)
    if count < 5:
        assert rho.low is rho.high is tau.low is None
    else:
        for estimate in found:
            assert estimate.low is not None and estimate.high is not None
            assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert correlate(list(x), list(y)) == found


def test_p_value_of_few_pairs_uses_all_permutations() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    found = correlate(x, y)
    assert found is not None
    orders = [abs(stats.spearmanr(x, order).statistic) for order in itertools.permutations(y)]
    assert found[0].p_value == pytest.approx(np.mean(np.array(orders) >= abs(found[0].value) - 1e-9))


def test_random_orders_agree_with_theory() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=20)
    y = x + 2 * rng.normal(size=20)
    found = correlate(list(x), list(y))
    assert found is not None
    assert found[0].p_value == pytest.approx(stats.spearmanr(x, y).pvalue, abs=0.02)


def test_intervals_have_their_nominal_coverage() -> None:
    """For normal pairs of correlation 0.6, Spearman's rho is 6/pi asin(0.3) and Kendall's tau 2/pi asin(0.6)."""
    rng = np.random.default_rng(0)
    truth = (6 / np.pi * np.arcsin(0.3), 2 / np.pi * np.arcsin(0.6))
    covered = np.zeros(2)
    for _ in range(25):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 55).T
        found = correlate(list(x), list(y))
        assert found is not None
        covered += [e.low <= t <= e.high for e, t in zip(found, truth, strict=True)]  # type: ignore[operator]
    assert (covered >= 20).all()


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_too_few_or_constant_pairs_have_no_correlation(x: list[float], y: list[float]) -> None:
    assert correlate(x, y) is None


# ----------------------------------------------------------------------------------------------------- grouping
@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    path = models.save(models.conv_net(), tmp_path_factory.mktemp("models") / "m.onnx")
    (measurement,) = score(path, threads=1)
    return measurement.record


def named(record: Record, path: str, gain: float | None = -20.0, **changes: Any) -> Record:
    model = dataclasses.replace(record.model, path=path, name=Path(path).name)
    channels = (gain, gain, gain)
    return dataclasses.replace(
        record, model=model, gain=dataclasses.replace(record.gain, channels=channels, mean=gain), **changes
    )


def order(comparison: Any) -> list[list[str]]:
    return [[entry.label for entry in group.entries] for group in comparison.groups]


def test_groups_hold_comparable_records_largest_first(record: Record) -> None:
    other_size = dataclasses.replace(record.interface, image_shape=(3, 99, 99))
    other_stimulus = dataclasses.replace(record.stimulus, parameters=record.stimulus.parameters | {"amplitude": 1.0})
    found = compare_records(
        [
            named(record, "a", projection="logit"), named(record, "b", interface=other_size), named(record, "c"),
            named(record, "d", stimulus=other_stimulus), named(record, "e"), named(record, "f", class_given=True),
        ]
    )  # fmt: skip
    assert order(found) == [["c", "e"], ["a"], ["b"], ["d"], ["f"]]
    titles = [group.title for group in found.groups]
    assert titles == [
        "impulse, image 3x12x10, projection 1/score", "impulse, image 3x12x10, projection logit",
        "impulse (amplitude 255.0, x 5, y 6), image 3x99x99, projection 1/score",
        "impulse (amplitude 1.0, x 5, y 6), image 3x12x10, projection 1/score",
        "impulse, image 3x12x10, projection 1/score, class given",
    ]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
def test_entries_without_a_value_come_last(record: Record, reverse: bool) -> None:
    records = [named(record, "none", None), named(record, "low", -30.0), named(record, "high", -10.0)]
    ends = ["low", "high", "none"] if reverse else ["high", "low", "none"]
    assert order(compare_records(records, reverse=reverse)) == [ends]
    known = {"low": {"e": 3.0}, "high": {"e": 1.0}}
    by_error = compare_records(records, errors=known, metrics=["e"], sort="error", reverse=reverse)
    assert order(by_error) == [ends]


def test_sort_is_stable(record: Record) -> None:
    records = [named(record, name) for name in ("c", "a", "b")]
    for sort in SORTS:
        expected = ["a", "b", "c"] if sort == "name" else ["c", "a", "b"]
        assert order(compare_records(records, sort=sort)) == [expected], sort


def test_files_with_the_same_name_are_labelled_by_path(record: Record) -> None:
    found = compare_records([named(record, "x/a.onnx"), named(record, "y/a.onnx"), named(record, "y/b.onnx")])
    assert sorted(order(found)[0]) == ["b.onnx", "x/a.onnx", "y/a.onnx"]


def test_channels_are_matched_by_name_not_by_index(record: Record) -> None:
    """A BGR model has its blue gain first."""
    gain = dataclasses.replace(record.gain, channels=(-1.0, -2.0, -3.0), mean=-2.0)
    rgb = dataclasses.replace(named(record, "rgb"), gain=gain)
    bgr = dataclasses.replace(named(record, "bgr", scale=dataclasses.replace(record.scale, bgr=True)), gain=gain)
    (group,) = compare_records([rgb, bgr]).groups
    assert group.channels == ("R", "G", "B", "mean")
    assert [entry.gains["R"] for entry in group.entries] == [-1.0, -3.0]
    assert [entry.gains["B"] for entry in group.entries] == [-3.0, -1.0]


def test_only_pairs_of_gain_and_error_correlate(record: Record) -> None:
    records = [named(record, str(i), float(i)) for i in range(5)] + [named(record, "none", None)]
    known = {str(i): {"e": -2.0 * i} for i in range(4)} | {"none": {"e": 1.0}, "absent": {"e": 2.0}}
    (group,) = compare_records(records, errors=known, metrics=["e"]).groups
    assert [(c.channel, c.models, c.spearman.value) for c in group.correlations] == [
        (channel, 4, pytest.approx(-1.0)) for channel in ("R", "G", "B", "mean")
    ]


# ------------------------------------------------------------------------------------------------------ showing
def test_empty_comparison_can_be_rendered() -> None:
    found = compare_records([], failures=(Failure("a.onnx", "a.onnx: is bad"),), unfinished=("b.onnx",))
    assert json.loads(to_json(found))["unfinished"] == ["b.onnx"]
    assert [line.split(",")[2] for line in to_csv(found).splitlines()[1:]] == ["a.onnx", "b.onnx"]
    for text in (render_table(found, colour=False), render_markdown(found)):
        assert "is bad" in text
        assert "b.onnx" in text


def test_zero_derivative_is_shown(record: Record) -> None:
    found = compare_records([named(record, "m", None)])
    assert "zero" in render_table(found)
    assert "-inf" not in render_table(found) + to_csv(found) + render_markdown(found)
    assert json.loads(to_json(found))["groups"][0]["models"][0]["gain_db"]["mean"] is None


def test_a_grey_model_has_one_gain_column(record: Record) -> None:
    interface = dataclasses.replace(record.interface, image_shape=(1, 28, 28))
    gain = dataclasses.replace(record.gain, channels=(-5.0,), mean=-5.0)
    found = compare_records([dataclasses.replace(record, interface=interface, gain=gain)])
    assert found.groups[0].channels == ("grey", "mean")
    table = render_table(found)
    assert "gain dB" in table
    assert "mean dB" not in table
    assert table.count("-5.00") == 1
