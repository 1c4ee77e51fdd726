"""The tables of the gate's third judgement, from the results that `gate_third_study run` saved."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onnxgain.files import atomic_write
from scripts.studies.gate_report import wilson

Row = dict[str, Any]
VERDICTS = ("same function", "pass", "review", "fail", "error")
HEADING = (
    "network", "kind", "variant", "images", "accuracy", "loss", "deviation", "disagreement", "verdict", "divergence",
    "why",
)  # fmt: skip
FORMS = ("other form", "other export", "other precision")
CLASSES = ("three classes rotated", "a class in the place of another", "a class's weights negated")

_SINCE = (
    "Of the harmless ones that failed, one was a fault, repaired since: products in bf16 of MobileNetV3Small failed "
    "for what lies behind its class scores, which are computed in float32; it is for review now. A lowered class fails "
    "by a rule that takes a shifted class for a silenced one, and is left as it is. `onnxruntime all` saves layouts of "
    "the machine, which are refused with that reason. Training from another seed makes another function of the same "
    "accuracy. Variants that are missing for a network have nothing to act on there, or were not run: time ended "
    "before the list of MobileNetV3Small did."
)


def read_rows(work: Path) -> tuple[list[Row], list[Row]]:
    """The variants that were judged, and those that could not be made."""
    paths = sorted(work.glob("*/results/*.json"))
    found = [json.loads(path.read_text().replace(f"{work}/", "")) for path in paths]
    judged = [
        row
        for row in found
        if "verdict" in row
        and "loss" in row
        and row["kind"] != "original"
        and "the file is the same" not in row["notes"]
    ]
    return judged, [row for row in found if "failed" in row]


def write_report(work: Path, out: Path) -> None:
    rows, failed = read_rows(work)
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADING, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {"why": "; ".join(row["why"])[:300]})
    atomic_write(out / "gate_third.csv", text.getvalue())
    atomic_write(out / "gate_third.md", page(rows, failed))


def page(rows: Sequence[Row], failed: Sequence[Row]) -> str:
    networks = list(dict.fromkeys(row["network"] for row in rows))
    parts = [
        "# The gate's third judgement",
        f"{len(rows)} variants of {len(networks)} networks that neither the thresholds were chosen on nor an earlier "
        "judgement used, of kinds that these did not hold, judged by `onnxgain gate` with its defaults "
        "(`python -m scripts.studies.gate_third_study`). All constants were as they are; this was judged once. "
        "Variants whose file is the same as the original's are left out. Losses in points of accuracy on the test "
        "images, each with a standard error of its own (gate_third.csv). Rates with 95 % Wilson intervals.",
        _groups(rows),
        _SINCE,
        "## Largest losses",
        *_largest(rows),
        "## By kind",
        _by(rows, "kind"),
        "## By network",
        _by(rows, "network"),
        "## Harmful and not failed",
        _listed(rows, lambda r: r["loss"] >= 1 and r["verdict"] not in ("fail", "error")),
        "## Harmless and failed",
        _listed(rows, lambda r: r["loss"] <= 0.2 and r["verdict"] in ("fail", "error")),
    ]
    if failed:
        parts += [f"{len(failed)} variants could not be made or run: " + "; ".join(
            f"{row['network']}, {row['variant']} ({row['failed'][:90]})" for row in failed) + "."]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _groups(rows: Sequence[Row]) -> str:
    apart = [row for row in rows if row["variant"] not in CLASSES]
    groups = {
        "lost 3 points or more": [row for row in rows if row["loss"] >= 3],
        "lost 1 point or more": [row for row in rows if row["loss"] >= 1],
        "in between": [row for row in rows if 0.2 < row["loss"] < 1],
        "lost 0.2 points or less, classes apart": [row for row in apart if row["loss"] <= 0.2],
        "the same without what training made": [
            row for row in apart if row["loss"] <= 0.2 and row["kind"] != "training"
        ],
        "other forms, exports and precisions at no loss": [
            row for row in rows if row["kind"] in FORMS and row["loss"] <= 0.2
        ],
        "classes rotated, doubled, negated": [row for row in rows if row["variant"] in CLASSES],
    }
    lines = [
        "| variants | number | same function | pass | review | fail | error | failed or not judged | not passed |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for title, group in groups.items():
        counts = Counter(row["verdict"] for row in group)
        bad = counts["fail"] + counts["error"]
        rates = [_rate(count, len(group)) for count in (bad, bad + counts["review"])]
        numbers = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        lines.append(f"| {title} | {len(group)} | {numbers} | {rates[0]} | {rates[1]} |")
    return "\n".join(lines)


def _rate(count: int, of: int) -> str:
    if not of:
        return "-"
    low, high = wilson(count, of)
    return f"{100 * count / of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _largest(rows: Sequence[Row]) -> list[str]:
    found = []
    for title, verdicts in (
        ("that passed", ("pass", "same function")),
        ("called the same function", ("same function",)),
    ):
        group = sorted((row for row in rows if row["verdict"] in verdicts), key=lambda row: -row["loss"])
        worst = "; ".join(
            f"{row['loss']:.2f} ± {row['deviation']:.2f} ({row['network']}, {row['variant']})" for row in group[:4]
        )
        found.append(f"- Of the {len(group)} {title}: {worst}.")
    return ["\n".join(found)]


def _by(rows: Sequence[Row], field: str) -> str:
    lines = [
        f"| {field} | number | largest loss | same function | pass | review | fail | error |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(row[field] for row in rows):
        group = [row for row in rows if row[field] == name]
        counts = Counter(row["verdict"] for row in group)
        numbers = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
        lines.append(f"| {name} | {len(group)} | {max(row['loss'] for row in group):.2f} | {numbers} |")
    return "\n".join(lines)


def _listed(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> str:
    lines = ["| network | variant | loss | verdict | divergence | why |", "|---|---|---:|---|---:|---|"]
    for row in rows:
        if wanted(row):
            size = "-" if row["divergence"] is None else f"{row['divergence']:.4f}"
            why = "; ".join(row["why"]).replace("|", "/")[:150]
            lines.append(
                f"| {row['network']} | {row['variant']} | {row['loss']:.2f} ± {row['deviation']:.2f} | "
                f"{row['verdict']} | {size} | {why} |"
            )
    return "\n".join(lines) if len(lines) > 2 else "None."
