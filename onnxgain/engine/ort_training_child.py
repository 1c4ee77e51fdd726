"""Runs in an environment that has onnxruntime-training: `python ort_training_child.py FOLDER`, by `ort_training`.

FOLDER holds `model.onnx`, whose scalar output "onnxgain_loss" is to be differentiated by its input "onnxgain_image",
and `feeds.npz`, a value for every input. Written there are `gradient.onnx`, the model as `GradientGraphBuilder` extends
it, and `answer.npz`: "logits" by the model as it was, "gradient" by the extended one. Needs numpy, onnx, the runtime.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi._pybind_state import GradientGraphBuilder


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The model on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def gradient_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the gradient of the loss by the image as output "onnxgain_image_grad"."""
    builder = GradientGraphBuilder(model.SerializeToString(), {"onnxgain_loss"}, {"onnxgain_image"}, "onnxgain_loss")
    builder.build()
    built = onnx.load_from_string(builder.get_model())
    gradient = onnx.helper.make_tensor_value_info("onnxgain_image_grad", onnx.TensorProto.FLOAT, None)
    if gradient.name not in {value.name for value in built.graph.output}:
        built.graph.output.append(gradient)
    return built


def answer(folder: Path) -> None:
    """Write what is asked for."""
    model = onnx.load(str(folder / "model.onnx"))
    feeds = dict(np.load(folder / "feeds.npz"))
    (logits,) = session(model).run(["onnxgain_logits"], feeds)
    built = gradient_model(model)
    onnx.save(built, str(folder / "gradient.onnx"))
    (gradient,) = session(built).run(["onnxgain_image_grad"], feeds)
    np.savez(folder / "answer.npz", logits=logits, gradient=gradient)


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
