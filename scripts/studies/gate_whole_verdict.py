"""Judge the variants of the gate study as `onnxgain gate` does: also by what the file itself answers.

    python -m scripts.studies.gate_whole_verdict --shared ../shared --cifar cifar10.npz --out FILE.md [--network NAME]

`gate_study` judges by the divergence of the logits. The gate also runs the file as it stands, and compares its other
outputs, batches, silenced and exchanged classes. This makes each variant again, compares its whole fingerprint with
that of the original, and takes the lost accuracy from results/gate_study.csv. The page counts the verdicts by lost
accuracy, and lists the variants that something else than the divergence decided.

    pip install numpy onnx onnxruntime pillow
"""

from __future__ import annotations

import argparse
import csv
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from onnxgain.analysis.function_change import FunctionChange, function_change
from onnxgain.analysis.function_verdict import FAIL_DIVERGENCE, PASS_DIVERGENCE, SAME_DIVERGENCE, judged
from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write
from onnxgain.measure.forward import fingerprint
from scripts import ROOT
from scripts.studies.gate_graphs import UnsuitableError, constants_to_initializers
from scripts.studies.gate_networks import NETWORKS, Network, find_model, load_data
from scripts.studies.gate_report import wilson
from scripts.studies.gate_study import HARMFUL, HARMLESS, interface_of, read
from scripts.studies.gate_variants import VARIANTS, Bench

VERDICTS = ("same function", "pass", "review", "fail", "error")


class Case(NamedTuple):
    """A variant, the points of accuracy that it loses, its verdict, that by divergence alone, and the reasons."""

    network: str
    variant: str
    loss: float
    verdict: str
    by_divergence: str
    reasons: tuple[str, ...]


def losses() -> dict[tuple[str, str], float]:
    """The points that each variant loses, by network and variant."""
    with (ROOT / "scripts" / "results" / "gate_study.csv").open(newline="") as file:
        return {(row["network"], row["variant"]): float(row["loss"]) for row in csv.DictReader(file)}


def by_divergence(change: FunctionChange) -> str:
    limits = (SAME_DIVERGENCE, PASS_DIVERGENCE, FAIL_DIVERGENCE)
    return next((word for word, limit in zip(VERDICTS, limits, strict=False) if change.divergence <= limit), "fail")


def cases(network: Network, shared: Path, cifar: Path) -> Iterator[Case]:
    original = onnx.load(find_model(network.name, shared))
    constants_to_initializers(original)
    classifier = read(original, network)
    interface = interface_of(classifier)
    train, _ = load_data(network.data, interface.shape[1], shared, cifar)
    bench, before, known = Bench(original, interface, train, network.offset), fingerprint(classifier), losses()
    for name, (_, make) in VARIANTS.items():
        if (network.name, name) not in known:
            continue
        bench.rng, bench.declared = np.random.default_rng(zlib.crc32(f"{network.name}/{name}".encode())), None
        loss = known[network.name, name]
        try:
            change = function_change(before, fingerprint(read(make(bench), network, bench)))
        except UnsuitableError:
            continue
        except OnnxgainError as error:
            yield Case(network.name, name, loss, "error", "", (error.what,))
            continue
        if change.obstacle is not None:
            yield Case(network.name, name, loss, judged(change), "", (change.obstacle,))
            continue
        lost = tuple(f"class {index} no longer responds" for index in change.lost[:1])
        moved = ("classes are exchanged",) if change.moved else ()
        reasons = (*change.own.found, *change.own.doubts, *lost, *moved)
        yield Case(network.name, name, loss, judged(change), by_divergence(change), reasons)


def page(found: list[Case]) -> str:
    groups = {
        f"lost {HARMFUL:g} point or more": [case for case in found if case.loss >= HARMFUL],
        "in between": [case for case in found if HARMLESS < case.loss < HARMFUL],
        f"lost {HARMLESS:g} or less": [case for case in found if case.loss <= HARMLESS],
    }
    networks = ", ".join(dict.fromkeys(case.network for case in found))
    lines = [
        "# Whole verdicts", "",
        f"{len(found)} variants of {networks}, judged as `onnxgain gate` does "
        "(`python -m scripts.studies.gate_whole_verdict`). Failures with 95 % Wilson intervals.", "",
        f"| variants | number | {' | '.join(VERDICTS)} | failed, or not judged | failed by divergence alone |",
        "|---|---:|" + "---:|" * (len(VERDICTS) + 2),
    ]  # fmt: skip
    for title, group in groups.items():
        counts = Counter(case.verdict for case in group)
        failed = counts["fail"] + counts["error"]
        low, high = wilson(failed, max(len(group), 1))
        rate = f"{100 * failed / max(len(group), 1):.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        alone = sum(case.by_divergence == "fail" for case in group)
        numbers = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        lines.append(f"| {title} | {len(group)} | {numbers} | {rate} | {alone} |")
    lines += ["", "Decided by something else than the divergence:", "",
              "| network | variant | lost | verdict | by divergence | why |",
              "|---|---|---:|---|---|---|"]  # fmt: skip
    lines += [
        f"| {c.network} | {c.variant} | {c.loss:.2f} | {c.verdict} | {c.by_divergence} | {'; '.join(c.reasons)} |"
        for c in found if c.verdict != c.by_divergence
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument(
        "--cifar", type=Path, required=True, help="cifar10.npz, as ../shared/data/get_cifar10.py makes it"
    )
    parser.add_argument("--network", action="append", choices=list(NETWORKS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    found: list[Case] = []
    for name in arguments.network or NETWORKS:
        for case in cases(NETWORKS[name], arguments.shared / "data", arguments.cifar):
            found.append(case)
            print(*case, sep=" | ", flush=True)
        atomic_write(arguments.out, page(found))


if __name__ == "__main__":
    main()
