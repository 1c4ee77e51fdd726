"""`onnxgain diff`: what an export, an optimization, a quantization or a fine-tune did to a model's response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.batching import make_request
from onnxgain.commands.options import (
    check_report,
    echo_or_write,
    gain_options,
    reading_options,
    report_option,
    stimulus_options,
    write_report,
)
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.record import Record
    from onnxgain.measure.request import Request
    from onnxgain.model.classifier import Classifier
    from onnxgain.report.charts.diff import DiffPanel
    from onnxgain.report.text.diff import DiffReport

DEFAULT_STIMULI = ("impulse", "noise:seed=0")


@click.command(
    epilog="""\b
Examples:
  onnxgain diff model.onnx model_int8.onnx
  onnxgain diff model.onnx optimized.onnx --image photos/ --format markdown
  onnxgain diff main.json model.onnx
  onnxgain diff model.onnx finetuned.onnx --plot diff.png --format csv -o diff.csv
"""
)
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@reading_options
@stimulus_options
@gain_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "markdown"]),
    default="table",
    show_default=True,
    help="json has a versioned schema.",
)
@click.option("-o", "--out", type=click.Path(), help="Write the result there instead of printing it.")
@click.option("--plot", type=click.Path(), help="Draw derivatives, responses and their difference: .png, .svg or .pdf.")
@report_option
def diff(
    before: str,
    after: str,
    form: str,
    out: str | None,
    plot: str | None,
    report: str | None,
    threads: int | None,
    **asked: Any,
) -> None:
    """Show what changed between two versions of a model: how much, and where in frequency.

    BEFORE and AFTER are ONNX files, or files of saved records of one model each, compared as far as records go.
    Without --stimulus or --image they are measured at an impulse and at noise (seed 0), or at the records' stimuli.
    Options apply to both; what a model declares itself, as its input scale, is read from each.
    """
    records = [_is_records(path) for path in (before, after)]
    if plot is not None:
        from onnxgain.report.charts.figure import plot_format

        plot_format(plot)
        if any(records):
            raise OnnxgainError("records hold nothing to draw", where="--plot", remedy="name the .onnx files")
    check_report(report)
    panels: list[DiffPanel] = []
    if any(records):
        found = _of_records(before, after, asked, threads)
    else:
        keep = plot is not None or report is not None
        found, panels = _of_models(before, after, _request(asked, DEFAULT_STIMULI), threads, keep=keep)
    echo_or_write(_rendered(found, form, colour=out is None), out)
    if plot is not None:
        _plot(found, panels, plot)
    if report is not None:
        from onnxgain.report.html.diff import render_html

        write_report(render_html(found, panels), report)


def _is_records(path: str) -> bool:
    from onnxgain.fleet.sources import RECORD_SUFFIXES

    return Path(path).suffix.lower() in RECORD_SUFFIXES


def _request(asked: dict[str, Any], default: Sequence[str]) -> Request:
    if not asked["stimuli"] and not asked["images"]:
        asked = asked | {"stimuli": tuple(default)}
    return make_request(**asked)


def _rendered(report: DiffReport, form: str, *, colour: bool) -> str:
    from onnxgain.report.text import diff

    if form == "table":
        return diff.render_table(report, colour=colour)
    renderers: dict[str, Callable[[DiffReport], str]] = {
        "json": diff.render_json, "csv": diff.render_csv, "markdown": diff.render_markdown,
    }  # fmt: skip
    return renderers[form](report)


# --------------------------------------------------------------------------------------------------- models
def _of_models(
    before: str, after: str, request: Request, threads: int | None, *, keep: bool
) -> tuple[DiffReport, list[DiffPanel]]:
    """The differences, and what to draw of them where that is to be kept."""
    from onnxgain.analysis.difference import measured_difference
    from onnxgain.measure.measure import measure
    from onnxgain.model.classifier import load_classifier
    from onnxgain.report.text.diff import DiffReport
    from onnxgain.report.text.progress import progress

    one, other = (load_classifier(path, request.reading) for path in (before, after))
    _refuse_other_images(one, other)
    independent = one.head.kind == "sigmoid" and one.head.columns > 1
    panels: list[DiffPanel] = []
    differences = []
    with progress(Path(after).name, request.count) as advance:
        measured = (measure(classifier, request, threads=threads) for classifier in (one, other))
        for old, new in zip(*measured, strict=True):
            differences.append(measured_difference(old, new, independent=independent))
            if keep:
                panels.append(_panel(old, new))
            advance(1)
    return DiffReport(tuple(differences)), panels


def _refuse_other_images(one: Classifier, other: Classifier) -> None:
    shapes = [classifier.image.image_shape for classifier in (one, other)]
    if shapes[0] != shapes[1]:
        words = " and ".join("x".join(map(str, shape)) for shape in shapes)
        what = "numbers of channels" if shapes[0][0] != shapes[1][0] else "image sizes"
        raise OnnxgainError(
            f"the models take other {what} ({words}): gains, spectra and derivatives cannot be compared",
            where=f"{one.path} and {other.path}",
            remedy="compare models of one image size; give --image-shape where the files leave it open",
        )


def _panel(old: Measurement, new: Measurement) -> DiffPanel:
    from onnxgain.analysis.difference import aligned
    from onnxgain.measure.record import channel_names, stimulus_text
    from onnxgain.report.charts.diff import DiffPanel

    derivative, response = aligned(old.record, new)
    return DiffPanel(
        stimulus_text(new.record),
        (old.derivative, derivative),
        (old.spectrum.db, response),
        channel_names(old.record),
    )


def _plot(report: DiffReport, panels: Sequence[DiffPanel], path: str) -> None:
    from onnxgain.report.charts.diff import plot_difference

    plot_difference(panels, path, title=" → ".join(model.name for model in report.models))
    click.echo(f"wrote {path}", err=True)


# -------------------------------------------------------------------------------------------------- records
def _of_records(before: str, after: str, asked: dict[str, Any], threads: int | None) -> DiffReport:
    from onnxgain.analysis.difference import recorded_difference
    from onnxgain.analysis.pairing import pair_records
    from onnxgain.measure.record import stimulus_text
    from onnxgain.report.text.diff import DiffReport

    saved = {path: _saved(path) for path in (before, after) if _is_records(path)}
    synthetic = [r for records in saved.values() for r in records if r.stimulus.name != "photograph"]
    default = tuple(dict.fromkeys(map(stimulus_text, synthetic))) or DEFAULT_STIMULI
    sides = [saved[p] if p in saved else _scored(p, _request(asked, default), threads) for p in (before, after)]
    pairing = pair_records(*sides, allow_scale_change=True)
    if not pairing.changes:
        reasons = "; ".join(f"{m.stimulus} {m.what}" for m in pairing.mismatches)
        raise OnnxgainError(
            f"nothing can be compared: {reasons}",
            where=f"{before} and {after}",
            remedy="measure both at the same stimuli and image size",
        )
    return DiffReport(tuple(map(recorded_difference, pairing.changes)), pairing.mismatches)


def _saved(path: str) -> list[Record]:
    from onnxgain.analysis.baseline import by_model
    from onnxgain.measure.record_file import read_records

    records = read_records(path)
    models = by_model(records)
    if len(models) > 1:
        raise OnnxgainError(
            f"holds records of {len(models)} models", where=path, remedy="write one model's records to a file"
        )
    return records


def _scored(path: str, request: Request, threads: int | None) -> list[Record]:
    from onnxgain.measure.measure import measure
    from onnxgain.model.classifier import load_classifier

    classifier = load_classifier(path, request.reading)
    return [measurement.record for measurement in measure(classifier, request, threads=threads)]
