"""The caveat for models whose results depend on the CPU. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

_SATURATING = "onnxruntime's saturate on x86 processors without VNNI, where the model answers otherwise"


def on_the_processor(operators: Iterable[str]) -> str:
    """The caveat for a model with integer products, see `onnxgain.engine.integer_products.integer_operators`."""
    return (
        f"products of {' and '.join(operators)} are computed exactly; {_SATURATING} "
        "(its option session.x64quantprecision = 1 avoids that)"
    )


def about_the_processor(sentences: Iterable[str]) -> list[str]:
    """Those of the sentences that come from `on_the_processor`."""
    return [sentence for sentence in sentences if _SATURATING in sentence]
