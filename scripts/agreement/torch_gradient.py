"""Compute the gradient of log z_i of an ONNX classifier with PyTorch in float64, as an independent reference.

    python -m scripts.agreement.torch_gradient MODEL.onnx REQUEST.npz ANSWER.npz

REQUEST contains `image` (the graph's input), `winner` and `head` ("logits", or what the output is); ANSWER gets
`gradient` with the shape of `image`. onnx2torch, which is independent of onnxgain, converts the model. The script needs
torch, torchvision, onnx, onnx2torch and numpy; `scripts/agreement/references.py` runs it in an environment that has
them.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from typing import Any

import numpy as np


def main(model_path: str, request_path: str, answer_path: str) -> None:
    """Convert the model, differentiate it and write the gradient."""
    warnings.simplefilter("ignore")
    import torch

    if importlib.util.find_spec("torchvision"):
        from scripts.corpus.torchvision_without_operators import declare_operators

        declare_operators()
    import onnx
    from onnx2torch import convert

    torch.set_num_threads(1)
    request = dict(np.load(request_path))
    proto = onnx.load(model_path)
    for value in proto.graph.input:
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    network = converted(convert, proto).double().eval()
    image = torch.from_numpy(request["image"]).double().requires_grad_()
    output = network(image)
    output = (output[0] if isinstance(output, (list, tuple)) else output).reshape(-1)
    head, winner = str(request["head"]), int(request["winner"])
    score = torch.log_softmax(output, 0)[winner] if head in ("logits", "log-softmax") else torch.log(output[winner])
    (gradient,) = torch.autograd.grad(score, image)
    np.savez(answer_path, gradient=gradient.numpy(), output=output.detach().numpy())


def converted(convert: Any, proto: Any) -> Any:
    """The model as a PyTorch module.

    onnx2torch supports operators up to opset 18 or less. The later versions that classifiers use (of Reshape, Pad,
    Cast, ...) only allow more types, so an older opset number works; the output is checked in any case.
    """
    for node in proto.graph.node:
        if node.op_type == "Reshape":
            # It only matters for tensors without elements.
            del node.attribute[:]
    declared = next(entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    error: Exception | None = None
    for opset in dict.fromkeys((declared.version, 18, 17, 13)):
        declared.version = opset
        try:
            return convert(proto)
        except NotImplementedError as refused:
            error = refused
    raise SystemExit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:4])
