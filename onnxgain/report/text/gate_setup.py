"""The result of `gate --init` as text: what is gated, what was assumed, what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from onnxgain.report.reporter import GateSetup
from onnxgain.report.text.formatting import merged, printable


def render_setup(setup: GateSetup) -> str:
    """The files written, the assumptions, the models left out, and the next commands."""
    general = [text for model, text in setup.assumed if not model]
    of_models = merged((model, text) for model, text in setup.assumed if model)
    parts = [("wrote", _columns(setup.written)), ("assumed", [*general, *of_models])]
    parts += [("left out", merged(setup.left_out)), ("next", _columns(setup.next))]
    lines = [line for title, found in parts if found for line in (f"{title}:", *(f"  {text}" for text in found))]
    return "".join(f"{printable(line)}\n" for line in lines)


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    widest = max((len(first) for first, _ in rows), default=0)
    return [f"{first.ljust(widest)}   {second}" for first, second in rows]
