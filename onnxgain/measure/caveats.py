"""Caveats of a measurement: randomness, rounding, ties, float16, saturation. Frozen, to and from JSON."""

from __future__ import annotations

from onnxgain.errors import first_names
from onnxgain.model.quick_dataclass import dataclass

MOST_NAMED = 3


@dataclass(frozen=True)
class TieRecord:
    """Another class that wins as well as the winner does, up to rounding.

    Attributes:
        class_index: the other class.
        margin: the winner's logit minus the other's.
        rounding: how far rounding moves the margin, in logits.
        score: the other class's probability.
        channels, mean: the Maximum Gain at that class, dB, as in `onnxgain.measure.record.GainRecord`.
    """

    class_index: int
    margin: float
    rounding: float
    score: float
    channels: tuple[float | None, ...]
    mean: float | None


@dataclass(frozen=True)
class Float16Record:
    """What a model that is declared in float16 would compute in float16 arithmetic.

    Attributes:
        overflowed: operators whose values exceed 65504.
        flushed: operators for which at least a tenth of the nonzero values become 0.
        class_index: the winner there, None where the logits are not finite.
        logit_error: distance of the logits from the measured ones, relative L2; None where they are not finite.
    """

    overflowed: tuple[str, ...]
    flushed: tuple[str, ...]
    class_index: int | None
    logit_error: float | None


@dataclass(frozen=True)
class SaturationRecord:
    """A probability so close to 1, or logits so large, that the gain says little about the network.

    Attributes:
        log10_rest: log10 of 1 - p, the sum of the other classes' probabilities.
        rounding_db: how far the rounding of float32 logits moves the gain, dB.
    """

    log10_rest: float
    rounding_db: float


@dataclass(frozen=True)
class SelectionRecord:
    """Operators that choose among elements that are equal up to rounding, where the choice changes the gain.

    Attributes:
        operators: type and node name of each.
        gain_db: how far other choices move the gain of a channel, dB; None if they leave no gain.
        other_class: whether another class wins with other choices.
    """

    operators: tuple[str, ...]
    gain_db: float | None
    other_class: bool


@dataclass(frozen=True)
class CaveatsRecord:
    """All caveats of one measurement; a record without any holds None.

    Attributes:
        random: operators that draw at random, so that every run gives different numbers.
        rounding_db: how far rounding moves the gain of a channel, dB, where the model quantizes.
        tie: another class that scores the same up to rounding.
        float16: the effect of float16 arithmetic on a model declared in float16, where it matters.
        saturation: present if the probability or the logits are out of the range in which a gain means something.
        selection: present if the model selects among equal elements, and the choice matters.
    """

    random: tuple[str, ...] = ()
    rounding_db: float | None = None
    tie: TieRecord | None = None
    float16: Float16Record | None = None
    saturation: SaturationRecord | None = None
    selection: SelectionRecord | None = None

    def sentences(self, class_index: int) -> tuple[str, ...]:
        """One sentence for each caveat.

        Args:
            class_index: the class measured.
        """
        found = []
        if self.random:
            found.append(
                f"random: {first_names(self.random, MOST_NAMED)} draws at random, so each run gives other numbers"
            )
        if self.rounding_db is not None:
            found.append(
                f"rounding: another rounding of quantized activations moves the gain by {self.rounding_db:.2f} dB"
            )
        if self.tie is not None:
            found.append(
                f"tie: class {class_index} and class {self.tie.class_index} are {abs(self.tie.margin):.1e} apart, and "
                f"rounding moves that by {self.tie.rounding:.1e}; --class fixes one"
            )
        if self.float16 is not None:
            found.append(_float16_sentence(self.float16, class_index))
        if self.saturation is not None:
            found.append(_saturation_sentence(self.saturation, class_index))
        if self.selection is not None:
            found.append(_selection_sentence(self.selection))
        return tuple(found)


def _float16_sentence(found: Float16Record, class_index: int) -> str:
    what = []
    if found.overflowed:
        what.append(f"{first_names(found.overflowed, MOST_NAMED)} overflows")
    if found.flushed:
        what.append(f"values of {first_names(found.flushed, MOST_NAMED)} become 0")
    if found.logit_error is None:
        effect = "the logits are not finite"
    else:
        effect = f"the logits move by {100 * found.logit_error:.1f} %"
        if found.class_index != class_index:
            effect += f", and class {found.class_index} wins"
    return f"float16: in float16 arithmetic {' and '.join([*what, effect])}; this is measured in float32"


def _saturation_sentence(found: SaturationRecord, class_index: int) -> str:
    return (
        f"saturated: the probability of class {class_index} is 1 - 10^{found.log10_rest:.4g}, and rounding of its "
        f"logits moves the gain by {found.rounding_db:.2g} dB; use --projection logit, or another --stimulus"
    )


def _selection_sentence(found: SelectionRecord) -> str:
    effect = "leave no gain" if found.gain_db is None else f"move the gain by {found.gain_db:.2f} dB"
    if found.other_class:
        effect += ", and another class wins"
    return (
        f"selection: {first_names(found.operators, MOST_NAMED)} chooses among equal elements; other choices {effect}; "
        "use --stimulus noise"
    )
