"""Formats, style and writing of all figures."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_path
from onnxgain.report.text.formatting import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
INK, ACCENT = "#1a1a1a", "#b2182b"

_DPI = 150
_MAX_PIXELS = 60_000  # Agg draws at most 2^16 pixels a side
# Text stays text with known glyphs, and output does not depend on the user's matplotlibrc, the date or random numbers.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlepad": 7,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,
    "svg.hashsalt": "onnxgain",
    "pdf.fonttype": 42,
}
_METADATA: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def plot_format(path: str | os.PathLike[str]) -> str:
    """ "png", "svg" or "pdf", by the suffix of `path`.

    Raises:
        OnnxgainError: another suffix, or none.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise OnnxgainError(
            f"cannot draw a '{suffix}' file" if suffix else "the plot's file name has no suffix",
            where=str(path),
            remedy=f"end the name in {', '.join('.' + name for name in FORMATS)}",
        )
    return suffix


@contextmanager
def drawing(path: str | os.PathLike[str], size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure of (width, height) inches, written to `path` atomically when the body is done.

    Equal drawings give equal bytes.

    Raises:
        OnnxgainError: the suffix is not .png, .svg or .pdf, the path cannot be written, or matplotlib is missing.
    """
    kind = plot_format(path)
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise OnnxgainError("matplotlib is not installed", where="--plot", remedy="pip install matplotlib") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
        figure = Figure(figsize=size, layout=layout, facecolor="white")
        yield figure
        with atomic_path(path) as temporary:
            dpi = min(_DPI, _MAX_PIXELS / figure.get_size_inches()[1])
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=_METADATA[kind])
            if kind == "svg":
                _renumber_clips(Path(temporary))


def _renumber_clips(path: Path) -> None:
    """Number the clip paths of an SVG file: matplotlib hashes positions whose last bits vary from layout to layout."""
    text = path.read_bytes()
    for number, name in enumerate(re.findall(rb'<clipPath id="(\w+)"', text)):
        text = text.replace(b'id="' + name + b'"', b'id="clip%d"' % number)
        text = text.replace(b"url(#" + name + b")", b"url(#clip%d)" % number)
    path.write_bytes(text)


def signed(value: float, spec: str) -> str:
    """A formatted number with a real minus sign, and without a sign before zero."""
    text = format(value, spec)
    if text.startswith("-") and not any(digit in text.partition("e")[0] for digit in "123456789"):
        text = text[1:]
    return text.replace("-", "\N{MINUS SIGN}")


def wrapped(text: str, width: int) -> str:
    """Text in lines of `width` characters, with unprintable characters (as in file names) replaced."""
    return textwrap.fill(printable(text), width, break_on_hyphens=False)
