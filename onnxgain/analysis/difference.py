"""How much a classifier's response changed between two versions, and at which frequencies.

Pure functions over measurements and records; `onnxgain.analysis.pairing` pairs the records. Spectra are compared in dB,
bin by bin. Each bin is weighted by its power within its band, as the dB values of bins near zero are meaningless, and
values more than `RANGE_DB` below the maximum are raised to that floor. Frequencies are in cycles/pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.pairing import Change
from onnxgain.measure.plane import harmonic_name
from onnxgain.measure.record import Record, channel_names
from onnxgain.measure.words import class_text

if TYPE_CHECKING:
    from onnxgain.measure.measurement import Measurement

FloatArray = NDArray[np.float64]

RANGE_DB = 60.0
STRONG_DB = 20.0
"""Only bins at most this far below the maximum, before or after, can be the bin that changed most."""
NOTICEABLE_DB = 0.05
"""Changes of gain and spectrum up to this are reported as no difference: equivalent graphs differ by less in float32.
"""

BANDS = (
    ("0-1/8", 0.0, 0.125),
    ("1/8-1/4", 0.125, 0.25),
    ("1/4-3/8", 0.25, 0.375),
    ("3/8-1/2", 0.375, 0.5),
    ("corners", 0.5, 0.5 * 2**0.5),
)
"""Bands of radial frequency: name, low end, high end. The corners hold only diagonal frequencies."""


@dataclass(frozen=True)
class BandChange:
    """The change in a band of radial frequencies, over all channels.

    Attributes:
        name, low, high: as in `BANDS`; the ends in cycles/pixel.
        share: the band's share of all frequency bins.
        before_db, after_db: 10 log10 of the mean of |H|^2.
        rms_db: root mean square of the bins' differences in dB, weighted by their power.
    """

    name: str
    low: float
    high: float
    share: float
    before_db: float
    after_db: float
    rms_db: float

    @property
    def delta_db(self) -> float:
        """Change of the band's level, dB."""
        return self.after_db - self.before_db


@dataclass(frozen=True)
class LargestChange:
    """The strong bin whose magnitude changed most, in dB; the one with fy >= 0 of its conjugate pair."""

    channel: str
    fy: float
    fx: float
    frequency: float
    before_db: float
    after_db: float
    harmonic: str | None

    @property
    def delta_db(self) -> float:
        """Change at this bin, dB."""
        return self.after_db - self.before_db


@dataclass(frozen=True)
class SpectrumChange:
    """The change of a frequency response.

    Attributes:
        rms_db: root mean square over all bands, weighted by their shares.
        bands: the bands that hold a bin, from low to high frequency.
        largest: None if only radial profiles are known.
    """

    rms_db: float
    bands: tuple[BandChange, ...]
    largest: LargestChange | None


@dataclass(frozen=True)
class LogitsChange:
    """The change of the logits. For a softmax head their mean, which softmax ignores, is subtracted first.

    Attributes:
        relative_l2: |after - before| / |before|; None if before is zero.
        max_abs: the largest change of a logit.
        kl: Kullback-Leibler divergence of the class probabilities, before from after, in nats.
    """

    relative_l2: float | None
    max_abs: float
    kl: float


@dataclass(frozen=True)
class DerivativeChange:
    """The change of the derivative: |after - before| / |before|, and the cosine of the angle between them."""

    relative_l2: float
    cosine: float


@dataclass(frozen=True)
class Difference:
    """The difference of two measurements at one stimulus. Parts that cannot be compared are None; a note says why."""

    change: Change
    spectrum: SpectrumChange | None = None
    logits: LogitsChange | None = None
    derivative: DerivativeChange | None = None
    notes: tuple[str, ...] = ()

    @property
    def largest_db(self) -> float | None:
        """The largest change in dB, of a gain or of the spectrum as a whole (RMS); None if nothing was compared."""
        gains = [abs(gain.delta) for gain in self.change.channels if gain.delta is not None]
        return max([*gains, *([self.spectrum.rms_db] if self.spectrum is not None else [])], default=None)


# ---------------------------------------------------------------------------------------------- measurements
def measured_difference(before: Measurement, after: Measurement, *, independent: bool = False) -> Difference:
    """Compare two measurements with the same `Record.comparable_key`.

    Args:
        independent: whether the classes are independent probabilities rather than one softmax.
    """
    change = Change(before.record, after.record)
    order = _channel_order(before.record, after.record)
    derivative, magnitude_db = after.derivative[order], after.spectrum.db[order]
    notes = _notes(change)
    logits = _logits(before.logits, after.logits, independent) if change.same_classes else None
    slope = _derivative(before.derivative, derivative)
    if slope is None:
        notes.append("the derivatives cannot be compared: one is zero in float64")
    spectrum = _spectrum(before.spectrum.db, magnitude_db, channel_names(before.record))
    if spectrum is None:
        notes.append("the spectra cannot be compared: both are zero")
    return Difference(change, spectrum, logits, slope, tuple(notes))


def recorded_difference(change: Change) -> Difference:
    """Compare two records. They hold no arrays, so only gains, scores and radial profiles are compared."""
    spectrum = _profiles(change)
    notes = [*_notes(change), "from records: logits, derivatives and single frequencies are not known"]
    return Difference(change, spectrum, notes=tuple(notes))


def aligned(before: Record, after: Measurement) -> tuple[FloatArray, FloatArray]:
    """The derivative and magnitude in dB of a measurement, both (C, H, W), in the channel order of `before`."""
    order = _channel_order(before, after.record)
    return after.derivative[order], after.spectrum.db[order]


def _channel_order(before: Record, after: Record) -> list[int]:
    """The index in `after` of each channel of `before`; one may be RGB and the other BGR."""
    names = channel_names(after)
    return [names.index(name) for name in channel_names(before)]


def _notes(change: Change) -> list[str]:
    notes = []
    if not change.same_classes:
        counts = f"{change.before.interface.classes} before, {change.after.interface.classes} after"
        notes.append(f"classes, scores and logits cannot be compared: {counts} classes")
    return notes


def _logits(before: NDArray[Any], after: NDArray[Any], independent: bool) -> LogitsChange:
    old, new = before.astype(np.float64), after.astype(np.float64)
    if independent:
        # p log(p/q) + (1-p) log((1-p)/(1-q)) per class, computed from log-sigmoids.
        terms = [np.exp(-np.logaddexp(0, -s * old)) * _log_ratio(s * old, s * new) for s in (1.0, -1.0)]
        kl = float(np.sum(terms))
    else:
        old, new = old - old.mean(), new - new.mean()
        log_p, log_q = old - np.logaddexp.reduce(old), new - np.logaddexp.reduce(new)
        kl = float(np.sum(np.exp(log_p) * (log_p - log_q)))
    size = float(np.linalg.norm(old))
    distance = float(np.linalg.norm(new - old))
    # Rounding can make the divergence slightly negative.
    return LogitsChange(distance / size if size else None, float(np.abs(new - old).max()), max(kl, 0.0))


def _log_ratio(old: FloatArray, new: FloatArray) -> FloatArray:
    """log sigmoid(old) / sigmoid(new)."""
    ratio: FloatArray = np.logaddexp(0, -new) - np.logaddexp(0, -old)
    return ratio


def _derivative(before: FloatArray, after: FloatArray) -> DerivativeChange | None:
    # Each is scaled to a maximum of 1 first, as squares of tiny derivatives underflow.
    old_scale, new_scale = float(np.abs(before).max()), float(np.abs(after).max())
    if not (old_scale and new_scale):
        return None
    old, new = before / old_scale, after / new_scale
    sizes = float(np.linalg.norm(old)), float(np.linalg.norm(new))
    distance = float(np.linalg.norm(new * (new_scale / old_scale) - old))
    return DerivativeChange(distance / sizes[0], float(np.sum(old * new)) / (sizes[0] * sizes[1]))


def _spectrum(before: FloatArray, after: FloatArray, names: Sequence[str]) -> SpectrumChange | None:
    """Compare (C, H, W) magnitudes in dB, DC at (H//2, W//2); None if both are zero."""
    _, height, width = before.shape
    fy, fx = np.fft.fftshift(np.fft.fftfreq(height)), np.fft.fftshift(np.fft.fftfreq(width))
    radius = np.hypot(fy[:, None], fx[None, :]).ravel()
    old, new = before.reshape(len(before), -1), after.reshape(len(after), -1)
    bands = _bands(old, new, radius, np.ones_like(radius))
    if not bands:
        return None
    strong = np.maximum(old, new) >= max(old.max(), new.max()) - STRONG_DB
    old, new = _clipped(old, new)
    channel, place = np.unravel_index(int(np.argmax(np.abs(new - old) * strong)), old.shape)
    row, column = divmod(int(place), width)
    y, x = float(fy[row]), float(fx[column])
    y, x = (-y, -x) if y < 0 or (y == 0 and x < 0) else (y, x)
    largest = LargestChange(
        channel=names[int(channel)],
        fy=y + 0.0,
        fx=x + 0.0,
        frequency=float(np.hypot(y, x)),
        before_db=float(old[channel, place]),
        after_db=float(new[channel, place]),
        harmonic=harmonic_name(y, x, (height, width)),
    )
    return SpectrumChange(_joint_rms(bands), bands, largest)


def _bands(before: FloatArray, after: FloatArray, radius: FloatArray, areas: FloatArray) -> tuple[BandChange, ...]:
    """The changes by band of magnitudes in dB, (C, n), at n radii with `areas` as weights; empty if both are zero."""
    top = max(float(before.max()), float(after.max()))
    if not np.isfinite(top):
        return ()
    powers = [np.mean(10.0 ** ((side - top) / 10.0), axis=0) for side in (before, after)]
    old, new = _clipped(before, after)
    weights = areas * (10.0 ** ((old - top) / 10.0) + 10.0 ** ((new - top) / 10.0))
    place = np.digitize(radius, [high for _, _, high in BANDS[:-2]])
    place[radius > 0.5] = len(BANDS) - 1
    changes = []
    for number, (name, low, high) in enumerate(BANDS):
        here = place == number
        if here.any():
            levels = [top + _level(float(np.average(power[here], weights=areas[here]))) for power in powers]
            rms = float(np.sqrt(np.average(np.square(new[:, here] - old[:, here]), weights=weights[:, here])))
            share = float(areas[here].sum() / areas.sum())
            changes.append(BandChange(name, low, high, share, levels[0], levels[1], rms))
    return tuple(changes)


def _clipped(before: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray]:
    floor = max(before.max(), after.max()) - RANGE_DB
    return np.maximum(before, floor), np.maximum(after, floor)


def _level(power: float) -> float:
    """A power in dB, at least -`RANGE_DB`."""
    return max(10.0 * float(np.log10(power)), -RANGE_DB) if power > 0 else -RANGE_DB


# -------------------------------------------------------------------------------------------------- records
def recorded_profiles(change: Change) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Radial frequencies (n) and radial profiles in dB before and after, both (C, n); -inf for a power of zero.

    Channels are in the order of `before`. None if the profiles have different frequencies or are damaged.
    """
    frequency = np.array(change.before.spectrum.profile_frequency)
    old, new = _profile(change.before), _profile(change.after)
    order = _channel_order(change.before, change.after)
    same = change.before.spectrum.profile_frequency == change.after.spectrum.profile_frequency
    if not same or not old.shape == new.shape == (len(order), len(frequency)) or not old.size:
        return None
    return frequency, old, new[order]


def _profiles(change: Change) -> SpectrumChange | None:
    """Compare radial profiles; None if they have different frequencies, are damaged or are all zero."""
    profiles = recorded_profiles(change)
    if profiles is None:
        return None
    frequency, old, new = profiles
    # The number of bins in an annulus is proportional to its radius; the one at DC has an eighth of the next.
    areas = np.maximum(frequency, frequency[frequency > 0].min(initial=1.0) / 8)
    bands = _bands(old, new, frequency, areas)
    return SpectrumChange(_joint_rms(bands), bands, None) if bands else None


def _profile(record: Record) -> FloatArray:
    rows = [[-np.inf if gain is None else gain for gain in row] for row in record.spectrum.profile_db]
    return np.array(rows, dtype=np.float64) if len({len(row) for row in rows}) == 1 else np.empty((0, 0))


# ---------------------------------------------------------------------------------------------------- words
def reading(difference: Difference) -> str:
    """The change of the response in words: at which frequencies it is and how large it is there."""
    largest, spectrum = difference.largest_db, difference.spectrum
    if largest is None:
        return "nothing could be compared"
    if largest <= NOTICEABLE_DB:
        return f"no difference above {NOTICEABLE_DB:g} dB"
    if spectrum is None or spectrum.rms_db <= NOTICEABLE_DB:
        return f"only the maximum changed, by up to {largest:.2f} dB"
    most = max(band.rms_db for band in spectrum.bands)
    affected = [band.rms_db >= most / 2 for band in spectrum.bands]
    chosen = [band for band, hit in zip(spectrum.bands, affected, strict=True) if hit]
    level, rms = _joint_level(chosen), _joint_rms(chosen)
    size = f"{level:+.1f} dB" if abs(level) >= 0.05 else f"{level:+.2f} dB"
    if abs(level) < rms / 2:
        size = f"{size} in level, {rms:.1f} dB rms from bin to bin" if rms >= 0.05 else size
    return f"the change sits {_region(affected, spectrum.bands)}, {size}"


def summary(differences: Sequence[Difference]) -> str:
    """The changes at all stimuli in one sentence: the reading of the largest, and the classes that changed."""
    most = max(differences, key=lambda difference: difference.largest_db or -1.0)
    text = reading(most)
    if len(differences) > 1 and (most.largest_db or 0.0) > NOTICEABLE_DB:
        text += f" (at {most.change.stimulus})"
    changes = [difference.change for difference in differences]
    flips = [
        f"{class_text(c.before)} became {class_text(c.after)} at {c.stimulus}"
        for c in changes
        if c.same_classes and not c.same_class
    ]
    return "; class ".join([text, *flips])


def _joint_level(bands: Sequence[BandChange]) -> float:
    """The change of the mean level of several bands, dB."""
    before, after = (
        sum(band.share * 10 ** (level / 10) for band, level in zip(bands, levels, strict=True))
        for levels in ([band.before_db for band in bands], [band.after_db for band in bands])
    )
    return float(10 * np.log10(after / before)) if before > 0 and after > 0 else 0.0


def _joint_rms(bands: Sequence[BandChange]) -> float:
    return float(np.sqrt(np.average([band.rms_db**2 for band in bands], weights=[band.share for band in bands])))


def _region(affected: Sequence[bool], bands: Sequence[BandChange]) -> str:
    hit = [place for place, is_hit in enumerate(affected) if is_hit]
    first, last = hit[0], hit[-1]
    if last - first + 1 != len(hit):
        names = [bands[place].name for place in hit]
        return f"in the bands {', '.join(names[:-1])} and {names[-1]} cycles/pixel"
    if len(hit) == len(bands):
        return "at all frequencies"
    if last == len(bands) - 1:
        return f"above {bands[first].low:g} cycles/pixel"
    if first == 0:
        return f"below {bands[last].high:g} cycles/pixel"
    return f"between {bands[first].low:g} and {bands[last].high:g} cycles/pixel"
