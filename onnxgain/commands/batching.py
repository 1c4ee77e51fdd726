"""Shared by commands over many models: batch options, and the run with its progress bar and interruptions."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxgain.commands.fetching import download_option
from onnxgain.commands.parameters import ByteSize, F, apply_options, option_group
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.fleet.batch import Request, Result, Source
    from onnxgain.fleet.cache import Cache
    from onnxgain.fleet.cluster import Cluster
    from onnxgain.fleet.pool import Limits
    from onnxgain.fleet.remote import Downloads

INTERRUPTED = "interrupted: the same command goes on from here"

add_batch_options: Callable[[F], F] = apply_options(
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
            help="Folder of kept results, so that nothing is measured twice; delete it to clear it. "
            "Default: onnxgain in the user's cache folder.",
        ),
        click.option("--no-cache", is_flag=True, help="Measure everything, keep nothing."),
        download_option,
    ]
)

_add_ray_options: Callable[[F], F] = apply_options(
    [
        click.option(
            "--ray",
            is_flag=False,
            flag_value="auto",
            metavar="[ADDRESS]",
            help="Measure on a Ray cluster (needs ray): HOST:PORT of its head, or auto, which is "
            "RAY_ADDRESS or the one this machine belongs to. Nodes read model files that they can see, and "
            "are sent the others. --jobs is then the number under way (default: twice as many as fit), "
            "--threads the CPUs of each (default: 1).",
        ),
        click.option(
            "--gpus",
            type=click.FloatRange(0, 1, min_open=True),
            metavar="PART",
            help="With --ray and --device cuda: part of a GPU that a model takes, e.g. 0.25. Default: a whole one.",
        ),
    ]
)


@dataclass(frozen=True)
class BatchOptions:
    """How and where many models are measured.

    Raises:
        OnnxgainError: the options exclude each other.
    """

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
            raise OnnxgainError("only has an effect on a cluster", where="--gpus", remedy="add --ray")
        if self.cache is not None and self.no_cache:
            raise OnnxgainError(
                "cannot be given together", where="--cache and --no-cache", remedy="leave one of them out"
            )

    @property
    def remote(self) -> bool:
        """Whether models are measured on other machines."""
        return self.ray is not None

    @property
    def limits(self) -> Limits:
        """How the machine is shared, and the limits of a model."""
        from onnxgain.fleet.pool import Limits

        return Limits(self.jobs, self.threads, self.memory_limit, self.timeout)

    def open_cache(self) -> Cache | None:
        """The cache of results; None if they are not kept."""
        from onnxgain.fleet.cache import Cache, default_folder

        if self.no_cache:
            return None
        try:
            return Cache(Path(self.cache) if self.cache else default_folder())
        except OnnxgainError as error:
            click.echo(f"warning: nothing is kept for the next run: {error}", err=True)
            return None

    @contextmanager
    def downloads(self) -> Iterator[Downloads]:
        """Where models from URLs are stored: in the cache, or in a folder that is removed at the end."""
        from onnxgain.fleet.remote import Downloads

        with ExitStack() as stack:
            folder = Path(self.cache) if self.cache else None
            if self.no_cache:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxgain-")))
            yield Downloads(folder, self.max_download)


cluster_options = option_group("batch", BatchOptions, add_batch_options, _add_ray_options)


def run_batch(sources: Sequence[Source], request: Request, batch: BatchOptions) -> tuple[list[Result], bool]:
    """Measure with a progress bar. Returns the results in the order of the sources, and whether it was interrupted.

    SIGINT and SIGTERM (see `onnxgain.commands.cli`) end it early; finished results are returned and are in the cache.
    """
    from onnxgain.fleet.batch import score_batch
    from onnxgain.report.text.progress import progress

    cache = batch.open_cache()
    results: list[Result] = []
    interrupted = False
    try:
        with ExitStack() as stack:
            stream = score_batch(
                sources,
                request,
                batch.limits,
                cache=cache,
                cluster=_cluster(batch, stack),
                downloads=stack.enter_context(batch.downloads()),
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


def _cluster(batch: BatchOptions, stack: ExitStack) -> Cluster | None:
    """The cluster to measure on, disconnected at the end; None for this machine."""
    if batch.ray is None:
        return None
    from onnxgain.fleet.cluster import Cluster

    # Ray reports lost nodes on standard output, which is reserved for the result.
    stack.enter_context(redirect_stdout(sys.stderr))
    cluster = Cluster(batch.ray, gpus=batch.gpus or 1.0, notice=functools.partial(click.echo, err=True))
    return stack.enter_context(cluster)
