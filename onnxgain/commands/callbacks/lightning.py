"""Watches training with Lightning."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from onnxgain.commands.callbacks.monitor import Measured, Monitor
from onnxgain.commands.callbacks.pytorch import exporter, require_exporter, weights_of

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback


class LightningCallback(Callback):
    """Watches training: `Trainer(callbacks=[LightningCallback("run/", images="train-sample/")])`.

    Metrics go to all loggers of the trainer, at the step of the snapshot; the verdict goes to loggers that accept text.
    With several processes, only the first one does this.

    Args:
        folder: the folder of the run, into which snapshots are written.
        example: a batch of images (N, C, H, W) as the module takes them. None: the module's ``example_input_array``,
            else the first images of the first batch.
        options: options of `onnxgain.commands.callbacks.monitor.Monitor`: every, stop_on, patience, keep, images,
            labels, preprocess, ...

    Raises:
        OnnxgainError: an argument is invalid, or PyTorch cannot export networks here; when training begins: images
            cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str], *, example: Any = None, **options: Any) -> None:
        require_exporter()
        self.monitor = Monitor(folder, **options)
        self._example = example

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the process that measures."""
        if trainer.is_global_zero:
            self.monitor.start()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Keep an image as an example of the module's input."""
        if self._example is None:
            given = getattr(pl_module, "example_input_array", None)
            image = _images(batch if given is None else given)
            self._example = None if image is None else image[:1].detach().cpu()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Log the results that have arrived."""
        self._tell(trainer, self.monitor.poll())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take a snapshot, and stop training if a verdict says so."""
        epoch = trainer.current_epoch + 1
        if self.monitor.wants(epoch) and self._example is None:
            self.monitor.give_up("no images (N, C, H, W) were found in a batch; pass example=")
        self.monitor.take(
            epoch, exporter(pl_module, self._example, flattened="image_shape" in self.monitor.options),
            lambda: weights_of(pl_module), trainer.global_step,
        )  # fmt: skip
        self._tell(trainer, self.monitor.poll())
        if self.monitor.stop_on:
            stop = trainer.strategy.reduce_boolean_decision(self.monitor.should_stop, all=False)
            trainer.should_stop = trainer.should_stop or stop

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Wait for snapshots that are still being measured, log them, and end the process."""
        self._tell(trainer, self.monitor.finish())

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the process."""
        self._tell(trainer, self.monitor.finish(0.0))

    def _tell(self, trainer: Any, found: Sequence[Measured]) -> None:
        for measured in found:
            for logger in trainer.loggers:
                with self.monitor.guarded("metrics are not logged"):
                    logger.log_metrics(measured.metrics(), step=measured.step)
                    _say(logger, measured)


def _say(logger: Any, measured: Measured) -> None:
    """Give the verdict to a logger that accepts text: TensorBoard, MLflow, Weights & Biases."""
    experiment = logger.experiment
    if hasattr(experiment, "add_text"):
        experiment.add_text("onnxgain/verdict", str(measured), measured.step)
    elif hasattr(experiment, "set_tag") and hasattr(logger, "run_id"):
        experiment.set_tag(logger.run_id, "onnxgain.verdict", measured.sentence)
    elif hasattr(experiment, "summary"):
        experiment.summary["onnxgain/verdict"] = measured.sentence


def _images(batch: Any) -> Any:
    """The first tensor of images (N, C, H, W) in a batch; None if there is none."""
    if getattr(batch, "ndim", 0) == 4 and batch.is_floating_point():
        return batch
    values: Sequence[Any] = ()
    if isinstance(batch, Mapping):
        values = tuple(batch.values())
    elif isinstance(batch, (list, tuple)):
        values = batch
    return next((found for value in values if (found := _images(value)) is not None), None)
