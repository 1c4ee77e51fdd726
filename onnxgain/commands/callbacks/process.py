"""The process that measures the snapshots of a training: `python -m onnxgain.commands.callbacks.process FOLDER`.

It reads messages (`onnxgain.fleet.protocol`) from standard input and writes them to standard output. It runs at the
lowest priority and with one thread, and ends when its input ends.

    process: {"ready": true}                                or {"error": ...}, then it ends
    parent:  {"epoch": 3, "exported": true, "weights": ".epoch3.npz"}     weights may be null where exported is true
    process: {"swappable": true}                            once it is known whether weights are enough
    process: {"epoch": 3, "verdict": "undecided", ...}      a `Measured` of `onnxgain.commands.callbacks.monitor`
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from onnxgain.commands.options import MeasureOptions, measure_options
from onnxgain.commands.track_options import SampleOptions, SeriesOptions, sample_options
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.commands.runs import Runs
    from onnxgain.fleet.measurer import Measurer
    from onnxgain.fleet.pool import Slot
    from onnxgain.measure.request import Request

TIMEOUT = 3600.0
"""Time limit for one snapshot, seconds; long, as training keeps the machine busy."""


@click.command("callbacks")
@click.argument("folder")
@click.option("--keep/--no-keep", default=True)
@sample_options
@measure_options
def settings(
    folder: str, keep: bool, sample: SampleOptions, measure: MeasureOptions
) -> tuple[Path, bool, Request, int]:
    """The settings of a run: its folder, whether to keep snapshots, what to measure, and the number of threads."""
    request = dataclasses.replace(measure.request(), series=True, sample=sample.source(remote=False))
    return Path(folder), keep, request, measure.threads or 1


def main() -> None:
    """Measure snapshots until the input ends."""
    _give_way()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent handles it.
    from onnxgain.fleet.protocol import error_to_json, write_message

    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        try:
            folder, keep, request, threads = settings.main(standalone_mode=False)
        except click.ClickException as error:
            raise OnnxgainError(error.format_message()) from None
        with suppress(BrokenPipeError):
            Beside(folder, request, threads=threads, keep=keep).serve(requests, replies)
    except OnnxgainError as error:
        write_message(replies, {"error": error_to_json(error)})


def _give_way() -> None:
    """Lower the priority of this process; on Windows, the parent does."""
    with suppress(AttributeError, OSError):
        os.nice(19)


class Beside:
    """Measures the snapshots of one run.

    Args:
        folder: the folder of the snapshots.
        request: what to measure on each.
        threads: threads of the runtime.
        keep: whether to keep a snapshot after measuring it.
    """

    def __init__(self, folder: Path, request: Request, *, threads: int = 1, keep: bool = True) -> None:
        from onnxgain.commands.callbacks.weights import SnapshotWriter
        from onnxgain.commands.runs import Runs

        self._folder, self._request, self._threads, self._keep = folder, request, threads, keep
        self._writer = SnapshotWriter()
        self._runs: Runs = Runs(SeriesOptions("natural", (), "skip", None))
        self._begun = False

    def serve(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        """Answer messages until there are no more.

        Raises:
            OnnxgainError: measuring cannot begin.
            OSError: the parent has ended.
        """
        from onnxgain.commands.wording import in_python
        from onnxgain.fleet.measurer import Measurer
        from onnxgain.fleet.pool import Limits, Slot
        from onnxgain.fleet.protocol import read_message, write_message

        plan = Limits(jobs=1, threads=self._threads, timeout=TIMEOUT).plan(1, self._request.device)
        measurer = Measurer(self._request, None, plan.memory_limit)
        with Slot(plan) as slot:
            slot.start()
            write_message(replies, {"ready": True})
            while (message := read_message(requests)) is not None:
                known = self._writer.swappable
                try:
                    answer = self._measured(message, measurer, slot)
                except (OnnxgainError, OSError, ValueError) as error:
                    answer = {"problem": in_python(str(error))}
                if self._writer.swappable is not known:
                    write_message(replies, {"swappable": self._writer.swappable})
                write_message(replies, {"epoch": message["epoch"]} | answer)

    def _measured(self, message: dict[str, Any], measurer: Measurer, slot: Slot) -> dict[str, Any]:
        """Write the snapshot if only its weights were sent, and measure it."""
        epoch = int(message["epoch"])
        path = self._folder / f"epoch{epoch}.onnx"
        weights = _weights(self._folder / message["weights"]) if message["weights"] else None
        if not message["exported"]:
            assert weights is not None
            self._writer.write(path, weights)
        elif weights is not None:
            self._writer.learn(path, weights)
        if not self._begun:
            self._begun = True
            for earlier in _earlier(self._folder, epoch):
                self._add(earlier, measurer, slot)
        self._add(path, measurer, slot)
        if not self._keep:
            path.unlink(missing_ok=True)
        return _answer(self._runs, path)

    def _add(self, path: Path, measurer: Measurer, slot: Slot) -> None:
        from onnxgain.fleet.sources import Source

        self._runs.add(measurer.result(Source(0, path), slot))


def _weights(path: Path) -> list[Any]:
    """Read the arrays of a file and remove it."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[str(number)] for number in range(len(file.files))]
    finally:
        path.unlink(missing_ok=True)


def _earlier(folder: Path, epoch: int) -> list[Path]:
    """The existing snapshots of a resumed run: those before the first new epoch. Later ones belong to another run."""
    found = {}
    for path in folder.glob("epoch*.onnx"):
        number = re.fullmatch(r"epoch(\d{1,9})", path.stem)
        if number is not None and int(number[1]) < epoch:
            found[int(number[1])] = path
    return [found[number] for number in sorted(found)]


def _answer(runs: Runs, path: Path) -> dict[str, Any]:
    """What is known of the run after a snapshot."""
    from onnxgain.commands.wording import in_python
    from onnxgain.measure.words import assumptions_of

    (series,) = runs.series()
    found = series.diagnosis
    snapshot = next((one for one in series.snapshots if one.path == str(path)), None)
    why = next((why.removeprefix(f"{path}: ") for what, why in series.left_out if what == str(path)), None)
    reason = None if why is None else in_python(why)
    gain = snapshot.mean if snapshot is not None else float("nan")
    return {
        "gain_db": gain if gain == gain else None,  # not NaN
        **(series.sample_numbers(snapshot.epoch) if snapshot is not None else {}),
        "verdict": found.verdict,
        "onset": found.onset,
        "sentence": found.sentence,
        "certainty": series.certainty,
        "agreement": found.confidence if series.has_sample and found.numbers else None,
        "problem": reason if snapshot is None else None,
        "no_gain": None if snapshot is None else reason,
        "assumptions": [] if snapshot is None else [in_python(text) for text in assumptions_of(snapshot.records)],
    }


if __name__ == "__main__":
    main()
