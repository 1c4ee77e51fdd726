"""Train LeNet on MNIST with PyTorch and export it with `torch.onnx.export`, at two widths.

The network is that of MatConvNet's MNIST example: conv 5x5, max pool, conv 5x5, max pool, conv 4x4, ReLU and a fully
connected layer. Besides the pools, the ReLU is its only nonlinearity.

    lenet_mnist_torch.onnx        20, 50 and 500 filters, as in the example
    lenet_small_mnist_torch.onnx  10, 25 and 100 filters

Input: (N, 1, 28, 28), 0..1. Output: logits (N, 10).

    pip install torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.31.1 numpy
    python -m scripts.models.lenet_mnist_torch --mnist DIR
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from scripts.models.mnist import CLASSES, SIDE, THREADS, Split, accuracy, load_mnist, parse_arguments, write_model

EPOCHS = 8
BATCH = 100
FILTERS = {"lenet_mnist_torch": (20, 50, 500), "lenet_small_mnist_torch": (10, 25, 100)}


def lenet(filters: tuple[int, int, int]) -> nn.Sequential:
    first, second, third = filters
    return nn.Sequential(
        nn.Conv2d(1, first, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(second, third, 4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(third, CLASSES),
    )


def to_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, 28, 28) bytes to (N, 1, 28, 28) in 0..1."""
    return images[:, None].astype(np.float32) / np.float32(255)


def train(model: nn.Module, split: Split) -> None:
    """Train with stochastic gradient descent with momentum; the learning rate falls linearly to zero."""
    images, labels = torch.from_numpy(to_input(split.images)), torch.from_numpy(split.labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{EPOCHS}, last batch's loss {loss.item():.4f}")


def export(model: nn.Module) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 1, SIDE, SIDE),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model_proto = program.model_proto
    assert isinstance(model_proto, onnx.ModelProto)
    return model_proto


def main() -> None:
    arguments = parse_arguments(__doc__)
    data = load_mnist(arguments.mnist)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    for name, filters in FILTERS.items():
        torch.manual_seed(0)
        model = lenet(filters)
        train(model, data.train)
        exported = export(model)
        test_accuracy = accuracy(exported, to_input(data.test.images), data.test.labels)
        metadata = {
            "onnxgain.preprocess": "unit",
            "source": f"LeNet of MatConvNet's MNIST example, {filters} filters, trained by this script (PyTorch)",
            "script": "scripts/models/lenet_mnist_torch.py",
        }
        write_model(exported, arguments.out / f"{name}.onnx", test_accuracy, metadata)


if __name__ == "__main__":
    main()
