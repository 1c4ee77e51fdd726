"""The distance of two classifiers' outputs: its measures, and the checks that come before them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from onnxgain.analysis.function_change import (
    answer_divergence,
    cosine_distance,
    function_change,
    kl_divergence,
)
from onnxgain.analysis.function_verdict import in_words, judged
from onnxgain.measure.fingerprint import packed
from onnxgain.measure.fingerprint_record import FingerprintRecord

COUNT = 48
LOGITS = np.random.default_rng(5).normal(size=(COUNT, 10)) * 3


def of(logits: np.ndarray, head: str = "logits") -> FingerprintRecord:
    return packed(logits, head)


@pytest.mark.parametrize("seed", range(8))
def test_model_has_no_distance_to_itself(seed: int) -> None:
    """Not even that of rounding."""
    logits = np.random.default_rng(seed).normal(size=(COUNT, 10)) * 0.7
    change = function_change(of(logits), of(logits))
    assert change.obstacle is None and change.flips == () and change.moved == ()
    assert change.divergence == change.cosine_distance == change.kl == 0 and change.largest == 0


@pytest.mark.parametrize("rounding", [0.0, 1e-6])
def test_classes_of_equal_logits_do_not_count_as_exchanged(rounding: float) -> None:
    """Such as those of a network that was never trained, or with a column of weights twice."""
    logits = LOGITS.copy()
    logits[:, 7] = logits[:, 2]
    logits[:, 5] = logits[:, 4] = -3.0
    change = function_change(of(logits), of(logits + rounding * np.random.default_rng(8).normal(size=logits.shape)))
    assert change.moved == ()


def test_constant_added_to_all_logits_changes_independent_classes_but_not_a_softmax() -> None:
    assert function_change(of(LOGITS), of(LOGITS + 4)).cosine_distance < 1e-6
    assert function_change(of(LOGITS, "independent"), of(LOGITS + 4, "independent")).cosine_distance > 0.1


def test_measures_match_their_definitions() -> None:
    other = LOGITS + np.random.default_rng(1).normal(size=LOGITS.shape)
    change = function_change(of(LOGITS), of(other))
    old, new = (a - a.mean(axis=1, keepdims=True) for a in (LOGITS, other))
    cosine = np.sum(old * new) / np.linalg.norm(old) / np.linalg.norm(new)
    assert change.cosine_distance == pytest.approx(1 - cosine, rel=0.01)
    flipped = np.flatnonzero(LOGITS.argmax(axis=1) != other.argmax(axis=1))
    assert [flip.image for flip in change.flips] == list(flipped) and len(flipped) > 3
    assert change.flip_rate == len(flipped) / COUNT
    assert change.factor == pytest.approx(np.sum(old * new) / np.sum(old**2), rel=0.01)
    assert change.largest == pytest.approx(np.abs(new - old).max() / np.sqrt(np.mean(old**2)), rel=0.01)
    assert change.largest_image == np.abs(new - old).max(axis=1).argmax()
    p, q = (np.exp(a) / np.exp(a).sum(axis=1, keepdims=True) for a in (LOGITS, other))
    assert change.kl == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)), rel=0.02)
    flip = change.flips[0]
    assert flip.margin == pytest.approx(LOGITS[flip.image, flip.before] - LOGITS[flip.image, flip.after], abs=0.01)
    led = other[flip.image, flip.before] - other[flip.image, flip.after]
    assert flip.margin - flip.change == pytest.approx(led, abs=0.01) and led < 0


def test_confidence_does_not_change_the_divergence() -> None:
    assert function_change(of(LOGITS), of(LOGITS * 3)).divergence < 1e-6
    assert function_change(of(LOGITS), of(LOGITS * 3)).kl > 0.1
    assert function_change(of(LOGITS), of(-LOGITS)).divergence > 0.5


def test_divergence_ranges_from_0_to_1_bit() -> None:
    sure = np.array([[50.0, -50.0], [-50.0, 50.0]])
    assert answer_divergence(sure, sure, False) == pytest.approx([0, 0])
    assert answer_divergence(sure, -sure, False) == pytest.approx([1, 1], abs=1e-3)
    p, q = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(2.0))
    m = (p + q) / 2
    bits = sum(a * np.log2(a / b) for x in (p, q) for a, b in ((x, m), (1 - x, 1 - m))) / 2
    old = np.array([[2.0, 0.0], [0.0, 2.0]])
    # Opposite outputs are nearest at the smallest factor tried.
    assert 0 < answer_divergence(old, -old, False)[0] < bits


def test_a_tiny_distance_is_not_lost_in_rounding() -> None:
    a = np.random.default_rng(0).normal(size=1000)
    b = a + 1e-7 * np.random.default_rng(1).normal(size=1000)
    assert 1e-16 < cosine_distance(a, b) < 1e-13
    assert cosine_distance(a, a) == 0
    assert cosine_distance(a, a * 0) == 1 and cosine_distance(a * 0, a * 0) == 0


@pytest.mark.parametrize("classes", [3, 10, 300])
def test_a_permutation_is_found_and_named(classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(COUNT, classes)) * 3
    noisy = logits + 0.1 * rng.normal(size=logits.shape)
    order = np.roll(np.arange(classes), 1)
    change = function_change(of(logits), of(noisy[:, order]))
    assert change.moved == tuple((i, (i + 1) % classes) for i in range(classes))


def test_two_classes_exchanged_among_many_are_found_though_no_answer_flips() -> None:
    logits = np.random.default_rng(0).normal(size=(COUNT, 1000))
    logits[:, 3] += 20  # wins everywhere
    order = np.arange(1000)
    order[[700, 12]] = order[[12, 700]]
    change = function_change(of(logits), of(logits[:, order]))
    assert change.flips == () and change.cosine_distance < 0.01
    assert change.moved == ((12, 700), (700, 12))


@pytest.mark.parametrize("value", [-1e3, -20.0])
@pytest.mark.parametrize("classes", [10, 1000])
def test_masked_class_is_named(classes: int, value: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(COUNT, classes)) * 3
    masked = logits + 0.01 * rng.normal(size=logits.shape)
    masked[:, 7] += value
    change = function_change(of(logits), of(masked))
    assert change.lost == (7,) and change.moved == ()
    assert function_change(of(logits), of(logits + 0.5 * rng.normal(size=logits.shape))).lost == ()


@pytest.mark.parametrize("classes", [5, 10, 1000])
@pytest.mark.parametrize(
    ("factor", "shift", "lost"),
    [
        (0.0, 0.0, True),  # constant
        (0.1, 0.0, True),
        (1.0, -1.0, True),  # by a standard deviation
        (1.0, -4.0, True),
        (-1.0, 0.0, True),
        (0.9, 0.0, False),
        (1.0, -0.2, False),
    ],
)
def test_silenced_class_is_named_although_it_never_wins(classes: int, factor: float, shift: float, lost: bool) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(COUNT, classes)) * 3
    logits[:, 3] -= 12.0
    silenced = logits + 0.05 * rng.normal(size=logits.shape)
    own = logits[:, 3]
    silenced[:, 3] = own.mean() + factor * (own - own.mean()) + shift * own.std()
    change = function_change(of(logits), of(silenced))
    assert change.lost == (3,) * lost
    assert change.moved == () and not any(3 in (flip.before, flip.after) for flip in change.flips)
    assert (judged(change) == "fail") == lost
    assert in_words(change).startswith("class 3 answered by other logits than before; ") == lost


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3, 1.0, 3.0])
def test_a_change_of_all_classes_silences_none(noise: float) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(COUNT, 1000)) * rng.uniform(0.5, 3.0, 1000) + rng.normal(size=1000)
        changed = logits + noise * rng.normal(size=logits.shape) * rng.uniform(0.5, 2.0, 1000)
        change = function_change(of(logits), of(changed))
        assert change.lost == ()


def test_similar_classes_do_not_count_as_moved() -> None:
    twins = np.concatenate([LOGITS, LOGITS[:, :1] + 1e-3], axis=1)
    noisy = twins + 0.01 * np.random.default_rng(0).normal(size=twins.shape)
    assert function_change(of(twins), of(noisy)).moved == ()
    dead = np.concatenate([LOGITS, np.zeros((COUNT, 5))], axis=1)
    assert function_change(of(dead), of(dead + 0.02 * np.random.default_rng(0).normal(size=dead.shape))).moved == ()


def test_damaged_class_does_not_count_as_moved_to_its_twin() -> None:
    rng = np.random.default_rng(0)
    twins = np.concatenate([LOGITS, LOGITS[:, :1] + 0.01 * rng.normal(size=(COUNT, 1))], axis=1)
    damaged = twins + 0.01 * rng.normal(size=twins.shape)
    damaged[:, 0] = rng.normal(size=COUNT) * LOGITS.std()
    assert function_change(of(twins), of(damaged)).moved == ()


def test_broken_network_is_not_reported_as_permuted() -> None:
    other = np.random.default_rng(9).normal(size=LOGITS.shape) * 3
    change = function_change(of(LOGITS), of(other))
    assert change.moved == () and change.cosine_distance > 0.5


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (of(LOGITS[:, :9]), "10 classes, now 9"),
        (of(LOGITS, "independent"), "independent"),
        (dataclasses.replace(of(LOGITS), images="synthetic/0"), "synthetic/0"),
        (of(LOGITS[:40]), "synthetic"),
    ],
)
def test_obstacle_gives_the_reason(after: FingerprintRecord, words: str) -> None:
    change = function_change(of(LOGITS), after)
    assert change.obstacle is not None and words in change.obstacle
    assert np.isnan(change.cosine_distance) and np.isnan(change.flip_rate)


def test_softmax_and_logits_are_the_same_kind_of_head() -> None:
    assert function_change(of(LOGITS), of(LOGITS, "softmax")).obstacle is None
    assert function_change(of(LOGITS[:, :2], "sigmoid"), of(LOGITS[:, :2], "softmax")).obstacle is None


def test_the_divergence_of_independent_classes_adds_up_over_them() -> None:
    old, new = np.array([[0.0, 2.0]]), np.array([[1.0, 2.0]])
    p, q = 0.5, 1 / (1 + np.exp(-1))
    assert kl_divergence(old, new, True)[0] == pytest.approx(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


DAMAGED = LOGITS + 2 * np.random.default_rng(2).normal(size=LOGITS.shape)
PLACES = np.arange(10) * 2.0


@pytest.mark.parametrize(
    ("factor", "offset"), [(0.2, 0.0), (0.05, 0.0), (0.001, 0.0), (0.05, PLACES)], ids=["5", "20", "1000", "constant"]
)
@pytest.mark.parametrize("head", ["softmax", "independent"])
def test_damage_is_detected_at_any_temperature(head: str, factor: float, offset: float) -> None:
    before, same, after = (of(logits * factor + offset, head) for logits in (LOGITS, LOGITS * (1 + 1e-6), DAMAGED))
    assert judged(function_change(of(LOGITS, head), of(DAMAGED, head))) == "fail"
    assert judged(function_change(before, same)) == "same function"
    assert judged(function_change(before, after)) == "fail"


def test_zero_logits_have_distance_zero_only_to_zero_logits() -> None:
    nothing = np.zeros((COUNT, 10))
    assert function_change(of(nothing), of(nothing)).divergence == 0
    assert function_change(of(nothing), of(LOGITS)).divergence == 1
    assert function_change(of(LOGITS), of(nothing)).divergence == 1
