# ruff: noqa: N802 -- the names are those of NVIDIA's functions
"""What is said of NVIDIA's GPUs and libraries, by stand-ins for these."""

from __future__ import annotations

from typing import Any

import pytest

from onnxgain.engine import gpu
from onnxgain.engine.gpu import Gpu, survey

GB = 10**9


class Driver:
    """CUDA's driver with two GPUs; NVML lists them the other way round, by their place on the bus."""

    names = (b"NVIDIA H200", b"NVIDIA L4")
    places = (b"0000:81:00.0", b"0000:01:00.0")

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses

    def cuInit(self, flags: int) -> int:
        return 100 if self.refuses else 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13020
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: Any) -> int:
        text.value = self.names[device.value]
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:
        size._obj.value = (140 * GB, 23 * GB)[device.value]
        return 0

    def cuDeviceGetPCIBusId(self, text: Any, size: int, device: Any) -> int:
        text.value = self.places[device.value]
        return 0


class Nvml:
    """NVML; memory by place."""

    memory = {b"0000:81:00.0": (141 * GB, 120 * GB, 21 * GB), b"0000:01:00.0": (24 * GB, 1 * GB, 23 * GB)}

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:
        text.value = b"580.65.06"
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, place: Any, handle: Any) -> int:
        handle._obj.value = 1 + list(self.memory).index(place.value)
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        memory._obj[:] = list(self.memory.values())[handle.value - 1]
        return 0


class Runtime:
    """CUDA's runtime library."""

    def cudaRuntimeGetVersion(self, version: Any) -> int:
        version._obj.value = 13000
        return 0


class Cudnn:
    """cuDNN."""

    def cudnnGetVersion(self) -> int:
        return 91300


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found = {gpu.DRIVER: Driver(), gpu.NVML: Nvml(), gpu.CUDNN: Cudnn(), "libcudart.so.13": Runtime()}
    found["cudart64_13.dll"] = found["libcudart.so.13"]
    monkeypatch.setattr(gpu, "_load", found.get)
    return found


def test_gpus_memory_and_versions_are_named(libraries: dict[str, Any]) -> None:
    found = survey("13.0")
    assert found.gpus == (
        Gpu(0, "NVIDIA H200", 120 * GB, 141 * GB),
        Gpu(1, "NVIDIA L4", 1 * GB, 24 * GB),
    )
    assert (found.driver, found.driver_cuda) == ("580.65.06", "13.2")
    assert (found.runtime, found.runtime_needed) == ("13.0", "13.0")
    assert (found.cudnn, found.cudnn_needed) == ("9.13.0", "9")
    assert found.gpus[0].text() == "0: NVIDIA H200, 120.0 of 141.0 GB free"


def test_without_any_library_nothing_is_known(libraries: dict[str, Any]) -> None:
    libraries.clear()
    found = survey("13.0")
    assert (found.driver, found.driver_cuda, found.runtime, found.cudnn, found.gpus) == (None, None, None, None, ())


def test_a_driver_that_finds_no_gpu(libraries: dict[str, Any]) -> None:
    libraries[gpu.DRIVER] = Driver(refuses=True)
    assert survey("13.0").gpus == ()
    assert survey("13.0").driver == "580.65.06"


def test_without_nvml_only_the_free_memory_is_unknown(libraries: dict[str, Any]) -> None:
    del libraries[gpu.NVML]
    found = survey(None)
    assert found.gpus[1] == Gpu(1, "NVIDIA L4", None, 23 * GB)
    assert found.gpus[1].text() == "1: NVIDIA L4, 23.0 GB"
    assert found.runtime is None


def test_the_real_libraries_are_asked_without_harm() -> None:
    assert survey("13.0").cudnn_needed == "9"
