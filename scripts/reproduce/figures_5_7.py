"""Figures 5 to 7: derivatives and responses of trained classifiers, and Maximum Gain against error.

    python -m scripts.reproduce.figures_5_7 5 --models DIR... --photo FILE [--model NAME] [--names ZIP] --out DIR
    python -m scripts.reproduce.figures_5_7 6 --models DIR... --out DIR
    python -m scripts.reproduce.figures_5_7 7 --models DIR... --out DIR

The models are those of `trained.csv` (or --table) that are found in the folders. AlexNet and the paper's other networks
are not among them. Figure 5 uses the model with the smallest top-5 error unless --model names another. --names is a zip
with one image per class, named wnid_name, which gives the names of the classes. Figure 7 also writes
results/trained.json, which `predicts.py` needs. Needs: onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxgain.analysis.correlation import correlate
from onnxgain.measure.preview import derivative_limit
from onnxgain.measure.record import channel_names
from onnxgain.report.charts.figure import INK, drawing, signed
from onnxgain.report.charts.response import draw_derivative, draw_plane
from scripts.reproduce import trained, weight_metrics
from scripts.reproduce.pictures import compact

NUMBERS = Path(__file__).parent / "results" / "trained.json"
KEY = {"imagenet": "top5_error", "cifar10": "top1_error"}
CHANNELS = {"R": "#c0392b", "G": "#27924c", "B": "#2f6fb5"}
RANGE_DB = 50.0
ACROSS = 3


def red(measured: Any) -> int:
    """The index of the red channel in the model's order."""
    return channel_names(measured.record).index("R")


# -------------------------------------------------------------------------------------------------- Figure 5
def figure_5(models: list[trained.Trained], chosen: str | None, photo: Path, names: Path | None, out: Path) -> None:
    """Derivative and response of the red channel for a natural image, which is not shown, and for the impulse."""
    from onnxgain.measure.measure import score
    from onnxgain.model.stimulus import impulse, photograph

    known = [model for model in models if model.error("top5_error") is not None]
    model = min(known, key=lambda m: (m.name != chosen if chosen else 0, m.error("top5_error")))
    classifier = model.classifier()
    shape = classifier.image.image_shape
    stimuli = [photograph(photo, shape, classifier.scale), impulse(shape, classifier.scale)]
    words = class_names(names)
    with drawing(out / "figure_5.png", (7.6, 6.2)) as figure:
        figure.suptitle(f"{model.name}: red channel of a photograph and of the impulse image", fontsize=11)
        rows = figure.subplots(2, 2)
        for axes, called, measured in zip(
            rows, ("photograph", "impulse"), score(classifier, stimuli, threads=1), strict=True
        ):
            channel, record = red(measured), measured.record
            word = f", {words[record.class_index]}" if words and record.interface.classes == len(words) else ""
            limit = derivative_limit(measured.derivative[channel])
            title = f"{called}: class {record.class_index}{word}\nscore {record.score:.4f}, derivative per 8-bit level"
            draw_derivative(axes[0], measured.derivative[channel], limit, title)
            axes[0].set_ylabel("y (pixels)")
            level = measured.spectrum.db[channel]
            draw_plane(axes[1], level, (float(level.max()) - RANGE_DB, float(level.max())))
            axes[1].set_title(f"frequency response\nMaximum Gain {signed(level.max(), '.2f')} dB")
        rows[-1][0].set_xlabel("x (pixels)")
        rows[-1][1].set_xlabel("fx (cycles/pixel)")
    compact(out / "figure_5.png")


def class_names(names: Path | None) -> list[str]:
    """The names of the ImageNet classes, in the order of the WordNet numbers in the file names."""
    if names is None:
        return []
    with zipfile.ZipFile(names) as archive:
        files = sorted(Path(name).stem for name in archive.namelist() if name.endswith(".jpg"))
    return [name.partition("_")[2].replace("_", " ") for name in files]


# -------------------------------------------------------------------------------------------------- Figure 6
def figure_6(models: list[trained.Trained], out: Path) -> None:
    """Derivative and response of the red channel at the impulse, per data set, in order of decreasing error."""
    for data, called in trained.DATA.items():
        kind = KEY[data]
        part = [model for model in models if model.row["data"] == data and model.error(kind) is not None]
        part.sort(key=lambda model: -(model.error(kind) or 0))
        if part:
            draw_models(part, kind, called, out / f"figure_6_{data}.png")


def draw_models(models: list[trained.Trained], kind: str, called: str, path: Path) -> None:
    """Draw pairs of derivative and response in rows."""
    down = -(-len(models) // ACROSS)
    with drawing(path, (9.6, 1.78 * down + 0.6)) as figure:
        figure.suptitle(
            f"{called}: derivative and response of the red channel at the impulse image, with {trained.ERRORS[kind]}",
            fontsize=10,
        )
        grid = figure.subplots(down, 2 * ACROSS, squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("#bbbbbb")
        for model, (left, right) in zip(models, grid.reshape(-1, 2), strict=False):
            found = trained.measure(model)[0]
            derivative, level = found.derivative[red(found)], found.spectrum.db[red(found)]
            limit, top = derivative_limit(derivative), float(level.max())
            left.imshow(derivative, cmap="RdBu_r", vmin=-limit, vmax=limit)
            image = right.imshow(np.maximum(level - top, -RANGE_DB), cmap="viridis", vmin=-RANGE_DB, vmax=0)
            left.set_title(short(model.name), fontsize=8, loc="left")
            right.set_title(f"{model.error(kind):g} %, {signed(top, '.1f')} dB", fontsize=8, loc="right")
        for axes in grid.flat[2 * len(models) :]:
            axes.set_axis_off()
        figure.colorbar(image, ax=grid, shrink=min(1, 2 / down), aspect=22, label="dB below the Maximum Gain")
    compact(path)


def short(name: str) -> str:
    """A short name that still distinguishes the models."""
    for part in ("torchvision_", "_from_fp16", "_quant_deq", "mlperf_tiny_", "cifar10_", "_cifar10", "coral_", "_224"):
        name = name.replace(part, "")
    return name


# -------------------------------------------------------------------------------------------------- Figure 7
def figure_7(models: list[trained.Trained], out: Path) -> None:
    """Draw the Maximum Gain of each channel against the error; write the numbers that this and `predicts.py` use."""
    measured = {row["model"]: row for row in [numbers(model) for model in models]}
    NUMBERS.parent.mkdir(exist_ok=True)
    kept = {row["model"]: row for row in (json.loads(NUMBERS.read_text()) if NUMBERS.exists() else [])}
    rows = [row for name in trained.names() if (row := measured.get(name) or kept.get(name)) is not None]
    NUMBERS.write_text(json.dumps(rows, indent=1) + "\n")
    with drawing(out / "figure_7.svg", (9.6, 4.6)) as figure:
        panels = figure.subplots(1, 2)
        for axes, (data, called) in zip(panels, trained.DATA.items(), strict=True):
            part = [row for row in rows if row["data"] == data and row["errors"].get(KEY[data]) is not None]
            scatter(axes, part, KEY[data])
            axes.set_title(f"{called}, {len(part)} models{correlation(part, KEY[data])}", fontsize=7)
            axes.set_xlabel(f"{trained.ERRORS[KEY[data]]} (%)")
        panels[0].set_ylabel("Maximum Gain at the impulse (dB per 8-bit level)")
        panels[1].legend(loc="lower right", frameon=False, handletextpad=0.1)


def correlation(rows: Sequence[dict[str, Any]], kind: str) -> str:
    """Text with the correlations of the error with the mean gain and with the log-odds gain, by image size."""
    sizes = [row["size"] for row in rows]
    usual = max(set(sizes), key=sizes.count)
    parts = {"": rows} | ({f" at {usual} pixels": [row for row in rows if row["size"] == usual]} if min(sizes) < max(
        sizes
    ) else {})  # fmt: skip
    lines = ["", "rank correlation with the error (95 % interval)"]
    for column, called in (("gain", "gain"), ("log_odds_gain", "gain of the log-odds")):
        said = []
        for which, part in parts.items():
            found = correlate([row["errors"][kind] for row in part], [row[column] for row in part])
            if found is not None and found[0].low is not None and found[0].high is not None:
                low, high = (signed(end, "+.2f") for end in (found[0].low, found[0].high))
                said.append(f"{signed(found[0].value, '+.2f')} [{low}, {high}] of {len(part)}{which}")
        lines.append(f"{called}: {'; '.join(said)}")
    return "\n".join(lines)


def scatter(axes: Any, rows: Sequence[dict[str, Any]], kind: str) -> None:
    """Draw a column of three points per model, with its name above."""
    errors = [row["errors"][kind] for row in rows]
    gains = [row["gains"] for row in rows]
    low, high = min(min(g.values()) for g in gains), max(max(g.values()) for g in gains)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.48 * (high - low))
    places: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: row["errors"][kind]):  # place names side by side without overlap
        places[row["model"]] = max(row["errors"][kind], 1.045 * max(places.values(), default=0.0))
    for row, error in zip(rows, errors, strict=True):
        axes.axvline(error, ymax=0.69, color="#e4e4e4", lw=0.8, zorder=0)
        named = {"transform": axes.get_xaxis_transform(), "rotation": 90, "ha": "center", "va": "bottom"}
        axes.text(places[row["model"]], 0.7, short(row["model"]), fontsize=6.5, color=INK, **named)
    for shift, (channel, colour) in zip((0.993, 1.0, 1.007), CHANNELS.items(), strict=True):
        values = [found[channel] for found in gains]
        xs = [error * shift for error in errors]
        axes.plot(xs, values, "o", color=colour, ms=5.5, mec="white", mew=0.6, label=channel)
        others = [row["size"] != 224 and row["data"] == "imagenet" for row in rows]
        hollow = [(place, value) for place, value, other in zip(xs, values, others, strict=True) if other]
        axes.plot([place for place, _ in hollow], [value for _, value in hollow], "o", color="white", ms=2.2)
    axes.set_xscale("log")
    ticks = (5, 6, 7, 8, 10, 15, 20, 30, 40) if max(errors) > 15 else (6, 7, 8, 9, 10, 12, 14)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(errors) / 1.12, max(errors) * 1.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee", lw=0.6)


def numbers(model: trained.Trained) -> dict[str, Any]:
    """The numbers recorded for a model."""
    measured = trained.measure(model)
    record = measured[0].record
    weights = weight_metrics.of_network(weight_metrics.of_file(model.path))
    print(f"{model.name}: {record.gain.mean:.2f} dB", flush=True)
    return {
        "model": model.name,
        "data": model.row["data"],
        "errors": {kind: model.error(kind) for kind in trained.ERRORS if model.error(kind) is not None},
        "source": model.row["source"],
        "sha256": record.model.sha256,
        "size": record.interface.image_shape[1],
        "class": record.class_index,
        "score": record.score,
        "gains": dict(zip(channel_names(record), record.gain.channels, strict=True)),
        "gain": record.gain.mean,
        "log_odds_gain": trained.log_odds_gain(measured),
        **{
            name: float(value) if np.isfinite(value) else None
            for name, value in zip(weight_metrics.COLUMNS, weights, strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=int, choices=[5, 6, 7])
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders of ONNX files")
    parser.add_argument("--table", type=Path, default=trained.TABLE, help="errors and scales (default: %(default)s)")
    parser.add_argument("--model", help="Figure 5: the name of the model")
    parser.add_argument("--photo", type=Path, help="Figure 5: a photograph")
    parser.add_argument("--names", type=Path, help="Figure 5: a zip of images named after ImageNet's classes")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    models = list(trained.find(arguments.models, arguments.table))
    if arguments.figure == 5:
        if arguments.photo is None:
            parser.error("Figure 5 needs --photo")
        figure_5(models, arguments.model, arguments.photo, arguments.names, arguments.out)
    elif arguments.figure == 6:
        figure_6(models, arguments.out)
    else:
        figure_7(models, arguments.out)


if __name__ == "__main__":
    main()
