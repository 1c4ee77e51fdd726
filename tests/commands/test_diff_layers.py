"""`onnxgain diff --layers` names the layer that changed in every format."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxgain
from onnxgain.report.text import progress
from tests.support import models, quantized


@pytest.fixture
def run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command in a folder with a model, and the same with its second convolution scaled by 1.1."""
    model = models.conv_net()
    models.save(model, tmp_path / "a.onnx")
    scale_weights(model, "/conv_2", 1.1)
    models.save(model, tmp_path / "b.onnx")
    monkeypatch.chdir(tmp_path)
    return run


def scale_weights(model: onnx.ModelProto, node_name: str, factor: float) -> None:
    (node,) = (node for node in model.graph.node if node.name == node_name)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    scaled = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))


def test_table_and_markdown(run: Any) -> None:
    code, out, err = run("diff", "a.onnx", "b.onnx", "--layers")
    assert (code, err) == (0, "")
    sentence = "one layer of 5 adds an error: /conv_2 (Conv)"
    lines = out.splitlines()
    place = lines.index(f"layers: {sentence}")
    assert lines[place + 1].split() == [
        "layer", "operator", "depth", "share", "effect", "along", "adds", "total", "weights",
    ]  # fmt: skip
    assert lines[place + 2].split()[:3] == ["/conv_2", "Conv", "0.50"]
    assert len(lines) == place + 3
    _, markdown, _ = run("diff", "a.onnx", "b.onnx", "--layers", "--format", "markdown")
    assert "**Layers**: one layer of 5 adds an error" in markdown
    assert "| /conv\\_2 | Conv |" in markdown


def test_json(run: Any) -> None:
    code, out, _ = run("diff", "a.onnx", "b.onnx", "--layers", "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert document["schema"] == "onnxgain.diff/1"
    assert list(document)[-4:] == ["layers", "compared", "identical", "assumptions"]
    found = document["layers"]
    assert (found["matched"], found["unmatched"], found["images"], found["no_effects"]) == (5, 0, 12, None)
    (layer,) = found["layers"]
    assert (layer["layer"], layer["operator"], layer["depth"]) == ("/conv_2", "Conv", 0.5)
    assert layer["nodes"] == ["/conv_2", "/relu_3"]
    assert [tensor["tensor"] for tensor in layer["tensors"]] == ["conv_2", "relu_3"]
    assert layer["share"] == 1.0
    assert layer["along"] == pytest.approx(1, abs=0.1)
    assert layer["effect"] == pytest.approx(1, abs=0.5)
    # The bias, which did not change, is part of the weights.
    assert 0.05 < layer["weight_change"] < 0.1
    assert json.loads(run("diff", "a.onnx", "b.onnx", "--format", "json")[1])["layers"] is None


def test_python_function(run: Any) -> None:
    """The Python function, with models in memory."""
    sides = [onnx.load(name) for name in ("a.onnx", "b.onnx")]
    outcome = onnxgain.diff(*sides, layers=True)
    assert outcome.value.layers.layers[0].name == "/conv_2"


def test_same_model(run: Any) -> None:
    code, out, _ = run("diff", "a.onnx", "a.onnx", "--layers")
    assert code == 0
    assert "layers: none of the 5 matched layers adds an error" in out


def test_records_hold_no_layers(run: Any) -> None:
    run("score", "a.onnx", "--format", "json", "-o", "a.json")
    code, out, err = run("diff", "a.json", "b.onnx", "--layers")
    assert (code, out) == (2, "")
    assert "records hold no layers; name the .onnx files" in err


def without_derivative(factor: float) -> onnx.ModelProto:
    """A network whose first convolution, with weights times a factor, is followed by operators without derivative."""
    net = models.Net(opset=26)
    x = net("Conv", net.input("image", ["N", 3, 12, 10]), net.constant(factor * net.random(6, 3, 3, 3)), net.bias(6))
    x = net("BitCast", net("BitCast", x, to=onnx.TensorProto.INT32), to=onnx.TensorProto.FLOAT)
    features = net("Flatten", net("GlobalAveragePool", net("Relu", x)), axis=1)
    models.add_head(net, models.add_linear(net, features, 6, 5), 5, "logits")
    model = net.model()
    model.ir_version = 11
    return model


def test_without_derivative_layers_are_ranked_by_their_own_error(run: Any) -> None:
    """The gain cannot be measured, so the error names the layers."""
    for name, factor in (("c.onnx", 1.0), ("d.onnx", 1.1)):
        models.save(without_derivative(factor), Path(name))
    code, out, err = run("diff", "c.onnx", "d.onnx", "--layers")
    assert (code, out) == (2, "")
    assert "operator BitCast (version 26) has no gradient" in err
    assert "1 of 4 layers add an error, whose effect on the logits is not known; the largest" in err
    assert "/conv_0 (" in err
    _, _, err = run("diff", "c.onnx", "d.onnx")
    assert "/conv_0" not in err


def test_plot_shows_the_effects_along_the_depth(run: Any) -> None:
    code, _, err = run("diff", "a.onnx", "b.onnx", "--layers", "--stimulus", "impulse", "--plot", "d.svg")
    assert (code, err) == (0, "wrote d.svg\n")
    drawn = Path("d.svg").read_text()
    for text in (
        "one layer of 5 adds an error: /conv_2 (Conv)",
        "1: /conv_2",
        "depth: 0 at the image, 1 at the logits",
    ):
        assert text in drawn
    run("diff", "a.onnx", "b.onnx", "--stimulus", "impulse", "--plot", "e.svg")
    assert "depth: 0 at the image" not in Path("e.svg").read_text()


def test_page_shows_the_effects_along_the_depth(run: Any) -> None:
    code, page, _ = run("diff", "a.onnx", "b.onnx", "--layers", "--stimulus", "impulse", "--format", "html")
    assert code == 0
    assert "<h2>Which layers carry the change</h2>" in page
    assert "One layer of 5 adds an error: /conv_2 (Conv)" in page
    assert "effects of the layers along the depth of the network" in page
    assert "<td class=text>/conv_2</td>" in page.replace('"', "")
    _, page, _ = run("diff", "a.onnx", "a.onnx", "--layers", "--stimulus", "impulse", "--format", "html")
    assert "None of the 5 matched layers adds an error" in page
    assert "effects of the layers along the depth" not in page


def test_every_format_lists_the_nodes_to_exclude(run: Any, tmp_path: Path) -> None:
    model = quantized.residual_net()
    models.save(model, tmp_path / "float.onnx")
    quantized.quantize(model, tmp_path / "int8.onnx", quantized.DYNAMIC[0])
    words = ("diff", "float.onnx", "int8.onnx", "--layers", "--stimulus", "impulse")
    code, out, _ = run(*words)
    assert code == 0
    lines = out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("layers: "))
    assert "keep in float first /conv_3, /conv_0" in lines[place]
    line = (
        "to keep them in float (shares are first-order estimates: compare the new file again), "
        'give onnxruntime\'s quantizer nodes_to_exclude=["/conv_3", "/conv_0"]'
    )
    assert lines[place + 1].startswith("measured at 12 images: with the first 2 layers as before, ")
    assert lines[place + 2] == line
    document = json.loads(run(*words, "--format", "json")[1])
    assert document["layers"]["first"]["nodes_to_exclude"] == ["/conv_3", "/conv_0"]
    assert "To keep them in float (shares are first-order estimates" in run(*words, "--format", "html")[1]
    assert "nodes\\_to\\_exclude=" in run(*words, "--format", "markdown")[1]


def test_diff_names_layers_where_the_answers_differ(run: Any) -> None:
    words = "to see which layers carry the change, add --layers to this command"
    _, out, _ = run("diff", "a.onnx", "b.onnx")
    assert f"to do      {words}\n" in out
    assert f"To do: {words}" in run("diff", "a.onnx", "b.onnx", "--format", "markdown")[1]
    assert words[1:] in run("diff", "a.onnx", "b.onnx", "--format", "html")[1]
    assert words not in run("diff", "a.onnx", "b.onnx", "--layers")[1]
    assert words not in run("diff", "a.onnx", "a.onnx")[1]


def test_layers_show_their_progress(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int, list[int]]] = []

    @contextlib.contextmanager
    def counted(label: str, total: int) -> Iterator[Callable[[int], None]]:
        shown.append((label, total, steps := []))
        yield steps.append

    monkeypatch.setattr(progress, "progress", counted)
    model = models.conv_net()
    for name in ("/conv_0", "/conv_2"):
        scale_weights(model, name, 1.1)
    models.save(model, Path("c.onnx"))
    assert run("diff", "a.onnx", "c.onnx", "--layers")[0] == 0
    (_, errors, put_back) = shown
    assert errors == ("errors of the layers, 12 images", 12, [1] * 12)
    assert put_back[:2] == ("2 layers put back, 12 images", 48)
    assert len(put_back[2]) in (36, 48)


def test_exchanged_classes_are_named_instead_of_the_last_layer(run: Any, tmp_path: Path) -> None:
    """The last layer computes all that changed, which does not say why."""
    original = Path(__file__).parents[2] / "models" / "lenet_small_mnist_torch.onnx"
    model = onnx.load(original)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if 10 in weights.shape and weights.ndim <= 2:
            axis, order = weights.shape.index(10), [0, 1, 2, 5, 4, 3, 6, 7, 8, 9]
            tensor.CopyFrom(numpy_helper.from_array(np.take(weights, order, axis), tensor.name))
    onnx.save(model, tmp_path / "exchanged.onnx")
    code, out, _ = run("diff", original, "exchanged.onnx", "--layers")
    assert code == 0
    assert "layers: classes are exchanged: 3 and 5, which alone changes the logits" in out
    assert "as before" not in out and "look first at" not in out
    _, out, _ = run("diff", original, "exchanged.onnx")
    assert "answers    fail: classes are exchanged: 3 and 5" in out
    assert "evidence   of 317 changes that cost at most 0.2 points of accuracy" in out
    assert "--layers" not in out
    _, page, _ = run("diff", original, "exchanged.onnx", "--format", "html")
    _, markdown, _ = run("diff", original, "exchanged.onnx", "--format", "markdown")
    assert all("f 317 changes that cost at most 0.2 points of accuracy" in text for text in (page, markdown))
