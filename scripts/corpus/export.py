"""Export one classifier of the corpus and its float64 reference; `build.py` runs this in a process per model.

    python -m scripts.corpus.export NAME --out DIR --scratch DIR [--exporter legacy]

Reference, `<name>.npz`, written unless it exists:

    image     float32, shape (1, C, H, W): standard normal noise, in the model's own input space
    logits    float64, shape (N,): the output of the PyTorch model in float64
    winner    int64, scalar: the largest logit
    gradient  float64, shape (1, C, H, W): d log softmax(logits)[winner] / d image, by PyTorch in float64 and
              confirmed by finite differences

At most images, some pre-activation is so close to the kink of its ReLU that float32 rounding moves it across, which
changes the gradient by up to a few percent. The image is the first of `IMAGE_DRAWS` at which PyTorch's float32 gradient
is correct, or else the one at which its error is smallest; the JSON result contains this error
(`float32_gradient_error`).

Export, `<name>.<exporter>.onnx`: input `image` of static shape (1, C, H, W), output `logits` (1, N). Weights of more
than 400 MB are in `<name>.<exporter>.onnx.data`. The result goes to `result.json` in the scratch folder, see `run`;
other files there are temporary.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import pathlib
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from scripts.corpus.conditioning import condition
from scripts.corpus.models import build

RESULT = "result.json"

Array = npt.NDArray[Any]

SEED = 20180901
CALIBRATION_IMAGES = 4

IMAGE_DRAWS = 8
KINK_FREE = 1e-4

# Central differences in float64 along random directions of unit length, and their tolerance.
DIRECTIONS = 4
STEP = 1e-6
DIFFERENCE = 1e-3

# The opset most used with the TorchScript-based exporter, and the newest of the torch.export-based one.
OPSETS = {"legacy": 17, "dynamo": 23}

EXTERNAL_DATA_BYTES = 400_000_000

# Tolerances of float32 against float64: of a rebuilt model against its reference, and of an export against it.
AGREEMENT = 1e-3


def main() -> None:
    """Export one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a model as build.py lists it")
    parser.add_argument("--exporter", choices=sorted(OPSETS), required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="the folder of the corpus")
    parser.add_argument("--scratch", type=pathlib.Path, required=True, metavar="DIR", help="empty, on the same disk")
    parser.add_argument("--side", type=int, help="see build.py")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    result = run(options.name, options.exporter, options.out, options.scratch, options.threads, options.side)
    (options.scratch / RESULT).write_text(json.dumps(result), encoding="utf-8")


def run(
    name: str, exporter: str, folder: pathlib.Path, scratch: pathlib.Path, threads: int, side: int | None
) -> dict[str, Any]:
    """Build a model, write its reference if missing, export it and run the export.

    Returns:
        `model`: parameters, input_shape, and how float32 PyTorch compares with the reference; and
        `export`: ok, seconds, and either opset, bytes, logits_error (relative L2 against the reference, in
        onnxruntime) and agrees, or stage and error. Only `export` with ok=False when it failed before the reference.
    """
    result: dict[str, Any] = {}
    export: dict[str, Any] = {"ok": False}
    stage, start = "build", time.perf_counter()
    try:
        reference_path = folder / f"{name}.npz"
        if reference_path.exists():
            side = np.load(reference_path)["image"].shape[-1]
        model, images = conditioned(name, exportable=exporter == "legacy", side=side)
        stage = "reference"
        if not reference_path.exists():
            write_reference(model, images, reference_path)
        reference = dict(np.load(reference_path))
        image = torch.from_numpy(reference["image"])
        result["model"] = describe(model, image, reference)
        stage, start = "export", time.perf_counter()
        path = folder / f"{name}.{exporter}.onnx"
        write_export(model, image, exporter, path, scratch)
        export["seconds"] = round(time.perf_counter() - start, 1)
        del model
        stage = "onnxruntime"
        export |= check_export(path, reference, threads)
        export["ok"] = True
    except Exception as error:
        traceback.print_exc()
        export |= {"stage": stage, "error": first_lines(error), "seconds": round(time.perf_counter() - start, 1)}
    result["export"] = export
    return result


def conditioned(name: str, *, exportable: bool, side: int | None = None) -> tuple[nn.Module, Iterator[torch.Tensor]]:
    """The classifier with its final weights, and candidate images (1, C, H, W)."""
    torch.manual_seed(SEED)
    model, shape = build(name, exportable=exportable, side=side)
    generator = torch.Generator().manual_seed(SEED)
    condition(model, torch.randn((CALIBRATION_IMAGES, *shape), generator=generator), generator)
    return model, (torch.randn((1, *shape), generator=generator) for _ in range(IMAGE_DRAWS))


def write_reference(model: nn.Module, images: Iterator[torch.Tensor], path: pathlib.Path) -> None:
    """Choose the image and write the float64 reference of `model` at it, see the module's docstring."""
    exact = copy.deepcopy(model).double()
    least = math.inf
    best: dict[str, Any] = {}
    for image in images:
        with double_precision():
            logits, gradient, _ = differentiate(exact, image.double())
        error = relative_error(differentiate(model, image)[1], gradient)
        if error < least:
            least = error
            best = {"image": image.numpy(), "logits": logits, "winner": np.int64(logits.argmax()), "gradient": gradient}
        if error < KINK_FREE:
            break
    if not best:
        raise ValueError("the gradient is zero or not finite")
    with double_precision():
        confirm(exact, best)
    partial = path.with_suffix(".npz.partial")
    with partial.open("wb") as file:
        np.savez(file, **best)
    partial.replace(path)


def confirm(exact: nn.Module, reference: dict[str, Any]) -> None:
    """Raise unless the gradient of a reference agrees with central differences of the float64 model."""
    generator = torch.Generator().manual_seed(SEED)
    image = torch.from_numpy(reference["image"]).double()
    gradient = torch.from_numpy(reference["gradient"])
    typical = float(gradient.norm()) / math.sqrt(gradient.numel())
    for _ in range(DIRECTIONS):
        direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        with torch.no_grad():
            above, below = (
                torch.log_softmax(exact(image + step * direction)[0], dim=0)[reference["winner"]]
                for step in (STEP, -STEP)
            )
        error = abs(float((above - below) / (2 * STEP) - (gradient * direction).sum())) / typical
        if not error < DIFFERENCE:
            raise ValueError(f"PyTorch's gradient differs from finite differences by {error:.1e}")


def differentiate(
    model: nn.Module, image: torch.Tensor, parameters: Sequence[nn.Parameter] = ()
) -> tuple[Array, Array, list[Array | None]]:
    """The logits (N,) at `image`, and the gradient of log softmax[winner] w.r.t. the image and each of `parameters`."""
    image = image.clone().requires_grad_()
    with contiguous_gradients(model):
        logits = model(image)[0]
        score = torch.log_softmax(logits, dim=0).max()
        of_image, *of_parameters = torch.autograd.grad(score, [image, *parameters], allow_unused=True)
    if of_image is None:
        raise ValueError("the logits do not depend on the image")
    return logits.detach().numpy(), of_image.numpy(), [None if one is None else one.numpy() for one in of_parameters]


def double_precision() -> contextlib.AbstractContextManager[Any]:
    """Keep models in float64 that otherwise always compute their attention in float32."""
    return mock.patch.object(torch.Tensor, "float", torch.Tensor.double)


@contextlib.contextmanager
def contiguous_gradients(model: nn.Module) -> Iterator[None]:
    """Give every batch normalization its upstream gradient in contiguous memory.

    On the CPU, its backward pass returns a wrong gradient for a single image with layout (1, H, W, C) and a batch
    stride of C, which results from a transposition followed by a matrix product (PyTorch 2.13).
    """

    def make_contiguous(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(torch.Tensor.contiguous)

    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    hooks = [norm.register_forward_hook(make_contiguous) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def describe(model: nn.Module, image: torch.Tensor, reference: dict[str, Array]) -> dict[str, Any]:
    """Describe the model and its conditioning; raise ValueError if the reference is from another model.

    `float32_gradient_error` is PyTorch's error in float32. `dead_parameters` have a gradient of exactly zero;
    `unused_parameters` do not affect the logits (auxiliary heads).
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    logits, gradient, gradients = differentiate(model, image, list(named.values()))
    of_parameters = dict(zip(named, gradients, strict=True))
    description = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "input_shape": list(image.shape),
        "classes": len(logits),
        "winner_logit_margin": float(np.diff(np.sort(reference["logits"])[-2:])[0]),
        "gradient_norm": float(np.linalg.norm(reference["gradient"])),
        "float32_logits_error": relative_error(logits, reference["logits"]),
        "float32_gradient_error": relative_error(gradient, reference["gradient"]),
        "dead_parameters": [name for name, value in of_parameters.items() if value is not None and not value.any()],
        "unused_parameters": [name for name, value in of_parameters.items() if value is None],
    }
    if not description["float32_logits_error"] < AGREEMENT:
        raise ValueError(f"float32 logits differ from the reference by {description['float32_logits_error']:.1e}")
    return description


def write_export(
    model: nn.Module, image: torch.Tensor, exporter: str, path: pathlib.Path, scratch: pathlib.Path
) -> None:
    """Export `model` to `path`, through `scratch`; the weights of a large model go into one separate file."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    external = size > EXTERNAL_DATA_BYTES
    dynamo = exporter == "dynamo"
    target = scratch / "exported" / path.name
    target.parent.mkdir()
    torch.onnx.export(
        model,
        (image,),
        str(target),
        dynamo=dynamo,
        opset_version=OPSETS[exporter],
        input_names=["image"],
        output_names=["logits"],
        **({"external_data": external} if dynamo else {}),
    )
    if external and not dynamo:
        target = gather_weights(target, scratch / "gathered")
    # Move the model last, so that its weights are there when it appears.
    for file in sorted(target.parent.iterdir(), key=lambda file: file == target):
        file.replace(path.parent / file.name)


def gather_weights(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copy a model, which may have one file per weight, to a new folder with one file for all weights."""
    folder.mkdir()
    gathered = folder / path.name
    location = f"{path.name}.data"
    onnx.save_model(
        onnx.load(path), gathered, save_as_external_data=True, all_tensors_to_one_file=True, location=location
    )
    return gathered


def check_export(path: pathlib.Path, reference: dict[str, Array], threads: int) -> dict[str, Any]:
    """Facts about an exported file: its opset, size, and the error of its logits in onnxruntime."""
    opsets = {entry.domain: entry.version for entry in onnx.load(path, load_external_data=False).opset_import}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: reference["image"]})[0][0]
    error = relative_error(logits, reference["logits"])
    return {
        "opset": opsets[""],
        "bytes": sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")),
        "logits_error": error,
        "agrees": error < AGREEMENT,
    }


def relative_error(measured: Array, exact: Array) -> float:
    """||measured - exact|| / ||exact||."""
    return float(np.linalg.norm(measured.astype(np.float64) - exact) / np.linalg.norm(exact))


def first_lines(error: BaseException) -> str:
    """The type and first line of an exception, and of the innermost one if it wraps others."""
    innermost = error
    while (cause := innermost.__cause__ or innermost.__context__) is not None:
        innermost = cause
    chain = [error] if innermost is error else [error, innermost]
    return " <- ".join(f"{type(one).__name__}: {(str(one).strip() or '-').splitlines()[0]}" for one in chain)


if __name__ == "__main__":
    main()
