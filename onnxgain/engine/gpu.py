"""GPUs, their memory, and versions of NVIDIA's driver and libraries. Imports nothing heavy.

This asks the libraries directly. CUDA's driver numbers the devices as onnxruntime does, including the effect of
CUDA_VISIBLE_DEVICES; NVML reports free memory without creating a context. A value is None if its library is missing or
fails.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

_WINDOWS = sys.platform == "win32"
DRIVER = "nvcuda.dll" if _WINDOWS else "libcuda.so.1"
NVML = "nvml.dll" if _WINDOWS else "libnvidia-ml.so.1"
CUDNN = "cudnn64_9.dll" if _WINDOWS else "libcudnn.so.9"
CUDNN_NEEDED = "9"
"""The major version that onnxruntime-gpu needs from 1.19 on."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: the N of --device cuda:N.
        name: the name of the product.
        free, total: bytes of memory; None if unknown.
    """

    index: int
    name: str
    free: int | None
    total: int | None

    def text(self) -> str:
        """For messages: "0: NVIDIA H200, 139.1 of 140.4 GB free"."""
        if self.total is None:
            return f"{self.index}: {self.name}"
        free = "" if self.free is None else f"{_gigabytes(self.free)} of "
        return f"{self.index}: {self.name}, {free}{_gigabytes(self.total)} GB{' free' if free else ''}"


@dataclass(frozen=True)
class Cuda:
    """The installed parts of CUDA.

    Attributes:
        driver: version of NVIDIA's driver; None if there is none.
        driver_cuda: the newest CUDA version that the driver supports.
        runtime, runtime_needed: versions of CUDA's runtime library, as found and as onnxruntime needs it.
        cudnn, cudnn_needed: the same for cuDNN.
        gpus: the GPUs that CUDA shows to this process.
    """

    driver: str | None
    driver_cuda: str | None
    runtime: str | None
    runtime_needed: str | None
    cudnn: str | None
    cudnn_needed: str
    gpus: tuple[Gpu, ...]


def survey(runtime_needed: str | None) -> Cuda:
    """Query all libraries.

    Args:
        runtime_needed: the version of CUDA that the installed onnxruntime is built for, e.g. "13.0".
    """
    driver = _load(DRIVER)
    nvml = _load(NVML)
    started = nvml is not None and nvml.nvmlInit_v2() == 0
    usable = driver is not None and driver.cuInit(0) == 0
    return Cuda(
        driver=_driver_version(nvml) if started else None,
        driver_cuda=_number(driver, "cuDriverGetVersion") if driver is not None else None,
        runtime=_runtime_version(runtime_needed),
        runtime_needed=runtime_needed,
        cudnn=_cudnn_version(),
        cudnn_needed=CUDNN_NEEDED,
        gpus=_gpus(driver, nvml if started else None) if usable else (),
    )


def _load(name: str) -> Any:
    """Load a library; None if it cannot be loaded."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _gpus(driver: Any, nvml: Any) -> tuple[Gpu, ...]:
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_gpu(driver, nvml, index) for index in range(count.value))


def _gpu(driver: Any, nvml: Any, index: int) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name, bus = ctypes.create_string_buffer(128), ctypes.create_string_buffer(32)
    known = driver.cuDeviceGetName(name, len(name), device) == 0
    free, total = None, None
    size = ctypes.c_size_t()
    if driver.cuDeviceTotalMem_v2(ctypes.byref(size), device) == 0:
        total = size.value
    if nvml is not None and driver.cuDeviceGetPCIBusId(bus, len(bus), device) == 0:
        handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
        found = nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle)) == 0
        if found and nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
            total, free = int(memory[0]), int(memory[1])
    return Gpu(index, name.value.decode("utf-8", "replace") if known else "unknown GPU", free, total)


def _driver_version(nvml: Any) -> str | None:
    text = ctypes.create_string_buffer(80)
    return text.value.decode("ascii", "replace") if nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0 else None


def _runtime_version(needed: str | None) -> str | None:
    """The version of CUDA's runtime library, if the needed major version is installed."""
    major = (needed or "").partition(".")[0]
    if not major.isdigit():
        return None
    library = _load(f"cudart64_{major}.dll" if _WINDOWS else f"libcudart.so.{major}")
    return _number(library, "cudaRuntimeGetVersion") if library is not None else None


def _number(library: Any, function: str) -> str | None:
    """A version that CUDA encodes as 1000 major + 10 minor."""
    version = ctypes.c_int()
    if getattr(library, function)(ctypes.byref(version)) != 0 or version.value <= 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _cudnn_version() -> str | None:
    library = _load(CUDNN)
    if library is None:
        return None
    number = int(library.cudnnGetVersion())  # 10000 major + 100 minor + patch
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"
