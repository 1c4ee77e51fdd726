"""The four verdicts on a change of the outputs."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgain.analysis.function_change import Flip, FunctionChange
from onnxgain.analysis.function_verdict import (
    EVIDENCE,
    FAIL_DIVERGENCE,
    PASS_DIVERGENCE,
    SAME_DIVERGENCE,
    Evidence,
    in_words,
    judged,
    percent,
)
from onnxgain.analysis.policy import Policy
from onnxgain.analysis.verdict import evaluate
from onnxgain.measure.fingerprint import packed
from tests.support import reports

ROOT = Path(__file__).parents[2]
SAME_ANSWERS = "its answers differ by 0 % (same top class on all 48 synthetic images)"
CHANGE = FunctionChange(48, divergence=0.0, cosine_distance=0.0, kl=0.0, largest=0.0)


@pytest.mark.parametrize(
    ("divergence", "verdict"),
    [
        (0.0, "same function"),
        (SAME_DIVERGENCE, "same function"),
        (SAME_DIVERGENCE * 1.01, "pass"),
        (PASS_DIVERGENCE, "pass"),
        (PASS_DIVERGENCE * 1.01, "review"),
        (FAIL_DIVERGENCE, "review"),
        (FAIL_DIVERGENCE * 1.01, "fail"),
        (1.0, "fail"),
        (float("nan"), "fail"),
    ],
)
def test_divergence_decides_the_verdict(divergence: float, verdict: str) -> None:
    assert judged(dataclasses.replace(CHANGE, divergence=divergence)) == verdict


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"obstacle": "5 classes, now 7"}, "5 classes, now 7"),
        ({"moved": ((1, 2), (2, 1))}, "classes are exchanged: 1 and 2; " + SAME_ANSWERS),
        ({"moved": ((0, 1), (1, 2), (2, 3), (3, 0))}, "the order of the classes changed: 0 is now 1, 1 is now 2, "),
        ({"lost": (7,)}, "class 7 answered by other logits than before"),
        ({"lost": (7, 8)}, "classes 7, 8 answered"),
    ],
)
def test_different_classes_fail_whatever_the_outputs(found: dict[str, object], words: str) -> None:
    change = dataclasses.replace(CHANGE, **found)
    assert judged(change) == "fail"
    assert in_words(change).startswith(words)


@pytest.mark.parametrize(
    ("factor", "words"), [(2.0, "2 times"), (0.5, "0.5 times"), (1.03, ""), (float("nan"), ""), (1.0, "")]
)
def test_other_confidence_is_said_of_models_that_pass(factor: float, words: str) -> None:
    change = dataclasses.replace(CHANGE, factor=factor)
    said = f"; its logits are {words} as large: the same answers with other probabilities" if words else ""
    assert in_words(change) == SAME_ANSWERS + said
    failed = dataclasses.replace(change, divergence=1.0)
    assert "times as large" not in in_words(failed)


def test_words_count_the_flips() -> None:
    change = dataclasses.replace(CHANGE, flips=(Flip(3, 1, 2, 0.5, 0.7),), divergence=0.0123)
    assert (
        in_words(change, limit=0.0067)
        == "its answers differ by 1.2 %, more than 0.67 % (top class differs on 1 of 48 synthetic images)"
    )
    assert in_words(change) == "its answers differ by 1.2 % (top class differs on 1 of 48 synthetic images)"


@pytest.mark.parametrize(
    ("divergence", "margins", "words"),
    [
        (
            1e-4,
            (0.03, 0.001),
            "differs on 2 of 48 synthetic images, near ties: it led there by at most 0.03 in logits)",
        ),
        (1e-4, (-1e-9,), "differs on 1 of 48 synthetic images, near ties: it led there by less than 0.001 in logits)"),
        (3e-3, (0.1, 0.523), "differs on 2 of 48 synthetic images, where it led by at most 0.52 in logits)"),
        (1e-4, (0.03, float("nan")), "differs on 2 of 48 synthetic images)"),
        (1e-2, (0.03,), "differs on 1 of 48 synthetic images)"),
    ],
)
def test_a_model_that_passes_says_why_other_top_classes_do_not_matter(
    divergence: float, margins: tuple[float, ...], words: str
) -> None:
    flips = tuple(Flip(number, 1, 2, margin, 1.0) for number, margin in enumerate(margins))
    assert in_words(dataclasses.replace(CHANGE, flips=flips, divergence=divergence)).endswith(words)


@pytest.mark.parametrize(
    ("divergence", "words"),
    [(0.0361494, "3.61 %, more than 3.60 %"), (0.03600001, "3.600001 %, more than 3.600000 %")],
)
def test_a_divergence_just_beyond_the_limit_is_told_from_it(divergence: float, words: str) -> None:
    assert words in in_words(dataclasses.replace(CHANGE, divergence=divergence), limit=0.036)


@pytest.mark.parametrize(
    ("part", "text"),
    [(0.0, "0 %"), (1e-9, "under 0.001 %"), (1e-5, "0.001 %"), (0.002, "0.20 %"), (0.0999, "10 %"), (0.5, "50 %")],
)
def test_percentages_have_two_digits(part: float, text: str) -> None:
    assert percent(part) == text


def test_evidence_equals_the_results_of_the_study() -> None:
    with (ROOT / "scripts" / "results" / "gate_study.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows]
    passed = [loss for loss, row in zip(losses, rows, strict=True) if row["verdict"] == "pass"]
    # Moved or lost classes fail whatever the divergence, and do not count as the same function.
    same = [
        loss
        for loss, row in zip(losses, rows, strict=True)
        if row["verdict"] == "pass" and float(row["divergence"]) <= SAME_DIVERGENCE
    ]
    harmful = [row["verdict"] for loss, row in zip(losses, rows, strict=True) if loss >= 1]
    harmless = [
        row["verdict"]
        for loss, row in zip(losses, rows, strict=True)
        if loss <= 0.2 and not row["kind"].startswith("class")
    ]
    assert (
        Evidence(
            variants=len(rows),
            networks=len({row["network"] for row in rows}),
            worst_pass=max(passed),
            worst_same=max(same),
            caught=sum(verdict != "pass" for verdict in harmful),
            harmful=len(harmful),
            failed=harmless.count("fail"),
            harmless=len(harmless),
            reviewed=harmless.count("review"),
        )
        == EVIDENCE
    )


def test_the_evidence_in_words() -> None:
    words = Evidence(10, 2, worst_pass=0.3, worst_same=0.1, caught=4, harmful=5, failed=1, harmless=3, reviewed=2)
    assert words.in_words() == (
        "on 10 variants of 2 trained networks, models that passed lost at most 0.30 points of accuracy and those "
        "called the same function at most 0.10; 4 of the 5 that lost a point or more did not pass, and 1 of the 3 "
        "that lost 0.2 or less failed"
    )
    assert words.doubt == (
        "of 3 changes that cost at most 0.2 points of accuracy, 1 failed and 2 were for review; of 5 that cost a point "
        "or more, 4 did not pass"
    )


@pytest.mark.parametrize("damaged", [{"count": 1}, {"images": "synthetic/0"}])
def test_answers_to_other_images_cannot_be_judged(damaged: dict[str, Any]) -> None:
    logits = np.random.default_rng(0).normal(size=(48, 5))
    fingerprint = packed(logits, "logits")
    before, after = (
        dataclasses.replace(reports.a_record(), fingerprint=one)
        for one in (dataclasses.replace(fingerprint, **damaged), fingerprint)
    )
    result = evaluate(Policy(fingerprint=True), [after], [before])
    assert result.verdict == "error"
    assert any("they cannot be compared" in check.message for check in result.failed)


@pytest.mark.parametrize(
    ("shift", "policy", "noted"),
    [(4.0, {}, True), (-4.0, {}, True), (2.0, {}, False), (4.0, {"max_change": 9.0}, False)],
)
def test_a_gain_that_moved_far_is_noted_where_the_answers_stayed(
    shift: float, policy: dict[str, float], noted: bool
) -> None:
    fingerprint = packed(np.random.default_rng(0).normal(size=(48, 5)), "logits")
    before = dataclasses.replace(reports.a_record(), fingerprint=fingerprint)
    gains = tuple(gain + shift for gain in before.gain.channels if gain is not None)
    after = dataclasses.replace(before, gain=dataclasses.replace(before.gain, channels=gains, mean=sum(gains) / 3))
    result = evaluate(Policy(fingerprint=True, **policy), [after], [before])
    assert result.verdict == "same function"
    assert any(f"log-odds gain moved by {shift:+.2f} dB" in remark for remark in result.remarks) == noted
