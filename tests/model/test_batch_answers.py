"""Batches are used only for graphs that give the same results as for single images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxgain.commands.cli import main
from onnxgain.model.batch_answers import batch_problem
from onnxgain.model.classifier import Classifier, load_classifier
from tests.support import models
from tests.support.models import Net

Edit = Callable[[Net, str], str]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def network(before: Edit = lambda net, x: x, behind: Edit = lambda net, x: x) -> onnx.ModelProto:
    """A classifier with further operators between its pooling and its linear layer, or after the linear layer."""
    net = Net(opset=18)
    x = net("Relu", net("Conv", net.input("image", ["N", 3, 8, 8]), net.weights(6, 3, 3, 3), net.bias(6)))
    features = net("Flatten", before(net, net("GlobalAveragePool", x)), axis=1)
    net.output(behind(net, models.add_linear(net, features, 6, 5)), None)
    return net.model()


def doubled_in_a_batch(net: Net, x: str) -> str:
    """Twice the logits, with the second half reversed if the batch is larger than 1."""
    size = net("Gather", net("Shape", x), net.constant(np.array(0)), axis=0)
    branches = {
        "then_branch": helper.make_graph(
            [helper.make_node("Neg", [x], ["reversed"])],
            "many",
            [],
            [helper.make_tensor_value_info("reversed", 1, None)],
        ),
        "else_branch": helper.make_graph(
            [helper.make_node("Identity", [x], ["kept"])], "one", [], [helper.make_tensor_value_info("kept", 1, None)]
        ),
    }
    return net("If", net("Greater", size, net.constant(np.array(1))), **branches)


def times_the_batch(net: Net, x: str) -> str:
    size = net("Cast", net("Gather", net("Shape", x), net.constant(ints(0)), axis=0), to=1)
    return net("Mul", x, size)


BAKED: dict[str, tuple[onnx.ModelProto, str]] = {
    "features reshaped to one image's": (
        network(lambda net, x: net("Reshape", x, net.constant(ints(1, 6)))), "does not take one",
    ),
    "features reshaped to one row": (
        network(lambda net, x: net("Reshape", x, net.constant(ints(1, -1)))), "does not take one",
    ),
    "the batch squeezed away": (
        network(lambda net, x: net("Unsqueeze", net("Squeeze", x, net.constant(ints(0))), net.constant(ints(0)))),
        "does not take one",
    ),
    "the first image alone": (
        network(lambda net, x: net("Slice", x, *(net.constant(ints(n)) for n in (0, 1, 0)))),
        "gives another number of answers",
    ),
    "the mean over the batch": (
        network(lambda net, x: net("ReduceMean", x, net.constant(ints(0)))), "gives another number of answers",
    ),
    "the batch normalized": (
        network(lambda net, x: net("Sub", x, net("ReduceMean", x, net.constant(ints(0))))), "otherwise than one by one",
    ),
    "logits reshaped to one image's": (
        network(behind=lambda net, x: net("Reshape", x, net.constant(ints(1, 5)))), "does not take one",
    ),
    "logits without a batch": (
        network(behind=lambda net, x: net("Reshape", x, net.constant(ints(5)))), "does not take one",
    ),
    "another branch for a batch": (network(behind=doubled_in_a_batch), "without the class scores that one image has"),
    "the batch as a factor": (network(behind=times_the_batch), "otherwise than one by one"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAKED)
def test_graph_for_one_image_gets_no_batch(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, reason = BAKED[name]
    path = models.save(model, tmp_path / "net.onnx")
    with pytest.raises(SystemExit) as raised:
        main(["gradient", str(path), "-o", str(tmp_path / "grad.onnx"), "--batch", "4"])
    err = capfd.readouterr().err
    assert raised.value.code == 2
    assert err.startswith(f"error: {path}: a batch of 4 images is asked for, but its graph ")
    assert reason in err and err.endswith("; leave the batch size out, or export the model with an open one\n")
    assert not (tmp_path / "grad.onnx").exists()


def read(model: onnx.ModelProto, folder: Path) -> Classifier:
    return load_classifier(models.save(model, folder / "net.onnx"))


def test_other_graphs_get_a_batch(tmp_path: Path) -> None:
    assert batch_problem(read(network(), tmp_path), 4) is None
    assert batch_problem(read(models.conv_net(), tmp_path), 3) is None


def test_batches_are_measured_as_single_images(tmp_path: Path) -> None:
    """Many stimuli run together only if that does not change the results."""
    from onnxgain.measure.measure import score
    from onnxgain.model.stimulus import noise

    odd, plain = (read(model, tmp_path) for model in (network(behind=doubled_in_a_batch), network()))
    stimuli = [noise(odd.image.image_shape, odd.scale, seed=seed) for seed in range(40)]
    for one, other in zip(score(odd, stimuli), score(plain, stimuli), strict=True):
        assert one.record.class_index == other.record.class_index
        assert one.record.gain.mean == pytest.approx(other.record.gain.mean, abs=1e-3)
