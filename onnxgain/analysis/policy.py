"""The policy of a gate: bounds on a model's gain, on changes of the gain, and on changes of its outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from onnxgain.errors import OnnxgainError

DEFAULT_MAX_CHANGE = 0.1
"""Largest change of a channel's gain in dB if the baseline has no fingerprint and no bound on changes is given: ten
times the change of a re-export, and at most a third of that of 8-bit quantization."""

Requirement = Literal["same-function", "pass", "review"]
REQUIREMENTS: tuple[Requirement, ...] = ("same-function", "pass", "review")


@dataclass(frozen=True)
class Policy:
    """The checks that a model has to pass. All bounds are inclusive; None or False turns a check off.

    Attributes:
        min_gain, max_gain: bounds on the gain itself, dB.
        max_change, max_rise, max_drop: bounds on its change from the baseline in both directions, up and down, dB.
        max_score_change: bound on the change of the winner's probability from the baseline.
        per_channel: bounds on gains apply to every channel instead of to the mean over the channels.
        same_class: the class must be the baseline's.
        verified: the gradient must agree with finite differences.
        no_dead_channel: every channel must have a gain. A model with a dead channel fails even without this check.
        allow_scale_change: compare even if the input scale differs from the baseline's; every gain is per 8-bit level.
        allow_random: judge a model with random operators.
        allow_float16: pass a model whose outputs float16 arithmetic would change.
        with_confidence: bounds on changes apply to the whole gain instead of the gain without its confidence part.
        fingerprint: judge the outputs on the fingerprint's images against the baseline's. If the baseline has no
            fingerprint and there is no bound on changes of the gain, `DEFAULT_MAX_CHANGE` applies to every channel.
        require: the worst verdict on the outputs that passes.

    Raises:
        OnnxgainError: a bound is not finite, an amount is negative, or the bounds exclude every gain.
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
        """Whether any check compares with a baseline."""
        return self.same_class or self.fingerprint or any(getattr(self, name) is not None for name in _AMOUNTS)

    @property
    def bounds_change(self) -> bool:
        """Whether there is a bound on changes of the gain."""
        return any(getattr(self, name) is not None for name in _GAIN_CHANGES)

    def without_baseline(self) -> Policy:
        """The policy without the checks that compare with a baseline."""
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
        """The policy for a baseline without a fingerprint: the gain is judged, by the default bound if it has none."""
        policy = replace(self, fingerprint=False)
        return policy if self.bounds_change else replace(policy, max_change=DEFAULT_MAX_CHANGE, per_channel=True)

    @property
    def checks_anything(self) -> bool:
        """Whether there is any check."""
        absolute = self.min_gain is not None or self.max_gain is not None
        return absolute or self.needs_baseline or self.verified or self.no_dead_channel


KEPT = frozenset(
    {
        "min_gain",
        "max_gain",
        "per_channel",
        "verified",
        "no_dead_channel",
        "allow_random",
        "allow_float16",
        "fingerprint",
    }
)
"""The fields that also hold for a model that becomes the new baseline."""

_GAIN_CHANGES = ("max_change", "max_rise", "max_drop")
_AMOUNTS = (*_GAIN_CHANGES, "max_score_change")
_BOUNDS = ("min_gain", "max_gain", *_AMOUNTS)


def option(name: str) -> str:
    """The command-line option of a policy field."""
    return "--" + name.replace("_", "-")
