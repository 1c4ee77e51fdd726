"""Checks every row of every table in `cases/`."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from onnxgain.gradient.emitter import Target
from tests.gradient import cases
from tests.gradient.checker import Case, check, expand
from tests.gradient.models import ModelCase

TABLES = {
    module.name: importlib.import_module(f"tests.gradient.cases.{module.name}").CASES
    for module in pkgutil.iter_modules(cases.__path__)
}
LOWERED: tuple[tuple[Target, str], ...] = (
    ("brief", "convolution"), ("brief", "pooling"), ("brief", "matmul"), ("portable", "convolution"),
    ("portable", "pooling"),
)  # fmt: skip
"""The tables of operators whose gradients are lowered differently for targets other than the CPU."""


@pytest.mark.parametrize(("case", "version"), [row for table in TABLES.values() for row in expand(table)])
def test_gradient(case: Case | ModelCase, version: int) -> None:
    if isinstance(case, ModelCase):
        case.check(version)
    else:
        check(case, version)


@pytest.mark.parametrize(
    ("case", "version", "target"),
    [pytest.param(*row.values, target, id=f"{row.id}-{target}") for target, name in LOWERED
     for row in expand(TABLES[name])],
)  # fmt: skip
def test_gradient_of_another_lowering(case: Case, version: int, target: Target) -> None:
    check(case, version, target=target)
