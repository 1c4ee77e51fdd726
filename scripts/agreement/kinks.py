"""Test whether a rule for values near the kink of ReLU and Clip makes a gain independent of rounding.

    python -m scripts.agreement.kinks MODEL.onnx ... [--noise 1e-6] [--draws 3] [--table FILE]

`scripts.agreement.rounding` measures how noise on every activation, which stands for rounding that depends on the
position, changes a gain. This script tries two rules in the portable form, each with a width relative to the image's
largest activation. *shift*: values within that width of the kink count as on its flat side. *ramp*: the derivative
grows linearly from the flat side to the other over that width. For each, it prints the largest difference of a channel
in dB: without noise from the CPU form (the effect of the rule), with noise from the CPU form (what users would see),
and with noise from the same rule without noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onnxgain.gradient.op import Op
from onnxgain.gradient.reverse import lowering
from onnxgain.gradient.values import Value, rank
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.differentiate import differentiate
from scripts.agreement.rounding import add_noise, gains

Rule = tuple[str, float] | None
RULES: tuple[Rule, ...] = (None, ("shift", 1e-6), ("shift", 1e-5), ("ramp", 1e-5), ("ramp", 1e-4))


def main() -> None:
    """Print a line per model and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--noise", type=float, default=1e-6)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines = [
        f"`scripts/agreement/kinks.py`, noise {options.noise:g}, {options.draws} draws",
        "",
        "| model | rule | changes it by, dB | with noise, from the CPU form, dB | with noise, from itself, dB |",
        "|---|---|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for path in options.models:
        classifier = load_classifier(path)
        cpu = gains(classifier, differentiate(classifier, target="cpu", scaled=False))
        for rule in RULES:
            own = portable_gains(classifier, rule)
            noisy = [portable_gains(classifier, rule, options.noise, seed) for seed in range(options.draws)]
            cells = (
                np.abs(own - cpu).max(),
                max(np.abs(draw - cpu).max() for draw in noisy),
                max(np.abs(draw - own).max() for draw in noisy),
            )
            named = "none" if rule is None else f"{rule[0]} {rule[1]:g}"
            lines.append(f"| {path.stem} | {named} | {' | '.join(f'{cell:.4f}' for cell in cells)} |")
            print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def portable_gains(classifier: Classifier, rule: Rule, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """The gain of each channel by the portable form with a rule, in dB."""
    plain = lowering._kept
    lowering._kept = plain if rule is None else ruled(*rule)
    try:
        model = differentiate(classifier, target="portable", scaled=False)
    finally:
        lowering._kept = plain
    if noise:
        add_noise(model, noise, seed)
    return gains(classifier, model)


def ruled(kind: str, width: float) -> Callable[..., Value]:
    """The replacement of `lowering._kept`."""

    def kept(op: Op, dy: Value, y: Value, bound: Value, step: Callable[..., Value], *_: object) -> Value:
        reach = op.Abs(op.ReduceMax(y, list(range(1, rank(y))), keepdims=1)) * width
        lead = y - bound if step is lowering.above else bound - y
        if kind == "shift":
            return op.Where(op.Greater(lead, reach), dy, op.like(0.0, dy))
        return dy * op.Min(op.Max(lead, 0.0) / reach, 1.0)

    return kept


if __name__ == "__main__":
    main()
