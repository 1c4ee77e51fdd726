"""Draws Vega-Lite specifications to files, and provides the JavaScript library with which a page draws them.

Both use vl-convert, which bundles Vega, Vega-Lite and their fonts and needs no network and no browser.
"""

from __future__ import annotations

import os
from typing import Any

from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write
from onnxgain.report.charts import parts as chart_parts
from onnxgain.report.charts.figure import INK, plot_format
from onnxgain.report.charts.parts import Spec

_SCALE = 2.0  # PNG pixels per pixel of the specification
# vl-convert bundles this font, so that a figure looks the same everywhere.
_PAPER = chart_parts.style(ink=INK, muted="#5c6370", grid="#e3e5e8", font="Liberation Sans, Arial, sans-serif")


def require_charts(where: str) -> None:
    """Check that charts can be drawn, before the work is done.

    Raises:
        OnnxgainError: vl-convert is not installed.
    """
    _library(where)


def write_chart(spec: Spec, path: str | os.PathLike[str]) -> None:
    """Draw a chart and write it atomically. Equal charts give equal bytes.

    Raises:
        OnnxgainError: the suffix is not .png, .svg or .pdf, the path cannot be written, or vl-convert is missing.
    """
    kind = plot_format(path)
    library = _library(f"--plot {path}")
    spec = spec | {"config": _PAPER | {"background": "white", "padding": 16}}
    if kind == "png":
        atomic_write(path, library.vegalite_to_png(spec, scale=_SCALE))
    elif kind == "svg":
        atomic_write(path, library.vegalite_to_svg(spec))
    else:
        atomic_write(path, library.vegalite_to_pdf(spec))


def javascript() -> tuple[str, dict[str, str]]:
    """One script that defines `vegaEmbed` for a page, and the versions of the libraries in it.

    Raises:
        OnnxgainError: vl-convert is not installed.
    """
    library = _library("--report")
    versions = {
        "Vega": library.get_vega_version(),
        "Vega-Lite": library.get_vegalite_versions()[-1],
        "Vega-Embed": library.get_vega_embed_version(),
    }
    # Neither sequence may appear in a script element.
    text = library.javascript_bundle().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return text, versions


def _library(where: str) -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise OnnxgainError(
            "charts need vl-convert-python, which is not installed",
            where=where,
            remedy="pip install vl-convert-python",
        ) from error
    return vl_convert
