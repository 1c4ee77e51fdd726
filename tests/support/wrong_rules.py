"""Makes gradient rules wrong on purpose, to test that checks notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from onnxgain.gradient import registry


def spoil(monkeypatch: pytest.MonkeyPatch, op_type: str, factor: float) -> None:
    """Make all rules of an operator wrong by a factor."""
    for versions, since, answer in _rules(op_type):
        monkeypatch.setitem(versions, since, registry.Rule(_scaled(answer.formula, factor), answer.broadcasts))


def spoil_formula(monkeypatch: pytest.MonkeyPatch, op_type: str, formula: Callable[..., Any]) -> None:
    """Replace all rules of an operator by another formula."""
    for versions, since, answer in _rules(op_type):
        monkeypatch.setitem(versions, since, registry.Rule(formula, answer.broadcasts))


def _rules(op_type: str) -> list[tuple[dict[int, Any], int, registry.Rule]]:
    registry.find_answer("", op_type, 1, "X")  # loads the tables
    return [
        (versions, since, answer)
        for versions in registry._answers["", op_type].values()
        for since, answer in versions.items()
        if isinstance(answer, registry.Rule)
    ]


def _scaled(formula: Callable[..., Any], factor: float) -> Callable[..., Any]:
    def wrong(op: Any, dy: Any, *inputs: Any, **attributes: Any) -> Any:
        dx = formula(op, dy, *inputs, **attributes)
        return None if dx is None else op.Mul(dx, op.like(factor, dy))

    return wrong
