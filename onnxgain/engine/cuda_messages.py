"""Translates errors of onnxruntime's CUDA provider into messages that say what to do."""

from __future__ import annotations

import re

from onnxgain.engine import gpu
from onnxgain.engine.device import Device
from onnxgain.errors import DeviceError

_FAILURE = re.compile(r"(CUDA|CUDNN|CUBLAS|CUBLASLT|CUFFT|CURAND) failure (\d+): ([^;\n]+?)\s*(?:;|$)", re.MULTILINE)
_INVALID = re.compile(r"Invalid device ID: (\d+), must be between 0 \(inclusive\) and (\d+)")
_OUT_OF_MEMORY = re.compile(
    r"CUDA failure 2:|out of memory|\w+_STATUS_\w*ALLOC\w*|Failed to allocate memory|CUDNN_STATUS_NOT_INITIALIZED"
    r"|CUBLAS_STATUS_NOT_INITIALIZED"
)
"""Libraries that cannot allocate their handles report that they are not initialized."""

_LITTLE = 1 << 30
"""Bytes. With less free memory, a failure to start is taken for lack of memory: the libraries alone take half of it."""


def failure_of(text: str) -> str | None:
    """The failure of an NVIDIA library that a message of the runtime reports, without its source location, or None."""
    match = _FAILURE.search(text)
    if match is None:
        return None
    return f"{match[1].replace('CUDNN', 'cuDNN').replace('CUBLAS', 'cuBLAS')} failure {match[2]}: {match[3]}"


def is_about_gpu_memory(text: str) -> bool:
    """Whether a message of the runtime says that the GPU is out of memory."""
    return _OUT_OF_MEMORY.search(text) is not None


def start_error(text: str, device: Device, needed: str | None) -> DeviceError | None:
    """Why CUDA cannot start on a device; None if the reason is not known.

    Args:
        text: the whole message of the runtime.
        device: the device to start.
        needed: the version of CUDA that the runtime is built for.
    """
    where = f"device {device.name}"
    invalid = _INVALID.search(text)
    if invalid is not None:
        return _no_such_gpu(int(invalid[1]), int(invalid[2]), where)
    cuda = gpu.survey(needed)
    failure = _FAILURE.search(text)
    if failure is not None and (failure[1], failure[2]) == ("CUDA", "100"):
        driver = f"NVIDIA's driver {cuda.driver} is installed, but " if cuda.driver else ""
        return DeviceError(
            f"{driver}CUDA finds no GPU",
            where=where,
            remedy="in a container, pass the GPU through (docker run --gpus all), and check CUDA_VISIBLE_DEVICES; "
            "without an NVIDIA GPU use --device cpu",
        )
    if failure is not None and (failure[1], failure[2]) in (("CUDA", "35"), ("CUDA", "803")):
        version = f" {cuda.driver} (CUDA {cuda.driver_cuda})" if cuda.driver else ""
        return DeviceError(
            f"NVIDIA's driver{version} is too old for CUDA {needed or 'of this onnxruntime-gpu'}",
            where=where,
            remedy="update the driver, or install an onnxruntime-gpu for an older CUDA",
        )
    own = next((each for each in cuda.gpus if each.index == device.index), None)
    has_little = own is not None and own.free is not None and own.free < _LITTLE
    if is_about_gpu_memory(text) or (failure is not None and has_little):
        state = f" ({own.text()})" if own is not None else ""
        return DeviceError(
            f"too little memory is free on the GPU to start CUDA{state}",
            where=where,
            remedy="stop other processes that use it (nvidia-smi lists them), choose another GPU, or use --device cpu",
        )
    return None


def _no_such_gpu(index: int, count: int, where: str) -> DeviceError:
    numbers = "0" if count == 1 else f"0 to {count - 1}"
    listed = "; ".join(each.text() for each in gpu.survey(None).gpus)
    return DeviceError(
        f"there is no GPU {index}; CUDA shows {count} here, numbered {numbers}" + (f" ({listed})" if listed else ""),
        where=where,
        remedy="choose one of them, and check CUDA_VISIBLE_DEVICES",
    )
