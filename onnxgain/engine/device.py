"""Devices: the execution providers to request from the runtime. Imports nothing heavy."""

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
"""The runtime's provider names without their suffix, by the names that users may write."""


@dataclass(frozen=True)
class Device:
    """The device that evaluates a graph.

    Attributes:
        providers: execution providers in order of preference. All must be available; the runtime leaves nodes that none
            of them supports to the CPU.
        index: number of the GPU.
        tf32: whether matrix products and convolutions on NVIDIA GPUs may round their operands to 10 bits of mantissa.
            Measurements should not.
    """

    providers: tuple[str, ...] = (CPU_PROVIDER,)
    index: int = 0
    tf32: bool = False

    @property
    def is_cpu(self) -> bool:
        """Whether the CPU provider is the only one."""
        return self.providers == (CPU_PROVIDER,)

    @property
    def has_cuda(self) -> bool:
        """Whether the CUDA provider is among them."""
        return CUDA_PROVIDER in self.providers

    @property
    def name(self) -> str:
        """The name for --device or --providers: "cpu", "cuda:0", "openvino"."""
        if self.providers == (CUDA_PROVIDER,):
            return f"cuda:{self.index}"
        return ",".join(provider.removesuffix(PROVIDER_SUFFIX).lower() for provider in self.providers)

    @property
    def target(self) -> Literal["cpu", "portable"]:
        """The lowering target of graphs, see `onnxgain.model.differentiate`."""
        return "cpu" if self.is_cpu else "portable"

    def provider_options(self) -> list[tuple[str, dict[str, str]]]:
        """The providers with their options, as the runtime's argument ``providers``."""
        return [(provider, self._options(provider)) for provider in self.providers]

    def _options(self, provider: str) -> dict[str, str]:
        if provider == CUDA_PROVIDER:
            # EXHAUSTIVE, the default, times every algorithm of every convolution, which takes longer than a
            # measurement.
            search = {"cudnn_conv_algo_search": "HEURISTIC"}
            return {"device_id": str(self.index), "use_tf32": str(int(self.tf32)), **search}
        return {"device_id": str(self.index)} if provider == f"Tensorrt{PROVIDER_SUFFIX}" else {}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Device:
        """The inverse of `dataclasses.asdict`."""
        return cls(**dict(values) | {"providers": tuple(values["providers"])})


CPU = Device()


def parse_device(text: str, *, tf32: bool = False) -> Device | None:
    """Parse a device such as "cpu", "cuda" or "cuda:1"; None for "auto".

    Raises:
        OnnxgainError: there is no such device.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,3}))?", text.strip().lower())
    if match is None:
        raise OnnxgainError(
            "unknown device",
            where=f"--device {text}",
            remedy="use auto, cpu, cuda or cuda:1; choose other execution providers with --providers",
        )
    if match[0] == "auto":
        return None
    return CPU if match[0] == "cpu" else Device((CUDA_PROVIDER,), int(match[1] or 0), tf32)


def parse_providers(text: str, *, tf32: bool = False) -> Device:
    """Parse a list of providers such as "tensorrt,cuda" or "OpenVINOExecutionProvider".

    Raises:
        OnnxgainError: a name in the list is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise OnnxgainError("a name is empty", where=f"--providers {text!r}", remedy="write for example openvino")
    return Device(tuple(dict.fromkeys(map(_provider, names))), 0, tf32)


def _provider(name: str) -> str:
    """The runtime's name of a provider; an unknown name just gets the common suffix."""
    short = re.sub(f"{PROVIDER_SUFFIX}$", "", name, flags=re.IGNORECASE)
    return _SPELLINGS.get(short.lower(), short) + PROVIDER_SUFFIX
