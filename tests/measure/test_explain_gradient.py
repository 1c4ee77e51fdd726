"""The reason for a derivative of zero names the operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.commands.cli import main
from onnxgain.errors import ZeroGradientError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.differentiate import find_flat_nodes
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("kind", [onnx.TensorProto.UINT8, onnx.TensorProto.INT32])
def test_an_image_that_is_cast_to_integers_has_no_gain(kind: int, clipped: bool) -> None:
    net = models.Net()
    image = net.input("image", [1, 3, 12, 10])
    if clipped:
        image = net("Clip", image, net.constant(np.array(0.0)), net.constant(np.array(255.0)))
    whole = net("Cast", image, to=kind)
    unit = net("Div", net("Cast", whole, to=onnx.TensorProto.FLOAT), net.constant(np.array(255.0)))
    x = net("Tanh", net("Conv", unit, net.weights(4, 3, 3, 3)))
    models.add_head(net, models.add_linear(net, net("Flatten", net("GlobalAveragePool", x)), 4, 5), 5, "logits", 1)
    classifier = describe(ir.from_proto(net.model()), Reading(scale=input_scale("raw")))
    with pytest.raises(
        ZeroGradientError, match=r"Cast '/cast_\d' makes integers of real numbers, which has zero slope"
    ):
        score(classifier, [noise((3, 12, 10), classifier.scale)], threads=1)


def test_inspect_names_what_passes_no_derivative_and_what_draws_at_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = models.Net()
    x = net("Round", net.input("image", ["N", 3, 8, 8]), out="whole")
    features = net("Dropout", models.add_features(net, x, 3), net.constant(np.array(0.5)), net.constant(np.array(True)),
                   out="drop")  # fmt: skip
    models.add_head(net, models.add_linear(net, features, 8, 3), 3, "logits")
    with pytest.raises(SystemExit):
        main(["inspect", str(models.save(net.model(), tmp_path / "net.onnx")), "--preprocess", "unit"])
    out = capsys.readouterr().out
    assert "no derivative passes: Round '/whole'" in out
    assert "draws at random, so each run gives other numbers: Dropout '/drop'" in out


def test_masks_and_sound_models_are_not_named() -> None:
    net = models.Net()
    x = net("Conv", net.input("image", ["N", 3, 8, 8]), net.weights(4, 3, 3, 3))
    mask = net("Cast", net("Greater", x, net.constant(np.array(0.0))), to=1)
    features = net("Flatten", net("GlobalAveragePool", net("Mul", x, mask)))
    models.add_head(net, models.add_linear(net, features, 4, 3), 3, "logits")
    assert find_flat_nodes(describe(ir.from_proto(net.model()))) == []
    assert find_flat_nodes(describe(ir.from_proto(models.conv_net()))) == []
