"""Draws the specifications of `onnxgain.report.charts`: files without a browser, and the library for a page with one.

Vega and Vega-Lite come with vl-convert, which needs no network, no browser and no fonts of the system.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write
from onnxgain.report.charts import Spec
from onnxgain.report.figure import INK, plot_format

_SCALE = 2.0  # pixels of a PNG by pixel of the specification
_FONT = "DejaVu Sans"

CONFIG: Spec = {
    "background": "white",
    "padding": 16,
    "font": _FONT,
}

# The parts that carry someone's own licence, for a page that takes them along.
NOTICE = ""


def require_charts(where: str) -> None:
    """Refuse now what would fail after the work is done.

    Raises:
        OnnxgainError: vl-convert is not installed.
    """
    _library(where)


def _library(where: str) -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise OnnxgainError(
            "charts need vl-convert-python, which is not installed", where=where, remedy='pip install "onnxgain[report]"'
        ) from error
    return vl_convert
