"""Export image classifiers from Keras, JAX/Flax, PaddlePaddle and scikit-learn, each with its framework's own gradient.

They test emitted gradients on graphs that PyTorch's exporters do not write: channels-last input, SAME padding, many
Transpose and Reshape nodes, unfused BatchNormalization, operators of the ai.onnx.ml domain. Weights are random but well
conditioned: biases, scales and offsets are redrawn (zeros and ones would hide a wrong derivative), batch normalization
has statistics of noise passed through the network, and the last layer is scaled so that the logits have a spread of
about 3. (scikit-learn's models are trained.)

For each model two files are written to --out:

    NAME.onnx   exported as users would, with a symbolic batch size
    NAME.npz    image     float32, the model's input, batch of one
                logits    float64, (1, classes)
                winner    int64, scalar: the largest logit
                gradient  float64, d log softmax(logits)[0, winner] / d image, of the image's shape
                float32_error  float64, scalar: relative L2 error of the framework's own float32 gradient, which is the
                          accuracy to expect from a correct float32 graph

The framework itself evaluates the reference in float64 with the exported weights (scikit-learn has no gradients, so we
use the closed form with the fitted parameters). Each exported model is run with onnxruntime, and the difference of its
scores from the reference is printed. The exit code is 1 if a model cannot be exported or differs.

Every framework needs its own environment; choose the framework with --only:

    keras    pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.31.1
    jax      pip install jax==0.10.2 flax==0.12.8 jax2onnx==0.17.1 onnx==1.23.2 onnxruntime==1.31.1
    paddle   pip install paddlepaddle==3.3.1 paddle2onnx==2.1.0 onnx==1.17.0 onnxruntime==1.31.1
             onnx_graphsurgeon sympy setuptools
    sklearn  pip install scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.31.1

    python -m scripts.corpus.frameworks --out DIR --only keras

Keras exports with its backend: with KERAS_BACKEND=torch (and onnxscript) or KERAS_BACKEND=jax (and jax2onnx), --only
keras writes the exports of that backend, as keras_NAME_torch or keras_NAME_jax.

Known to fail with these versions: ConvNeXtTiny by tf2onnx, which leaves TensorFlow's operators StatefulPartitionedCall
(grouped convolutions) and Erfc (exact GELU) in the graph; ConvNeXtTiny and Xception from the torch backend; from the
jax backend every model with a max pool, written as a pool over four dimensions, which onnxruntime does not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from scripts.corpus.flax_models import jax_cases
from scripts.corpus.keras_models import keras_cases
from scripts.corpus.paddle_models import paddle_cases
from scripts.corpus.reference import Case, Reference, softmax
from scripts.corpus.sklearn_models import sklearn_cases

TOLERANCE = 1e-3
"""Largest difference of a probability between onnxruntime (float32) and the reference (float64)."""

FRAMEWORKS: dict[str, Callable[[], Iterator[Case]]] = {
    "keras": keras_cases,
    "jax": jax_cases,
    "paddle": paddle_cases,
    "sklearn": sklearn_cases,
}


def probability_error(path: Path, reference: Reference) -> float:
    """Largest difference between onnxruntime's class probabilities and the reference's.

    The output is taken as logits, probabilities or log-probabilities, whichever agrees best.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    # Pad_Fusion moves a Pad by zeros into MaxPool, which pads by -inf: wrong for Keras' ResNetV2 (onnxruntime #24737).
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["Pad_Fusion"]
    )
    image, *leftovers = session.get_inputs()
    # tf2onnx leaves the captured constants of Keras' Normalization as unused inputs.
    unused = {argument.name: np.zeros(argument.shape, np.float32) for argument in leftovers}
    assert not unused.keys() & {name for node in onnx.load(path).graph.node for name in node.input}
    scores = session.run(None, {image.name: reference.image, **unused})[-1]
    if isinstance(scores, list):  # ZipMap: one dictionary per image
        scores = np.array([list(row.values()) for row in scores])
    scores = np.asarray(scores, np.float64)
    return min(float(np.abs(p - softmax(reference.logits)).max()) for p in (scores, softmax(scores)))


def export(case: Case, folder: Path) -> bool:
    """Export one case and print one line about it; return whether it succeeded."""
    path = folder / f"{case.name}.onnx"
    try:
        reference = case.make(path)
        error = probability_error(path, reference)
    except Exception as problem:  # an exporter may raise anything; go on with the other cases
        first_line = (str(problem).strip() or repr(problem)).splitlines()[0]
        print(f"{case.name}: FAILED, {type(problem).__name__}: {first_line}", flush=True)
        return False
    winner = np.int64(reference.logits.argmax())
    np.savez(path.with_suffix(".npz"), **dataclasses.asdict(reference), winner=winner)
    agrees = error < TOLERANCE
    print(
        f"{case.name}: {'' if agrees else 'DIFFERS, '}score {softmax(reference.logits).max():.3f}, "
        f"|gradient| {np.linalg.norm(reference.gradient):.3g}, probability error {error:.1e}, "
        f"float32 gradient error {reference.float32_error:.1e}, "
        f"{path.stat().st_size / 1e6:.1f} MB",
        flush=True,
    )
    return agrees


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--only", choices=FRAMEWORKS, help="framework to export from (default: all)")
    parser.add_argument("--match", default="", help="export only models with this in their name")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [arguments.only] if arguments.only else list(FRAMEWORKS)
    cases = [case for framework in chosen for case in FRAMEWORKS[framework]() if arguments.match in case.name]
    failures = [case.name for case in cases if not export(case, arguments.out)]
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
