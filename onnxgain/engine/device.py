"""Where graphs are evaluated: the execution providers that are asked of the runtime. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onnxgain.errors import OnnxgainError

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
PROVIDER_SUFFIX = "ExecutionProvider"
_SPELLINGS = {
    "cpu": "CPU", "cuda": "CUDA", "tensorrt": "Tensorrt", "openvino": "OpenVINO", "coreml": "CoreML", "dml": "Dml",
    "directml": "Dml", "azure": "Azure", "rocm": "ROCM", "migraphx": "MIGraphX", "qnn": "QNN", "dnnl": "Dnnl",
    "xnnpack": "Xnnpack", "webgpu": "WebGpu", "nvtensorrtrtx": "NvTensorRTRTX", "nv-tensorrt-rtx": "NvTensorRTRTX",
}  # fmt: skip
"""The runtime's names without their ending, by what people write."""


@dataclass(frozen=True)
class Device:
    """What evaluates a graph.

    Attributes:
        providers: execution providers in order of preference. All must take part; what none of them has a kernel for is
            left to the CPU by the runtime.
        index: number of the GPU.
        tf32: products and convolutions on NVIDIA GPUs may round their operands to 10 bits of mantissa. A measurement
            should not.
    """

    providers: tuple[str, ...] = (CPU_PROVIDER,)
    index: int = 0
    tf32: bool = False

    @property
    def is_cpu(self) -> bool:
        """Whether it is the runtime's CPU kernels alone."""
        return self.providers == (CPU_PROVIDER,)

    @property
    def has_cuda(self) -> bool:
        """Whether CUDA's kernels take part."""
        return CUDA_PROVIDER in self.providers

    @property
    def name(self) -> str:
        """As --device and --providers take it: "cpu", "cuda:0", "openvino"."""
        if self.providers == (CUDA_PROVIDER,):
            return f"cuda:{self.index}"
        return ",".join(provider.removesuffix(PROVIDER_SUFFIX).lower() for provider in self.providers)

    @property
    def target(self) -> Literal["cpu", "portable"]:
        """What graphs are lowered for, see `onnxgain.model.differentiate`."""
        return "cpu" if self.is_cpu else "portable"

    def provider_options(self) -> list[tuple[str, dict[str, str]]]:
        """The runtime's list of providers with their options."""
        return [(provider, self._options(provider)) for provider in self.providers]

    def _options(self, provider: str) -> dict[str, str]:
        if provider == CUDA_PROVIDER:
            # EXHAUSTIVE, the default, times every algorithm of every convolution: longer than a measurement takes.
            search = {"cudnn_conv_algo_search": "HEURISTIC"}
            return {"device_id": str(self.index), "use_tf32": str(int(self.tf32)), **search}
        return {"device_id": str(self.index)} if provider == f"Tensorrt{PROVIDER_SUFFIX}" else {}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Device:
        """The inverse of `dataclasses.asdict`."""
        return cls(**dict(values) | {"providers": tuple(values["providers"])})


CPU = Device()


def parse_device(text: str, *, tf32: bool = False) -> Device | None:
    """The device that "cpu", "cuda" or "cuda:1" names; None for "auto".

    Raises:
        OnnxgainError: it names none.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,3}))?", text.strip().lower())
    if match is None:
        raise OnnxgainError(
            "is no device", where=f"--device {text}", remedy="write auto, cpu, cuda or cuda:1; others by --providers"
        )
    if match[0] == "auto":
        return None
    return CPU if match[0] == "cpu" else Device((CUDA_PROVIDER,), int(match[1] or 0), tf32)


def parse_providers(text: str, *, tf32: bool = False) -> Device:
    """The device that a list such as "tensorrt,cuda" or "OpenVINOExecutionProvider" names.

    Raises:
        OnnxgainError: an empty list.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise OnnxgainError("names nothing", where=f"--providers {text!r}", remedy="write e.g. openvino")
    return Device(tuple(dict.fromkeys(map(_provider, names))), 0, tf32)


def _provider(name: str) -> str:
    """The runtime's name of a provider; an unknown one is left as it is, with the ending that all have."""
    short = re.sub(f"{PROVIDER_SUFFIX}$", "", name, flags=re.IGNORECASE)
    return _SPELLINGS.get(short.lower(), short) + PROVIDER_SUFFIX
