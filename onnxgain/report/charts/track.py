"""The chart of `track`: Maximum Gain over epochs, with losses next to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from onnxgain.analysis.comparison import MEAN
from onnxgain.analysis.series import Series
from onnxgain.errors import OnnxgainError
from onnxgain.report.charts import parts as chart_parts
from onnxgain.report.charts.parts import CATEGORIES, COLOURS, GAIN, OTHER, Spec
from onnxgain.report.text.formatting import printable


def gain_over_epochs(runs: Sequence[Series]) -> Spec:
    """Maximum Gain over epochs, with losses (if any) next to it, as in the paper's Figures 8 to 13.

    A single run has one line per channel; several runs have one line each, the mean over the channels. Lines break at
    missing epochs.
    """
    parts = _gain_parts(runs)
    panels = [_over_epochs(GAIN, "part", [name for name, _ in parts], [colour for _, colour in parts], "part")]
    if any(series.log is not None or series.has_sample for series in runs):
        names = [series.name for series in runs] if len(runs) > 1 else []
        kinds = [kind for kind in _LOSSES if any(kind == found for series in runs for found, _, _ in _losses(series))]
        panels.append(_loss_panel(names, kinds))
    for panel, field in zip(panels, ("gain", "loss"), strict=False):
        panel["transform"] = [{"filter": {"field": "field", "equal": field}}]
    onsets = [
        {"field": "onset", "epoch": series.diagnosis.onset, "part": series.name, "what": series.diagnosis.sentence}
        for series in runs
        if series.diagnosis.onset is not None
    ]
    if onsets:
        rule = {
            "data": {"values": onsets},
            "mark": {"type": "rule", "strokeDash": [2, 3], "strokeWidth": 1.5, "stroke": OTHER},
            "encoding": {"x": {"field": "epoch", "type": "quantitative"}, "tooltip": [{"field": "what"}]},
        }
        panels[0]["layer"].insert(0, rule)
        # The panel's filter would hide the rules, which have data of their own, so each other layer gets it instead.
        panels[0]["layer"][1:] = [{**layer, "transform": panels[0]["transform"]} for layer in panels[0]["layer"][1:]]
        del panels[0]["transform"]
    return chart_parts.chart(panels, [*_gain_values(runs), *_loss_values(runs)])


def gain_over_epochs_figure(runs: Sequence[Series], where: str) -> Spec:
    """The figure that --plot writes: the chart with the verdicts as its title.

    Raises:
        OnnxgainError: no run has a snapshot.
    """
    if not any(series.snapshots for series in runs):
        raise OnnxgainError("nothing to draw: no snapshot could be measured", where=where, remedy="see the list")
    verdicts = [f"{printable(series.name)}: {series.finding}" for series in runs]
    return {"title": {"text": "Maximum Gain over training", "subtitle": verdicts}, "vconcat": [gain_over_epochs(runs)]}


def _gain_parts(runs: Sequence[Series]) -> list[tuple[str, str]]:
    """The names and colours of the gain lines."""
    if len(runs) > 1:
        names = [printable(series.name) for series in runs]
        return list(zip(names, _run_colours(names), strict=True))
    names = [*runs[0].channels, *([MEAN] if len(runs[0].channels) > 1 else [])]
    return [(name, COLOURS.get(name, OTHER)) for name in names]


def _run_colours(names: Sequence[str]) -> list[str]:
    return [CATEGORIES[i % len(CATEGORIES)] for i in range(len(names))]


def _gain_values(runs: Sequence[Series]) -> Iterable[Spec]:
    for number, series in enumerate(runs):
        for snapshot in series.snapshots:
            gains = {printable(series.name): snapshot.mean}
            if len(runs) == 1:
                gains = dict(zip(series.channels, snapshot.gains, strict=True))
                gains |= {MEAN: snapshot.mean} if len(gains) > 1 else {}
            for part, gain in gains.items():
                shown = None if np.isnan(gain) else gain
                row = f"{number}.{snapshot.epoch}"
                yield {"field": "gain", "part": part, "epoch": snapshot.epoch, "y": shown, "row": row}
        for what, why in series.left_out:
            if why == "missing":
                for part, _ in _gain_parts(runs) if len(runs) == 1 else [(printable(series.name), "")]:
                    yield {"field": "gain", "part": part, "epoch": int(what.removeprefix("epoch ")), "y": None}


_WHOLE_EPOCHS: Spec = {"labelExpr": "datum.value % 1 ? '' : datum.value", "grid": False}
"""Vega's tickMinStep does not keep it from halves of an epoch."""

_LOSSES = {
    "training": [1, 0],
    "validation": [5, 3],
    "images": [1, 2],
    "copies": [2, 2],
    "surrogate": [8, 2],
    "held-out": [8, 2, 2, 2],
}
"""The dash pattern of each kind of loss."""


def _loss_panel(names: Sequence[str], kinds: Sequence[str]) -> Spec:
    """The panel of losses, with one colour per run and one dash pattern per kind."""
    panel = _over_epochs("loss", "run", names, _run_colours(names), "kind")
    panel["layer"][0]["encoding"]["strokeDash"] = {
        "field": "kind", "type": "nominal",
        "scale": {"domain": list(kinds), "range": [_LOSSES[kind] for kind in kinds]},
        "legend": {"title": None, "orient": "bottom"},
    }  # fmt: skip
    return panel


def _loss_values(runs: Sequence[Series]) -> Iterable[Spec]:
    for number, series in enumerate(runs):
        for kind, epoch, loss in _losses(series):
            place = {"run": printable(series.name), "epoch": epoch, "row": f"{number}.{epoch}"}
            yield {"field": "loss", "kind": kind, "y": loss, **place}


def _losses(series: Series) -> Iterable[tuple[str, int, float]]:
    """(kind, epoch, loss) of the log and of the labelled images."""
    if series.log is not None:
        for kind, losses in (("training", series.log.training), ("validation", series.log.validation)):
            yield from ((kind, epoch, loss) for epoch, loss in sorted(losses.items()))
    kinds = ("held-out",) if series.held_out else ("images", "copies", "surrogate")
    for number, kind in enumerate(kinds):
        for snapshot in series.snapshots:
            if snapshot.epoch in series.sample_losses:
                yield kind, snapshot.epoch, series.sample_losses[snapshot.epoch][number]


def _over_epochs(title: str, colour: str, names: Sequence[str], colours: Sequence[str], told: str) -> Spec:
    """A panel of lines over epochs, grey if there are no names; `told` is a further field in the tooltip."""
    encoding: Spec = {
        "x": {"field": "epoch", "type": "quantitative", "title": "epoch", "axis": _WHOLE_EPOCHS},
        "y": chart_parts.axis("y", title),
    }
    if names:
        encoding["color"] = {
            "field": colour, "type": "nominal",
            "scale": {"domain": [printable(name) for name in names], "range": list(colours)},
            "legend": {"title": None, "orient": "bottom", "columns": 4} if len(names) > 1 else None,
        }  # fmt: skip
    else:
        encoding["color"] = {"value": OTHER}
    line: Spec = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": dict(encoding)}
    tooltip = [
        {"field": told},
        {"field": "epoch"},
        {"field": "y", "title": title, "type": "quantitative", "format": ".4~g"},
    ]
    points = {
        "mark": {"type": "point", "filled": True, "size": 22, "opacity": 1},
        "encoding": {**encoding, "tooltip": tooltip, **({"detail": {"field": "kind"}} if title == "loss" else {})},
    }
    return chart_parts.panel(None, [line, points]) | {"width": 420, "height": 260}
