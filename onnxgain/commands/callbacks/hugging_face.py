"""Watches training with the Trainer of Hugging Face transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from onnxgain.commands.callbacks.monitor import Measured, Monitor
from onnxgain.commands.callbacks.pytorch import agreed, exporter, require_exporter, unwrapped, weights_of


class HuggingFaceCallback(TrainerCallback):
    """Watches training: `HuggingFaceCallback("run/", images="train-sample/").attach(trainer)`.

    Metrics go through the trainer's own `log`, and so to everything that it reports to. With several processes, only
    the first one does this.

    Args:
        folder: the folder of the run, into which snapshots are written.
        example: a batch of pixel values (N, C, H, W). None: zeros of the size in the model's configuration, else the
            first example of the training data.
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
        self._trainer: Any = None

    def attach(self, trainer: Any) -> HuggingFaceCallback:
        """Add the callback to a trainer and keep the trainer for its `log`, as callbacks do not get it."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Start the process that measures."""
        if not state.is_world_process_zero:
            return
        self.monitor.start()
        if self._trainer is None:
            self.monitor.say("metrics are not logged: use HuggingFaceCallback(...).attach(trainer)")
        if self._example is None:
            with self.monitor.guarded("no example of an image was found; pass example="):
                self._example = _example(given.get("model"), given.get("train_dataloader"))

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Log the results that have arrived."""
        self._tell(self.monitor.poll())

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **given: Any) -> None:
        """Take a snapshot, and stop training if a verdict says so."""
        epoch = round(state.epoch)
        if self.monitor.wants(epoch) and self._example is None:
            self.monitor.give_up("no example of an image was found; pass example=")
        self.monitor.take(
            epoch, exporter(_Logits(unwrapped(model)), self._example, "pixel_values"),
            lambda: weights_of(model), state.global_step,
        )  # fmt: skip
        self._tell(self.monitor.poll())
        if self.monitor.stop_on and agreed(self.monitor.should_stop):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Wait for snapshots that are still being measured, log them, and end the process."""
        self._tell(self.monitor.finish())

    def _tell(self, found: Sequence[Measured]) -> None:
        for measured in found:
            if self._trainer is not None:
                with self.monitor.guarded("metrics are not logged"):
                    self._trainer.log(measured.metrics())


class _Logits(torch.nn.Module):
    """A classifier whose only output is its logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """(N, classes) of (N, C, H, W)."""
        return self.model(pixel_values=pixel_values).logits


def _example(model: Any, loader: Any) -> torch.Tensor:
    """Zeros of the image size in the configuration, else the first image of the training data."""
    config = getattr(model, "config", None)
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    if size is not None:
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return torch.zeros(1, channels, height, width)
    values = torch.as_tensor(loader.dataset[0]["pixel_values"])
    return values[None] if values.ndim == 3 else values
