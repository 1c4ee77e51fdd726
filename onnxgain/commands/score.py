"""`onnxgain score`: the Maximum Gain of one or several models."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.batching import ByteSize, download_option, make_request
from onnxgain.commands.fetching import local_model, open_downloads
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
    from onnxgain.fleet.batch import Request
    from onnxgain.fleet.remote import Downloads
    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.preview import Preview
    from onnxgain.measure.record import Record


@click.command(
    epilog="""\b
Examples:
  onnxgain score model.onnx
  onnxgain score model.onnx --preprocess imagenet --plot response.png
  onnxgain score model.onnx --image photos/ --format csv > gains.csv
  onnxgain score mlp.onnx --image-shape 1x28x28 --format json
  onnxgain score a.onnx b.onnx --stimulus impulse --stimulus noise:seed=1
"""
)
@click.argument("models", nargs=-1, required=True, type=click.Path())
@reading_options
@stimulus_options
@gain_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="json has a versioned schema.",
)
@click.option("-o", "--out", type=click.Path(), help="Write the result there instead of printing it.")
@click.option("--plot", type=click.Path(), help="Draw derivative and frequency response: .png, .svg or .pdf.")
@report_option
@click.option("--save-spectrum", type=click.Path(), help="Keep derivatives and spectra as .npz.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 1e6, min_open=True),
    metavar="SECONDS",
    help="Measure in a process of its own, and end it after that time.",
)
@click.option(
    "--memory-limit",
    type=ByteSize(),
    help="Measure in a process of its own, and let it use so much memory (Linux), e.g. 2G.",
)
@download_option
def score(
    models: tuple[str, ...],
    stimuli: tuple[str, ...],
    images: tuple[str, ...],
    projection: Any,
    class_index: int | None,
    threads: int | None,
    device: str,
    providers: str | None,
    tf32: bool,
    form: str,
    out: str | None,
    plot: str | None,
    report: str | None,
    save_spectrum: str | None,
    timeout: float | None,
    memory_limit: int | None,
    max_download: int,
    **reading: Any,
) -> None:
    """Measure the Maximum Gain of classifiers.

    The model is linearized at an image (an impulse unless told otherwise); the gain is the maximum of the frequency
    response of the derivative of its winning class, in dB per 8-bit level.

    For models from strangers: with --timeout or --memory-limit they are measured in a process of its own, so that one
    that crashes, hangs or eats the memory ends in a message.
    """
    _check_targets(out, plot, save_spectrum)
    check_report(report)
    measurements: list[Measurement] = []
    records: list[Record] = []
    failures: list[tuple[str, OnnxgainError]] = []
    previews: dict[int, Preview] = {}
    keep = plot is not None or save_spectrum is not None
    request = make_request(
        stimuli=stimuli,
        images=images,
        projection=projection,
        class_index=class_index,
        device=device,
        providers=providers,
        tf32=tf32,
        **reading,
    )
    side = _picture_side(len(models) * request.count) if report is not None else 0
    request = dataclasses.replace(request, arrays=keep, picture_side=side)
    downloads = open_downloads(max_download)
    with contextlib.ExitStack() as stack:
        measured: Callable[[str], Iterator[Measurement]] = functools.partial(
            _measure_model, request, threads, downloads
        )
        if timeout is not None or memory_limit is not None:
            measured = stack.enter_context(_contained(request, threads, downloads, timeout, memory_limit))
        for name in models:
            try:
                for measurement in _under_its_name(measured(name), name):
                    records.append(measurement.record)
                    if measurement.preview is not None:
                        previews[id(measurement.record)] = measurement.preview
                    if keep:
                        measurements.append(measurement)
            except OnnxgainError as error:
                if len(models) == 1:
                    raise
                failures.append((name, error))
    if records:
        _print(records, form, out)
    if plot is not None and measurements:
        _plot(measurements, plot)
    if save_spectrum is not None and measurements:
        _save(measurements, save_spectrum)
    if report is not None and records:
        _report(records, previews, failures, report)
    for _, failure in failures:
        click.echo(f"error: {failure}", err=True)
    if failures:
        raise click.exceptions.Exit(2)


def _check_targets(out: str | None, plot: str | None, save_spectrum: str | None) -> None:
    """Refuse before measuring what cannot be written after it."""
    from onnxgain.files import require_writable

    if plot is not None:
        from onnxgain.report.charts.figure import plot_format

        plot_format(plot)
    if save_spectrum is not None and not save_spectrum.endswith(".npz"):
        raise OnnxgainError(
            "the file name must end in .npz", where=f"--save-spectrum {save_spectrum}", remedy="rename it"
        )
    for path in (out, plot, save_spectrum):
        if path is not None:
            require_writable(path)


def _under_its_name(measurements: Iterator[Measurement], name: str) -> Iterator[Measurement]:
    """A model that was fetched is known by its URL, not by the file that it is in."""
    from onnxgain.fleet.remote import is_url

    if not is_url(name):
        yield from measurements
        return
    from onnxgain.fleet.result import renamed
    from onnxgain.fleet.sources import Source

    for measurement in measurements:
        yield renamed(measurement, Source(0, Path(name), url=name))


def _measure_model(request: Request, threads: int | None, downloads: Downloads, name: str) -> Iterator[Measurement]:
    from onnxgain.measure.measure import measure_file
    from onnxgain.report.text.progress import progress

    with local_model(name, downloads) as path, progress(Path(name).name, request.count) as advance:
        yield from measure_file(path, request, threads=threads, advance=advance)


@contextlib.contextmanager
def _contained(
    request: Request, threads: int | None, downloads: Downloads, timeout: float | None, memory_limit: int | None
) -> Iterator[Callable[[str], Iterator[Measurement]]]:
    """The same in a child process, one for all models. Where nobody asked for them, the arrays are empty."""
    from onnxgain.errors import located
    from onnxgain.fleet.pool import Limits, Slot
    from onnxgain.fleet.remote import is_url, shown

    def measured(name: str) -> Iterator[Measurement]:
        url = is_url(name)
        path = downloads.model(name) if url else Path(name)
        result = slot.measure(path, request)
        if url and downloads.complete(name, path, result.external):
            result = slot.measure(path, request)
        if result.error is not None:
            raise located(result.error, shown(name) if url else name)
        yield from result.measurements

    with Slot(Limits(threads=threads, memory_limit=memory_limit, timeout=timeout).plan(1)) as slot:
        yield measured


def _print(records: list[Record], form: str, out: str | None) -> None:
    from onnxgain.measure.record import to_csv, to_json

    if form == "json":
        echo_or_write(to_json(records), out)
    elif form == "csv":
        echo_or_write(to_csv(records), out)
    else:
        from onnxgain.report.text.records import render_records

        echo_or_write(render_records(records, colour=out is None), out)


def _plot(measurements: list[Measurement], path: str) -> None:
    from onnxgain.measure.record import channel_names, stimulus_label
    from onnxgain.report.charts.response import Panel, plot_response

    panels = [
        Panel(
            label=f"{m.record.model.name or 'model'} · {stimulus_label(m.record)} · scale {m.record.scale.name}",
            derivative=m.derivative,
            spectrum=m.spectrum,
            channel_names=list(channel_names(m.record)),
        )
        for m in measurements
    ]
    names = dict.fromkeys(m.record.model.name for m in measurements)
    plot_response(panels, path, title=", ".join(names))
    click.echo(f"wrote {path}", err=True)


def _picture_side(count: int) -> int:
    from onnxgain.measure.preview import picture_side

    return picture_side(count)


def _report(
    records: list[Record], previews: dict[int, Preview], failures: list[tuple[str, OnnxgainError]], path: str
) -> None:
    from onnxgain.analysis.comparison import Failure, compare_records
    from onnxgain.report.html.compare import render_html

    comparison = compare_records(records, failures=tuple(Failure(name, str(error)) for name, error in failures))
    names = list(dict.fromkeys(record.model.name for record in records))
    title = f"Maximum Gain of {names[0]}" if len(names) == 1 else "Maximum Gain"
    write_report(render_html(comparison, previews, title=title), path)


def _save(measurements: list[Measurement], path: str) -> None:
    import numpy as np

    from onnxgain.files import atomic_path
    from onnxgain.measure.record import to_json

    arrays: dict[str, Any] = {}
    for i, m in enumerate(measurements):
        arrays[f"derivative_{i}"] = m.derivative
        arrays[f"spectrum_db_{i}"] = m.spectrum.db
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, records=np.array(to_json([m.record for m in measurements])), **arrays)
    click.echo(f"wrote {path}", err=True)
