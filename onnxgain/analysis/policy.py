"""What a gate asks of a model: bounds on its gain, on changes of it, and on changes of its answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from onnxgain.errors import OnnxgainError

DEFAULT_MAX_CHANGE = 0.1
"""dB a channel may change where a baseline without a fingerprint is given and no bound on changes of the gain: ten
times what re-exports do, and a third or less of what 8-bit quantization does."""

Requirement = Literal["same-function", "pass", "review"]
REQUIREMENTS: tuple[Requirement, ...] = ("same-function", "pass", "review")


@dataclass(frozen=True)
class Policy:
    """What a model has to fulfil. All bounds are inclusive; None or False means no such check.

    Attributes:
        min_gain, max_gain: dB, of the gain itself.
        max_change, max_rise, max_drop: dB against the baseline, both directions, up, down.
        max_score_change: of the winner's probability against the baseline's.
        per_channel: the gain bounds hold for every channel, instead of for the mean of the channels.
        same_class: the class is the baseline's.
        verified: the gradient agrees with finite differences.
        no_dead_channel: every channel has a gain. One without never passes, asked for or not.
        allow_scale_change: compare although the input scale differs from the baseline's; every gain is per 8-bit level.
        allow_random: judge a model that draws at random.
        allow_float16: pass a model whose answers float16 arithmetic would change.
        with_confidence: bounds on changes hold for the gain itself, not for the part of it that is not confidence.
        fingerprint: the answers to the fingerprint's images are judged against the baseline's. Where it holds none,
            and there is no bound on changes of the gain, `DEFAULT_MAX_CHANGE` holds for every channel.
        require: the least verdict on the answers that passes.

    Raises:
        OnnxgainError: a bound that is no finite number, negative where it is an amount, or bounds that exclude all.
    """

    min_gain: float | None = None
    max_gain: float | None = None
    max_change: float | None = None
    max_rise: float | None = None
    max_drop: float | None = None
    max_score_change: float | None = None
    per_channel: bool = False
    same_class: bool = False
    verified: bool = False
    no_dead_channel: bool = False
    allow_scale_change: bool = False
    allow_random: bool = False
    allow_float16: bool = False
    with_confidence: bool = False
    fingerprint: bool = False
    require: Requirement = "pass"

    def __post_init__(self) -> None:
        for name in _BOUNDS:
            value = getattr(self, name)
            if value is None:
                continue
            if not math.isfinite(value):
                raise OnnxgainError(f"is {value}", where=option(name), remedy="give a finite number")
            if value < 0 and name in _AMOUNTS:
                raise OnnxgainError(f"is {value:g}", where=option(name), remedy="give the amount, without a sign")
        if self.min_gain is not None and self.max_gain is not None and self.min_gain > self.max_gain:
            raise OnnxgainError(
                f"no gain is at least {self.min_gain:g} and at most {self.max_gain:g} dB",
                where="--min-gain and --max-gain",
                remedy="exchange them",
            )

    @property
    def needs_baseline(self) -> bool:
        """Whether a check compares with a baseline."""
        return self.same_class or self.fingerprint or any(getattr(self, name) is not None for name in _AMOUNTS)

    @property
    def bounds_change(self) -> bool:
        """Whether a bound on changes of the gain is given."""
        return any(getattr(self, name) is not None for name in _GAIN_CHANGES)

    def without_baseline(self) -> Policy:
        """What is left of it where nothing is compared with a baseline."""
        return replace(
            self,
            max_change=None,
            max_rise=None,
            max_drop=None,
            max_score_change=None,
            same_class=False,
            fingerprint=False,
        )

    def without_fingerprint(self) -> Policy:
        """What is judged where the baseline holds no fingerprint: the gain, by the default bound if by no other."""
        policy = replace(self, fingerprint=False)
        return policy if self.bounds_change else replace(policy, max_change=DEFAULT_MAX_CHANGE, per_channel=True)

    @property
    def checks_anything(self) -> bool:
        """Whether there is any check."""
        absolute = self.min_gain is not None or self.max_gain is not None
        return absolute or self.needs_baseline or self.verified or self.no_dead_channel


_GAIN_CHANGES = ("max_change", "max_rise", "max_drop")
_AMOUNTS = (*_GAIN_CHANGES, "max_score_change")
_BOUNDS = ("min_gain", "max_gain", *_AMOUNTS)


def option(name: str) -> str:
    """The command line's name of a policy's field."""
    return "--" + name.replace("_", "-")
