"""Checks the paper's statements about Figures 1 to 13 against numbers: results/figures.md.

    python -m scripts.reproduce.statements

reads results/training.json and training_full.json (Figures 8 to 13), results/trained.json (5 to 7) and
results/figures/figures_1_4.md, and judges every statement with one of the functions below. The statements are
paraphrased. Needs: numpy scipy.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr, theilslopes

from onnxgain.analysis.diagnosis import WORDS
from scripts.reproduce.figure_texts import TEXTS
from scripts.reproduce.figures_8_13 import ALL, FIGURES, FULL, NUMBERS, RESULTS, TITLES, full_figures, is_full, read
from scripts.reproduce.truth import truth

REPORT, TRAINED = RESULTS / "figures.md", RESULTS / "trained.json"
ANSWERS = {True: "yes", False: "**no**", None: "undecided"}
GROUPS = {"toy network": range(1, 5), "trained classifiers": range(5, 8), "MNIST": range(8, 10),
          "CIFAR-10": range(10, 14)}  # fmt: skip
HEADINGS = {
    1: "the picture and the filter", 2: "the forward pass of the toy network",
    3: "derivative and response of the toy network", 4: "the toy network at the impulse",
    5: "a trained network for a photograph and the impulse", 6: "trained networks at the impulse",
    7: "Maximum Gain against error", **TITLES,
}  # fmt: skip
FILES = {figure: (f"figure_{figure}.webp",) for figure in range(1, 6)} | {
    6: ("figure_6_imagenet.webp", "figure_6_cifar10.webp")
}
FLAT = 0.2
"""A curve is flat if it changes by less than this fraction of its range."""
RISE = 0.1
"""A loss has risen if it is above its minimum by more than this fraction of its drop."""


@dataclass(frozen=True)
class Judgement:
    """Whether a statement holds (None: there are too few epochs to tell), and the numbers behind it."""

    holds: bool | None
    numbers: str


# ------------------------------------------------------------------------------------------- properties of curves
def smooth(values: np.ndarray) -> np.ndarray:
    """A running median of three; the ends are unchanged."""
    found = values.copy()
    found[1:-1] = np.median([values[:-2], values[1:-1], values[2:]], axis=0)
    return found


def jitters(values: np.ndarray) -> np.ndarray:
    """The distance of each value from the mean of its neighbours, without the ends."""
    return np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2)


def variability(values: np.ndarray) -> float:
    """The median of `jitters`, which `onnxgain track` calls jitter."""
    return float(np.nanmedian(jitters(values)))


def trend(values: np.ndarray) -> tuple[float, float, float]:
    """The change over a curve from its Theil-Sen slope, and the 95 % interval."""
    found = theilslopes(values, np.arange(len(values)))
    return tuple(float(s) * (len(values) - 1) for s in (found.slope, found.low_slope, found.high_slope))


def least(losses: np.ndarray) -> int:
    """The epoch at which the smoothed loss is smallest."""
    return int(np.argmin(smooth(losses))) + 1


def late(values: np.ndarray) -> float:
    """The mean of the last three epochs."""
    return float(values[-3:].mean())


# ------------------------------------------------------------------------------------------- judging functions
def rising(values: np.ndarray, unit: str = "dB") -> Judgement:
    """The whole interval of the trend is positive."""
    change, low, high = trend(values)
    return Judgement(low > 0, f"{change:+.2f} {unit} ({low:+.2f} to {high:+.2f})")


def falling(values: np.ndarray, unit: str = "") -> Judgement:
    """The whole interval of the trend is negative."""
    change, low, high = trend(values)
    return Judgement(high < 0, f"{change:+.3g}{unit} ({low:+.3g} to {high:+.3g})")


def flat(part: np.ndarray, whole: np.ndarray) -> Judgement:
    """The trend of a part is less than a fifth of the range of the whole smoothed curve."""
    if len(part) < 5:
        return Judgement(None, f"{len(part)} epochs only")
    share = abs(trend(part)[0]) / max(float(np.ptp(smooth(whole))), 1e-12)
    return Judgement(share < FLAT, f"moves by {share:.0%} of its range")


def ordered(values: Sequence[float], names: Sequence[str], spec: str = ".2f") -> Judgement:
    """Each is larger than the one before."""
    shown = ", ".join(f"{name}: {value:{spec}}" for name, value in zip(names, values, strict=True))
    return Judgement(bool((np.diff(values) > 0).all()), shown)


def larger(first: float, second: float, spec: str = ".2f") -> Judgement:
    """The first number is larger."""
    return Judgement(first > second, f"{first:{spec}} against {second:{spec}}")


def more_restless(before: np.ndarray, after: np.ndarray) -> Judgement:
    """The jitters are larger after than before (one-sided Mann-Whitney, p < 0.05)."""
    if min(len(before), len(after)) < 5:
        return Judgement(None, "too few epochs on one side")
    p = float(mannwhitneyu(jitters(after), jitters(before), alternative="greater").pvalue)
    return Judgement(p < 0.05, f"{variability(before):.2f} dB, then {variability(after):.2f} dB (p = {p:.2g})")


def overfits(run: Curves) -> Judgement:
    """The validation loss ends above its minimum by at least 10 % of its drop, and the training loss keeps falling."""
    v, best = run.val_loss, least(run.val_loss)
    drop = v[0] - smooth(v).min()
    risen = late(v) - smooth(v).min() > RISE * drop
    fell = late(run.loss) < run.loss[best - 1]
    return Judgement(bool(risen and fell), f"least {smooth(v).min():.3g} at epoch {best}, {late(v):.3g} at the end")


def if_long(run: Curves, judge: Callable[[], Judgement]) -> Judgement:
    """A judgement that needs a run of at least 30 epochs."""
    return judge() if len(run.gain) >= 30 else Judgement(None, f"trained for {len(run.gain)} epochs only")


def both(*found: Judgement) -> Judgement:
    """All judgements hold."""
    return Judgement(all(j.holds for j in found), "; ".join(j.numbers for j in found))


# ------------------------------------------------------------------------------------------- the statements
@dataclass(frozen=True, eq=False)
class Curves:
    """A run's curves, with one entry per epoch."""

    what: dict[str, Any]
    gain: np.ndarray
    loss: np.ndarray
    val_loss: np.ndarray
    error: np.ndarray
    val_error: np.ndarray


Statements = list[tuple[int, str, Callable[[], Judgement]]]


def mnist(runs: dict[str, Curves]) -> Statements:
    """Figures 8 and 9."""
    base, two, three, four = (runs[run.name] for run in FIGURES[8])
    third, tenth = (runs[run.name] for run in FIGURES[9][1:])
    times = ("x1", "x2", "x3", "x4")
    high = (base, two, three, four)
    return [
        (8, "At 0.001 the gain first rises", lambda: rising(base.gain[:10])),
        (8, "and is flat from about epoch 10 on", lambda: flat(base.gain[10:], base.gain)),
        (8, "The training loss falls in all epochs", lambda: Judgement(
            bool((np.diff(base.loss) < 0).all()),
            f"{int((np.diff(base.loss) < 0).sum())} of {len(base.loss) - 1} steps")),
        (8, "The validation loss falls slowly until about epoch 12",
         lambda: Judgement(least(base.val_loss) >= 7 and trend(base.val_loss[:12])[2] < 0,
                           f"least at epoch {least(base.val_loss)}")),
        (8, "and is flat from there on", lambda: flat(base.val_loss[12:], base.val_loss)),
        (8, "The errors go as the losses do", lambda: Judgement(
            min(spearmanr(base.loss, base.error).statistic, spearmanr(base.val_loss, base.val_error).statistic) > 0.7,
            f"rho {spearmanr(base.loss, base.error).statistic:.2f} (training), "
            f"{spearmanr(base.val_loss, base.val_error).statistic:.2f} (validation)")),
        (8, "The higher the rate, the more the gain jumps (x1 < x2 < x3 < x4)",
         lambda: ordered([variability(run.gain) for run in high], times)),
        (8, "At x4 the training loss rises after epoch 7", lambda: rising(four.loss[7:], "")),
        (8, "and so does the validation loss", lambda: rising(four.val_loss[7:], "")),
        (8, "At x4 the gain is no longer smooth: it jumps at least twice as much as at x1",
         lambda: larger(variability(four.gain), 2 * variability(base.gain))),
        (9, "Lowering the rate changes the gain's jumps less than raising it",
         lambda: larger(_ratio(base, two, three, four), _ratio(base, third, tenth))),
        (9, "At x1/10 the gain rises slowly over all epochs", lambda: both(
            rising(tenth.gain), larger(float(np.mean(np.diff(smooth(tenth.gain)) > 0)), 0.6))),
        (9, "At x1/10 the network would still learn: the validation loss falls to the end",
         lambda: falling(tenth.val_loss[-5:])),
        (9, "After all epochs 0.001 and 0.001/3 have a lower validation error than 0.001/10",
         lambda: larger(late(tenth.val_error), max(late(base.val_error), late(third.val_error)), ".2%")),
        (9, "and 0.001 a lower one than 0.001/3", lambda: larger(late(third.val_error), late(base.val_error), ".2%")),
    ]  # fmt: skip


def _ratio(base: Curves, *others: Curves) -> float:
    """The largest ratio between the jumps of a run and those of the base run."""
    return max(float(np.exp(abs(np.log(variability(o.gain) / variability(base.gain))))) for o in others)


def cifar(runs: dict[str, Curves]) -> Statements:
    """Figures 10 and 11."""
    base, two, three, four = (runs[run.name] for run in FIGURES[10])
    third, tenth = (runs[run.name] for run in FIGURES[11][1:])
    times = ("x1", "x2", "x3", "x4")
    high = (base, two, three, four)
    best = least(base.val_loss)
    return [
        (10, "At 0.05 the gain first falls: it is lower in epochs 5 to 9 than after epoch 1",
         lambda: larger(float(base.gain[0]), float(np.median(base.gain[4:9])))),
        (10, "then stays steady until the network overfits", lambda: flat(base.gain[4:max(best, 12)], base.gain)),
        (10, "The network overfits: the validation loss rises again while the training loss falls",
         lambda: overfits(base)),
        (10, "From where it overfits on the gain is more variable", lambda: more_restless(
            base.gain[3:best], base.gain[best:])),
        (10, "A higher rate makes the gain more variable in all epochs (x2, x3, x4 above x1 in each third)",
         lambda: _everywhere(base, two, three, four)),
        (10, "Higher rates have higher losses (training)", lambda: ordered([late(r.loss) for r in high], times)),
        (10, "Higher rates have higher losses (validation)", lambda: ordered([late(r.val_loss) for r in high], times)),
        (10, "Higher rates have higher errors (training)",
         lambda: ordered([late(r.error) for r in high], times, ".1%")),
        (10, "Higher rates have higher errors (validation)",
         lambda: ordered([late(r.val_error) for r in high], times, ".1%")),
        (11, "At lower rates the gain is smoother", lambda: larger(
            variability(base.gain), max(variability(third.gain), variability(tenth.gain)))),
        (11, "At x1/3 the gain rises from epoch 7 to 45", lambda: rising(third.gain[6:])),
        (11, "At x1/10 the gain rises from epoch 7 to 45", lambda: rising(tenth.gain[6:])),
        (11, "At x1/10 the network has not converged: the validation loss falls to the end",
         lambda: falling(tenth.val_loss[-12:])),
        (11, "At x1/3 the network overfits late", lambda: overfits(third)),
        (11, "and there its gain is more variable", lambda: more_restless(
            third.gain[3 : len(third.gain) * 2 // 3], third.gain[len(third.gain) * 2 // 3 :])),
    ]  # fmt: skip


def _everywhere(base: Curves, *others: Curves) -> Judgement:
    parts = [np.array_split(jitters(run.gain), 3) for run in (base, *others)]
    medians = [[float(np.median(third)) for third in run] for run in parts]
    above = sum(medians[i][k] > medians[0][k] for i in range(1, len(medians)) for k in range(3))
    return Judgement(above == 9, f"{above} of 9 thirds above")


def architectures(runs: dict[str, Curves]) -> Statements:
    """Figures 12 and 13."""
    lenet, nin = (runs[run.name] for run in FIGURES[12])
    small, large = (runs[run.name] for run in FIGURES[13][1:])
    best = least(lenet.val_loss)
    ends = slice(-20, None)
    return [
        (12, "NIN reaches a lower validation error than LeNet",
         lambda: larger(float(smooth(lenet.val_error).min()), float(smooth(nin.val_error).min()), ".1%")),
        (12, "LeNet overfits in the end", lambda: overfits(lenet)),
        (12, "LeNet's gain is flat until it overfits", lambda: flat(lenet.gain[10:best], lenet.gain)),
        (12, "and more variable from there on", lambda: more_restless(lenet.gain[10:best], lenet.gain[best:])),
        (12, "NIN's gain is flat", lambda: flat(nin.gain[len(nin.gain) // 2 :], nin.gain)),
        (12, "In the end the gains of both are comparable (means of 20 epochs within 5 dB)", lambda: Judgement(
            bool(abs(lenet.gain[ends].mean() - nin.gain[ends].mean()) < 5),
            f"{lenet.gain[ends].mean():.1f} dB and {nin.gain[ends].mean():.1f} dB")),
        (12, "so that the level of the gain does not say which is better (the better one is not higher by 5 dB)",
         lambda: Judgement(
            bool((nin.gain[ends].mean() - lenet.gain[ends].mean())
                 * np.sign(late(lenet.val_error) - late(nin.val_error)) < 5),
            f"errors {late(lenet.val_error):.1%} and {late(nin.val_error):.1%}")),
        (13, "Few filters underfit: the training error is higher",
         lambda: larger(late(small.error), late(lenet.error), ".1%")),
        (13, "Their gain goes as the base's does (correlation of the smoothed curves above 0.5)", lambda: Judgement(
            bool(np.corrcoef(smooth(small.gain), smooth(lenet.gain))[0, 1] > 0.5),
            f"r = {np.corrcoef(smooth(small.gain), smooth(lenet.gain))[0, 1]:.2f}")),
        (13, "with a little more variability", lambda: larger(variability(small.gain), variability(lenet.gain))),
        (13, "Many filters overfit", lambda: if_long(large, lambda: overfits(large))),
        (13, "and earlier than the base", lambda: if_long(large, lambda: larger(
            least(lenet.val_loss), least(large.val_loss), "d"))),
        (13, "and their gain becomes more and more variable", lambda: if_long(large, lambda: _growing(large))),
    ]  # fmt: skip


def _growing(run: Curves) -> Judgement:
    found = spearmanr(np.arange(len(run.gain) - 2), jitters(run.gain))
    numbers = f"rho of jumps and epoch {found.statistic:+.2f}, p = {found.pvalue:.2g}"
    return Judgement(bool(found.statistic > 0 and found.pvalue < 0.05), numbers)


def pretrained(rows: list[dict[str, Any]]) -> Statements:
    """Figures 5 to 7; the ImageNet models."""
    models = sorted((r for r in rows if "top5_error" in r["errors"]), key=lambda r: r["errors"]["top5_error"])
    errors = [row["errors"]["top5_error"] for row in models]
    gains = [row["gain"] for row in models]
    scored = [row["gain"] + 40 * np.log10(row["score"]) for row in models]
    half = len(models) // 2
    return [
        (6, "The smaller the error, the larger the gain", lambda: _negative(errors, gains)),
        (7, "The better half lies above about -20 dB (median of all channels)",
         lambda: _half(models[:half], above=True)),
        (7, "the worse half below", lambda: _half(models[-half:], above=False)),
        (7, "The trend is there with p = score as well", lambda: _negative(errors, scored)),
        (7, "All scores on the impulse are low (under 0.5)", lambda: Judgement(
            all(row["score"] < 0.5 for row in models), f"largest {max(row['score'] for row in models):.2f}")),
    ]  # fmt: skip


def _half(models: list[dict[str, Any]], above: bool) -> Judgement:
    median = float(np.median([gain for row in models for gain in row["gains"].values()]))
    return Judgement((median > -20) == above, f"median {median:.1f} dB")


def _negative(errors: Sequence[float], gains: Sequence[float]) -> Judgement:
    rho = float(spearmanr(errors, gains).statistic)
    return Judgement(rho < 0, f"rho {rho:+.2f}, {len(errors)} models")


def toy(text: str) -> Statements:
    """Figures 1 to 4: the results of `figures_1_4.py`."""
    rows = re.findall(r"^\| (\d)\w \| (.+?) \| ([0-9.e+-]+) \|$", text, re.MULTILINE)
    return [
        (int(figure), words, lambda e=error: Judgement(float(e) < 1e-6, f"within {e}")) for figure, words, error in rows
    ]


def load(path: Path = NUMBERS) -> dict[str, Curves]:
    """The runs that were measured."""
    columns = ("gain", "loss", "val_loss", "error", "val_error")
    return {name: Curves(run["what"], *(np.array(run[c], float) for c in columns)) for name, run in read(path).items()}


# ------------------------------------------------------------------------------------------- the report
def statements(runs: dict[str, Curves]) -> Statements:
    """All statements whose numbers are available."""
    found = toy((RESULTS / "figures" / "figures_1_4.md").read_text())
    found += pretrained(json.loads(TRAINED.read_text()))
    for part, figures in ((mnist, (8, 9)), (cifar, (10, 11)), (architectures, (12, 13))):
        if all(run.name in runs for figure in figures for run in FIGURES[figure]):
            found += part(runs)
    return found


Judged = list[tuple[int, str, Judgement]]


def judged() -> tuple[Judged, Judged]:
    """All judgements, and for figures with full runs those of the reduced runs, in the same order."""
    reduced, full = load(), load(FULL)
    figures = full_figures()
    kept = [(figure, words, judge()) for figure, words, judge in statements(reduced)]
    fully = [(figure, words, judge()) for figure, words, judge in statements(reduced | full) if figure in figures]
    shown = sorted([row for row in kept if row[0] not in figures] + fully, key=lambda row: row[0])
    return shown, [row for row in kept if row[0] in figures]


def what_was_trained(figure: int, runs: dict[str, Curves]) -> str:
    """The extent of the training behind a figure, compared with the paper's."""
    whats = [runs[run.name].what for run in FIGURES[figure] if run.name in runs]
    if not whats:
        return "Not trained."
    if all(is_full(what) for what in whats):
        return f"Full: {whats[0]['images']:,} images, {whats[0]['trained']} epochs, seed {whats[0]['seed']}."
    first = whats[0]
    batches = "" if first["batch"] == 100 else f" in batches of {first['batch']} (not 100)"
    lines = [
        f"Reduced: {first['images']:,} of {ALL[first['data']]:,} training images{batches}, {first['validation']:,} "
        f"validation images, {first['epochs']} epochs, seed {first['seed']}"
    ]
    lines += [f"{w['architecture'].upper()} with {w['width']:g} of its filters" for w in whats if w["width"] != 1]
    lines += [f"filters x{w['filters']:g} for {w['trained']} epochs only" for w in whats if w["trained"] < w["epochs"]]
    return "; ".join(lines) + "."


def report() -> str:
    rows, reduced = judged()
    lines = ["# Figures 1 to 13: the paper's statements and the reproduction", ""]
    lines += [
        f"**{_count(rows)}** of the paper's statements hold: their sign, order and shape, each judged by a number "
        "(functions in `statements.py`), not by eye. The criteria about CIFAR-10 were written before its runs were "
        "trained. Reduced experiments are marked as such. There is one run per curve, with one seed.",
        "",
    ]
    undecided = sum(found.holds is None for _, _, found in rows)
    lines += [f"{undecided} more cannot be decided from what was trained.", ""] if undecided else []
    lines += ["| figures | | hold |", "|:---|:---|---:|"]
    for name, numbers in GROUPS.items():
        part = [row for row in rows if row[0] in numbers]
        lines.append(f"| {numbers[0]} to {numbers[-1]} | {name} | {_count(part)} |")
    for figure in range(1, 14):
        lines += ["", f"## Figure {figure}: {HEADINGS[figure]}", ""]
        lines += [f"![Figure {figure}](figures/{name})" for name in FILES.get(figure, (f"figure_{figure}.svg",))]
        lines += ["", TEXTS[figure].strip().replace("\n", " ")]
        lines += _table([row for row in rows if row[0] == figure], [row for row in reduced if row[0] == figure], figure)
    return "\n".join([*lines, "", *verdicts()]) + "\n"


def _table(rows: Judged, reduced: Judged, figure: int) -> list[str]:
    """The statements about a figure; beside full runs, what the reduced ones say."""
    lines = ["", what_was_trained(figure, load(FULL if reduced else NUMBERS))] if figure > 7 else []
    if reduced:
        lines += ["", f"{_count(rows)} statements hold, against {_count(reduced)} for the reduced runs. Those are: "
                  + what_was_trained(figure, load())]  # fmt: skip
        lines += ["", "| the paper | numbers | holds | reduced | holds |", "|:---|:---|:---|:---|:---|"]
        return lines + [
            f"| {words} | {found.numbers} | {ANSWERS[found.holds]} | {less.numbers} | {ANSWERS[less.holds]} |"
            for (_, words, found), (_, _, less) in zip(rows, reduced, strict=True)
        ]
    if rows:
        lines += ["", "| the paper | numbers | holds |", "|:---|:---|:---|"]
    return lines + [f"| {words} | {found.numbers} | {ANSWERS[found.holds]} |" for _, words, found in rows]


def verdicts() -> list[str]:
    """Verdicts of `onnxgain track` on the runs, and the labels that `truth.py` derives from their validation losses."""
    lines = ["## The verdicts on these runs", ""]
    lines += ["| run | `onnxgain track` | by the validation loss | |", "|:---|:---|:---|:---|"]
    found = [*read(NUMBERS).items(), *((f"{name}, full", run) for name, run in read(FULL).items())]
    right = 0
    for name, run in found:
        true = truth([math.log(10), *run["val_loss"]])
        said = run["verdict"].partition(" at ")[0].partition(" from ")[0]
        right += said == WORDS[true.verdict]
        onset = f", epoch {true.onset}" if true.verdict in ("converged", "overfitting") else ""
        mark = "right" if said == WORDS[true.verdict] else ""
        lines.append(f"| {name} | {run['verdict']} | {WORDS[true.verdict]}{onset} | {mark} |")
    return [*lines, "", f"{right} of {len(found)} are right."]


def _count(rows: Judged) -> str:
    told = [found.holds for _, _, found in rows if found.holds is not None]
    return f"{sum(told)} of {len(told)}"


def main() -> None:
    text = report()
    REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
