"""The gate's judgement of a model: its checks, its verdict, and what to run next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from onnxgain.analysis.function_change import FunctionChange
from onnxgain.analysis.function_verdict import judged
from onnxgain.analysis.pairing import Change
from onnxgain.analysis.policy import Policy
from onnxgain.measure.record import Record

Outcome = Literal["pass", "review", "finding", "error"]
Verdict = Literal["same function", "pass", "review", "fail", "error"]
Renewal = Literal["recorded", "accepted", "unchanged", "removed", "not written"]
"""The change of a model's entry in a baseline: added, replaced, kept, taken out, or the baseline was not written."""

VERDICTS: tuple[Verdict, ...] = ("same function", "pass", "review", "fail", "error")
"""The verdicts from best to worst."""
GOOD: tuple[Verdict, ...] = ("same function", "pass")

ABSENT = "not in the baseline"
"""The beginning of the message of the check "baseline" if the baseline can be read and does not hold the model."""
RENAMED = "the same bytes as the missing"
"""In such a message: the model is one that the baseline holds under another name, whose file is gone."""
RENAMED_TO = "has the same bytes"
"""The end of the message of a model whose file is gone, after the name of the file that has its bytes now."""
AMBIGUOUS = "its name fits several models of the baseline"
"""The same if it holds several that the model may be."""
GONE = "the file is gone"
"""The same for a model that the baseline holds and that is no longer where models are gated."""

EXIT_CODES: dict[Verdict, int] = {"same function": 0, "pass": 0, "review": 3, "fail": 1, "error": 2}


@dataclass(frozen=True)
class Verification:
    """Whether a gradient agrees with finite differences at one stimulus (None: unknown), and the explanation."""

    stimulus: str
    agrees: bool | None
    text: str


@dataclass(frozen=True)
class Check:
    """One check and its result.

    Attributes:
        name: the option that requests it, without dashes; "measured", "baseline", "comparable" or "policy" if a model
            cannot be judged at all.
        message: the result as a clause.
        stimulus, channel: what was checked; "mean" for the mean over the channels; None if not applicable.
        value, baseline, limit: the numbers compared: dB, probability or class index.
        excess: how far the value is beyond the limit, in the same unit.
    """

    name: str
    outcome: Outcome
    message: str
    stimulus: str | None = None
    channel: str | None = None
    value: float | None = None
    baseline: float | None = None
    limit: float | None = None
    excess: float = 0.0

    @property
    def place(self) -> str:
        """Stimulus and channel in words, empty if there are none."""
        return ", ".join(part for part in (self.stimulus, self.channel) if part)


@dataclass(frozen=True)
class Commands:
    """Command lines to paste; None if there is no baseline or no file to read.

    Attributes:
        inspect: to see how the model is read.
        look: to show what changed.
        accept: to accept it as the new baseline.
        allow_scale: to compare it despite a changed input scale.
        layers: to see which layers changed.
        with_old_file: whether `layers` names a file of the model before that is not there.
    """

    inspect: str | None = None
    look: str | None = None
    accept: str | None = None
    allow_scale: str | None = None
    layers: str | None = None
    with_old_file: bool = False


@dataclass(frozen=True)
class GateResult:
    """The judgement of one model.

    Attributes:
        model: its path, as given.
        checks: the checks that did not pass, worst first, then those that passed.
        records: the new records.
        changes: the new records paired with the baseline's, as far as they are comparable.
        notes: what else changed since the baseline, one clause each.
        baseline: the file compared with; None if there was none.
        function: the change of the outputs; None if they were not compared.
        remarks: the notes that say how the model was judged; reports show them whatever the verdict.
        commands: what to do next; None if that is not known.
        compared_with: the path of the model before, as the baseline gives it; None if there is none.
        renewal: the change of the model's entry in the baseline; None without --update-baseline.
        replaced: the change of the outputs from the replaced baseline model to this one; None if it is not known.
    """

    model: str
    policy: Policy
    checks: tuple[Check, ...]
    records: tuple[Record, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    baseline: str | None = None
    function: FunctionChange | None = None
    remarks: tuple[str, ...] = ()
    commands: Commands | None = None
    compared_with: str | None = None
    renewal: Renewal | None = None
    replaced: FunctionChange | None = None

    def __repr__(self) -> str:
        """The model, its verdict, and its gains, in a line."""
        means = [(record.stimulus.name, record.gain.mean) for record in self.records]
        gains = [f"{name} {'no gain' if mean is None else f'{mean:.2f} dB'}" for name, mean in means]
        return f"<GateResult {self.model!r}: {', '.join([self.verdict, *gains])}>"

    @property
    def verdict(self) -> Verdict:
        """The first that applies: "error" if a check is an error or there is none, "fail" if there is a finding,
        "review" if a person has to look, "same function" if the outputs show it, "pass"."""
        outcomes = {check.outcome for check in self.checks}
        if not outcomes or not outcomes <= {"pass", "review", "finding"}:
            return "error"
        if outcomes != {"pass"}:
            return "fail" if "finding" in outcomes else "review"
        return "same function" if self.function is not None and judged(self.function) == "same function" else "pass"

    @property
    def may_be_accepted(self) -> bool:
        """Whether nothing speaks against the model as a new baseline, so that --update-baseline would pass it."""
        return all(check.name not in _OF_THE_MODEL for check in self.failed)

    @property
    def differs_in_scale(self) -> bool:
        """Whether records were not compared because the input scale is not the baseline's."""
        return any(check.name == "comparable" and "input scale" in check.message for check in self.failed)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if check.outcome != "pass")


_OF_THE_MODEL = frozenset(
    {"measured", "policy", "min-gain", "max-gain", "no-dead-channel", "random", "float16", "verified"}
)
"""The checks that need no baseline."""


def overall(results: Iterable[GateResult]) -> Verdict:
    """The worst verdict of several models; "error" if there is no model."""
    return max((result.verdict for result in results), key=VERDICTS.index, default="error")


def not_judged(model: str, policy: Policy, name: str, reason: str) -> GateResult:
    """The result for a model that could not be measured."""
    return GateResult(model, policy, (Check(name, "error", reason),))
