"""PyTorch: write a snapshot after every epoch for `onnxgain track`. Needs torch, onnx, onnxscript."""

import os

import torch


def save_snapshot(model, example, folder, epoch):
    """Export `model`; `example` is a batch of images as the model takes them."""
    training = model.training
    path = os.path.join(folder, f"epoch{epoch}.onnx")
    torch.onnx.export(model.eval(), (example[:1],), path + ".part", dynamo=True, external_data=False, verbose=False)
    os.replace(path + ".part", path)
    model.train(training)
