"""Study whether `diff --layers` finds the layer that changed, and the layers to keep in float.

    python -m scripts.studies.layers_study run --shared ../shared --cifar cifar10.npz --work DIR [--network NAME ...]
    python -m scripts.studies.layers_study report --work DIR --out DIR

`run` damages one layer of each network in ten ways, and quantizes others to int8; it ranks the layers with `diff
--layers`, with onnxruntime's qdq_loss_debug and by the distance of weights. Existing results in DIR are not computed
again, so `run` can be interrupted and resumed. `report` writes layers_study.csv and layers_study.md from the results.

    pip install numpy onnx onnxruntime pillow
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxgain.analysis.layers import LayerChange, layer_changes
from onnxgain.files import atomic_write
from onnxgain.measure.layer_errors import layer_errors
from onnxgain.measure.layer_pair import layer_pair
from scripts.studies import layers_report
from scripts.studies.gate_networks import answers, session
from scripts.studies.layers_damage import DAMAGES, Damaged
from scripts.studies.layers_networks import Bench, agreement, prepare, quantize, unquantized
from scripts.studies.layers_rivals import qdq_loss_debug, tensor_errors, weight_distance

DAMAGED = (
    "cifar10_resnet32", "mlperf_tiny_resnet_large_cifar10", "mlperf_tiny_vww_mobilenet025", "MobileNetV3Small",
    "squeezenet1.1_from_fp16", "torchvision_mobilenet_v2",
)  # fmt: skip
QUANTIZED = ("cifar10_resnet44", "torchvision_resnet18", "efficientnet_lite0", "mobilenet_v1_1.0_224")
"""The networks, without those that the rule was developed on: cifar10_resnet20, mlperf_tiny_resnet8_cifar10 and
coral_mobilenet_v1_0.25_128_quant_deq."""

OTHER_WAYS: dict[str, Callable[[LayerChange], float]] = {
    "by along": lambda layer: layer.error.along or 0.0,
    "by adds": lambda layer: layer.added_error,
}
"""Other orders of the layers that `diff --layers` lists."""
KEPT = 3
"""Number of layers kept in float."""
TRIES = 20
LEAST = 0.01
"""Minimum relative change of the logits at the test images; with less, another layer is damaged instead. Damage of an
int8 model must also change them at least twice as much as its quantization."""


# ------------------------------------------------------------------------------------------------ damage
def damage_case(bench: Bench, name: str) -> dict[str, Any]:
    """One damaged layer, and its position in each ranking (from 1; None if it is missing)."""
    damaged, change = _effective(bench, name)
    found = layer_changes(
        layer_errors(layer_pair(bench.read(damaged.before), bench.read(damaged.after), threads=1))
    ).layers
    before, after = bench.save(damaged.before, "before"), bench.save(damaged.after, "after")
    rivals = (qdq_loss_debug if damaged.quantized else tensor_errors)(bench, before, after)
    rivals["weight distance"] = weight_distance(damaged.before, damaged.after)
    ranks = {"diff --layers": _place([_tensors(layer) for layer in found], damaged.tensors)}
    ranks |= {rival: _place([{tensor} for tensor in order], damaged.tensors) for rival, order in rivals.items()}
    return {
        "layer": sorted(damaged.tensors),
        "change": change,
        "ranks": ranks,
        "first": found[0].name if found else None,
        "changed": len(found),
    }


def _effective(bench: Bench, name: str) -> tuple[Damaged, float]:
    """A damage with an effect on the outputs, and the size of that effect."""
    images = bench.test.images[:32]
    rng = np.random.default_rng(zlib.crc32(f"{bench.network.name} {name}".encode()))
    logits = lambda model: answers(session(model), bench.interface, images)
    tried: list[tuple[float, Damaged, float]] = []
    for _ in range(TRIES):
        damaged = DAMAGES[name](bench, rng)
        before, after = logits(damaged.before), logits(damaged.after)
        size = np.linalg.norm(before - before.mean(axis=1, keepdims=True))
        least, sound = LEAST, before
        if damaged.quantized:
            sound = logits(quantize(bench, per_channel=True))
            least = max(LEAST, 2 * float(np.linalg.norm(sound - before) / size))
        change = float(np.linalg.norm(after - sound) / size)
        if change >= least:
            return damaged, change
        tried.append((change / least, damaged, change))
    _, damaged, change = max(tried, key=lambda x: x[0])
    return damaged, change


def _tensors(layer: LayerChange) -> set[str]:
    return {tensor.tensor for tensor in layer.error.tensors}


def _place(ranking: Sequence[set[str]], wanted: Collection[str]) -> int | None:
    return next((number for number, tensors in enumerate(ranking, start=1) if tensors & set(wanted)), None)


# --------------------------------------------------------------------------------------------- quantized
def quantized_case(bench: Bench, *, per_channel: bool) -> dict[str, Any]:
    """An int8 model, and its improvement when the first three layers of each ranking are kept in float."""
    model = quantize(bench, per_channel=per_channel)
    count = min(bench.network.images, 1000, len(bench.test.labels))
    reference = answers(session(bench.model), bench.interface, bench.test.images[:count])
    found = layer_changes(layer_errors(layer_pair(bench.read(bench.model), bench.read(model), threads=1))).layers
    rivals = qdq_loss_debug(bench, bench.path, bench.save(model, "after"))
    rivals["weight distance"] = weight_distance(bench.model, model)
    rankings = {"diff --layers": [layer.worst.tensor for layer in found]} | rivals
    for name, key in OTHER_WAYS.items():
        rankings[name] = [layer.worst.tensor for layer in sorted(found, key=key, reverse=True)]
    rows = {}
    for ranking, order in rankings.items():
        layers = _first(order, found)
        nodes = {node for layer in layers for node in _nodes(layer, bench)}
        kept = agreement(bench, unquantized(model, bench.model, nodes), reference, count)
        rows[ranking] = asdict(kept) | {"layers": [layer.name for layer in layers]}
    return {
        "images": count,
        "changed": len(found),
        "int8": asdict(agreement(bench, model, reference, count)),
        "kept": rows,
    }


def _first(order: Sequence[str], layers: Sequence[LayerChange]) -> list[LayerChange]:
    """The layers of the first tensors in a ranking."""
    of_tensor = {tensor: layer for layer in layers for tensor in _tensors(layer)}
    found = dict.fromkeys(layer.name for name in order if (layer := of_tensor.get(name)) is not None)
    by_name = {layer.name: layer for layer in layers}
    return [by_name[name] for name in list(found)[:KEPT]]


def _nodes(layer: LayerChange, bench: Bench) -> set[str]:
    image = {"image"} if bench.interface.name in _tensors(layer) else set()
    return {*layer.error.nodes, *image}


# ------------------------------------------------------------------------------------------------- running
def cases(damaged: Sequence[str], quantized: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in damaged:
        yield from ((name, damage) for damage in DAMAGES)
    for name in quantized:
        yield from ((name, form) for form in ("int8 per channel", "int8 per tensor"))


def run(work: Path, shared: Path, cifar: Path, wanted: Sequence[tuple[str, str]]) -> None:
    bench: Bench | None = None
    for name, what in wanted:
        path = work / f"{name}.{what.replace(' ', '_')}.json"
        if path.exists():
            continue
        if bench is None or bench.network.name != name:
            bench = prepare(name, shared, cifar, work)
        start = time.monotonic()
        if what in DAMAGES:
            found = damage_case(bench, what)
        else:
            found = quantized_case(bench, per_channel=what == "int8 per channel")
        found |= {"network": name, "what": what, "onnxruntime": _version()}
        atomic_write(path, json.dumps(found, indent=1))
        print(f"{name} {what}: {_short(found)} ({time.monotonic() - start:.0f} s)", flush=True)


def _version() -> str:
    import onnxruntime

    return f"{onnxruntime.__version__}, onnx {onnx.__version__}"


def _short(found: Mapping[str, Any]) -> str:
    if "ranks" in found:
        return ", ".join(f"{name} {rank}" for name, rank in found["ranks"].items())
    rows = {"int8": found["int8"]} | found["kept"]
    return ", ".join(f"{name} {row['divergence']:.3g}" for name, row in rows.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs, reports = commands.add_parser("run"), commands.add_parser("report")
    runs.add_argument("--shared", type=Path, required=True)
    runs.add_argument("--cifar", type=Path, required=True)
    runs.add_argument("--damage", nargs="*", default=DAMAGED, help="networks to damage")
    runs.add_argument("--quantize", nargs="*", default=QUANTIZED, help="networks to quantize")
    reports.add_argument("--out", type=Path, required=True)
    for command in (runs, reports):
        command.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "run":
        given.work.mkdir(parents=True, exist_ok=True)
        run(given.work, given.shared, given.cifar, list(cases(given.damage, given.quantize)))
    else:
        layers_report.write(given.work, given.out, list(cases(DAMAGED, QUANTIZED)))


if __name__ == "__main__":
    main()
