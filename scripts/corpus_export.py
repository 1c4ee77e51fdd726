"""Export one classifier of the corpus and its float64 reference; `corpus.py` runs this in a process per model.

Reference, `<name>.npz`, written unless it exists:

    image     float32, shape (1, C, H, W): fixed standard normal noise, in the model's own input space
    logits    float64, shape (N,): the output of the PyTorch model in float64
    winner    int64, scalar: the largest logit
    gradient  float64, shape (1, C, H, W): d log softmax(logits)[winner] / d image, by PyTorch in float64

Export, `<name>.<exporter>.onnx`, input `image` of static shape (1, C, H, W), output `logits` (1, N); weights of
more than 400 MB lie beside it in `<name>.<exporter>.onnx.data`. What was found goes to a JSON file, see `run`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pathlib
import shutil
import tempfile
import time
import traceback
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from corpus_conditioning import condition
from corpus_models import build
from torch import nn

SEED = 20180901
CALIBRATION_IMAGES = 4

# The opset that the TorchScript-based exporter is asked for most, and the newest of the torch.export-based one.
OPSETS = {"legacy": 17, "dynamo": 23}

EXTERNAL_DATA_BYTES = 400_000_000

# float32 against float64: what a rebuilt model may differ from its reference, and an export from it.
AGREEMENT = 1e-3


def main() -> None:
    """Export the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a model as corpus.py lists it")
    parser.add_argument("--exporter", choices=sorted(OPSETS), required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="the folder of the corpus")
    parser.add_argument("--result", type=pathlib.Path, required=True, metavar="FILE", help="where to write the JSON")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    result = run(options.name, options.exporter, options.out, options.threads)
    options.result.write_text(json.dumps(result), encoding="utf-8")


def run(name: str, exporter: str, folder: pathlib.Path, threads: int) -> dict[str, Any]:
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
        model, image = conditioned(name, exportable=exporter == "legacy")
        stage = "reference"
        reference_path = folder / f"{name}.npz"
        if not reference_path.exists():
            write_reference(model, image, reference_path)
        reference = dict(np.load(reference_path))
        result["model"] = describe(model, image, reference)
        stage, start = "export", time.perf_counter()
        path = folder / f"{name}.{exporter}.onnx"
        write_export(model, image, exporter, path)
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


def conditioned(name: str, *, exportable: bool) -> tuple[nn.Module, torch.Tensor]:
    """The classifier with its final weights, and the image (1, C, H, W) it is differentiated at."""
    torch.manual_seed(SEED)
    model, shape = build(name, exportable=exportable)
    generator = torch.Generator().manual_seed(SEED)
    image = torch.randn((1, *shape), generator=generator)
    condition(model, torch.randn((CALIBRATION_IMAGES, *shape), generator=generator), generator)
    return model, image


def write_reference(model: nn.Module, image: torch.Tensor, path: pathlib.Path) -> None:
    """Write the float64 reference of `model` at `image`, as described at the top of this file."""
    exact = copy.deepcopy(model).double()
    logits, gradients = differentiate(exact, image.double(), [])
    arrays = {"image": image.numpy(), "logits": logits, "winner": np.int64(logits.argmax()), "gradient": gradients[0]}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("the reference is not finite")
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def differentiate(
    model: nn.Module, image: torch.Tensor, parameters: list[nn.Parameter]
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """The logits (N,) at `image`, and the gradients of log softmax[winner] w.r.t. the image and `parameters`."""
    image = image.clone().requires_grad_()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    logits = model(image)
    score = torch.log_softmax(logits[0], dim=0).max()
    gradients = torch.autograd.grad(score, [image, *parameters], allow_unused=True)
    return logits[0].detach().numpy(), [None if gradient is None else gradient.numpy() for gradient in gradients]


def describe(model: nn.Module, image: torch.Tensor, reference: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the model is and how well conditioned; fails when it is not the model that the reference was made from.

    `float32_gradient_error` is what float32 arithmetic alone costs in PyTorch. `dead_parameters` are those whose
    gradient is exactly zero, `unused_parameters` those that the logits do not depend on (auxiliary heads).
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    logits, (gradient, *rest) = differentiate(model, image, list(named.values()))
    of_parameters = dict(zip(named, rest, strict=True))
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


def write_export(model: nn.Module, image: torch.Tensor, exporter: str, path: pathlib.Path) -> None:
    """Export `model` to `path`, with the weights of a large model in one external file beside it."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    external = size > EXTERNAL_DATA_BYTES
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as name:
        folder = pathlib.Path(name)
        target = folder / path.name
        dynamo = exporter == "dynamo"
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
            target = gather_weights(target)
        # The model last: where it is, its weights are.
        for file in sorted(target.parent.iterdir(), key=lambda file: file == target):
            os.replace(file, path.parent / file.name)


def gather_weights(path: pathlib.Path) -> pathlib.Path:
    """Rewrite a model, whose weights may lie in a file each, with one file for all weights; return its new path."""
    folder = path.parent / "gathered"
    folder.mkdir()
    onnx.save_model(
        onnx.load(path),
        folder / path.name,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
    )
    for file in path.parent.iterdir():
        if file.is_file():
            file.unlink()
    return folder / path.name


def check_export(path: pathlib.Path, reference: dict[str, np.ndarray], threads: int) -> dict[str, Any]:
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


def relative_error(measured: np.ndarray, exact: np.ndarray) -> float:
    """||measured - exact|| / ||exact||."""
    return float(np.linalg.norm(measured.astype(np.float64) - exact) / np.linalg.norm(exact))


def first_lines(error: BaseException) -> str:
    """The type and first line of an exception and, where it wraps others, of the innermost one."""
    innermost = error
    while (cause := innermost.__cause__ or innermost.__context__) is not None:
        innermost = cause
    chain = [error] if innermost is error else [error, innermost]
    return " <- ".join(f"{type(one).__name__}: {(str(one).strip() or '-').splitlines()[0]}" for one in chain)


if __name__ == "__main__":
    main()
