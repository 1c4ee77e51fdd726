"""`onnxgain score`: the Maximum Gain of one or several models."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.fetching import download_option, expanded, local_model, open_downloads
from onnxgain.commands.options import MeasureOptions, measure_options, steadiness_option
from onnxgain.commands.output import OutputOptions, announce, files_read, output_options
from onnxgain.commands.parameters import ByteSize, option_group
from onnxgain.commands.time_limit import limited
from onnxgain.errors import OnnxgainError
from onnxgain.files import is_url
from onnxgain.model.quick_dataclass import dataclass

if TYPE_CHECKING:
    from onnxgain.fleet.batch import Request
    from onnxgain.measure.measurement import Measurement
    from onnxgain.report.reporter import Scores

Measure = Callable[[str], "Iterator[Measurement]"]
"""Measures a model, named by its path or URL."""


@dataclass(frozen=True)
class ProcessOptions:
    """The limits for untrusted models. With a limit, a model is measured in a process of its own."""

    timeout: float | None
    memory_limit: int | None
    threads: int | None
    max_download: int

    @property
    def contained(self) -> bool:
        """Whether any limit is set."""
        return self.timeout is not None or self.memory_limit is not None


@click.command(
    short_help="Measure the Maximum Gain of a model.",
    epilog="""\b
Examples:
  onnxgain score model.onnx
  onnxgain score model.onnx --preprocess imagenet --plot response.png
  onnxgain score model.onnx --image photos/ --format csv > gains.csv
  onnxgain score mlp.onnx --image-shape 1x28x28 --format json
  onnxgain score model.onnx --fingerprint --format json -o before.json
  onnxgain score a.onnx b.onnx --stimulus impulse --stimulus noise:seed=1
""",
)
@click.argument("models", nargs=-1, required=True, type=click.Path())
@measure_options
@steadiness_option
@output_options("score", plot="Draw derivative and frequency response: .png, .svg or .pdf.", report=True)
@click.option(
    "--fingerprint",
    is_flag=True,
    help="Also keep the answers to synthetic images, by which `diff`, `compare` and `gate` compare functions.",
)
@click.option("--save-spectrum", type=click.Path(), help="Keep derivatives and spectra as .npz.")
@option_group(
    "process",
    ProcessOptions,
    click.option(
        "--timeout",
        type=click.FloatRange(0, 1e6, min_open=True),
        metavar="SECONDS",
        help="Measure in a process of its own, and end it after that time.",
    ),
    click.option(
        "--memory-limit",
        type=ByteSize(),
        help="Measure in a process of its own, and let it use so much memory (Linux), e.g. 2G.",
    ),
    download_option,
)
def score(
    models: tuple[str, ...],
    measure: MeasureOptions,
    steadiness: int,
    delivery: OutputOptions,
    fingerprint: bool,
    save_spectrum: str | None,
    process: ProcessOptions,
) -> None:
    """Measure the Maximum Gain of classifiers.

    The model is linearized at an image (an impulse unless told otherwise); the gain is the maximum of the frequency
    response of the derivative of its winning class, in dB per 8-bit level.

    For untrusted models: with --timeout or --memory-limit, models are measured in a separate process, so that one that
    crashes, hangs or uses too much memory ends in a message.
    """
    delivery.check()
    _check_spectrum_file(save_spectrum)
    models = tuple(expanded(models))
    keep = delivery.arrays_wanted or save_spectrum is not None
    request = dataclasses.replace(measure.request(models=models), steadiness=steadiness)
    side = _picture_side(len(models) * request.count) if delivery.page_wanted else 0
    request = dataclasses.replace(request, arrays=keep, picture_side=side, fingerprint=fingerprint)
    run = _Run(models, keep)
    with _measuring(request, process) as measure_model:
        run.measure(measure_model)
    if run.measurements:
        delivery.deliver("score", run.result, functools.partial(_plot, run.measurements))
        if save_spectrum is not None:
            _save(run.measurements, save_spectrum)
    _show_failures([(name, str(error)) for name, error in run.failures])
    if run.failures:
        raise click.exceptions.Exit(2)


def _show_failures(failures: Sequence[tuple[str, str]]) -> None:
    """One line per distinct error, with the models that have it."""
    if not failures:
        return
    from onnxgain.report.text.formatting import merged

    for line in merged(failures) if len(failures) > 1 else [failures[0][1]]:
        click.echo(f"error: {line}", err=True)


def _check_spectrum_file(path: str | None) -> None:
    """Check before measuring that everything can be written afterwards."""
    from onnxgain.files import require_writable

    if path is not None:
        if not path.endswith(".npz"):
            raise OnnxgainError("the file name must end in .npz", where=f"--save-spectrum {path}", remedy="rename it")
        require_writable(path, files_read())


class _Run:
    """Measures several models and collects their results.

    Attributes:
        keep: whether the measurements keep their arrays; dropping them saves memory for many photographs.
    """

    def __init__(self, models: tuple[str, ...], keep: bool) -> None:
        self.models, self.keep = models, keep
        self.measurements: list[Measurement] = []
        self.failures: list[tuple[str, OnnxgainError]] = []

    def measure(self, measure_model: Measure) -> None:
        """Measure the models. Raises the error of a single model that has no result."""
        for name in self.models:
            try:
                for measurement in _under_its_name(measure_model(name), name):
                    self.measurements.append(measurement if self.keep else measurement.without_arrays())
            except OnnxgainError as error:
                if len(self.models) == 1 and not self.measurements:
                    raise
                self.failures.append((name, error))

    @property
    def result(self) -> Scores:
        """The result for the reporters."""
        from onnxgain.report.reporter import Scores

        return Scores(tuple(self.measurements), tuple((name, str(error)) for name, error in self.failures))


def _under_its_name(measurements: Iterator[Measurement], name: str) -> Iterator[Measurement]:
    """Name a fetched model by its URL instead of its local file."""
    if not is_url(name):
        yield from measurements
        return
    from onnxgain.fleet.result import renamed
    from onnxgain.fleet.sources import Source

    for measurement in measurements:
        yield renamed(measurement, Source(0, Path(name), url=name))


@contextlib.contextmanager
def _measuring(request: Request, process: ProcessOptions) -> Iterator[Measure]:
    """A function that measures a model in this process, or in a child process if there is a limit."""
    if process.contained:
        from onnxgain.fleet.pool import require_no_limit

        require_no_limit(request.device, process.memory_limit)
        with _contained(request, process) as measure_model:
            yield measure_model
    else:
        yield functools.partial(_measure_model, request, process)


def _measure_model(request: Request, process: ProcessOptions, name: str) -> Iterator[Measurement]:
    from onnxgain.measure.measure import measure_file
    from onnxgain.report.text.progress import progress

    with (
        _local(name, process) as path,
        limited(str(path)) as step,
        progress(Path(name).name, request.count) as advance,
    ):

        def advanced(count: int) -> None:
            step()
            advance(count)

        yield from measure_file(path, request, threads=process.threads, advance=advanced, read=step)


def _local(name: str, process: ProcessOptions) -> contextlib.AbstractContextManager[Path]:
    """The model as a local file."""
    if not is_url(name):
        return contextlib.nullcontext(Path(name))
    return local_model(name, open_downloads(process.max_download))


@contextlib.contextmanager
def _contained(request: Request, process: ProcessOptions) -> Iterator[Measure]:
    """A function that measures in one child process for all models."""
    from onnxgain.errors import located
    from onnxgain.fleet.pool import Limits, Slot
    from onnxgain.fleet.secrets import without_secrets

    downloads = open_downloads(process.max_download)
    limits = Limits(threads=process.threads, memory_limit=process.memory_limit, timeout=process.timeout)

    def measured(name: str) -> Iterator[Measurement]:
        url = is_url(name)
        path = downloads.model(name) if url else Path(name)
        result = slot.measure(path, request)
        if url and downloads.complete(name, path, result.external):
            result = slot.measure(path, request)
        yield from result.measurements
        if result.error is not None:
            raise located(result.error, without_secrets(name) if url else name)

    with Slot(limits.plan(1)) as slot:
        yield measured


def _picture_side(records: int) -> int:
    from onnxgain.measure.preview import picture_side

    return picture_side(records)


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
    announce(path)
