"""What onnxruntime's CUDA provider complains about, in words that say what to do."""

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
"""Libraries that find no memory for their handles say that they are not initialized."""

_LITTLE = 1 << 30
"""Bytes of free memory below which a failure to start is for lack of it: the libraries alone take half of that."""


def failure_of(text: str) -> str | None:
    """The failure of one of NVIDIA's libraries that a message of the runtime reports, without where in its source."""
    match = _FAILURE.search(text)
    if match is None:
        return None
    return f"{match[1].replace('CUDNN', 'cuDNN').replace('CUBLAS', 'cuBLAS')} failure {match[2]}: {match[3]}"


def is_about_gpu_memory(text: str) -> bool:
    """Whether a message of the runtime reports that a GPU's memory ran out."""
    return _OUT_OF_MEMORY.search(text) is not None


def start_error(text: str, device: Device, needed: str | None) -> DeviceError | None:
    """Why CUDA cannot start on a device, from what the runtime says; None where that is not one of the known reasons.

    Args:
        text: the whole message.
        needed: the version of CUDA that the runtime is built for.
    """
    where = f"device {device.name}"
    invalid = _INVALID.search(text)
    if invalid is not None:
        return _no_such_gpu(int(invalid[1]), int(invalid[2]), where)
    found = gpu.survey(needed)
    failure = _FAILURE.search(text)
    if failure is not None and (failure[1], failure[2]) == ("CUDA", "100"):
        driver = f"NVIDIA's driver {found.driver} is there, but " if found.driver else ""
        return DeviceError(
            f"{driver}CUDA finds no GPU",
            where=where,
            remedy="in a container, hand the GPU in (docker run --gpus all), and check CUDA_VISIBLE_DEVICES; without "
            "an NVIDIA GPU use --device cpu",
        )
    if failure is not None and (failure[1], failure[2]) in (("CUDA", "35"), ("CUDA", "803")):
        known = f" {found.driver} (CUDA {found.driver_cuda})" if found.driver else ""
        return DeviceError(
            f"NVIDIA's driver{known} is too old for CUDA {needed or 'of this onnxruntime-gpu'}",
            where=where,
            remedy="update the driver, or install an onnxruntime-gpu for an older CUDA",
        )
    own = next((each for each in found.gpus if each.index == device.index), None)
    starved = own is not None and own.free is not None and own.free < _LITTLE
    if is_about_gpu_memory(text) or (failure is not None and starved):
        known = f" ({own.text()})" if own is not None else ""
        return DeviceError(
            f"too little memory is free on the GPU to start CUDA{known}",
            where=where,
            remedy="end what else uses it (nvidia-smi lists that), choose another GPU, or use --device cpu",
        )
    return None


def _no_such_gpu(index: int, count: int, where: str) -> DeviceError:
    numbers = "0" if count == 1 else f"0 to {count - 1}"
    there = "; ".join(each.text() for each in gpu.survey(None).gpus)
    return DeviceError(
        f"there is no GPU {index}; CUDA shows {count} here, numbered {numbers}" + (f" ({there})" if there else ""),
        where=where,
        remedy="choose one of them, and check CUDA_VISIBLE_DEVICES",
    )
