"""Watches training with Keras 3 on any backend."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from onnxgain.commands.callbacks.monitor import Monitor
from onnxgain.errors import OnnxgainError

_EXPORTERS = {"torch": ("onnxscript",), "tensorflow": ("tf2onnx",), "jax": ("tensorflow", "tf2onnx")}


class KerasCallback(keras.callbacks.Callback):
    """Watches training: `model.fit(..., callbacks=[KerasCallback("run/", images="train-sample/"), TensorBoard()])`.

    At the end of an epoch, the metrics of the last measured snapshot are added to the epoch's logs (its epoch is
    onnxgain_epoch); NaN before the first. Callbacks after this one and the History receive them.

    Args:
        folder: the folder of the run, into which snapshots are written.
        options: options of `onnxgain.commands.callbacks.monitor.Monitor`: every, stop_on, patience, keep, images,
            labels, preprocess, ...

    Raises:
        OnnxgainError: an argument is invalid, or Keras cannot export models here; when training begins: images cannot
            be read.
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        super().__init__()
        backend = keras.backend.backend()
        missing = [name for name in _EXPORTERS.get(backend, ()) if importlib.util.find_spec(name) is None]
        if missing:
            raise OnnxgainError(
                f"Keras exports models of the backend {backend} with {missing[0]}, which is missing",
                remedy=f"pip install {' '.join(missing)}",
            )
        self.monitor = Monitor(folder, **options)
        self._names = ["epoch", "gain_db"]
        if "images" in options:
            self._names += ["images_loss", "copies_loss", "surrogate", "agreement"]

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the process that measures."""
        self.monitor.start()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Take a snapshot, add metrics to the logs, and stop training if a verdict says so."""
        self.monitor.poll()
        self.monitor.take(epoch + 1, self._export, self._weights)
        if logs is not None:
            known = {} if self.monitor.last is None else self.monitor.last.metrics("onnxgain_")
            logs.update({(name := f"onnxgain_{one}"): known.get(name, float("nan")) for one in self._names})
        if self.monitor.should_stop:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Wait for snapshots that are still being measured, and end the process."""
        self.monitor.finish()

    def _export(self, path: Path) -> None:
        # Keras chooses the format by the file name.
        file = path.with_name(f"{path.name}.onnx")
        try:
            self.model.export(str(file), format="onnx", verbose=False)
            file.replace(path)
        finally:
            file.unlink(missing_ok=True)

    def _weights(self) -> list[Any] | None:
        arrays = [np.asarray(keras.ops.convert_to_numpy(weight)) for weight in self.model.weights]
        return [array for array in arrays if array.dtype.kind == "f"]
