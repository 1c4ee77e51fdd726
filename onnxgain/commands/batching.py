"""What commands over many models share: options, the request, the run with its progress bar and interruptions."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.options import (
    F,
    ParamType,
    apply_options,
    count_stimuli,
    make_device,
    make_reading,
)
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.fleet.batch import Request, Result, Source
    from onnxgain.fleet.cluster import Cluster
    from onnxgain.fleet.pool import Limits
    from onnxgain.fleet.remote import Downloads
    from onnxgain.gradient.reverse.seed import Projection

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


class ByteSize(ParamType[int]):
    """A number of bytes: 800M, 2G, 1.5GiB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes; fails where the text is none."""
        text = str(value).strip().lower().removesuffix("b")
        number = text.rstrip("kmgi")
        try:
            size = float(number) * _UNITS[text[len(number) :]]
        except (ValueError, KeyError):
            size = 0.0
        if not 1 <= size < 1 << 62:
            self.fail(f"{value!r} is not a size such as 800M or 2G", param, ctx)
        return int(size)


download_option = click.option(
    "--max-download",
    type=ByteSize(),
    default="4Gi",
    show_default=True,
    help="Largest model, with its external data, that is fetched where one is given as a URL (s3://, gs://, hf://, "
    "http://, zip://a.onnx::b.zip, ...; pip install 'onnxgain[url]').",
)


def batch_options(function: F) -> F:
    """How many models are measured."""
    return apply_options(
        [
            click.option(
                "--jobs",
                type=click.IntRange(1, 1024),
                help="Models measured at a time, each in a process of its own. Default: as many as there are usable "
                "cores, and memory for.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(0, 1e6, min_open=True),
                default=120.0,
                show_default=True,
                metavar="SECONDS",
                help="Time a model may take.",
            ),
            click.option(
                "--memory-limit",
                type=ByteSize(),
                help="Memory a model's process may use (Linux), e.g. 2G. Default: its share of the machine's.",
            ),
            click.option(
                "--cache",
                type=click.Path(file_okay=False),
                help="Folder where results are kept, so that nothing is measured twice; delete it to clear it. "
                "Default: onnxgain in the user's cache folder.",
            ),
            click.option("--no-cache", is_flag=True, help="Measure everything, keep nothing."),
            download_option,
        ]
    )(function)


def ray_options(function: F) -> F:
    """Where models are measured, if not here."""
    return apply_options(
        [
            click.option(
                "--ray",
                is_flag=False,
                flag_value="auto",
                metavar="[ADDRESS]",
                help="Measure on a Ray cluster (pip install 'onnxgain[ray]'): HOST:PORT of its head, or auto, which is "
                "RAY_ADDRESS or the one this machine belongs to. Nodes read model files where they see the same, and "
                "are sent them where not. --jobs is then the number under way (default: twice as many as fit), "
                "--threads the CPUs of each (default: 1).",
            ),
            click.option(
                "--gpus",
                type=click.FloatRange(0, 1, min_open=True),
                metavar="PART",
                help="With --ray and --device cuda: part of a GPU that a model takes, e.g. 0.25. Default: a whole one.",
            ),
        ]
    )(function)


@dataclass(frozen=True)
class BatchSettings:
    """The values of `batch_options` and `ray_options`, and the threads of each process."""

    jobs: int | None
    timeout: float
    memory_limit: int | None
    cache: str | None
    no_cache: bool
    threads: int | None
    max_download: int
    ray: str | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.gpus is not None and self.ray is None:
            raise OnnxgainError("shares GPUs among the tasks of a cluster", where="--gpus", remedy="add --ray")
        if self.cache is not None and self.no_cache:
            raise OnnxgainError("exclude each other", where="--cache and --no-cache", remedy="leave one out")

    @property
    def limits(self) -> Limits:
        """How the machine is shared, and what a model may take."""
        from onnxgain.fleet.pool import Limits

        return Limits(self.jobs, self.threads, self.memory_limit, self.timeout)

    @contextmanager
    def downloads(self) -> Iterator[Downloads]:
        """Where models that are URLs go: into the cache, or a folder that is removed in the end."""
        from onnxgain.fleet.batch import default_folder
        from onnxgain.fleet.remote import Downloads

        with ExitStack() as stack:
            if self.no_cache:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxgain-")))
            else:
                folder = Path(self.cache) if self.cache else default_folder()
            yield Downloads(folder, self.max_download)


def make_request(
    *,
    stimuli: tuple[str, ...],
    images: tuple[str, ...],
    projection: Projection,
    class_index: int | None,
    image_shape: tuple[int, ...] | None,
    image_input: str | None,
    inputs: tuple[str, ...],
    output: str | None,
    head: str | None,
    preprocess: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    scale: float | None,
    custom_ops: tuple[str, ...],
    device: str,
    providers: str | None,
    tf32: bool,
    elsewhere: bool = False,
) -> Request:
    """What stimulus, gain and reading options ask of each model.

    Args:
        elsewhere: other machines have the device, so that it cannot be tried.

    Raises:
        OnnxgainError: an option that no model could be measured with.
    """
    from onnxgain.measure.request import Request
    from onnxgain.model.stimulus import check_stimulus

    if custom_ops and elsewhere:
        raise OnnxgainError(
            "libraries are not sent to other machines", where="--custom-ops", remedy="measure here, without --ray"
        )
    specifications, photos = count_stimuli(stimuli, images)
    for text in specifications:
        check_stimulus(text)
    reading = make_reading(
        image_shape=image_shape,
        image_input=image_input,
        inputs=inputs,
        output=output,
        head=head,
        preprocess=preprocess,
        mean=mean,
        std=std,
        scale=scale,
        custom_ops=custom_ops,
    )
    return Request(
        reading,
        stimuli=specifications,
        photos=photos,
        projection=projection,
        class_index=class_index,
        device=make_device(device, providers, tf32, elsewhere),
    )


def run_batch(sources: Sequence[Source], request: Request, settings: BatchSettings) -> tuple[list[Result], bool]:
    """Measure with a progress bar; the results in the order of the sources, and whether there was an interruption.

    SIGINT and SIGTERM (see `onnxgain.commands.cli`) end it early: what is done by then is returned, and in the cache.
    """
    from onnxgain.fleet.batch import Cache, default_folder, score_batch
    from onnxgain.report.text.progress import progress

    cache = None if settings.no_cache else Cache(Path(settings.cache) if settings.cache else default_folder())
    results: list[Result] = []
    interrupted = False
    try:
        with ExitStack() as stack:
            stream = score_batch(
                sources,
                request,
                settings.limits,
                cache=cache,
                cluster=_cluster(settings, stack),
                downloads=stack.enter_context(settings.downloads()),
            )
            stack.enter_context(closing(stream))
            advance = stack.enter_context(progress("measuring", len(sources)))
            for result in stream:
                results.append(result)
                advance(1)
    except KeyboardInterrupt:
        interrupted = True
    if cache is not None and cache.trouble is not None:
        click.echo(f"warning: some results could not be kept for the next run: {cache.trouble}", err=True)
    return sorted(results, key=lambda result: result.source.index), interrupted


def _cluster(settings: BatchSettings, stack: ExitStack) -> Cluster | None:
    """The cluster to measure on, left at the end; None for this machine."""
    if settings.ray is None:
        return None
    from onnxgain.fleet.cluster import Cluster

    # Ray says on standard output that a node was lost; the result is to be there, and nothing else.
    stack.enter_context(redirect_stdout(sys.stderr))
    cluster = Cluster(settings.ray, gpus=settings.gpus or 1.0, notice=functools.partial(click.echo, err=True))
    return stack.enter_context(cluster)
