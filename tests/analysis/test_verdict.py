"""Pairing, comparing and judging records. Missing, invalid or incomparable values never pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from onnxgain.analysis.gate_result import Verification, not_judged, overall
from onnxgain.analysis.pairing import circumstances, differences, pair_models, pair_records
from onnxgain.analysis.policy import Policy
from onnxgain.analysis.verdict import evaluate
from onnxgain.errors import OnnxgainError
from onnxgain.measure.record import (
    EngineRecord,
    GainRecord,
    InterfaceRecord,
    ModelRecord,
    Record,
    ScaleRecord,
    SpectrumRecord,
    StimulusRecord,
    TimeRecord,
    stimulus_text,
)
from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import Stimulus, grating, impulse, noise, parse_stimulus

NAN, INF = float("nan"), float("inf")


def a_record(
    gains: tuple[float | None, ...] = (1.0, 2.0, 3.0),
    *,
    stimulus: StimulusRecord | None = None,
    class_index: int = 5,
    score: float = 0.5,
    shape: tuple[int, int, int] = (3, 32, 32),
    **changes: Any,
) -> Record:
    """A record whose mean gain is the mean of the gains, or None if one of them is None."""
    known = [gain for gain in gains if gain is not None]
    mean = sum(known) / len(known) if known and len(known) == len(gains) else None
    parameters = {"amplitude": 255.0, "x": shape[2] // 2, "y": shape[1] // 2}
    record = Record(
        model=ModelRecord("m.onnx", "out/m.onnx", "ab", 100, 17, "pytorch 2.0", 10),
        interface=InterfaceRecord("x", "NCHW", shape, "float", "y", "logits", 10),
        stimulus=stimulus or StimulusRecord("impulse", parameters, True),
        scale=scale(),
        projection="1/score",
        class_index=class_index,
        class_given=False,
        score=score,
        margin=1.0,
        gain=GainRecord(gains, mean),
        spectrum=SpectrumRecord((None,), (None,), (None,), (), (), ()),
        engine=EngineRecord("1", "onnxruntime", "1.0", "CPU", 1),
        assumptions=(),
        time=TimeRecord(0.0, 0.0, 0.0, 0.0),
    )
    return replace(record, **changes)


def scale(name: str = "imagenet", **changes: Any) -> ScaleRecord:
    preset = PRESETS[name]
    step = tuple(float(value) for value in preset.step(3))
    record = ScaleRecord(name, preset.mean, preset.std, preset.scale, preset.bgr, step, "option")
    return replace(record, **changes)


def noise_record(seed: int = 0, **changes: Any) -> Record:
    return a_record(stimulus=StimulusRecord("noise", {"seed": seed, "sigma": 64.0}, False), **changes)


def verdict(policy: Policy, now: Record | list[Record], before: Any = None, **options: Any) -> str:
    records = now if isinstance(now, list) else [now]
    baseline = before if before is None or isinstance(before, list) else [before]
    return evaluate(policy, records, baseline, **options).verdict


# ------------------------------------------------------------------------------------------------- bounds
UP, DOWN = a_record((1.3, 2.3, 3.3)), a_record((0.7, 1.7, 2.7))
MIXED = a_record((1.6, 1.4, 3.0))  # the mean is that of a_record()

BOUNDS: list[tuple[dict[str, Any], Record, str]] = [
    ({"min_gain": 2.0}, a_record(), "pass"),
    ({"min_gain": 2.0001}, a_record(), "fail"),
    ({"max_gain": 2.0}, a_record(), "pass"),
    ({"max_gain": 1.9999}, a_record(), "fail"),
    ({"min_gain": 1.0, "per_channel": True}, a_record(), "pass"),
    ({"min_gain": 1.1, "per_channel": True}, a_record(), "fail"),
    ({"max_gain": 3.0, "per_channel": True}, a_record(), "pass"),
    ({"max_gain": 2.9, "per_channel": True}, a_record(), "fail"),
    ({"min_gain": -5.0, "max_gain": 5.0}, a_record(), "pass"),
    ({"max_change": 0.31}, UP, "pass"),
    ({"max_change": 0.29}, UP, "fail"),
    ({"max_change": 0.31}, DOWN, "pass"),
    ({"max_change": 0.29}, DOWN, "fail"),
    ({"max_rise": 0.29}, UP, "fail"),
    ({"max_rise": 0.0}, DOWN, "pass"),
    ({"max_drop": 0.29}, DOWN, "fail"),
    ({"max_drop": 0.0}, UP, "pass"),
    ({"max_rise": 0.31, "max_drop": 0.0}, UP, "pass"),
    ({"max_change": 0.0}, a_record(), "pass"),
    ({"max_change": 0.1}, MIXED, "pass"),
    ({"max_change": 0.5, "per_channel": True}, MIXED, "fail"),
    ({"max_change": 0.61, "per_channel": True}, MIXED, "pass"),
    ({"same_class": True}, a_record(), "pass"),
    ({"same_class": True}, a_record(class_index=6), "fail"),
    ({"max_score_change": 0.1}, a_record(score=0.59), "pass"),
    ({"max_score_change": 0.1}, a_record(score=0.61), "fail"),
    ({"max_score_change": 0.1}, a_record(score=0.39), "fail"),
    ({"no_dead_channel": True}, a_record(), "pass"),
    ({"no_dead_channel": True}, a_record((1.0, None, 3.0)), "fail"),
]


@pytest.mark.parametrize(("bounds", "record", "expected"), BOUNDS, ids=lambda value: str(value)[:60])
def test_bounds(bounds: dict[str, Any], record: Record, expected: str) -> None:
    assert verdict(Policy(**bounds), record, a_record()) == expected


def test_every_field_of_a_policy_is_tested_above() -> None:
    elsewhere = {"verified", "allow_scale_change", "allow_random", "allow_float16"}
    elsewhere |= {"with_confidence", "fingerprint", "require"}
    assert {field.name for field in fields(Policy)} == {name for bounds, _, _ in BOUNDS for name in bounds} | elsewhere


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"max_gain": NAN}, "--max-gain: is nan"),
        ({"min_gain": -INF}, "--min-gain: is -inf"),
        ({"max_change": INF}, "--max-change: is inf"),
        ({"max_change": -1.0}, "--max-change: is -1"),
        ({"max_score_change": -0.1}, "--max-score-change: is -0.1"),
        ({"min_gain": 3.0, "max_gain": 2.0}, "no gain is at least 3 and at most 2 dB"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxgainError, match=message):
        Policy(**bounds)


# ---------------------------------------------------------------------------------------------- fails closed
POLICIES = [
    Policy(min_gain=-1e9), Policy(max_gain=1e9), Policy(max_change=1e9), Policy(max_rise=1e9), Policy(max_drop=1e9),
    Policy(max_score_change=1e9), Policy(same_class=True), Policy(verified=True), Policy(no_dead_channel=True),
    Policy(max_change=1e9, per_channel=True), Policy(min_gain=-1e9, per_channel=True), Policy(),
]  # fmt: skip
"""The loosest possible bounds: whatever fails these passes no bounds."""


def damaged(**changes: Any) -> Callable[[Record], Record]:
    return lambda record: replace(record, **changes)


DAMAGES: dict[str, Callable[[Record], Record]] = {
    "no gain at all": damaged(gain=GainRecord((None, None, None), None)),
    "no gain in a channel": damaged(gain=GainRecord((1.0, None, 3.0), None)),
    "no mean": damaged(gain=GainRecord((1.0, 2.0, 3.0), None)),
    "NaN in a channel": damaged(gain=GainRecord((1.0, NAN, 3.0), 2.0)),
    "NaN mean": damaged(gain=GainRecord((1.0, 2.0, 3.0), NAN)),
    "infinite gain": damaged(gain=GainRecord((1.0, -INF, 3.0), -INF)),
    "a channel missing": damaged(gain=GainRecord((1.0, 2.0), 1.5)),
    "no channel": damaged(gain=GainRecord((), None)),
    "NaN score": damaged(score=NAN),
}
"""Defects of the judged record that must not pass under any policy."""

FOREIGN: dict[str, Callable[[Record], Record]] = {
    "another stimulus": lambda record: replace(record, stimulus=noise_record().stimulus),
    "another place": lambda r: replace(r, stimulus=replace(r.stimulus, parameters=r.stimulus.parameters | {"x": 3})),
    "another window": lambda record: replace(record, stimulus=replace(record.stimulus, windowed=False)),
    "another size": lambda record: a_record(shape=(3, 64, 64)),
    "one channel": lambda record: a_record((2.0,), shape=(1, 32, 32)),
    "another projection": damaged(projection="logit"),
    "a class that was given": damaged(class_given=True),
    "another scale": damaged(scale=scale("unit")),
    "another mean": damaged(scale=scale(mean=(0.5, 0.456, 0.406))),
    "a scale of one channel": damaged(scale=scale(std=(0.229, 0.224))),
    "std zero": damaged(scale=scale(std=(0.0, 0.224, 0.225))),
}  # fmt: skip
"""Records that cannot be compared with the baseline."""


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_never_passes(policy: Policy, damage: str) -> None:
    assert verdict(policy, DAMAGES[damage](a_record()), a_record()) != "pass"
    assert verdict(policy, [a_record(), DAMAGES[damage](noise_record())], [a_record(), noise_record()]) != "pass"


RELATIVE = [policy for policy in POLICIES if policy.needs_baseline]


@pytest.mark.parametrize("policy", RELATIVE, ids=str)
@pytest.mark.parametrize("change", FOREIGN)
def test_an_incomparable_record_is_an_error(policy: Policy, change: str) -> None:
    """In either direction."""
    assert verdict(policy, FOREIGN[change](a_record()), a_record()) == "error"
    assert verdict(policy, a_record(), FOREIGN[change](a_record())) == "error"


@pytest.mark.parametrize("policy", RELATIVE, ids=str)
def test_missing_or_extra_record_is_an_error(policy: Policy) -> None:
    both = [a_record(), noise_record()]
    assert verdict(policy, both, list(reversed(both))) == "pass"
    assert verdict(policy, both, both[:1]) == "error"
    assert verdict(policy, both[:1], both) == "error"
    assert verdict(policy, [*both, noise_record()], both) == "error"
    assert verdict(policy, both, [*both, noise_record()]) == "error"
    assert verdict(policy, both, None) == "error"
    assert verdict(policy, both, []) == "error"
    assert verdict(policy, [], both) == "error"
    assert verdict(policy, [], []) == "error"
    assert verdict(replace(policy, max_gain=1e9), both) == "error"


GAINS = [policy for policy in RELATIVE if not policy.same_class and policy.max_score_change is None]


@pytest.mark.parametrize("policy", GAINS, ids=str)
def test_baseline_without_a_gain_is_an_error(policy: Policy) -> None:
    """A dead channel in the baseline does not excuse the model; one in both is a finding about the model."""
    holes = a_record((None, None, None))
    assert verdict(policy, a_record(), holes) == "error"
    assert verdict(policy, a_record(), replace(a_record(), gain=GainRecord((NAN, NAN, NAN), NAN))) == "error"
    assert verdict(policy, holes, holes) == "error"


def test_given_class_indices_must_be_equal() -> None:
    five, six = a_record(class_given=True), a_record(class_given=True, class_index=6)
    assert verdict(Policy(max_change=1.0), five, five) == "pass"
    assert verdict(Policy(max_change=1.0), six, five) == "error"


@pytest.mark.parametrize("policy", [Policy(same_class=True), Policy(max_score_change=1.0)], ids=str)
def test_different_class_counts_cannot_be_compared(policy: Policy) -> None:
    other = replace(a_record(), interface=replace(a_record().interface, classes=11))
    assert verdict(policy, other, a_record()) == "error"
    assert verdict(Policy(max_change=1.0), other, a_record()) == "pass"


def test_a_policy_without_a_check_passes_nothing() -> None:
    assert verdict(Policy(), a_record(), a_record()) == "error"
    assert verdict(Policy(per_channel=True, allow_scale_change=True), a_record(), a_record()) == "error"


@pytest.mark.parametrize(
    ("verifications", "expected"),
    [
        (None, "error"),
        ([], "error"),
        ([True], "error"),
        ([True, True], "pass"),
        ([True, False], "fail"),
        ([True, None], "error"),
        ([False, None], "error"),
    ],
)
def test_every_gradient_must_be_verified(verifications: list[bool | None] | None, expected: str) -> None:
    given = None if verifications is None else [Verification("impulse", agrees, "") for agrees in verifications]
    both = [a_record(), noise_record()]
    assert verdict(Policy(verified=True), both, verifications=given) == expected
    assert verdict(Policy(verified=True), [], verifications=given) != "pass"
    assert verdict(Policy(verified=True), [], verifications=[Verification("impulse", True, "")]) == "error"


# ---------------------------------------------------------------------------------------------------- scale
def test_allowed_scale_change_is_compared_and_noted() -> None:
    now = a_record(scale=scale("unit"))
    result = evaluate(Policy(max_change=0.1, allow_scale_change=True), [now], [a_record()])
    assert result.verdict == "pass"
    assert any(note.startswith("input scale imagenet with a step of") for note in result.notes)


def test_equivalent_scales_are_equal() -> None:
    levels = scale(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), scale=1.0, source="model")
    assert verdict(Policy(max_change=0.0), a_record(scale=levels), a_record()) == "pass"


def test_channels_are_compared_by_name() -> None:
    """A BGR model has the same gains in another order."""
    names = {"mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229), "bgr": True}
    swapped = a_record((3.0, 2.0, 1.0), scale=scale(**names))
    assert verdict(Policy(max_change=0.0, per_channel=True), swapped, a_record()) == "pass"
    (change,) = pair_records([a_record()], [swapped]).changes
    assert [(gain.channel, gain.delta) for gain in change.channels] == [("B", 0.0), ("G", 0.0), ("R", 0.0)]


# -------------------------------------------------------------------------------------------------- ordering
def test_failed_checks_come_first_worst_first() -> None:
    now = [a_record((1.5, 2.5, 5.0), class_index=6), noise_record(score=0.9)]
    before = [a_record(), noise_record()]
    policy = Policy(max_change=0.1, per_channel=True, same_class=True, max_score_change=0.1, verified=True)
    policy = replace(policy, with_confidence=True)
    checks = [Verification("impulse", True, "fine"), Verification("noise:seed=0", False, "off")]
    result = evaluate(policy, now, before, verifications=checks)
    failed = [(check.name, check.stimulus, check.channel) for check in result.failed]
    assert failed == [
        ("verified", "noise:seed=0", None),
        ("max-change", "impulse", "B"),
        ("max-change", "impulse", "R"),
        ("max-change", "impulse", "G"),
        ("same-class", "impulse", None),
        ("max-score-change", "noise:seed=0", None),
    ]
    assert [check.outcome for check in result.checks[len(failed) :]] == ["pass"] * (len(result.checks) - len(failed))
    excess = [check.excess for check in result.failed[1:4]]
    assert excess == pytest.approx([1.9, 0.4, 0.4])
    foreign = evaluate(policy, [*now, noise_record(seed=7)], before, verifications=[*checks, checks[0]])
    assert foreign.checks[0].outcome == "error"


def test_findings_contain_the_numbers() -> None:
    result = evaluate(Policy(max_change=0.1, min_gain=2.45, max_rise=0.2), [UP], [a_record()])
    assert [check.message for check in result.failed] == [
        "gain changed by +0.30 dB, more than 0.10 (2.00 -> 2.30 dB)",
        "gain 2.30 dB is below 2.45 dB",
        "gain rose by 0.30 dB, more than 0.20 (2.00 -> 2.30 dB)",
    ]
    (check,) = evaluate(Policy(max_gain=2.0), [a_record((2.0001, 2.0001, 2.0001))]).failed
    assert check.message == "gain 2.0001 dB is above 2.0000 dB"


def test_error_takes_precedence_over_a_finding() -> None:
    passed = evaluate(Policy(max_gain=5.0), [a_record()])
    failed = evaluate(Policy(max_gain=0.0), [a_record()])
    error = not_judged("m", Policy(), "measured", "unreadable")
    assert (passed.verdict, failed.verdict, error.verdict) == ("pass", "fail", "error")
    for results in itertools.permutations((passed, failed, error)):
        assert overall(results) == "error"
    assert overall([failed, passed]) == "fail"
    assert overall([passed]) == "pass"
    assert overall([]) == "error"


# --------------------------------------------------------------------------------------------------- pairing
def test_mismatches_name_what_differs_and_what_to_do() -> None:
    def only(before: list[Record], after: list[Record]) -> str:
        (mismatch,) = pair_records(before, after).mismatches
        return f"{mismatch.stimulus} {mismatch.what}; {mismatch.remedy}"

    assert "seed=0, now noise:seed=3" in only([noise_record()], [noise_record(3)])
    assert "image size 3x32x32, now 3x64x64" in only([a_record()], [a_record(shape=(3, 64, 64))])
    assert "projection 1/score, now logit" in only([a_record()], [a_record(projection="logit")])
    assert "the winner, now 5 as given" in only([a_record()], [a_record(class_given=True)])
    assert only([a_record(), noise_record()], [a_record()]).endswith("not now; add --stimulus noise:seed=0")
    assert "was not measured before" in only([a_record()], [a_record(), noise_record()])
    scaled = only([a_record()], [a_record(scale=scale("unit", source="default"))])
    assert "input scale imagenet with a step of" in scaled
    assert "now unit (assumed) with a step of 0.003922" in scaled
    assert scaled.endswith("--allow-scale-change")


def photo(**changes: Any) -> Record:
    return a_record(
        stimulus=StimulusRecord("photograph", {"crop": 0.875, "file": "a.jpg", "sha256": "0" * 64} | changes, False)
    )


def test_photographs_are_identified_by_content() -> None:
    other = photo(sha256="f" * 64)
    assert verdict(Policy(max_change=1.0), photo(), photo()) == "pass"
    assert verdict(Policy(max_change=1.0), other, photo()) == "error"
    (found,) = differences(photo(), other)
    assert found == "stimulus a.jpg (sha256 00000000...), now a.jpg (sha256 ffffffff...)"
    assert "cropped to 1.0" in differences(photo(), photo(crop=1.0))[0]


@pytest.mark.parametrize(
    ("names", "baseline", "expected"),
    [
        (["a.onnx"], ["b.onnx"], {"a.onnx": "b.onnx"}),
        (["a.onnx", "b.onnx"], ["b.onnx", "a.onnx"], {"a.onnx": "a.onnx", "b.onnx": "b.onnx"}),
        (["a.onnx", "b.onnx"], ["a.onnx"], {"a.onnx": "a.onnx"}),
        (["a.onnx", "b.onnx"], ["c.onnx"], {"a.onnx": "c.onnx", "b.onnx": "c.onnx"}),
        (["/c/x/m", "/c/y/m"], ["y/m", "x/m"], {"/c/x/m": "x/m", "/c/y/m": "y/m"}),
        (["x/m.onnx", "y/m.onnx"], ["m.onnx"], {"x/m.onnx": "m.onnx", "y/m.onnx": "m.onnx"}),
        (["m.onnx"], ["x/m.onnx", "y/m.onnx"], {}),
        (["x/m.onnx", "y/m.onnx"], ["x/m.onnx", "z/m.onnx"], {"x/m.onnx": "x/m.onnx"}),
        (["out\\m.onnx", "n.onnx"], ["out/m.onnx", "k.onnx"], {"out\\m.onnx": "out/m.onnx"}),
        ([], ["a.onnx"], {}),
    ],
)  # fmt: skip
def test_models_are_paired_by_path(names: list[str], baseline: list[str], expected: dict[str, str]) -> None:
    assert pair_models(names, baseline) == expected


def test_lone_pair_with_different_names_can_be_refused() -> None:
    assert pair_models(["a.onnx"], ["b.onnx"], lone=False) == {}
    assert pair_models(["x/a.onnx"], ["a.onnx"], lone=False) == {"x/a.onnx": "a.onnx"}


def test_circumstances_name_what_else_changed() -> None:
    before = a_record()
    model = replace(before.model, sha256="cd", opset=13, producer="onnx.quantize 0.1", parameters=1234567)
    engine = replace(before.engine, version="1.1")
    now = replace(before, model=model, engine=engine, assumptions=("half the truth",))
    assert circumstances(before, now) == [
        "the file differs",
        "producer pytorch 2.0 -> onnx.quantize 0.1",
        "opset 17 -> 13",
        "parameters 10 -> 1,234,567",
        "runtime onnxruntime 1.0 -> onnxruntime 1.1",
        "newly assumed: half the truth",
    ]
    assert circumstances(before, before) == ["the file is the same"]
    unknown = replace(before, model=replace(before.model, sha256=""))
    assert circumstances(unknown, unknown) == ["the file differs"]


# ------------------------------------------------------------------------------------------------ stimulus text
SHAPE = (3, 32, 32)
STIMULI: list[tuple[Stimulus, str]] = [
    (impulse(SHAPE, PRESETS["unit"]), "impulse"),
    (impulse(SHAPE, PRESETS["unit"], amplitude=128), "impulse:amplitude=128.0"),
    (impulse(SHAPE, PRESETS["unit"], position=(3, 5)), "impulse:x=5,y=3"),
    (noise(SHAPE, PRESETS["unit"]), "noise:seed=0"),
    (noise(SHAPE, PRESETS["unit"], seed=7, sigma=1 / 3), f"noise:seed=7,sigma={1 / 3!r}"),
    (grating(SHAPE, PRESETS["unit"], frequency=0.1), "grating:frequency=0.1"),
    (grating(SHAPE, PRESETS["unit"], frequency=0.1, angle=30, phase=45, contrast=0.5),
     "grating:angle=30.0,contrast=0.5,frequency=0.1,phase=45.0"),
]  # fmt: skip


@pytest.mark.parametrize(("stimulus", "text"), STIMULI, ids=[text for _, text in STIMULI])
def test_stimulus_text_parses_to_the_same_stimulus(stimulus: Stimulus, text: str) -> None:
    record = a_record(stimulus=StimulusRecord(stimulus.name, stimulus.parameters, stimulus.windowed))
    assert stimulus_text(record) == text
    again = parse_stimulus(text, SHAPE, PRESETS["unit"])
    assert (again.name, again.parameters, again.windowed) == (stimulus.name, stimulus.parameters, stimulus.windowed)
    assert (again.image == stimulus.image).all()


def test_many_records_are_all_paired() -> None:
    """Pairing a thousand photographs is fast and correct."""
    before = [photo(file=f"{n}.jpg", sha256=f"{n:064}") for n in range(1000)]
    pairing = pair_records(before, list(reversed(before)))
    assert not pairing.mismatches
    assert all(change.before == change.after for change in pairing.changes)
    assert len(pairing.changes) == 1000
    assert math.isclose(sum(change.mean.delta or 0.0 for change in pairing.changes), 0.0)
