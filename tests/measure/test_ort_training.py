"""onnxruntime-training as a second engine: the model that it gets, the models that it does not get, and its failures.

The runtime itself needs another environment: set ONNXGAIN_TRAINING_PYTHON to its interpreter to run the last tests.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.engine.session import Session
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.graphs import vector_jacobian
from onnxgain.measure import ort_training
from onnxgain.measure.measure import score
from onnxgain.measure.ort_training import check_against_training, is_correct, loss_model
from onnxgain.model.classifier import Reading, load_classifier, value_named
from onnxgain.model.stimulus import impulse
from tests.support import models

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
SHAPE = Reading(image_shape=(1, 28, 28))


def answer(command: Sequence[str], folder: Path, timeout: float, where: str | None) -> None:
    """Stands in for the other environment with our own engine."""
    model, feeds = ir.load(folder / "model.onnx"), dict(np.load(folder / "feeds.npz"))
    logits = Session(model, threads=1).run(feeds)["onnxgain_logits"]
    product = vector_jacobian(model, ["onnxgain_image"])
    adjoints = {"adjoint_onnxgain_loss": np.ones((), np.float32), "adjoint_onnxgain_logits": np.zeros_like(logits)}
    gradient = Session(product, threads=1).run({**feeds, **adjoints})["gradient_onnxgain_image"]
    np.savez(folder / "answer.npz", logits=logits, gradient=gradient)


def wrong(command: Sequence[str], folder: Path, timeout: float, where: str | None) -> None:
    answer(command, folder, timeout, where)
    found = dict(np.load(folder / "answer.npz"))
    np.savez(folder / "answer.npz", logits=found["logits"], gradient=1.2 * found["gradient"])


@pytest.mark.parametrize("projection", ["1/score", "score", "one", "logit"])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_both_engines_get_the_same_request(path: Path, projection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_training, "_run", answer)
    classifier = load_classifier(path, SHAPE)
    stimulus = impulse(classifier.image.image_shape, classifier.scale)
    (ours,) = score(classifier, [stimulus], projection=projection, threads=1)
    check = check_against_training(classifier, stimulus, ours, python="")
    assert check.agrees, check.text()
    assert check.difference < 1e-4
    assert check.gain_difference_db < 1e-3
    assert "ort-training agrees: differs by" in check.text()


def test_a_wrong_gradient_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_training, "_run", wrong)
    classifier = load_classifier(MODELS[0], SHAPE)
    stimulus = impulse(classifier.image.image_shape, classifier.scale)
    check = check_against_training(classifier, stimulus, score(classifier, [stimulus])[0], python="")
    assert not check.agrees
    assert check.gain_difference_db == pytest.approx(20 * np.log10(1.2), abs=1e-3)
    assert "ort-training does NOT agree" in check.text()


def test_operators_without_gradient_are_rewritten() -> None:
    """The rewritten model has the same outputs and only operators with a correct gradient."""
    net = models.Net(opset=17)
    x = net("Conv", net.input("image", [1, 3, 8, 8]), net.weights(4, 3, 3, 3), pads=[1, 1, 1, 1])
    x = net("Relu", x)
    x = net("BatchNormalization", x, *(net.constant(np.linspace(0.5, 2, 4), name) for name in "abcd"))
    x = net("HardSwish", x)
    x = net("Clip", x, net.constant(np.array(0.0)), net.constant(np.array(6.0)))
    x = net("HardSigmoid", x, alpha=0.3)
    x = net("Flatten", x)
    x = net("LayerNormalization", x, net.constant(np.linspace(1, 2, 256)), net.constant(np.zeros(256)))
    net.output(net("MatMul", x, net.weights(256, 5)), [1, 5])
    model = ir.from_proto(net.model())
    from onnxgain.model.classifier import describe

    classifier = describe(model)
    transcript = classifier.transcript(1)
    image, logits = (value_named(transcript, name) for name in (classifier.image.name, classifier.head.logits))
    graph, path = loss_model(transcript, image, logits)
    assert [node.op_type for node in path if not is_correct(node)] == []
    assert not {"BatchNormalization", "HardSwish", "Clip", "HardSigmoid", "LayerNormalization"} & {
        node.op_type for node in graph.graph
    }
    x0 = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    feeds = {"onnxgain_image": x0, "onnxgain_seed": np.ones((1, 5), np.float32)}
    found = Session(graph, threads=1).run(feeds)
    expected = next(iter(Session(model, threads=1).run({"image": x0}).values()))
    np.testing.assert_allclose(found["onnxgain_logits"], expected, rtol=1e-4, atol=1e-5)
    assert found["onnxgain_loss"] == pytest.approx(expected.sum(), rel=1e-4)


# ---------------------------------------------------------------------------------------------- how it can fail
def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", r"ort-training crashed \(signal 11\)"),
        ("echo 'Traceback' >&2; echo 'RuntimeError: no gradient' >&2; exit 1", "refuses it: RuntimeError: no gradient"),
        ("echo \"ModuleNotFoundError: No module named 'onnx'\" >&2; exit 1", "has no onnxruntime-training: .*'onnx'"),
        ("exit 0", "it ended without a word"),
        ("sleep 5", r"no answer in 1 s"),
    ],
)
def test_failures_end_in_an_error(script: str, message: str, tmp_path: Path) -> None:
    classifier = load_classifier(MODELS[0], SHAPE)
    seed = np.zeros(10)
    image = np.zeros(classifier.image.image_shape)
    with pytest.raises(OnnxgainError, match=message):
        ort_training.training_gradient(
            classifier, image, seed, python=fake_python(tmp_path, f"exec 3>&-; {script}"), timeout=1
        )


def test_operators_with_a_wrong_gradient_are_refused(run: Any, tmp_path: Path) -> None:
    net = models.Net(opset=18)
    x = net("Elu", net("Conv", net.input("image", [1, 3, 8, 8]), net.weights(2, 3, 3, 3)))
    net.output(net("MatMul", net("Flatten", x), net.weights(72, 5)), [1, 5])
    path = tmp_path / "elu.onnx"
    path.write_bytes(net.model().SerializeToString())
    code, _, err = run("verify", path, "--directions", "1", "--against", "ort-training", "--python", "python")
    assert code == 2
    assert "ort-training does not differentiate Elu correctly, or not at all" in err
    code, _, err = run("verify", path, "--against", "ort-training")
    assert (code, "--against and --python: must be given together" in err) == (2, True)
    code, _, err = run("verify", MODELS[0], "--directions", "1", "--against", "ort-training", "--python", "/no/such")
    assert (code, "cannot be started" in err) == (2, True)


@pytest.mark.parametrize(
    ("node", "right"),
    [
        (ir.node("Relu", [ir.Value(name="x")]), True),
        (ir.node("Elu", [ir.Value(name="x")]), False),
        (ir.node("Relu", [ir.Value(name="x")], domain="com.microsoft"), False),
        (ir.node("MaxPool", [ir.Value(name="x")], {"kernel_shape": [2, 2]}), True),
        (ir.node("MaxPool", [ir.Value(name="x")], {"kernel_shape": [2, 2], "storage_order": 1}), False),
        (ir.node("AveragePool", [ir.Value(name="x")], {"kernel_shape": [2, 2], "dilations": [1, 1]}), True),
        (ir.node("AveragePool", [ir.Value(name="x")], {"kernel_shape": [2, 2], "dilations": [2, 2]}), False),
        (ir.node("AveragePool", [ir.Value(name="x")], {"kernel_shape": [2, 2], "ceil_mode": 1}), False),
        (ir.node("AveragePool", [ir.Value(name="x")], {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}), False),
        (ir.node("Split", [ir.Value(name="x")], num_outputs=2), False),  # unused outputs
        (ir.node("Pad", [ir.Value(name="x"), ir.Value(name="p")], {"mode": "reflect"}), False),
        (ir.node("Cast", [ir.Value(name="x")], {"to": ir.DataType.DOUBLE.value}), False),
        (ir.node("ReduceMean", [ir.Value(name="x")]), False),
    ],
)
def test_forms_with_a_correct_gradient(node: ir.Node, right: bool) -> None:
    assert is_correct(node) == right


@pytest.mark.skipif("ONNXGAIN_TRAINING_PYTHON" not in os.environ, reason="set ONNXGAIN_TRAINING_PYTHON")
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_onnxruntime_training_agrees(path: Path) -> None:
    classifier = load_classifier(path, SHAPE)
    stimulus = impulse(classifier.image.image_shape, classifier.scale)
    (ours,) = score(classifier, [stimulus], threads=1)
    check = check_against_training(classifier, stimulus, ours, python=os.environ["ONNXGAIN_TRAINING_PYTHON"])
    assert check.difference < 1e-5, check.text()
