"""The state of the installation, as text."""

from __future__ import annotations

from onnxgain.report.results import Document

_EXACT = "integer products are exact"
_SATURATE = (
    "integer products of uint8 and int8 saturate on this processor: onnxruntime answers otherwise for quantized models"
)


def render_table(findings: Document, *, colour: bool = False) -> str:
    """A line a fact. Problems are not in it: they go to standard error."""
    packages = {"onnxgain": findings["onnxgain"], "python": findings["python"], **findings["packages"]}
    lines = [f"{name:12} {version or 'not installed'}" for name, version in packages.items()]
    runtimes = ", ".join(f"{name} {version}" for name, version in findings["runtimes"].items()) or "none"
    lines.append(f"{'runtime':12} {runtimes}")
    shown = [f"{name} (not usable)" if name in findings["unusable"] else name for name in findings["providers"]]
    lines.append(f"{'providers':12} {', '.join(shown) or 'none'}")
    lines.append(f"{'cores':12} {findings['cores']}")
    if findings["integer_products_saturate"] is not None:
        lines.append(f"{'int8':12} {_SATURATE if findings['integer_products_saturate'] else _EXACT}")
    if not findings["problems"]:
        lines.append("no problems found")
    return "\n".join(lines) + "\n"
