"""Every row of every table in `cases/`, through the one checker."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from tests.gradient import cases
from tests.gradient.checker import Case, check, expand
from tests.gradient.models import ModelCase

TABLES = {
    module.name: importlib.import_module(f"tests.gradient.cases.{module.name}").CASES
    for module in pkgutil.iter_modules(cases.__path__)
}
# The tables whose rules leave it to `lowering` how their adjoints are written for a target.
LOWERED = ("convolution", "pooling")


@pytest.mark.parametrize(("case", "version"), [row for table in TABLES.values() for row in expand(table)])
def test_gradient(case: Case | ModelCase, version: int) -> None:
    if isinstance(case, ModelCase):
        case.check(version)
    else:
        check(case, version)


@pytest.mark.parametrize(("case", "version"), [row for name in LOWERED for row in expand(TABLES[name])])
def test_gradient_of_the_portable_lowering(case: Case, version: int) -> None:
    check(case, version, target="portable")
