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


@pytest.mark.parametrize(("case", "version"), [row for table in TABLES.values() for row in expand(table)])
def test_gradient(case: Case | ModelCase, version: int) -> None:
    if isinstance(case, ModelCase):
        case.check(version)
    else:
        check(case, version)
