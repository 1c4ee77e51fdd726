"""The results of the layers study as CSV and as a page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxgain.files import atomic_write
from scripts.studies.gate_report import wilson

OURS = "diff --layers"
RIVALS = ("xmodel_err", "qdq_err", "weight error", "weight distance")
MEANINGS = {
    OURS: "the length of the first-order change of the logits by the layer's own error; no data",
    "xmodel_err": "signal-to-noise ratio of each activation against the float model's; 8 images of the test set's kind",
    "qdq_err": "the same before and after the activation's own rounding; int8 only",
    "weight error": "signal-to-noise ratio of the weights; int8 only",
    "weight distance": "relative L2 distance of weights and biases of one name",
    "by along, by adds": "other orders of what `diff --layers` found, tried as its own is not always best",
}
WAYS = ("by along", "by adds")
LIMITS = (
    "Where another choice is better, in cifar10_resnet44, synthetic images mislead: they leave the range of "
    "activations that the quantizer was calibrated for. Of its form per tensor the three layers named first "
    "carry 55 % of the change at them by the estimate; two of these add errors of 7 % there, of 0.7 % at the "
    "calibration images. Ranked at 24 of those instead, three other layers come first (node_avg_pool2d, "
    "node_relu_28, node_relu), which leave 0.648. Neither of the two other orders is better there; `by along` "
    "is better in two other models and worse in two, of those where it was tried. Measure again after keeping "
    "layers.\n\n"
    "Tensors have been matched in more ways since these results (names that moved, quantized operators); the "
    "order is the same. Of efficientnet_lite0, per channel, the three layers are others now, and leave 1.54."
)
Found = Mapping[str, Any]


def write(work: Path, out: Path, wanted: Sequence[tuple[str, str]]) -> None:
    """Write layers_study.csv and layers_study.md, which also lists cases that were not run."""
    paths = [work / f"{network}.{what.replace(' ', '_')}.json" for network, what in wanted]
    found = [json.loads(path.read_text()) for path in paths if path.exists()]
    missing = [path.stem for path in paths if not path.exists()]
    damaged, quantized = [x for x in found if "ranks" in x], [x for x in found if "kept" in x]
    atomic_write(out / "layers_study.csv", _csv(damaged, quantized))
    parts = [*_head(found, missing), *_damage(damaged), *_kept(quantized)]
    atomic_write(out / "layers_study.md", "\n\n".join(parts) + "\n")


def _head(found: Sequence[Found], missing: Sequence[str]) -> Iterable[str]:
    yield "# The layers study"
    yield (
        "Whether `diff --layers` names the layer that changed, and the layers to keep in float. Made by "
        "`scripts/studies/layers_study.py` with onnxruntime "
        f"{', '.join(sorted({x['onnxruntime'] for x in found}))}. The rule was made on cifar10_resnet20, "
        "mlperf_tiny_resnet8_cifar10 and coral_mobilenet_v1_0.25_128, none of which is here, and judged once."
    )
    if missing:
        yield f"Not run: {', '.join(missing)}."
    yield "\n".join(f"- `{name}`: {meaning}." for name, meaning in MEANINGS.items())
    yield (
        "`xmodel_err`, `qdq_err` and `weight error` are those of `onnxruntime.quantization.qdq_loss_debug`, where the "
        "models are a float one and its QDQ form; of other pairs `xmodel_err` is its ratio for all activations of one "
        "name."
    )


# -------------------------------------------------------------------------------------------------- damage
def _damage(found: Sequence[Found]) -> Iterable[str]:
    yield "## One damaged layer"
    yield (
        "Each network has one layer damaged in each of ten ways, a layer drawn by chance; a damage that moves the "
        "logits by less than 1 % is done to another layer, and so is one of an int8 model that moves them by less than "
        "twice of what the quantization itself does. A ranking is right where the damaged layer comes first. With 95 % "
        "Wilson intervals."
    )
    rows = [("all", found)]
    rows += [(what, [x for x in found if x["what"] == what]) for what in dict.fromkeys(x["what"] for x in found)]
    rows += [(name, [x for x in found if x["network"] == name]) for name in dict.fromkeys(x["network"] for x in found)]
    rankings = (OURS, "xmodel_err", "weight distance")
    body = [[name, str(len(group)), *(_rate(group, ranking) for ranking in rankings)] for name, group in rows]
    yield _table(["variants", "number", *rankings], body)
    int8 = [x for x in found if "qdq_err" in x["ranks"]]
    rates = ", ".join(f"{name} {_hits(int8, name)} of {len(int8)}" for name in (OURS, *RIVALS))
    yield f"Of the variants that compare a float model with its QDQ form: {rates}."
    wrong = [x for x in found if x["ranks"][OURS] != 1]
    if wrong:
        yield "Where `diff --layers` names another layer first:"
        yield "\n".join(
            f"- {x['network']}, {x['what'].replace('_', ' ')} of {x['layer'][0]}: first is {x['first']}, the damaged "
            f"layer is number {x['ranks'][OURS] or '-'} of {x['changed']}"
            for x in wrong
        )


def _hits(found: Sequence[Found], ranking: str) -> int:
    return sum(x["ranks"].get(ranking) == 1 for x in found)


def _rate(found: Sequence[Found], ranking: str) -> str:
    hits = _hits(found, ranking)
    low, high = wilson(hits, len(found))
    return f"{hits} ({100 * hits / len(found):.0f} %, {100 * low:.0f} to {100 * high:.0f})"


# ---------------------------------------------------------------------------------------------------- kept
def _kept(found: Sequence[Found]) -> Iterable[str]:
    yield "## Three layers kept in float"
    yield (
        "int8 models by `quantize_static`: QDQ, uint8 activations from minima and maxima at 32 images, int8 weights. "
        "The three layers that a ranking names first keep their weights, biases and outputs in float. Divergence: "
        "Jensen-Shannon, of the class probabilities from the float model's, mean of the test images, in units of "
        "0.001 nats; in parentheses the share of images with the float model's class first, and 1 - cosine of the "
        "centred logits."
    )
    rankings = (OURS, *RIVALS, *WAYS)
    body = [
        [f"{x['network']}, {x['what']}", _agreement(x["int8"]), *(_agreement(x["kept"].get(name)) for name in rankings)]
        for x in found
    ]
    yield _table(["model", "int8", *rankings], body)
    best = sum(x["kept"][OURS]["divergence"] < min(x["kept"][rival]["divergence"] for rival in RIVALS) for x in found)
    yield f"The least divergence of all comes from the layers of `diff --layers` in {best} of {len(found)} models."
    yield LIMITS
    names = [
        [
            f"{x['network']}, {x['what']}",
            *(", ".join(x["kept"][r]["layers"]) if r in x["kept"] else "-" for r in rankings),
        ]
        for x in found
    ]
    yield _table(["layers kept", *rankings], names)


def _agreement(row: Found | None) -> str:
    if row is None:
        return "-"
    return f"{1000 * row['divergence']:.3g} ({100 * row['same']:.1f} %, {1 - row['cosine']:.2g})"


# --------------------------------------------------------------------------------------------------- forms
def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(heading)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows))


def _csv(damaged: Sequence[Found], quantized: Sequence[Found]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["network", "what", "ranking", "place", "divergence", "same", "cosine", "layers"])
    for x in damaged:
        for ranking, place in x["ranks"].items():
            layers = x["layer"][0] if ranking != OURS else x["first"]
            writer.writerow([x["network"], x["what"], ranking, place, "", "", "", layers])
    for x in quantized:
        for ranking, row in ({"int8": x["int8"]} | x["kept"]).items():
            numbers = (row["divergence"], row["same"], row["cosine"])
            writer.writerow([x["network"], x["what"], ranking, "", *numbers, " ".join(row.get("layers", ()))])
    return buffer.getvalue()
