"""Keras 3: a callback that writes a snapshot after every epoch for `onnxgain track`. Needs keras, tf2onnx."""

import os

import keras


class Snapshots(keras.callbacks.Callback):
    """Pass it to `fit`, beside `keras.callbacks.CSVLogger` if you want the losses drawn too."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        """Export the model."""
        path = os.path.join(self.folder, f"epoch{epoch + 1}")
        self.model.export(path + ".part.onnx", format="onnx", verbose=False)
        os.replace(path + ".part.onnx", path + ".onnx")
