"""`track --follow`: measures snapshots as they are written, shows the curve, and acts on the verdict."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.errors import OnnxgainError, UnreadableModelError

if TYPE_CHECKING:
    from onnxgain.analysis.series import Series
    from onnxgain.commands.batching import BatchOptions
    from onnxgain.commands.runs import Runs
    from onnxgain.commands.track_options import FollowOptions
    from onnxgain.fleet.batch import Request
    from onnxgain.fleet.follow import Watch

Show = Callable[["Sequence[Series]", str], None]
"""Shows the runs after a new snapshot with the given path."""


PATIENCE = 10.0
"""Time limit for the commands of --on-verdict at the end of a run, seconds."""

_LONGEST_VALUE = 10_000
"""The largest length of their environment variables, characters."""


class Notifier:
    """Runs a command whenever the verdict of a run changes."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._last: dict[str, str] = {}
        self._running: list[subprocess.Popen[bytes]] = []

    def tell(self, series: Series) -> None:
        """Run the command, without waiting for it, if the verdict changed."""
        found = series.diagnosis
        if self._last.get(series.name, "undecided") == found.verdict:
            return
        self._last[series.name] = found.verdict
        told = {
            "RUN": series.name,
            "EPOCH": str(series.epochs[-1]) if series.epochs else "",
            "VERDICT": found.verdict,
            "ONSET": "" if found.onset is None else str(found.onset),
            "SENTENCE": found.sentence,
        }
        clean = {f"ONNXGAIN_{key}": value.replace("\0", "")[:_LONGEST_VALUE] for key, value in told.items()}
        self._running = [process for process in self._running if process.poll() is None]
        try:
            self._running.append(
                subprocess.Popen(self.command, shell=True, env=os.environ | clean, stdin=subprocess.DEVNULL)
            )
        except OSError as error:
            click.echo(f"warning: --on-verdict could not be run: {error.strerror}", err=True)

    def wait(self) -> None:
        """Wait up to `PATIENCE` seconds for commands that are still running; after that they continue on their own."""
        end = time.monotonic() + PATIENCE
        for process in self._running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(end - time.monotonic(), 0.0))
        if any(process.poll() is None for process in self._running):
            click.echo("the command of --on-verdict is still running", err=True)


class Following:
    """One run of `track --follow`.

    Args:
        arguments: folders and files.
        runs: collects the snapshots.
        options: when to end, and what to run on a verdict.

    Raises:
        OnnxgainError: none of the arguments is a folder.
    """

    def __init__(
        self, arguments: Sequence[str], request: Request, batch: BatchOptions, runs: Runs, options: FollowOptions
    ) -> None:
        self._folders = [Path(argument) for argument in arguments if Path(argument).is_dir()]
        self._files = [Path(argument) for argument in arguments if not Path(argument).is_dir()]
        if not self._folders:
            raise OnnxgainError("none of the arguments is a folder", where="--follow", remedy="name the run's folder")
        self._request, self._batch, self._runs, self._options = request, batch, runs, options
        self._notifier = Notifier(options.on_verdict) if options.on_verdict is not None else None
        self._in_a_row: dict[str, int] = {}

    def run(self) -> None:
        """Follow until interrupted, idle for long enough, or stopped by a verdict."""
        from onnxgain.fleet.follow import INTERVAL, Watch, models_in

        watch = Watch(lambda: models_in(self._folders, self._files))
        news, idle = time.monotonic(), self._options.idle
        try:
            with self._measuring() as measure, _showing() as show:
                while True:
                    ready = watch.ready()
                    if ready:
                        stop = self._take(ready, measure, watch, show)
                        news = time.monotonic()
                        if stop:
                            return
                        continue
                    if idle is not None and not watch.pending and time.monotonic() - news > idle:
                        return
                    time.sleep(INTERVAL)
        except KeyboardInterrupt:
            click.echo("stopped following", err=True)
        finally:
            if self._notifier is not None:
                self._notifier.wait()

    def _take(self, ready: Iterable[Path], measure: Callable[[Path], Any], watch: Watch, show: Show) -> bool:
        """Measure files, add and show them. Returns whether to stop."""
        from onnxgain.files import natural_key

        for path in sorted(ready, key=lambda path: (_written(path), natural_key(str(path)))):
            result = measure(path)
            if isinstance(result.error, UnreadableModelError) and watch.again(path):
                continue
            self._runs.add(result)
            runs = self._runs.series()
            show(runs, result.source.name)
            changed = next((s for s in runs if any(one.path == result.source.name for one in s.snapshots)), None)
            if changed is not None and self._judge(changed):
                return True
        return False

    def _judge(self, series: Series) -> bool:
        """Act on the verdict of a run with a new snapshot. Returns whether to stop."""
        if self._notifier is not None:
            self._notifier.tell(series)
        bad = series.diagnosis.verdict in self._options.fail_on
        self._in_a_row[series.name] = self._in_a_row.get(series.name, 0) + 1 if bad else 0
        return self._in_a_row[series.name] >= self._options.patience

    @contextmanager
    def _measuring(self) -> Iterator[Callable[[Path], Any]]:
        """A function that measures a file in a child process that is kept for the next one."""
        from onnxgain.fleet.measurer import Measurer
        from onnxgain.fleet.pool import Slot
        from onnxgain.fleet.sources import Source

        batch = self._batch
        plan = replace(batch.limits, jobs=1).plan(1, self._request.device)
        measurer = Measurer(self._request, batch.open_cache(), plan.memory_limit)
        with Slot(plan) as slot:
            slot.start()
            yield lambda path: measurer.result(Source(0, path), slot)


def _written(path: Path) -> int:
    """When a file was written, ns; 0 if it has vanished."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def _showing() -> Iterator[Show]:
    """A function that shows the runs: a live chart on a terminal, else one line per snapshot on standard error."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from onnxgain.report.text.formatting import capitalized, printable
    from onnxgain.report.text.track import MARGIN, STYLES, assumed_in, chart

    console = Console(stderr=True)

    def show(runs: Sequence[Series], new: str) -> None:
        notes = [printable(line) for line in assumed_in(runs)]
        below = sum(1 + len(line) // console.size.width for line in notes)
        height = max((console.size.height - 2 - below) // max(len(runs), 1) - 6, 4)
        parts: list[Text] = []
        for series in runs:
            found = series.diagnosis
            parts.append(Text(f"{printable(series.name)}: {series.finding}", style=STYLES[found.verdict]))
            parts.append(Text(chart(series, max(console.size.width - MARGIN - 3, 20), min(height, 16))))
            parts.append(Text(capitalized(series.certainty), style="dim"))
        parts += [Text(line, style="yellow") for line in notes]
        live.update(Group(*parts))

    # The result that follows on a terminal has the chart, too.
    gone = sys.stdout.isatty()
    with Live(Text("waiting for snapshots"), console=console, refresh_per_second=8, transient=gone) as live:
        yield show


def _lines() -> Show:
    """A function that writes a line per snapshot, and each assumption once."""
    from onnxgain.report.text.assumptions import assumed

    said: set[str] = set()

    def show(runs: Sequence[Series], new: str) -> None:
        _say(runs, new)
        for record in (r for series in runs for s in series.snapshots if s.path == new for r in s.records):
            for line in assumed(((new, text) for text in record.assumptions if text not in said), models=1):
                click.echo(line, err=True)
            said.update(record.assumptions)

    return show


def _say(runs: Sequence[Series], new: str) -> None:
    from onnxgain.analysis.series import NO_GAIN
    from onnxgain.report.text.track import snapshot_line

    for series in runs:
        for snapshot in series.snapshots:
            if snapshot.path == new:
                click.echo(snapshot_line(series, snapshot), err=True)
        for (what, why), line in zip(series.left_out, series.left_out_lines, strict=True):
            if what == new:
                click.echo(line if why.startswith(NO_GAIN) else f"left out: {line}", err=True)
