"""The distance between the functions of two classifiers, from their outputs on the same synthetic images.

Head, number of classes and order of the classes are checked first: logits of different classes are not compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.names_change import SAME_NAMES, NamesChange, names_change
from onnxgain.analysis.own_change import UNCHANGED, OwnChange, own_change
from onnxgain.measure.fingerprint import INDEPENDENT, stored_classes, unpacked
from onnxgain.measure.fingerprint_record import FingerprintRecord

FloatArray = NDArray[np.float64]

LOST = 0.5
"""A class is lost if the mean squared change of its logits exceeds this part of their variance over the images (at
least a quarter of the median class's variance), and `ALONE` times that part of the median class. A constant logit
changes by 1, one of a tenth of its size by 0.81, and one that is shifted by a standard deviation by 1."""

ALONE = 40.0
"""Of 280 variants of six trained networks that lost 0.2 points or less with their classes kept, none that was not far
from the original anyway changed a class so much more than the others."""

DIFFUSE = 0.62
"""The mean entropy of the outputs, relative to its maximum, above which they are diffuse: probabilities near 1/classes
stay close to each other whatever the logits do. No network of the study had more."""

SHARP = 0.45
"""The entropy to which diffuse outputs are sharpened before they are compared: the average of the study's networks."""

ALIKE = 0.03
"""Outputs on all images are alike if they diverge from their mean by less than this. Then the differences between the
images are compared separately too, so that one large constant does not hide them. No network of the study had less."""

REORDERED = 0.25
"""A class counts as moved if another class's logits over the images fit it: their squared distance is at most this
fraction of the distance to its own logits after, and of the variance of its logits over the images."""

TIED = 1e-6
"""A class whose own logits moved by less than this fraction of their variance stayed where it was."""


@dataclass(frozen=True)
class Flip:
    """An image whose winning class changed: its number, and the classes before and after.

    `margin` is the lead, in logits, of the class before over the class after in the model before; `change` is how much
    smaller that lead is in the model after.
    """

    image: int
    before: int
    after: int
    margin: float
    change: float


@dataclass(frozen=True)
class FunctionChange:
    """The distance of two classifiers' outputs.

    Attributes:
        images: number of images that both were run on.
        flips: the images whose winning class changed.
        divergence: Jensen-Shannon divergence of the class probabilities in bits, mean over the images, 0 (the same) to
            1 (nothing in common). Both models are first made equally confident, and at least as confident as networks
            usually are.
        cosine_distance: 1 minus the cosine of the angle between all centred logits before and after.
        kl: Kullback-Leibler divergence of the class probabilities, before from after, mean over the images, nats.
        largest: the largest change of a centred logit, relative to the root mean square of all logits before.
        largest_image: the image with that change.
        factor: how many times as large the centred logits after are, by least squares.
        moved: (class before, class after) of the classes whose index changed.
        lost: the few classes whose logits changed completely while the others stayed, such as a class that is masked
            out, or whose logit is constant.
        names: what changed in the names of the classes.
        obstacle: why the outputs cannot be compared; all measures are NaN then. None if they can.
    """

    images: int
    flips: tuple[Flip, ...] = ()
    divergence: float = float("nan")
    cosine_distance: float = float("nan")
    kl: float = float("nan")
    largest: float = float("nan")
    largest_image: int = 0
    factor: float = float("nan")
    moved: tuple[tuple[int, int], ...] = ()
    lost: tuple[int, ...] = ()
    obstacle: str | None = None
    own: OwnChange = UNCHANGED
    names: NamesChange = SAME_NAMES

    @property
    def flip_rate(self) -> float:
        """Fraction of the images whose winning class changed."""
        return len(self.flips) / self.images if self.obstacle is None else float("nan")


def function_change(before: FingerprintRecord, after: FingerprintRecord) -> FunctionChange:
    """Compare two fingerprints.

    Raises:
        OnnxgainError: a fingerprint is damaged.
    """
    obstacle = _obstacle(before, after)
    if obstacle is not None:
        return FunctionChange(min(before.count, after.count), obstacle=obstacle)
    (old_winners, old), (new_winners, new) = unpacked(before), unpacked(after)
    moved, lost = displaced_classes(old, new, stored_classes(before.classes))
    alone = before.head == INDEPENDENT
    old, new = _centred(old, alone), _centred(new, alone)
    size = float(np.sqrt(np.mean(old**2)))
    distance = np.abs(new - old)
    return FunctionChange(
        images=before.count,
        flips=tuple(_flips(old_winners, new_winners, old, new, stored_classes(before.classes))),
        divergence=float(np.mean(answer_divergence(old, new, alone))),
        cosine_distance=cosine_distance(old, new),
        kl=float(np.mean(kl_divergence(old, new, alone))),
        largest=float(distance.max() / size) if size else float(distance.max() > 0),
        largest_image=int(distance.max(axis=1).argmax()),
        factor=float(np.sum(old * new) / np.sum(old**2)) if size else float("nan"),
        moved=moved,
        lost=lost,
        own=own_change(before, after, (old_winners, new_winners)),
        names=names_change(before, after),
    )


def divergence_of(before: FingerprintRecord, after: FingerprintRecord) -> float:
    """`FunctionChange.divergence` alone, of fingerprints that can be compared.

    Raises:
        OnnxgainError: a fingerprint is damaged.
    """
    alone = before.head == INDEPENDENT
    (_, old), (_, new) = unpacked(before), unpacked(after)
    return float(np.mean(answer_divergence(_centred(old, alone), _centred(new, alone), alone)))


def _centred(logits: FloatArray, alone: bool) -> FloatArray:
    return logits if alone else logits - logits.mean(axis=1, keepdims=True)


def _obstacle(before: FingerprintRecord, after: FingerprintRecord) -> str | None:
    if (before.images, before.count) != (after.images, after.count):
        sets = [f"{fingerprint.count} images of {fingerprint.images}" for fingerprint in (before, after)]
        return f"answers to {sets[0]}, now to {sets[1]}"
    if before.classes != after.classes:
        return f"{before.classes} classes, now {after.classes}"
    alone = [f.head == INDEPENDENT for f in (before, after)]
    if alone[0] != alone[1]:
        names = ["independent classes" if one else "classes that exclude each other" for one in alone]
        return f"{names[0]}, now {names[1]}"
    return None


def cosine_distance(old: FloatArray, new: FloatArray) -> float:
    """1 - cos of the angle between two arrays as vectors, without cancellation; 1 if only one of them is zero."""
    sizes = [float(np.linalg.norm(a)) for a in (old, new)]
    if not all(sizes):
        return 0.0 if not any(sizes) else 1.0
    return float(np.sum((old / sizes[0] - new / sizes[1]) ** 2)) / 2


def kl_divergence(old: FloatArray, new: FloatArray, alone: bool) -> FloatArray:
    """Kullback-Leibler divergence of each row's probabilities in nats: a softmax, or independent classes if `alone`."""
    log_p, log_q = (log_probabilities(logits, alone) for logits in (old, new))
    nats: FloatArray = np.maximum(np.sum(np.exp(log_p) * (log_p - log_q), axis=1), 0.0)
    return nats


_FACTORS = 2.0 ** np.arange(-3.0, 3.25, 0.5)
"""Factors tried on the logits after, relative to the factor that gives them the norm of the logits before."""


def answer_divergence(old: FloatArray, new: FloatArray, alone: bool) -> FloatArray:
    """Jensen-Shannon divergence of each row's probabilities, in bits, at equal confidence.

    The logits after are multiplied by the one of several factors that minimizes the divergence, so that a model that is
    only more or less confident has no distance. The divergences of independent classes are added, up to 1. Outputs that
    are `DIFFUSE` are sharpened first. If the outputs are `ALIKE`, the differences between the images are compared too.
    """
    if np.array_equal(old, new):
        return np.zeros(len(old))
    old = _sharpened(old, alone)
    bits = _nearest(old, new, alone)
    if _spread(old, alone) < ALIKE:
        rests = _sharpened(old - old.mean(axis=0), alone), new - new.mean(axis=0)
        bits = max(bits, _nearest(*rests, alone), key=np.mean)
    return bits


def _nearest(old: FloatArray, new: FloatArray, alone: bool) -> FloatArray:
    """The divergences of the rows at the factor of the logits after that minimizes their mean.

    All 1 if only one side is zero, all 0 if both are.
    """
    sizes = [float(np.linalg.norm(a)) for a in (old, new)]
    if not all(sizes):
        return np.full(len(old), float(any(sizes)))
    ratio = sizes[0] / sizes[1]
    log_p = log_probabilities(old, alone)
    tried = (_divergence(log_p, log_probabilities(new * (ratio * factor), alone)) for factor in _FACTORS)
    return min(tried, key=lambda bits: float(bits.mean()))


def _sharpened(logits: FloatArray, alone: bool) -> FloatArray:
    """The logits; diffuse ones multiplied so that their entropy is `SHARP`."""
    if _entropy(logits, alone) <= DIFFUSE or not logits.any():
        return logits
    low, high = 1.0, 2.0
    while _entropy(logits * high, alone) > SHARP and high < 1e12:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _entropy(logits * middle, alone) > SHARP else (low, middle)
    return logits * high


def _entropy(logits: FloatArray, alone: bool) -> float:
    """Mean entropy of the rows' probabilities, relative to that of equal probabilities."""
    log_p = log_probabilities(logits, alone)
    most = np.log(2.0) * logits.shape[1] if alone else np.log(logits.shape[1])
    return float(np.mean(-np.sum(np.exp(log_p) * log_p, axis=1)) / most)


def _spread(logits: FloatArray, alone: bool) -> float:
    """Mean divergence of the rows' probabilities from their mean, bits."""
    log_p = log_probabilities(logits, alone)
    mean = np.logaddexp.reduce(log_p, axis=0, keepdims=True) - np.log(len(log_p))
    return float(_divergence(log_p, mean).mean())


def _divergence(log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    log_m = np.logaddexp(log_p, log_q) - np.log(2.0)
    halves = [np.sum(np.exp(log_a) * (log_a - log_m), axis=1) for log_a in (log_p, log_q)]
    bits: FloatArray = np.clip((halves[0] + halves[1]) / (2 * np.log(2.0)), 0.0, 1.0)
    return bits


def log_probabilities(logits: FloatArray, alone: bool) -> FloatArray:
    """Log-probabilities of the classes; if they are independent (`alone`), also of the complement of each class."""
    if alone:
        return np.concatenate([-np.logaddexp(0, -logits), -np.logaddexp(0, logits)], axis=1)
    normalized: FloatArray = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return normalized


def _flips(
    old_winners: NDArray[np.int64],
    new_winners: NDArray[np.int64],
    old: FloatArray,
    new: FloatArray,
    stored: NDArray[np.int64],
) -> list[Flip]:
    columns = {int(c): i for i, c in enumerate(stored)}
    found = []
    for image in np.flatnonzero(old_winners != new_winners):
        one, other = int(old_winners[image]), int(new_winners[image])
        if one in columns and other in columns:
            led, leads = (float(a[image, columns[one]] - a[image, columns[other]]) for a in (old, new))
        else:
            led, leads = float("nan"), float("nan")
        found.append(Flip(int(image), one, other, led, led - leads))
    return found


def displaced_classes(
    old: FloatArray, new: FloatArray, stored: NDArray[np.int64]
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Classes that moved to another index, as (before, after), and classes that are lost.

    The logits of a class over the images identify it. Each class before is compared with all classes after, once the
    scales of both models are made equal. It moved if the logits at another index fit it, those at its own do not, and
    the class that had the other index before does not fit there. It is lost if its own index fits far worse than the
    indices of most classes do.
    """
    one, other = (_standardized(logits) for logits in (old, new))
    # Squared distances of every class before to every class after.
    distances = np.maximum((one**2).sum(axis=0)[:, None] + (other**2).sum(axis=0)[None, :] - 2 * one.T @ other, 0.0)
    places = distances.argmin(axis=1)
    own = np.diag(distances)
    best = distances[np.arange(len(places)), places]
    spread = len(one) * one.var(axis=0)
    moved = (places != np.arange(len(places))) & (best <= REORDERED * np.minimum(own, spread))
    moved &= own > np.maximum(best, TIED * spread)  # classes of equal logits do not change places
    # If the class at that index before still fits there, the two classes are just similar.
    moved &= own[places] >= best / REORDERED
    lost = _lost(old, new) & ~moved
    return tuple((int(stored[i]), int(stored[places[i]])) for i in np.flatnonzero(moved)), tuple(
        int(stored[i]) for i in np.flatnonzero(lost)
    )


def _lost(old: FloatArray, new: FloatArray) -> NDArray[np.bool_]:
    """Which classes changed completely while the others stayed.

    The suspects must not count where both models are brought to one scale: of ten classes, one moves the median.
    """
    part = _changed_part(old, new, np.ones(old.shape[1], bool))
    lost: NDArray[np.bool_] = (part > LOST) & (part > ALONE * np.median(part))
    others = part <= LOST / 2
    if not others.all() and others.sum() >= max(3, 0.75 * len(others)):
        part = _changed_part(old, new, others)
        lost |= ~others & (part > LOST) & (part > ALONE * np.median(part[others]))
    return lost


def _changed_part(old: FloatArray, new: FloatArray, counted: NDArray[np.bool_]) -> FloatArray:
    """The squared change of each class's logits, relative to their variance. The scale is that of some classes."""
    one, other = (_standardized(logits, counted) for logits in (old, new))
    change = other - one
    change = change - np.median(change[:, counted], axis=1, keepdims=True)
    variance = one.var(axis=0)
    reference = np.maximum(variance, np.median(variance[counted]) / 4)
    squared = np.mean(change**2, axis=0)
    part: FloatArray = np.divide(squared, reference, out=np.where(squared > 0, np.inf, 0.0), where=reference > 0)
    return part


def _standardized(logits: FloatArray, counted: NDArray[np.bool_] | None = None) -> FloatArray:
    """Centre and scale by medians over some classes, which are robust against one class that is masked out."""
    some = slice(None) if counted is None else counted
    centred = logits - np.median(logits[:, some], axis=1, keepdims=True)
    size = float(np.median(np.abs(centred[:, some])))
    standardized: FloatArray = centred / size if size else centred
    return standardized
