"""Compute gradients with one other program; `peers.py` runs this in that program's environment, a process per model.

    python -m scripts.benchmarks.peer_gradient PEER MODEL.onnx QUESTION.npz ANSWER.npz

QUESTION contains `images` (K, 1, C, H, W) float32 and `seeds` (K, 1, classes) float32, the upstream gradients of the
logits; `gradient` (K, 1, C, H, W) float32 is written to ANSWER. The model has one input and one output, of static
shape. An exception in PEER ends the process with its message on the last line of stderr.

The script needs only packages of PEER's environment: numpy, onnx and the program itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[[Array, Array], Array]
THREADS = int(os.environ.get("PEER_THREADS", "1"))


def onnx_ad(path: Path) -> Function:
    """The model that `onnx_ad.reverse` writes, in onnxruntime. Seeds and gradients have a last axis of length 1."""
    import onnx
    import onnx_ad

    model = onnx_ad.reverse(onnx.load(path), layout="onnx")
    session = _session(model)
    (image, seed), names = [value.name for value in session.get_inputs()], [o.name for o in session.get_outputs()]
    return lambda x, s: session.run([names[-1]], {image: x, seed: s[..., None]})[0][..., 0]


def onnx2torch(path: Path) -> Function:
    """The PyTorch module that `onnx2torch.convert` builds, and autograd."""
    import torch

    from scripts.corpus.torchvision_without_operators import declare_operators

    declare_operators()
    import onnx2torch

    torch.set_num_threads(THREADS)
    module = onnx2torch.convert(str(path)).eval()

    def gradient(x: Array, s: Array) -> Array:
        image = torch.from_numpy(x).requires_grad_()
        (found,) = torch.autograd.grad(module(image), image, torch.from_numpy(s))
        return found.numpy()

    return gradient


def onnxruntime_training(path: Path) -> Function:
    """The graph that `GradientGraphBuilder` builds for the loss sum(seed * logits), from the unmodified model."""
    import onnx
    from onnx import TensorProto, helper
    from onnxruntime.capi._pybind_state import GradientGraphBuilder

    model = onnx.load(path)
    graph = model.graph
    initial = {tensor.name for tensor in graph.initializer}
    (image,), (logits,) = [value for value in graph.input if value.name not in initial], graph.output
    shape = [dim.dim_value for dim in logits.type.tensor_type.shape.dim]
    graph.input.append(helper.make_tensor_value_info("seed", TensorProto.FLOAT, shape))
    graph.node.append(helper.make_node("Mul", [logits.name, "seed"], ["weighted"]))
    graph.node.append(helper.make_node("ReduceSum", ["weighted"], ["loss"], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("loss", TensorProto.FLOAT, []))
    builder = GradientGraphBuilder(model.SerializeToString(), {"loss"}, {image.name}, "loss")
    builder.build()
    built = onnx.load_from_string(builder.get_model())
    gradient = helper.make_tensor_value_info(f"{image.name}_grad", TensorProto.FLOAT, None)
    if gradient.name not in {value.name for value in built.graph.output}:
        built.graph.output.append(gradient)
    session = _session(built)
    return lambda x, s: session.run([gradient.name], {image.name: x, "seed": s})[0]


def ours(path: Path) -> Function:
    """onnxgain, under the same conditions."""
    import onnx_ir as ir

    from onnxgain.engine.session import Session
    from onnxgain.gradient.graphs import vector_jacobian

    model = ir.load(path)
    image = next(value.name for value in model.graph.inputs if value.name not in model.graph.initializers)
    session = Session(vector_jacobian(model, [image]), threads=THREADS)
    seed = f"adjoint_{model.graph.outputs[0].name}"
    return lambda x, s: session.run({image: x, seed: s})[f"gradient_{image}"]


PEERS: dict[str, Callable[[Path], Function]] = {
    "onnxgain": ours,
    "onnx-ad": onnx_ad,
    "onnx2torch": onnx2torch,
    "onnxruntime-training": onnxruntime_training,
}


def _session(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    peer, model, question, answer = sys.argv[1:]
    asked = np.load(question)
    gradient = PEERS[peer](Path(model))
    found = [gradient(image, seed) for image, seed in zip(asked["images"], asked["seeds"], strict=True)]
    np.savez(answer, gradient=np.stack(found))


if __name__ == "__main__":
    main()
