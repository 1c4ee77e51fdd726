"""`onnxgain diff`: how an export, an optimization, a quantization or fine-tuning changed a model's response."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxgain.commands.options import MeasureOptions, measure_options
from onnxgain.commands.output import OutputOptions, output_options
from onnxgain.commands.saved_model import is_records, saved_records, split_name
from onnxgain.commands.time_limit import limited, timeout_option
from onnxgain.errors import OnnxgainError, UnsupportedOperatorError

if TYPE_CHECKING:
    from onnxgain.analysis.layers import LayerChanges
    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.record import Record
    from onnxgain.measure.request import Request
    from onnxgain.model.classifier import Classifier
    from onnxgain.report.charts.diff import DiffPanel
    from onnxgain.report.text.diff import DiffReport

DEFAULT_STIMULI = ("impulse", "noise:seed=0")


@click.command(
    short_help="Show what changed, and at which frequencies.",
    epilog="""\b
Examples:
  onnxgain diff model.onnx model_int8.onnx
  onnxgain diff model.onnx optimized.onnx --image photos/ --format markdown
  onnxgain diff gain.json models/net.onnx
  onnxgain diff gain.json::models/net.onnx models/net.onnx
  onnxgain diff model.onnx model_int8.onnx --layers
  onnxgain diff model.onnx finetuned.onnx --plot diff.png --format csv -o diff.csv
""",
)
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option(
    "--layers", is_flag=True, help="Show which layers carry the change of the logits (takes two .onnx files)."
)
@measure_options
@output_options("diff", plot="Draw derivatives, responses and their difference: .png, .svg or .pdf.", report=True)
@click.option(
    "--fingerprint/--no-fingerprint", default=True, help="Compare the answers to synthetic images too. Default: yes."
)
@timeout_option
def diff(
    before: str,
    after: str,
    layers: bool,
    measure: MeasureOptions,
    delivery: OutputOptions,
    fingerprint: bool,
    timeout: float | None,
) -> None:
    """Show what changed between two versions of a model: how much, and at which frequencies.

    BEFORE and AFTER are ONNX files, or files of saved records, which are compared as far as possible. If a file holds
    several models, as a gate's baseline may, the one with the other side's name is used; FILE::NAME selects one.
    Without --stimulus or --image they are measured at an impulse and at noise (seed 0), or at the records' stimuli.
    Options apply to both; what a model declares itself, such as its input scale, is read from each.
    """
    delivery.check()
    if is_records(before) or is_records(after):
        if delivery.plot is not None:
            raise OnnxgainError("records hold nothing to draw", where="--plot", remedy="name the .onnx files")
        if layers:
            raise OnnxgainError("records hold no layers", where="--layers", remedy="name the .onnx files")
        with limited(f"{before} or {after}", timeout) as step:
            result = _of_records(before, after, measure, step)
    else:
        request = dataclasses.replace(measure.request(default=DEFAULT_STIMULI), fingerprint=fingerprint)
        keep = delivery.arrays_wanted or delivery.page_wanted
        with limited(f"{before} or {after}", timeout) as step:
            result = _of_models((before, after), request, measure.threads, step, keep=keep, layers=layers)
    delivery.deliver("diff", result, lambda path: _plot(result, path))


# --------------------------------------------------------------------------------------------------- models
def _of_models(
    paths: tuple[str, str], request: Request, threads: int | None, step: Callable[[], None], *, keep: bool, layers: bool
) -> DiffReport:
    """The differences, with panels to draw if a picture is wanted. Calls `step` after each step."""
    from onnxgain.analysis.caveats import at_same_class
    from onnxgain.analysis.difference import measured_difference
    from onnxgain.measure.measure import measure
    from onnxgain.model.classifier import load_classifier
    from onnxgain.report.text.diff import DiffReport
    from onnxgain.report.text.progress import progress

    one = load_classifier(paths[0], request.reading)
    step()
    other = load_classifier(paths[1], request.reading)
    step()
    _refuse_other_images(one, other)
    panels: list[DiffPanel] = []
    differences = []
    try:
        with progress(Path(paths[1]).name, request.count) as advance:
            measured = (measure(classifier, request, threads=threads) for classifier in (one, other))
            for index, (old, new) in enumerate(_together(*measured)):
                tied = at_same_class(old.record, new.record)
                if tied != (old.record, new.record):
                    caveats = tied[1].caveats if tied[0] is old.record else old.record.caveats
                    wanted = dataclasses.replace(old.record, caveats=caveats)
                    new = _at_class(other, request, index, wanted, threads)
                differences.append(measured_difference(old, new, independent=one.head.independent))
                if keep:
                    panels.append(_panel(old, new))
                advance(1)
                step()
    except UnsupportedOperatorError as error:
        if layers:
            raise _naming_layers(error, _layers(one, other, request, threads)) from error
        raise
    report = DiffReport(tuple(differences), panels=tuple(panels))
    if not layers:
        return report
    moved = () if report.function is None else report.function.moved
    return dataclasses.replace(report, layers=_layers(one, other, request, threads, moved))


def _layers(
    one: Classifier, other: Classifier, request: Request, threads: int | None, moved: tuple[tuple[int, int], ...] = ()
) -> LayerChanges:
    """The layers that changed, and the gain from restoring them. Shows both steps on a terminal.

    Args:
        moved: (class before, class after) of the classes whose index changed. Restoring layers shows nothing then.
    """
    from onnxgain.analysis.function_verdict import moved_in_words
    from onnxgain.analysis.layer_recovery import helpful, to_put_back, with_helpful, with_recovery
    from onnxgain.analysis.layers import layer_changes
    from onnxgain.measure.layer_errors import layer_errors
    from onnxgain.measure.layer_pair import layer_pair
    from onnxgain.measure.layer_recovery import put_back
    from onnxgain.report.text.progress import progress

    pair = layer_pair(one, other, threads=threads, device=request.device)
    images = len(pair.images)
    with progress(f"errors of the layers, {images} images", images) as advance:
        errors = layer_errors(pair, advance)
    changes = layer_changes(errors)
    if moved:
        return dataclasses.replace(changes, moved=moved_in_words(moved, "classes"))
    sets = [[layer.error for layer in layers] for layers in to_put_back(changes)]
    if not sets:
        return changes
    label = f"{len(sets) - 1} layers put back, {images} images"
    with progress(label, (len(sets) + 1) * images) as advance:
        changes = with_recovery(changes, put_back(pair, errors, sets, advance))
        if places := helpful(changes):
            fewer = [changes.layers[place].error for place in places]
            changes = with_helpful(changes, put_back(pair, errors, [fewer], advance))
    return changes


def _naming_layers(error: UnsupportedOperatorError, changes: LayerChanges) -> OnnxgainError:
    """The error for a model without a gradient, extended by the layers that changed, ranked by their own errors."""
    from onnxgain.report.text.layers import own_errors

    return UnsupportedOperatorError(error.what, where=error.where, remedy=own_errors(changes))


def _at_class(classifier: Classifier, request: Request, index: int, before: Record, threads: int | None) -> Measurement:
    """The measurement at one of a request's stimuli, at the class of another record and with its caveats."""
    from onnxgain.measure.measure import measure

    stimulus = next(itertools.islice(request.stimuli_for(classifier), index, None))
    asked = dataclasses.replace(request, stimuli=(stimulus,), photos=(), class_index=before.class_index)
    (found,) = measure(classifier, asked, threads=threads)
    return dataclasses.replace(
        found, record=dataclasses.replace(found.record, class_given=False, caveats=before.caveats)
    )


def _together(before: Iterator[Measurement], after: Iterator[Measurement]) -> Iterator[tuple[Measurement, Measurement]]:
    """Pairs of measurements at the same stimuli. Ends with the error if either model fails at a stimulus."""
    for old, new in zip_longest(before, after):
        if old is None or new is None or old.record.stimulus != new.record.stimulus:
            for _ in (*before, *after):  # consume the others up to that error
                pass
            raise AssertionError("the models were measured at different stimuli")
        yield old, new


def _refuse_other_images(one: Classifier, other: Classifier) -> None:
    shapes = [classifier.image.image_shape for classifier in (one, other)]
    if shapes[0] != shapes[1]:
        words = " and ".join("x".join(map(str, shape)) for shape in shapes)
        what = "numbers of channels" if shapes[0][0] != shapes[1][0] else "image sizes"
        raise OnnxgainError(
            f"the models take different {what} ({words}): gains, spectra and derivatives cannot be compared",
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


def _plot(report: DiffReport, path: str) -> None:
    from onnxgain.report.charts.diff import plot_difference

    title = " → ".join(model.name for model in report.models)
    plot_difference(report.panels, path, title=title, layers=report.layers)


# -------------------------------------------------------------------------------------------------- records
def _of_records(before: str, after: str, measure: MeasureOptions, step: Callable[[], None]) -> DiffReport:
    from onnxgain.analysis.difference import recorded_difference
    from onnxgain.analysis.function_verdict import fingerprint_of
    from onnxgain.analysis.pairing import pair_records
    from onnxgain.measure.record import stimulus_text
    from onnxgain.report.text.diff import DiffReport

    saved = {p: saved_records(p, o) for p, o in ((before, after), (after, before)) if is_records(p)}
    synthetic = [r for records in saved.values() for r in records if r.stimulus.name != "photograph"]
    default = tuple(dict.fromkeys(map(stimulus_text, synthetic))) or DEFAULT_STIMULI
    wanted = all(fingerprint_of(records) is not None for records in saved.values())
    request = dataclasses.replace(measure.request(default=default), fingerprint=wanted)
    sides = [saved[p] if p in saved else _scored(p, request, measure.threads, step) for p in (before, after)]
    pairing = pair_records(*sides, allow_scale_change=True)
    if not pairing.changes:
        reasons = "; ".join(f"{m.stimulus} {m.what}" for m in pairing.mismatches)
        raise OnnxgainError(
            f"nothing can be compared: {reasons}",
            where=f"{before} and {after}",
            remedy="measure both at the same stimuli and image size",
        )
    first, second = (split_name(p)[0] if p in saved else None for p in (before, after))
    differences = tuple(map(recorded_difference, pairing.changes))
    return DiffReport(differences, pairing.mismatches, from_records=True, saved_in=(first, second))


def _scored(path: str, request: Request, threads: int | None, step: Callable[[], None]) -> list[Record]:
    from onnxgain.measure.measure import measure
    from onnxgain.model.classifier import load_classifier

    classifier = load_classifier(path, request.reading)
    step()
    measured = measure(classifier, request, threads=threads, advance=lambda count: step())
    return [measurement.record for measurement in measured]
