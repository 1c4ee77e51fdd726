"""Tables of the gate study: how well each measure separates harmful from harmless variants, and the resulting verdicts.

Thresholds are evaluated on networks that were not used to choose them: each network is left out in turn.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.function_change import FunctionChange, function_change
from onnxgain.analysis.function_verdict import SAME_DIVERGENCE
from onnxgain.measure.fingerprint import packed


@dataclass(frozen=True)
class Case:
    """A variant of a network: its loss of accuracy, and its measures.

    Attributes:
        images: number of test images behind loss and disagreement, both in points; `deviation` is that of the loss.
        change: the change of the function; None if it cannot be compared.
        gain, odds, logit: the largest change of a channel's gain at impulse or noise, in dB: of log z_i, of the
            log-odds, and of the logit; infinite if the variant has no gain.
        confidence: the largest change of 20 log10(1 - score), in dB.
    """

    network: str
    kind: str
    variant: str
    images: int
    accuracy: float
    loss: float
    deviation: float
    disagreement: float
    change: FunctionChange
    gain: float
    odds: float
    logit: float
    confidence: float


def load_cases(work: Path) -> list[Case]:
    """The measured variants, without the originals."""
    cases = []
    for folder in sorted(path for path in work.iterdir() if path.is_dir()):
        files = {path.stem: path for path in folder.glob("*.npz")}
        if "original" not in files:
            continue
        base = _loaded(files.pop("original"))
        cases += [case for path in sorted(files.values()) if (case := _case(base, _loaded(path))) is not None]
    return cases


def _loaded(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files} | {"document": json.loads(str(arrays["document"]))}


def _case(base: dict[str, Any], other: dict[str, Any]) -> Case | None:
    document = other["document"]
    if "predicted" not in other or not np.isfinite(other["synthetic"]).all():
        return None
    right, still = other["reference"] == other["truth"], other["predicted"] == other["truth"]
    points = 100.0 * (right.astype(float) - still)
    prints = [packed(o["synthetic"], o["document"]["head"]) for o in (base, other)]
    gains = base["document"]["gains"], document["gains"]
    return Case(
        network=document["network"],
        kind=document["kind"],
        variant=document["variant"],
        images=len(points),
        accuracy=100.0 * float(right.mean()),
        loss=float(points.mean()),
        deviation=float(points.std() / math.sqrt(len(points))),
        disagreement=100.0 * float(np.mean(other["predicted"] != other["reference"])),
        change=function_change(*prints),
        gain=_largest(gains, "1/score", lambda entry: 0.0),
        odds=_largest(gains, "1/score", confidence),
        logit=_largest(gains, "logit", lambda entry: 0.0),
        confidence=_largest(gains, "1/score", confidence, only=True),
    )


def confidence(entry: dict[str, Any]) -> float:
    """20 log10(1 - score) in dB, computed from the margin if the score rounds to 1."""
    rest = 1.0 - entry["score"]
    return 20 * math.log10(rest) if rest > 1e-9 else -20 * entry["margin"] / math.log(10)


def _largest(
    gains: tuple[dict[str, Any], dict[str, Any]],
    projection: str,
    subtract: Callable[[dict[str, Any]], float],
    *,
    only: bool = False,
) -> float:
    found = [0.0]
    for stimulus in ("impulse", "noise"):
        one, other = (side.get(f"{projection} {stimulus}", {"error": ""}) for side in gains)
        if "error" in one:
            continue
        if "error" in other:
            return math.inf
        shift = subtract(other) - subtract(one)
        for before, after in zip(one["channels"], other["channels"], strict=True):
            if before is not None:
                found.append(math.inf if after is None else abs(shift if only else after - before - shift))
    return max(found)


# ------------------------------------------------------------------------------------------------ measures
MEASURES: dict[str, Callable[[Case], float]] = {
    "gain": lambda case: case.gain,
    "gain of the log-odds": lambda case: case.odds,
    "gain of the logit": lambda case: case.logit,
    "confidence": lambda case: case.confidence,
    "divergence": lambda case: case.change.divergence,
    "flips": lambda case: case.change.flip_rate,
    "1 - cosine": lambda case: case.change.cosine_distance,
    "KL": lambda case: case.change.kl,
    "largest": lambda case: case.change.largest,
}


def comparable(case: Case) -> bool:
    return case.change.obstacle is None


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(np.nan_to_num(np.asarray(values, dtype=float), nan=1e9, posinf=1e9)))


def area(harmful: Sequence[float], harmless: Sequence[float]) -> float:
    """The probability that the measure of a harmful variant is larger than that of a harmless one."""
    order = ranks([*harmful, *harmless])
    count, others = len(harmful), len(harmless)
    return float((order[:count].sum() - count * (count + 1) / 2) / (count * others)) if count and others else math.nan


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate."""
    if not count:
        return 0.0, 1.0
    z, rate = 1.959964, hits / count
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


# ---------------------------------------------------------------------------------------------- thresholds
LEFT_UNCAUGHT = 0.02
"""The share of harmful variants of the other networks that may be below the bound for a failure."""
MARGIN = 0.75
"""The bound for a pass, relative to the smallest divergence of a harmful variant of the other networks."""
HARMLESS, HARMFUL, RUINOUS = 0.2, 1.0, 3.0
"""Points of accuracy lost."""


def score_of(case: Case) -> float:
    """The basis of the verdict: the divergence, or 1 if the classes themselves decide."""
    change = case.change
    return 1.0 if change.obstacle is not None or change.moved or change.lost else change.divergence


def thresholds(cases: Sequence[Case]) -> tuple[float, float]:
    """The bounds for a pass and for a review, chosen on these cases."""
    found = [score_of(case) for case in cases if case.loss >= HARMFUL]
    return MARGIN * min(found), float(np.quantile(found, LEFT_UNCAUGHT))


def left_out(cases: Sequence[Case]) -> dict[int, str]:
    """The verdict on each case, by index, with thresholds chosen on the other networks."""
    found = {}
    for network in dict.fromkeys(case.network for case in cases):
        passing, failing = thresholds([case for case in cases if case.network != network])
        for place, case in enumerate(cases):
            if case.network == network:
                found[place] = word(score_of(case), passing, failing)
    return found


def word(value: float, passing: float, failing: float) -> str:
    return "pass" if value <= passing else "review" if value <= failing else "fail"


# ------------------------------------------------------------------------------------------------- reports
COLUMNS = ("network", "kind", "variant", "images", "accuracy", "loss", "deviation", "disagreement", "verdict",
           "divergence", "flips", "cosine", "kl", "largest", "gain", "odds", "logit", "confidence")  # fmt: skip


def report_study(work: Path) -> tuple[str, str]:
    """The cases as CSV, and the page of tables."""
    cases = load_cases(work)
    verdicts = left_out(cases)
    return _csv(cases, verdicts), _page(cases, verdicts)


def _csv(cases: Sequence[Case], verdicts: dict[int, str]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, case in enumerate(cases):
        change = case.change
        numbers = (change.divergence, change.flip_rate, change.cosine_distance, change.kl, change.largest, case.gain,
                   case.odds, case.logit, case.confidence)  # fmt: skip
        known = (case.network, case.kind, case.variant, case.images)
        points = (f"{v:.2f}" for v in (case.accuracy, case.loss, case.deviation, case.disagreement))
        writer.writerow([*known, *points, verdicts[place], *(f"{v:.4g}" for v in numbers)])
    return buffer.getvalue()


def _page(cases: Sequence[Case], verdicts: dict[int, str]) -> str:
    networks = list(dict.fromkeys(case.network for case in cases))
    lines = [
        "# The gate study",
        "",
        f"{len(cases)} variants of {len(networks)} trained networks, made and measured by "
        "`scripts/studies/gate_study.py`. Accuracy in points; each variant's loss is measured on the images of the "
        "original, and has a standard error of its own (gate_study.csv).",
        "",
        "## How well each measure ranks harm",
        "",
        f"Mean over the networks of the area under the curve: variants that lost {HARMFUL:g} point or more against "
        f"those that lost {HARMLESS:g} or less.",
        "",
        "| measure | area | least |",
        "|---|---|---|",
        *_areas(cases, networks),
        "",
        "## Verdicts on networks left out",
        "",
        "Each network is judged by thresholds that the others chose. Rates with 95 % Wilson intervals.",
        "",
        "| variants | number | fail | review | pass |",
        "|---|---|---|---|---|",
        *_rates(cases, verdicts),
        "",
        *_worst(cases, verdicts),
        "",
        "## By kind",
        "",
        "| kind | number | largest loss | fail | review | pass |",
        "|---|---|---|---|---|---|",
        *_kinds(cases, verdicts),
        "",
        "## By network",
        "",
        "| network | accuracy | variants | bound of a pass | of a review | harmful caught | harmless failed |",
        "|---|---|---|---|---|---|---|",
        *_networks(cases, verdicts, networks),
    ]
    return "\n".join(lines) + "\n"


def _areas(cases: Sequence[Case], networks: Sequence[str]) -> list[str]:
    rows = []
    for name, measure in MEASURES.items():
        found = []
        for network in networks:
            own = [case for case in cases if case.network == network and comparable(case)]
            harmful, harmless = (
                [measure(c) for c in own if test(c.loss)]
                for test in (lambda loss: loss >= HARMFUL, lambda loss: loss <= HARMLESS)
            )
            found.append(area(harmful, harmless))
        rows.append(f"| {name} | {np.nanmean(found):.3f} | {np.nanmin(found):.3f} |")
    return rows


GROUPS: dict[str, Callable[[Case], bool]] = {
    "lost 3 points or more": lambda case: case.loss >= RUINOUS,
    "lost 1 point or more": lambda case: case.loss >= HARMFUL,
    "lost 0.2 points or less, classes apart": lambda c: c.loss <= HARMLESS and not c.kind.startswith("class"),
    "structural re-exports": lambda case: case.kind == "structural",
    "stored or computed in 16 bits": lambda case: case.kind == "storage",
    "classes permuted, swapped, missing, silenced; channels swapped": lambda case: case.kind.startswith("class"),
    "fine-tunes that lost 0.2 points or less": lambda c: c.kind.startswith("fine-tuned") and c.loss <= HARMLESS,
    "fine-tunes that lost 1 point or more": lambda c: c.kind.startswith("fine-tuned") and c.loss >= HARMFUL,
}


def _rates(cases: Sequence[Case], verdicts: dict[int, str]) -> list[str]:
    rows = []
    for name, test in GROUPS.items():
        chosen = [verdicts[place] for place, case in enumerate(cases) if test(case)]
        rows.append(
            f"| {name} | {len(chosen)} | " + " | ".join(_rate(chosen, w) for w in ("fail", "review", "pass")) + " |"
        )
    return rows


def _rate(chosen: Sequence[str], wanted: str) -> str:
    hits = sum(verdict == wanted for verdict in chosen)
    low, high = wilson(hits, len(chosen))
    return f"{hits} ({100 * hits / max(len(chosen), 1):.1f} %, {100 * low:.1f} to {100 * high:.1f})"


def _worst(cases: Sequence[Case], verdicts: dict[int, str]) -> list[str]:
    passed = sorted((c for place, c in enumerate(cases) if verdicts[place] == "pass"), key=lambda c: -c.loss)
    same = sorted((c for c in cases if score_of(c) <= SAME_DIVERGENCE), key=lambda c: -c.loss)
    rows = []
    for name, chosen in (("passed", passed), ("were called the same function", same)):
        named = "; ".join(f"{c.loss:.2f} ± {c.deviation:.2f} ({c.network}, {c.variant})" for c in chosen[:3])
        rows.append(f"- The largest losses of the {len(chosen)} that {name}: {named}.")
    flips = [max(case.change.flip_rate, 0.005) * 125 >= case.disagreement for case in cases if comparable(case)]
    rows.append(
        f"- A bound of 1.25 max(flips, 0.5 %) on the disagreement of top-1 holds for {sum(flips)} of {len(flips)}: "
        "it is not shipped."
    )
    return rows


def _kinds(cases: Sequence[Case], verdicts: dict[int, str]) -> list[str]:
    rows = []
    for kind in dict.fromkeys(case.kind for case in cases):
        chosen = [(verdicts[place], case.loss) for place, case in enumerate(cases) if case.kind == kind]
        counts = " | ".join(str(sum(v == w for v, _ in chosen)) for w in ("fail", "review", "pass"))
        rows.append(f"| {kind} | {len(chosen)} | {max(loss for _, loss in chosen):.2f} | {counts} |")
    return rows


def _networks(cases: Sequence[Case], verdicts: dict[int, str], networks: Sequence[str]) -> list[str]:
    rows = []
    for network in networks:
        own = [(verdicts[place], case) for place, case in enumerate(cases) if case.network == network]
        harmful = [verdict for verdict, case in own if case.loss >= HARMFUL]
        harmless = [v for v, c in own if c.loss <= HARMLESS and not c.kind.startswith("class")]
        passing, failing = thresholds([case for case in cases if case.network != network])
        caught, failed = sum(v != "pass" for v in harmful), sum(v == "fail" for v in harmless)
        rows.append(
            f"| {network} | {own[0][1].accuracy:.1f} | {len(own)} | {passing:.4f} | {failing:.4f} | "
            f"{caught} of {len(harmful)} | {failed} of {len(harmless)} |"
        )
    return rows
