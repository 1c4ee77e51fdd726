"""Shared by all callbacks: sends snapshots to a second process and receives its results.

Once training runs, nothing here waits for that process, and its failures do not affect training: each is logged once,
by the logger "onnxgain" of Python's logging.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from onnxgain.analysis.diagnosis import VERDICTS
from onnxgain.errors import OnnxgainError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

START_LIMIT = 120.0
"""Seconds that training waits for the process to be ready."""

END_LIMIT = 60.0
"""Time limit for snapshots that are still being measured at the end of training, seconds."""

MOST_WAITING = 200
"""The largest number of snapshots that may wait to be measured; the messages about more could fill the pipe."""

COMMAND = (sys.executable, "-P", "-m", "onnxgain.commands.callbacks.process")

log = logging.getLogger("onnxgain")

Export = Callable[[Path], None]
Weights = Callable[[], "Sequence[NDArray[Any]] | None"]


@dataclass(frozen=True)
class Measured:
    """The state of the run after a snapshot.

    Attributes:
        epoch: the epoch of the snapshot, counted from 1.
        step: the training step of the snapshot, as the logger counts; the epoch if no step was given.
        gain_db: Maximum Gain in dB, the mean of the channels; None if there is none.
        images_loss, copies_loss, surrogate: l, g and s on the labelled images, if these were given; only l if they are
            held out.
        verdict: the verdict on the run so far: "too-high", "too-low", "converged", "overfitting" or "undecided".
        onset: the epoch from which it has converged or overfits.
        sentence: the verdict in words.
        certainty: the basis of the verdict and its reliability, in words.
        agreement: 0 to 1, the share of resampled sets of images that agree; None without images.
        problem: why this snapshot could not be measured.
        no_gain: why it has no gain, if it was measured.
        assumptions: what was assumed of the network, such as its input scale, a sentence each.
    """

    epoch: int
    step: int = 0
    gain_db: float | None = None
    images_loss: float | None = None
    copies_loss: float | None = None
    surrogate: float | None = None
    verdict: str = "undecided"
    onset: int | None = None
    sentence: str = ""
    certainty: str = ""
    agreement: float | None = None
    problem: str | None = None
    no_gain: str | None = None
    assumptions: tuple[str, ...] = ()

    def metrics(self, prefix: str = "onnxgain/") -> dict[str, float]:
        """The available numbers, by name."""
        names = ("epoch", "gain_db", "images_loss", "copies_loss", "surrogate", "agreement")
        values = {name: getattr(self, name) for name in names}
        return {prefix + name: float(value) for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        if self.problem is not None:
            return f"epoch {self.epoch} could not be measured: {self.problem}"
        parts = [f"gain {self.gain_db:.2f} dB"] if self.gain_db is not None else ["no gain"]
        if self.surrogate is not None:
            parts.append(f"surrogate loss {self.surrogate:.4f}")
        elif self.images_loss is not None:
            parts.append(f"held-out loss {self.images_loss:.4f}")
        return f"epoch {self.epoch}: {', '.join(parts)}; {self.sentence} ({self.certainty})"


class Monitor:
    """Sends snapshots to the second process and receives its results.

    Args:
        folder: the folder of the run, created if needed. Snapshots are written there as epoch1.onnx, epoch2.onnx, ...
            Existing snapshots of earlier epochs belong to the run.
        every: number of epochs between snapshots.
        stop_on: the verdicts that stop training. Without ``images``, these are hints from the gains, and "overfitting"
            is refused.
        patience: how many snapshots in a row must give one of them.
        keep: whether to keep snapshots in the folder after measuring them.
        options: options of `onnxgain track` for images and measuring, such as ``images``, ``labels``,
            ``held_out`` and ``preprocess``.

    Attributes:
        last: the state after the last measured snapshot.
        should_stop: whether training should stop.

    Raises:
        OnnxgainError: an argument is invalid.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int = 1,
        stop_on: str | Sequence[str] = (),
        patience: int = 3,
        keep: bool = True,
        **options: Any,
    ) -> None:
        self.folder = Path(folder)
        self.every, self.patience, self.keep, self.options = every, patience, keep, options
        self.stop_on = (stop_on,) if isinstance(stop_on, str) else tuple(stop_on)
        if unknown := sorted(set(self.stop_on) - set(VERDICTS)):
            raise OnnxgainError(
                f"{unknown[0]!r} is not a verdict", where="stop_on=", remedy=f"choose from {', '.join(VERDICTS)}"
            )
        if "overfitting" in self.stop_on and options.get("images") is None:
            raise OnnxgainError(
                "overfitting cannot be told from gains alone",
                where="stop_on=",
                remedy="give images=, some of the labelled images that the network is trained on",
            )
        for name, value in (("every", every), ("patience", patience)):
            if value < 1:
                raise OnnxgainError(f"{value} is less than 1", where=f"{name}=", remedy="give a positive number")
        self.last: Measured | None = None
        self.should_stop = False
        self._process: subprocess.Popen[bytes] | None = None
        self._files = ExitStack()
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._steps: dict[int, int] = {}
        self._swappable: bool | None = None
        self._exported = False
        self._in_a_row = 0
        self._said: set[str] = set()

    # ------------------------------------------------------------------------------------------------ the process
    def start(self) -> None:
        """Start the process and wait until it is ready. No other call waits during training.

        Raises:
            OnnxgainError: an option or the images are wrong, or the process does not start.
        """
        if self._process is not None:
            return
        from onnxgain.commands.callbacks.process import settings
        from onnxgain.commands.python_api import command_arguments
        from onnxgain.fleet.child import child_environment

        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = command_arguments(settings, {"keep": self.keep, **self.options}, self._files)
        lowest = getattr(subprocess, "IDLE_PRIORITY_CLASS", 0)  # Windows; elsewhere the process sees to it itself
        self._process = subprocess.Popen(
            [*COMMAND, *arguments, "--", str(self.folder.resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(), creationflags=lowest,
        )  # fmt: skip
        assert self._process.stdout is not None
        threading.Thread(target=_receive, args=(self._process.stdout, self._replies), daemon=True).start()
        try:
            reply = self._replies.get(timeout=START_LIMIT)
        except queue.Empty:
            self.say("snapshots are measured later: the process for that is still starting, on a machine that is busy")
            return
        if reply is not None and "ready" in reply:
            return
        self._end()
        if reply is None:
            raise OnnxgainError(
                "the process that is to measure snapshots does not start", remedy="run `onnxgain doctor`"
            )
        from onnxgain.commands.wording import as_python
        from onnxgain.fleet.protocol import error_from_json

        raise as_python(error_from_json(reply["error"]))

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._files.close()

    # ------------------------------------------------------------------------------------------------- snapshots
    def wants(self, epoch: int) -> bool:
        """Whether to take a snapshot at this epoch (counted from 1)."""
        return self._process is not None and epoch % self.every == 0

    def take(self, epoch: int, export: Export, weights: Weights, step: int | None = None) -> None:
        """Take a snapshot: export the network, or only copy its weights once that is known to be enough.

        Args:
            epoch: the epoch, counted from 1.
            export: writes the network to a file.
            weights: returns its floating-point weights in a fixed order; None if they are not numpy arrays.
            step: the training step, as the logger counts.
        """
        if not self.wants(epoch):
            return
        if len(self._steps) >= MOST_WAITING:
            self.say("measuring does not keep up: snapshots are left out until it does")
            return
        try:
            message = self._written(epoch, export, weights)
            self._steps[epoch] = epoch if step is None else step
            self._send(message)
        except Exception as error:  # whatever an exporter raises must not end the training
            self._steps.pop(epoch, None)
            reason = _reason(error)
            if isinstance(error, OnnxgainError):
                self.give_up(str(error))
            elif self._exported:
                self.say(f"a snapshot is left out, {reason}")
            else:
                self.give_up(f"the network cannot be exported, {reason}")

    def give_up(self, why: str) -> None:
        """Stop watching this training."""
        self.say(f"training is not watched: {why}")
        self._steps.clear()
        self._end()

    def _written(self, epoch: int, export: Export, weights: Weights) -> dict[str, Any]:
        """Write the files that the process needs for a snapshot, and return the message about it."""
        import numpy as np

        arrays = weights() if self._swappable is not False else None
        exports = not self._swappable or arrays is None
        if exports:
            path = self.folder / f".epoch{epoch}.part"
            try:
                export(path)
                path.replace(self.folder / f"epoch{epoch}.onnx")
            finally:
                path.unlink(missing_ok=True)
            self._exported = True
        name = None
        if arrays is not None:
            name = f".epoch{epoch}.npz"
            numbered: dict[str, Any] = {str(number): array for number, array in enumerate(arrays)}
            np.savez(self.folder / name, **numbered)
        return {"epoch": epoch, "exported": exports, "weights": name}

    def _send(self, message: dict[str, Any]) -> None:
        from onnxgain.fleet.protocol import write_message

        assert self._process is not None and self._process.stdin is not None
        try:
            write_message(self._process.stdin, message)
        except OSError:
            self._lost()

    def _lost(self) -> None:
        self.say("training is not watched any longer: the process that measures snapshots has ended")
        self._steps.clear()
        self._end()

    # --------------------------------------------------------------------------------------------------- results
    def poll(self) -> list[Measured]:
        """The results since the last call, in the order of the snapshots. Never waits."""
        found = []
        while not self._replies.empty():
            found += self._taken(self._replies.get())
        return found

    def _taken(self, reply: dict[str, Any] | None) -> list[Measured]:
        from onnxgain.report.text.assumptions import assumed

        if reply is None:
            if self._process is not None:
                self._lost()
            return []
        if "error" in reply:  # of a process that became ready late
            from onnxgain.commands.wording import as_python
            from onnxgain.fleet.protocol import error_from_json

            self.give_up(str(as_python(error_from_json(reply["error"]))))
            return []
        if "epoch" not in reply:
            self._swappable = bool(reply["swappable"]) if "swappable" in reply else self._swappable
            return []
        step = self._steps.pop(reply["epoch"], reply["epoch"])
        names = {field.name for field in fields(Measured)}
        values = {name: value for name, value in reply.items() if name in names}
        measured = Measured(**(values | {"step": step, "assumptions": tuple(reply.get("assumptions", ()))}))
        for sentence in measured.assumptions:
            (line,) = assumed([("", sentence)], models=1)
            self.say(line, kind=sentence)
        if measured.problem is not None:
            self.say(str(measured), kind=measured.problem)
        elif measured.no_gain is not None:
            self.say(f"epoch {measured.epoch}: {measured.no_gain}", kind=measured.no_gain)
        if not measured.sentence:
            return []
        self.last = measured
        if measured.problem is None:
            log.info("%s", measured)
        bad = measured.verdict in self.stop_on
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if self._in_a_row >= self.patience and not self.should_stop:
            self.should_stop = True
            log.warning("training is to stop: %s, at epoch %d", measured.sentence, measured.epoch)
        return [measured]

    def finish(self, limit: float = END_LIMIT) -> list[Measured]:
        """End the process when it has measured the waiting snapshots or the time limit is over. Returns its results.

        Args:
            limit: the time limit, seconds.
        """
        found, end = self.poll(), time.monotonic() + limit
        while self._process is not None and self._steps:
            try:
                found += self._taken(self._replies.get(timeout=max(end - time.monotonic(), 0.001)))
            except queue.Empty:
                self.say(f"the last {len(self._steps)} snapshots were not measured in time; see `onnxgain track`")
                break
        self._end()
        return found

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Log errors inside once instead of letting them affect training."""
        try:
            yield
        except Exception as error:
            self.say(f"{what}, {_reason(error)}")

    def say(self, text: str, kind: str | None = None) -> None:
        """Say something of a kind once. Not by `warnings`, which may be told to raise."""
        kind = kind or text.partition(":")[0].partition(",")[0]
        if kind not in self._said:
            self._said.add(kind)
            log.warning("%s", text)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _receive(stream: IO[bytes], replies: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    from onnxgain.fleet.protocol import read_message

    with suppress(OSError, ValueError):
        while (message := read_message(stream)) is not None:
            replies.put(message)
    replies.put(None)
