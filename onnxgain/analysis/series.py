"""The snapshots of a training run in order, those left out with the reason, and the diagnosis."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, zip_longest
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.diagnosis import MEASURED_AGREEMENT, Diagnosis, Thresholds, diagnose
from onnxgain.analysis.snapshot_shape import differences, usual_shape
from onnxgain.analysis.surrogate import RIGHT_OF, RIGHT_OF_HELD_OUT, ImageLosses, diagnose_losses
from onnxgain.analysis.training_log import TrainingLog
from onnxgain.files import natural_key
from onnxgain.measure.record import Record, SampleRecord, channel_names, stimulus_text

ORDERS = ("natural", "time", "given")


@dataclass(frozen=True)
class Found:
    """The result of a snapshot: its records, one per stimulus, or the reason that there are none.

    Attributes:
        path: the path of the model.
        modified: when its file was written, for the order "time".
        no_gain: whether the reason is a derivative that is exactly zero or not finite, as of a network that training
            broke.
        diverged: whether logits or derivative are not finite.
    """

    path: str
    records: tuple[Record, ...] = ()
    problem: str | None = None
    modified: float = 0.0
    no_gain: bool = False
    diverged: bool = False


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a series. `gains` has one number per channel, the mean over the stimuli; NaN for no gain.

    `diverged` is whether training broke the network: its logits or its derivative are not finite, or the derivative is
    zero from here to the end of a run that had gains before.
    """

    epoch: int
    path: str
    records: tuple[Record, ...]
    gains: tuple[float, ...]
    diverged: bool = False

    @property
    def mean(self) -> float:
        """The mean of the channels' gains in dB; NaN if a channel has none."""
        return float(np.mean(self.gains))

    @property
    def sample(self) -> SampleRecord | None:
        """The losses on labelled images, if they were measured."""
        return self.records[0].sample if self.records else None


WITH_IMAGES = "--images validation/ --held-out"
"""The options that give the best verdict; `validation/` stands for a folder of labelled images."""

NO_GAIN = "no gain, as the derivative is zero at "
"""Begins the reason why a snapshot has losses and no gain."""

MOST_GIVEN = 3
"""The largest number of arguments that a command to run repeats."""


@dataclass(frozen=True)
class Series:
    """A training run.

    Attributes:
        name: the name of the run.
        snapshots: the snapshots in the order of their epochs.
        left_out: (what, why) of snapshots left out: damaged, of another shape, or missing from the numbering.
        log: the logged losses by epoch.
        others: how many snapshots are left out because they are of another network.
        given: the snapshots as they were given to the command.
    """

    name: str
    snapshots: tuple[Snapshot, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    log: TrainingLog | None = None
    channels: tuple[str, ...] = field(default=())
    others: int = 0
    given: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The run and how many snapshots it has."""
        return f"<Series {self.name!r}: {len(self.snapshots)} snapshots, {len(self.left_out)} left out>"

    @property
    def no_run(self) -> bool:
        """Whether no two files are snapshots of one network."""
        return self.others > 0 and sum(bool(snapshot.records) for snapshot in self.snapshots) == 1

    @property
    def mostly_others(self) -> bool:
        """Whether at least half of the measured files are left out as snapshots of other networks."""
        return self.others >= max(sum(bool(snapshot.records) for snapshot in self.snapshots), 1)

    @property
    def dead(self) -> bool:
        """Whether no snapshot has a gain, so that none could be evaluated on images either."""
        return bool(self.snapshots) and not any(s.records or np.isfinite(s.gains).any() for s in self.snapshots)

    @property
    def epochs(self) -> list[int]:
        """The epochs of the snapshots."""
        return [snapshot.epoch for snapshot in self.snapshots]

    @property
    def gains(self) -> NDArray[np.float64]:
        """(snapshots, channels) dB; NaN if a snapshot has no gain."""
        return np.array([s.gains for s in self.snapshots], np.float64).reshape(len(self.snapshots), len(self.channels))

    @property
    def has_sample(self) -> bool:
        """Whether losses on labelled images were measured with the gains."""
        return any(snapshot.sample is not None for snapshot in self.snapshots)

    @property
    def held_out(self) -> bool:
        """Whether the network is not trained on these images."""
        return any(snapshot.sample is not None and not snapshot.sample.copies for snapshot in self.snapshots)

    @property
    def sample_columns(self) -> tuple[str, ...]:
        """What `sample_losses` holds for a snapshot; the verdict is read off the last one."""
        if not self.has_sample:
            return ()
        return ("images loss",) if self.held_out else ("images loss", "copies loss", "surrogate")

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis from the losses on labelled images if there are any, else from the gains."""
        return self._from_sample() if self.has_sample else self.gain_diagnosis

    @cached_property
    def gain_diagnosis(self) -> Diagnosis:
        """The diagnosis from the gains."""
        return diagnose(self.gains, self.epochs)

    @property
    def hint_only(self) -> bool:
        """Whether the diagnosis rests on gains alone, which give no verdict."""
        return not self.has_sample

    @property
    def evidence(self) -> tuple[str, ...]:
        """What the diagnosis rests on, beyond `certainty`, a sentence each."""
        if self.has_sample and not self.diagnosis.numbers:
            return self.diagnosis.evidence[1:]
        return () if self.diagnosis.too_few else self.diagnosis.evidence

    @property
    def to_do(self) -> str | None:
        """The command that gives a verdict where gains only give a hint; None elsewhere."""
        if not self.hint_only or self.dead or self.diagnosis.too_few:
            return None
        records = any(name.endswith(".json") for name in self.given)  # which images cannot be measured with
        few = 0 < len(self.given) <= MOST_GIVEN and not records
        folders = dict.fromkeys(str(PurePath(snapshot.path).parent) for snapshot in self.snapshots)
        return f"onnxgain track {shlex.join(self.given if few else folders)} {WITH_IMAGES}"

    @property
    def finding(self) -> str:
        """The diagnosis in words, called a hint where it is one; that there are too few snapshots, if so."""
        if self.diagnosis.too_few:
            return "too few snapshots"
        return f"hint: {self.diagnosis.sentence}" if self.hint_only else self.diagnosis.sentence

    @property
    def headline(self) -> str:
        """The verdict in words; that there is none, and what the curve hints at, where there are only gains."""
        if self.diagnosis.too_few:
            return f"too few snapshots for a {'hint' if self.hint_only else 'verdict'}"
        if not self.hint_only:
            return self.diagnosis.sentence
        return f'no verdict from gains alone; the curve hints at "{self.diagnosis.sentence}"'

    @property
    def certainty(self) -> str:
        """The basis of the diagnosis and its reliability, as a phrase."""
        count = f"{len(self.snapshots)} snapshot{'' if len(self.snapshots) == 1 else 's'}"
        if self.diagnosis.too_few:
            return self.diagnosis.evidence[0]
        if self.dead:
            return f"a hint: {count}, none with a gain"
        if not self.has_sample:
            return f"a hint from the gains of {count}: right in {MEASURED_AGREEMENT}; --images gives a verdict"
        kind, measured = ("held-out", RIGHT_OF_HELD_OUT) if self.held_out else ("training", RIGHT_OF)
        if not self.diagnosis.numbers:  # nothing was resampled
            return f"from {kind} images: {self.diagnosis.evidence[0]}"
        found = f"from {kind} images: {100 * self.diagnosis.confidence:.0f} % of resampled sets agree, {count}"
        if self.diagnosis.verdict not in measured:
            return found
        right, given = measured[self.diagnosis.verdict]
        return f"{found}; such verdicts were right in {right} of {given} test runs"

    def _from_sample(self) -> Diagnosis:
        dead = {one.epoch for one in self._watched if not np.isfinite(one.mean)}
        return diagnose_losses(self._image_losses, [one.epoch for one in self._watched], self._classes, dead)

    @property
    def _watched(self) -> list[Snapshot]:
        return [snapshot for snapshot in self.snapshots if snapshot.sample is not None or snapshot.diverged]

    @property
    def _classes(self) -> int:
        return next(one.records[0].interface.classes for one in self._watched if one.records)

    @cached_property
    def _image_losses(self) -> ImageLosses:
        """One row per snapshot of `_watched`, infinite if the network diverged."""
        samples = [snapshot.sample for snapshot in self._watched]
        count = max(len(sample.plain) for sample in samples if sample is not None)
        broken = SampleRecord("", (None,) * count, (None,) * count)

        def losses(part: str) -> NDArray[np.float64]:
            rows = (getattr(sample or broken, part) for sample in samples)
            return np.array([[np.inf if loss is None else loss for loss in row] for row in rows], np.float64)

        plain = losses("plain")
        neighbours = next((sample.neighbours for sample in samples if sample and sample.neighbours), 1.0)
        return ImageLosses(plain, plain if self.held_out else losses("copies"), neighbours, self.held_out)

    @cached_property
    def kept_images(self) -> NDArray[np.bool_]:
        """Which of the labelled images are used; the others are left out as doubtful."""
        trained = sum(snapshot.epoch <= 0 for snapshot in self._watched)
        return self._image_losses.trusted(self._classes, slice(trained, None))

    @cached_property
    def sample_losses(self) -> dict[int, tuple[float, ...]]:
        """By epoch: mean loss on the images used; unless they are held out, also that on their copies, and the
        surrogate. Only finite ones."""
        if not self.has_sample:
            return {}
        means = self._image_losses.of(self.kept_images).means
        rows = np.stack(means[: len(self.sample_columns)], axis=1)
        return {
            one.epoch: tuple(map(float, row))
            for one, row in zip(self._watched, rows, strict=True) if np.isfinite(row).all()
        }  # fmt: skip

    def sample_numbers(self, epoch: int) -> dict[str, float | None]:
        """The `sample_losses` of an epoch under the names that documents use; None for what there is not."""
        return dict(zip_longest(("images_loss", "copies_loss", "surrogate"), self.sample_losses.get(epoch, ())))

    @property
    def sample_digest(self) -> str | None:
        """Of the labelled images."""
        return next((one.sample.sha256 for one in self.snapshots if one.sample is not None), None)

    @cached_property
    def surrogates(self) -> dict[int, float]:
        """By epoch: the surrogate on all images, or the loss if they are held out; infinite where training diverged."""
        if self.dead:
            return dict.fromkeys(self.epochs, float("inf"))
        epochs = (one.epoch for one in self._watched)
        return dict(zip(epochs, map(float, self._image_losses.means[2]), strict=True))

    @property
    def left_out_lines(self) -> list[str]:
        """What is left out and why, a line each; most reasons begin with the file's name already."""
        return [why if why.startswith(what) else f"{what}: {why}" for what, why in self.left_out]

    @property
    def stimuli(self) -> str:
        """The stimuli at which the snapshots were measured."""
        records = next((s.records for s in self.snapshots if s.records), ())
        return ", ".join(map(stimulus_text, records))


def make_series(name: str, found: Iterable[Found], *, order: str = "natural", log: TrainingLog | None = None) -> Series:
    """Put the snapshots of a run in order.

    Args:
        found: the results, in the order given.
        order: "natural": by the numbers in the names, which become the epochs; "time": by the time of writing; or
            "given".
    """
    snapshots = list(found)
    if order == "natural":
        snapshots.sort(key=lambda one: natural_key(one.path))
    elif order == "time":
        snapshots.sort(key=lambda one: (one.modified, natural_key(one.path)))
    numbered = epoch_numbers([one.path for one in snapshots]) if order == "natural" else None
    epochs = numbered if numbered is not None else list(range(1, len(snapshots) + 1))
    usual = usual_shape([one.records for one in snapshots])
    kept: list[Snapshot] = []
    left_out: list[tuple[str, str]] = []
    channels: tuple[str, ...] = ()
    others = 0
    for one, epoch in zip(snapshots, epochs, strict=True):
        if epoch is None:
            left_out.append((one.path, "its name has no number where the others' have one"))
        elif one.records and (other := differences(one.records, usual, untrained=one is snapshots[0])):
            left_out.append((one.path, f"another shape: {other}"))
            others += 1
        elif one.records:
            channels = channel_names(one.records[0])
            kept.append(Snapshot(epoch, one.path, one.records, _gains(one.records)))
            if dead := [stimulus_text(r) for r in one.records if set(r.gain.channels) == {None}]:
                where = ", ".join(dead)
                left_out.append((one.path, f"{NO_GAIN}{where}; the losses are used"))
        elif one.no_gain:
            kept.append(Snapshot(epoch, one.path, (), (), one.diverged))
            left_out.append((one.path, one.problem or ""))
        else:
            left_out.append((one.path, one.problem or "not measured"))
    kept = _with_end(kept)
    empty = (np.nan,) * max(len(channels), 1)
    kept = [s if s.gains else replace(s, gains=empty) for s in kept]
    if numbered is not None:
        left_out += [(f"epoch {epoch}", "missing") for epoch in gaps([e for e in epochs if e is not None])]
    return Series(
        name,
        tuple(kept),
        tuple(left_out),
        log.aligned([s.epoch for s in kept]) if log is not None else None,
        channels or ("grey",),
        others,
    )


def _with_end(snapshots: list[Snapshot]) -> list[Snapshot]:
    """The snapshots; those at the end that have no gain, if there were gains before and they are not few, diverged."""
    alive = [number for number, snapshot in enumerate(snapshots) if snapshot.records]
    last = alive[-1] + 1 if alive else len(snapshots)
    if len(snapshots) - last < Thresholds().dead * len(snapshots):
        return snapshots
    return [*snapshots[:last], *(replace(snapshot, diverged=True) for snapshot in snapshots[last:])]


def _gains(records: Sequence[Record]) -> tuple[float, ...]:
    rows = [[np.nan if gain is None else gain for gain in record.gain.channels] for record in records]
    return tuple(float(gain) for gain in np.mean(rows, axis=0))


def epoch_numbers(paths: Sequence[str]) -> list[int | None] | None:
    """The epochs in file names in natural order; None if the names do not count epochs.

    The epoch is the first number in the names that ascends from each name to the next. Names that differ from most
    others in more than numbers ("last.onnx") have none.
    """
    parts = [re.split(r"([0-9]+)", PurePath(path).stem) for path in paths]
    texts = [tuple(part[::2]) for part in parts]
    counts = Counter(text for text in texts if len(text) > 1)
    if not counts:
        return None
    usual, count = counts.most_common(1)[0]
    if 2 * count <= len(paths):
        return None
    rows = [
        [int(number) for number in part[1::2]] if text == usual else None
        for part, text in zip(parts, texts, strict=True)
    ]
    kept = [row for row in rows if row is not None]
    for place in range(len(usual) - 1):
        column = [row[place] for row in kept]
        if all(a < b for a, b in pairwise(column)):
            return [None if row is None else row[place] for row in rows]
    return None


def gaps(epochs: Sequence[int]) -> list[int]:
    """The numbers missing from an otherwise regular numbering (100 at most)."""
    steps = Counter(b - a for a, b in pairwise(epochs))
    step = min(steps, default=0)
    if steps[step] < 2:
        return []
    there = set(epochs)
    return [e for e in range(epochs[0], epochs[-1], step) if e not in there][:100]
