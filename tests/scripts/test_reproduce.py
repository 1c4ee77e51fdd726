"""The corpus of training runs and its report: the written report follows from the data in the repository."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgain.analysis.diagnosis import Thresholds

FOLDER = Path(__file__).parents[2] / "scripts" / "reproduce"
RESULTS = FOLDER / "results"


@pytest.fixture(scope="module")
def scripts() -> Any:
    return lambda name: importlib.import_module(f"scripts.reproduce.{name}")


def losses(*parts: float) -> np.ndarray:
    return np.array(parts, float)


def test_the_package_says_how_often_verdicts_from_images_were_right() -> None:
    from onnxgain.analysis.surrogate import RIGHT_OF
    from scripts.reproduce.sample_losses import load
    from scripts.reproduce.surrogate_verdicts import judgement, votes

    runs = load(RESULTS / "third.npz")
    given = [(one.verdict, run.truth.verdict) for run, one in zip(runs, votes(runs), strict=True)]
    for verdict, counts in RIGHT_OF.items():
        assert counts == (given.count((verdict, verdict)), sum(one == verdict for one, _ in given))
    assert "\n".join(judgement(runs)) in (RESULTS / "surrogate_third.md").read_text(encoding="utf-8")


def test_the_package_says_how_often_verdicts_from_held_out_images_were_right() -> None:
    from onnxgain.analysis.surrogate import RIGHT_OF_HELD_OUT
    from scripts.reproduce.sample_losses import load
    from scripts.reproduce.surrogate_verdicts import held_out, held_out_votes

    runs = [*load(RESULTS / "fresh.npz"), *load(RESULTS / "third.npz")]
    given = [(one.verdict, run.truth.verdict) for run, one in zip(runs, held_out_votes(runs), strict=True)]
    for verdict, counts in RIGHT_OF_HELD_OUT.items():
        assert counts == (given.count((verdict, verdict)), sum(one == verdict for one, _ in given))
    assert "\n".join(held_out(runs)) in (RESULTS / "held_out.md").read_text(encoding="utf-8")


def test_the_package_says_how_often_hints_from_gains_were_right() -> None:
    from onnxgain.analysis.diagnosis import MEASURED_AGREEMENT
    from scripts.reproduce.sample_losses import load
    from scripts.reproduce.surrogate_verdicts import by_gain

    runs = [*load(RESULTS / "fresh.npz"), *load(RESULTS / "third.npz")]
    right = sum(by_gain(run) == run.truth.verdict for run in runs)
    assert MEASURED_AGREEMENT.startswith(f"{right / len(runs):.0%}".replace("%", " % of ") + f"{len(runs)} test runs")


def test_the_package_says_what_its_advice_on_learning_rates_costs() -> None:
    from onnxgain.analysis.advice import MEASURED
    from scripts.reproduce.rate_advice import CHOSEN, RULES, mean_interval, regrets, report
    from scripts.reproduce.rate_corpus import load

    sets = load()
    for part, name in (("tuning", "rates_choice.md"), ("test", "rates_test.md")):
        assert report([one for one in sets if one.part == part], part) == (RESULTS / name).read_text(encoding="utf-8")
    tested = [one for one in sets if one.part == "test"]
    advised, by_training = (regrets(RULES[name], tested, 0.5) for name in (CHOSEN, "training loss"))
    mean, low, high = map(float, re.findall(r"-?[0-9.]+", mean_interval(advised)))
    assert f"through {len(tested)} test sets of five learning rates, such advice cost {mean:.2f}" in MEASURED
    assert f"(95 %: {low:.2f} to {high:.2f})" in MEASURED
    assert MEASURED.endswith(f"the least training loss {by_training.mean():.2f}")


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


def test_the_text_of_the_figures_says_what_the_curves_say(scripts: Any) -> None:
    statements = scripts("statements")
    report = (RESULTS / "figures.md").read_text()
    shown, reduced = statements.judged()
    judged = [(words, found.holds) for _, words, found in shown]
    for words, holds in judged:
        answer = re.escape(statements.ANSWERS[holds])
        assert re.search(rf"^\| {re.escape(words)} \| [^|]* \| {answer} \|", report, re.MULTILINE)
    for _, words, found in reduced:  # beside those of full runs
        answer = re.escape(statements.ANSWERS[found.holds])
        assert re.search(rf"^\| {re.escape(words)} \| .* \| {answer} \|$", report, re.MULTILINE)
    told = [holds for _, holds in judged if holds is not None]
    assert f"**{sum(told)} of {len(told)}**" in report
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", report)
    assert len(pictures) == 14 and all((RESULTS / file).exists() for file in pictures)


def test_what_is_said_of_trained_classifiers_is_what_was_measured(scripts: Any) -> None:
    predicts = scripts("predicts")
    report = _without_intervals((RESULTS / "predicts.md").read_text())
    for line in predicts.over_trained(json.loads(predicts.TRAINED.read_text())):
        assert _without_intervals(line) in report


def _without_intervals(text: str) -> str:
    return re.sub(r" \[.*?\]", "", text)


@pytest.mark.parametrize("exponent", [2.0, 3.5])
def test_the_exponent_of_a_power_law_is_found(scripts: Any, exponent: float) -> None:
    uniform = (np.arange(2000) + 0.5) / 2000
    values = np.sort((1 - uniform) ** (-1 / (exponent - 1)))
    assert scripts("weight_metrics").power_law(values) == pytest.approx(exponent, rel=0.02)


def test_judging_functions_tell_a_curve_from_its_opposite(scripts: Any) -> None:
    statements = scripts("statements")
    time = np.arange(30)
    rise, noise = time / 3.0, np.random.default_rng(0).normal(size=30)
    assert statements.rising(rise).holds and not statements.rising(-rise).holds
    assert statements.falling(-rise).holds and not statements.falling(noise).holds
    settled = 10 - 10 * np.exp(-time / 3.0)
    assert statements.flat(settled[12:], settled).holds and not statements.flat(rise[12:], rise).holds
    assert (
        statements.more_restless(0.01 * noise, noise).holds and not statements.more_restless(noise, 0.01 * noise).holds
    )
    turned = np.concatenate([2 - rise[:12] / 4, 1.1 + rise[:12] / 4])
    curves = [np.zeros(24), 2 - rise[:24] / 5, turned, np.zeros(24), np.zeros(24)]
    assert statements.overfits(statements.Curves({}, *curves)).holds
    curves[2] = curves[1]
    assert not statements.overfits(statements.Curves({}, *curves)).holds


def test_weight_metrics_are_those_of_the_package(scripts: Any) -> None:
    """The values of weightwatcher 0.7.7 for these layers; the last layer is too small for it."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_t(3, size=shape).astype(np.float32) for shape in ((20, 16, 3, 3), (12, 10), (6, 5))]
    found = [scripts("weight_metrics").of_layer(weight) for weight in weights]
    assert found[2] is None
    np.testing.assert_allclose(
        [layer[:2] for layer in found[:2]], [[3.11516769, 3.62067796], [1.43985789, 2.53865877]], rtol=1e-6
    )


def test_prepared_images_are_white(scripts: Any) -> None:
    pytest.importorskip("torch", reason="the training scripts need PyTorch")
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(48, 48))
    images = 128 + 60 * (rng.normal(size=(4000, 48)) @ mixing / 7).reshape(-1, 3, 4, 4)
    prepared = scripts("preparation").whitening(images)(images).reshape(4000, -1)
    # Rounding can make the smallest eigenvalue, which is 0, slightly negative.
    deviations = np.sqrt(np.maximum(np.linalg.eigvalsh(prepared.T @ prepared / 4000), 0))
    # The direction of the image's mean is removed; directions of low contrast are not amplified.
    assert deviations[0] < 1e-2
    np.testing.assert_allclose(deviations[12:], np.median(deviations), rtol=1e-3)
