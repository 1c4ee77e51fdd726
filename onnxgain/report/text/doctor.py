"""The state of the installation, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxgain.engine.gpu import Gpu
from onnxgain.report.reporter import Document

_EXACT = "integer products are exact"
_SATURATE = (
    "integer products of uint8 and int8 saturate on this processor: onnxruntime answers otherwise for quantized models"
)


def render_table(findings: Document, *, colour: bool = False) -> str:
    """One line per fact. Problems are left out, as they go to standard error."""
    packages = {"onnxgain": findings["onnxgain"], "python": findings["python"], **findings["packages"]}
    lines = [f"{name:12} {version or 'not installed'}" for name, version in packages.items()]
    runtimes = ", ".join(f"{name} {version}" for name, version in findings["runtimes"].items()) or "none"
    lines.append(f"{'runtime':12} {runtimes}")
    shown = [f"{name} (not usable)" if name in findings["unusable"] else name for name in findings["providers"]]
    lines.append(f"{'providers':12} {', '.join(shown) or 'none'}")
    lines += [f"{'plug-in':12} {_plugin(plugin)}" for plugin in findings["plugins"]]
    lines.append(f"{'cores':12} {findings['cores']}")
    lines += _cuda(findings["cuda"])
    if findings["integer_products_saturate"] is not None:
        lines.append(f"{'int8':12} {_SATURATE if findings['integer_products_saturate'] else _EXACT}")
    if not findings["problems"]:
        lines.append("no problems found")
    return "\n".join(lines) + "\n"


def _plugin(found: Mapping[str, Any]) -> str:
    """ "onnxruntime-ep-openvino 1.8.1: OpenVINOExecutionProvider (CPU Intel Xeon)"."""
    offers = [f"{provider['name']} ({', '.join(provider['devices'])})" for provider in found["providers"]]
    return f"{found['package']} {found['version']}: {', '.join(offers) or 'not usable'}"


def _cuda(found: Mapping[str, Any] | None) -> list[str]:
    """GPUs and versions, for a package that is built for CUDA."""
    if found is None:
        return []
    runs = f" (runs CUDA up to {found['driver_cuda']})" if found["driver_cuda"] else ""
    gpus = [Gpu(**gpu).text() for gpu in found["gpus"]] or ["none that CUDA shows"]
    return [
        *(f"{'GPU':12} {text}" for text in gpus),
        f"{'driver':12} {found['driver'] or 'not found'}{runs}",
        f"{'CUDA':12} {found['runtime'] or 'not found'}, needed {found['runtime_needed'] or 'unknown'}",
        f"{'cuDNN':12} {found['cudnn'] or 'not found'}, needed {found['cudnn_needed']}",
    ]
