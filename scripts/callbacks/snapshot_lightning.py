"""Lightning: a callback that writes a snapshot after every epoch for `onnxgain track`. Needs lightning, onnx."""

import os

import lightning
import torch


class Snapshots(lightning.Callback):
    """Pass it to the Trainer; `example` is a batch of images as the model takes them."""

    def __init__(self, folder, example):
        self.folder, self.example = folder, example[:1]
        os.makedirs(folder, exist_ok=True)

    def on_train_epoch_end(self, trainer, module):
        """Export the module."""
        path = os.path.join(self.folder, f"epoch{trainer.current_epoch + 1}.onnx")
        example = self.example.to(module.device)
        with torch.no_grad():
            module.eval()
            module.to_onnx(path + ".part", example, dynamo=True, external_data=False, verbose=False)
            module.train()
        os.replace(path + ".part", path)
