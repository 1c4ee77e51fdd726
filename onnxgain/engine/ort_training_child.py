"""The child process of `ort_training`, for environments with onnxruntime-training: `ort_training_child.py FOLDER`.

FOLDER contains `model.onnx`, whose scalar output "onnxgain_loss" is differentiated with respect to its input
"onnxgain_image", and `feeds.npz` with an array for every input. The script writes `gradient.onnx`, the model extended
by `GradientGraphBuilder`, and `answer.npz` with "logits" of the original model and "gradient" of the extended one. It
needs numpy, onnx and onnxruntime-training.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi._pybind_state import GradientGraphBuilder


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def gradient_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an output "onnxgain_image_grad": the gradient of the loss with respect to the image."""
    builder = GradientGraphBuilder(model.SerializeToString(), {"onnxgain_loss"}, {"onnxgain_image"}, "onnxgain_loss")
    builder.build()
    built = onnx.load_from_string(builder.get_model())
    gradient = onnx.helper.make_tensor_value_info("onnxgain_image_grad", onnx.TensorProto.FLOAT, None)
    if gradient.name not in {value.name for value in built.graph.output}:
        built.graph.output.append(gradient)
    return built


def answer(folder: Path) -> None:
    """Write the gradient model and the results."""
    model = onnx.load(str(folder / "model.onnx"))
    feeds = dict(np.load(folder / "feeds.npz"))
    (logits,) = session(model).run(["onnxgain_logits"], feeds)
    built = gradient_model(model)
    onnx.save(built, str(folder / "gradient.onnx"))
    (gradient,) = session(built).run(["onnxgain_image_grad"], feeds)
    np.savez(folder / "answer.npz", logits=logits, gradient=gradient)


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
