"""The seed of backpropagation, compared with finite differences of the score in float64, saturated or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.engine.session import Session
from onnxgain.gradient.reverse.seed import PROJECTIONS, Projection, probability, projection_factor
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.differentiate import differentiate
from tests.support import models

RNG = np.random.default_rng(5)
SHAPE = (1, 3, 2)
WEIGHTS = RNG.standard_normal((4, *SHAPE)).astype(np.float32)
BIAS = np.array([0.3, -0.2, 0.8, 0.1], np.float32)
IMAGE = RNG.standard_normal(SHAPE)
HEADS = ("logits", "softmax", "log-softmax", "exp", "sigmoid", "one column", "ratio", "pair", "said probabilities")


def log_score(head: str, logits: np.ndarray, i: int) -> float:
    """log z_i from its definition, computed without loss of precision if z_i is nearly 1."""
    if head == "sigmoid":
        return float(-np.logaddexp(0, -logits[i]))
    if head in ("one column", "pair"):
        return float(-np.logaddexp(0, -logits[0] if i == 1 else logits[0]))
    if head == "ratio":
        positive = np.logaddexp(0, logits)
        return float(np.log(positive[i] / positive.sum()))
    return float(-np.log1p(np.exp(np.delete(logits, i) - logits[i]).sum()))


def logit(head: str, logits: np.ndarray, i: int) -> float:
    if head == "one column":
        return float(logits[0]) if i == 1 else 0.0
    if head == "ratio":  # its logits are the log-probabilities
        return log_score(head, logits, i)
    if head in ("pair", "said probabilities"):  # their logits are log-odds
        p = np.exp(log_score(head, logits, i))
        return float(np.log(p) - np.log1p(-p))
    return float(logits[i])


def differences(function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    gradient = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


def expected_derivative(head: str, weights: np.ndarray, bias: np.ndarray, projection: Projection, i: int) -> np.ndarray:
    def logits(x: np.ndarray) -> np.ndarray:
        return weights.astype(np.float64).reshape(len(weights), -1) @ x.reshape(-1) + bias

    score = np.exp(log_score(head, logits(IMAGE), i))

    def projected(x: np.ndarray) -> float:
        if projection == "logit":
            return logit(head, logits(x), i)
        log_z = log_score(head, logits(x), i)
        return log_z if projection == "1/score" else (score if projection == "score" else 1.0) * np.expm1(log_z)

    return differences(projected, IMAGE)


def model_of(head: str, bias: np.ndarray = BIAS) -> tuple[ir.Model, np.ndarray, np.ndarray, Reading]:
    columns = 1 if head in ("one column", "pair") else len(WEIGHTS)
    weights, bias = WEIGHTS[:columns], bias[:columns].astype(np.float32)
    written = {"one column": "sigmoid", "said probabilities": "softmax"}.get(head, head)
    proto = models.linear(weights, bias, head=written)
    if head == "said probabilities":
        # Hidden behind an operator that changes no number, but that the reader does not recognize.
        proto.graph.node[-1].output[0] = "hidden"
        proto.graph.node.append(models.helper.make_node("Abs", ["hidden"], ["output"]))
    reading = Reading(head="probabilities" if head == "said probabilities" else None)
    return ir.from_proto(proto), weights, bias, reading


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("head", HEADS)
def test_against_finite_differences(head: str, projection: Projection) -> None:
    model, weights, bias, reading = model_of(head)
    classes = 2 if len(weights) == 1 else len(weights)
    for i in range(classes):
        emitted = differentiate(model, reading=reading, projection=projection, class_index=i)
        result = Float64Evaluator(emitted).run({"image": IMAGE[None]})
        expected = expected_derivative(head, weights, bias, projection, i)
        np.testing.assert_allclose(result["derivative"][0], expected, rtol=1e-7, atol=1e-9)
        logits = weights.astype(np.float64).reshape(len(weights), -1) @ IMAGE.reshape(-1) + bias
        assert result["score"][0] == pytest.approx(np.exp(log_score(head, logits, i)), rel=1e-12)
        assert result["class"].tolist() == [i]
        assert result["logits"].shape == (1, classes)


@pytest.mark.parametrize("head", HEADS)
def test_without_a_class_the_winner_of_each_image_is_taken(head: str) -> None:
    model, _, _, reading = model_of(head)
    images = np.random.default_rng(1).standard_normal((6, *SHAPE))
    result = Float64Evaluator(differentiate(model, reading=reading, batch=6)).run({"image": images})
    assert result["class"].tolist() == result["logits"].argmax(axis=1).tolist()
    assert len(set(result["class"].tolist())) > 1
    for i, image in enumerate(images):
        single = Float64Evaluator(differentiate(model, reading=reading)).run({"image": image[None]})
        np.testing.assert_allclose(result["derivative"][i], single["derivative"][0], rtol=1e-12)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("margin", [60.0, 200.0])
@pytest.mark.parametrize("head", ["logits", "softmax", "log-softmax", "exp", "sigmoid", "one column"])
def test_a_saturated_score_is_differentiated_exactly(head: str, margin: float, projection: Projection) -> None:
    """exp(-60) is far below the rounding error of 1 in float32, and exp(-200) underflows."""
    if head == "one column":
        raised, i = BIAS + margin, 1
    else:
        raised, i = BIAS + margin * (np.arange(4) == 2), 2
    model, weights, bias, _ = model_of(head, raised)
    expected = expected_derivative(head, weights, bias, projection, i)
    assert np.abs(expected).max() > 0

    wide = Float64Evaluator(differentiate(model, projection=projection)).run({"image": IMAGE[None]})
    np.testing.assert_allclose(wide["derivative"][0], expected, rtol=1e-6, atol=0)

    unscaled = "logit" if projection == "logit" else "1/score"
    result = Session(differentiate(model, projection=unscaled, scaled=False), threads=1).run(
        {"image": IMAGE[None].astype(np.float32)}
    )
    assert result["class"].tolist() == [i]
    exponent = projection_factor(result["logits"][0], i, projection, independent=head == "sigmoid")
    np.testing.assert_allclose(
        result["derivative"][0].astype(np.float64) * 10.0**exponent,
        expected,
        rtol=1e-4,
        atol=1e-5 * np.abs(expected).max(),
    )


@pytest.mark.parametrize("head", ["logits", "sigmoid"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_factor_left_out_is_the_one_the_caller_multiplies_by(head: str, projection: Projection) -> None:
    model, _, _, _ = model_of(head)
    feeds = {"image": IMAGE[None]}
    unscaled = "logit" if projection == "logit" else "1/score"
    for i in range(4):
        full = Float64Evaluator(differentiate(model, projection=projection, class_index=i)).run(feeds)
        bare = Float64Evaluator(differentiate(model, projection=unscaled, class_index=i, scaled=False)).run(feeds)
        exponent = projection_factor(bare["logits"][0], i, projection, independent=head == "sigmoid")
        np.testing.assert_allclose(bare["derivative"] * 10.0**exponent, full["derivative"], rtol=1e-12)


def test_probabilities_of_exactly_zero_give_no_nan() -> None:
    """relu(x) over its sum: some probabilities are 0, with a logarithm of -inf."""
    net = models.Net()
    flat = net("Flatten", net.input("image", [1, *SHAPE]), axis=1)
    positive = net("Relu", net("Gemm", flat, net.constant(WEIGHTS.reshape(4, -1).T), net.constant(BIAS)))
    net("Div", positive, net("ReduceSum", positive, net.constant(np.array([1], np.int64)), keepdims=1), out="output")
    net.output("output", [1, 4])
    model = ir.from_proto(net.model())
    assert describe(model).head.kind == "probabilities"
    result = Float64Evaluator(differentiate(model)).run({"image": IMAGE[None]})
    assert result["logits"].min() < -80
    assert np.isfinite(result["logits"]).all()
    assert np.isfinite(result["derivative"]).all()
    assert result["derivative"].any()


@pytest.mark.parametrize("size", [0.0, 1e5, 3e38])
def test_equal_logits_of_any_size_share_the_probability(size: float) -> None:
    logits = np.full(10, size, np.float32)
    assert probability(logits, 3, independent=False) == pytest.approx(0.1)
    assert projection_factor(logits, 3, "1/score", independent=False) == pytest.approx(np.log10(0.9))
    assert projection_factor(logits, 3, "score", independent=False) == pytest.approx(np.log10(0.9 * 0.1**2))
