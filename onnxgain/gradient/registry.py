"""What is known about each operator: its derivative, or why it has none, and how to rewrite it in newer operators.

Every (domain, operator, version, input) has one of three answers: a formula, ``ZERO``, or ``Unsupported``. A formula is
mathematics and nothing else; broadcasting, accumulation, naming and the lowering for a target are the engine's.

    @rule("Sin", "input")
    def sin(op, dy, x):
        return dy * op.Cos(x)

A formula is called with the emitter, the adjoint of the node's first output, the node's inputs as the operator's schema
lists them (absent optional ones are None) and its attributes as keywords; it returns the adjoint of one input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import onnx

Formula = Callable[..., Any]
F = TypeVar("F", bound=Formula)


@dataclass(frozen=True)
class Rule:
    """A formula. With ``broadcasts`` its result is summed down to the input's shape, as NumPy broadcasting demands."""

    formula: Formula
    broadcasts: bool = False


@dataclass(frozen=True)
class Unsupported:
    """No derivative here, for a reason a user can act on."""

    reason: str


ZERO: Literal["zero"] = "zero"
Answer = Rule | Unsupported | Literal["zero"]

ALL_INPUTS = "*"
_answers: dict[tuple[str, str], dict[str, dict[int, Answer]]] = {}
_rewrites: dict[tuple[str, str], dict[int, Formula]] = {}
_unchanged: dict[tuple[str, str], set[int]] = {}
ANY_VERSION = 0


def _record(domain: str, op_type: str, name: str, since: int, answer: Answer) -> None:
    versions = _answers.setdefault((domain, op_type), {}).setdefault(name, {})
    assert since not in versions, f"{domain}:{op_type} input {name} has two answers since version {since}"
    versions[since] = answer


def rule(op_type: str, *inputs: str, domain: str = "", since: int = 1, broadcasts: bool = False) -> Callable[[F], F]:
    """Register the decorated formula as the derivative of ``op_type`` in the inputs named."""

    def register(formula: F) -> F:
        for name in inputs or (ALL_INPUTS,):
            _record(domain, op_type, name, since, Rule(formula, broadcasts))
        return formula

    return register


def rules(op_type: str, *, domain: str = "", since: int = 1, broadcasts: bool = False, **formulas: Formula) -> None:
    """Register one formula for each named input: ``rules("Mul", A=lambda op, dy, A, B: dy * B, ...)``."""
    for name, formula in formulas.items():
        _record(domain, op_type, name, since, Rule(formula, broadcasts))


def zero(op_type: str, *inputs: str, domain: str = "", since: int = 1) -> None:
    """The derivative is zero almost everywhere, or the input is not a quantity (indices, shapes, seeds)."""
    for name in inputs or (ALL_INPUTS,):
        _record(domain, op_type, name, since, ZERO)


def unsupported(op_type: str, *inputs: str, reason: str, domain: str = "", since: int = 1) -> None:
    """There is a dependence but no derivative that standard operators can express; ``reason`` tells what to do."""
    for name in inputs or (ALL_INPUTS,):
        _record(domain, op_type, name, since, Unsupported(reason))


def rewrite(op_type: str, *versions: int, domain: str = "") -> Callable[[F], F]:
    """Register the decorated function as the meaning of ``op_type`` (in those versions, or in any) in other operators.

    It is called with the emitter, the inputs and the attributes, and returns the output or a tuple of them.
    """

    def register(function: F) -> F:
        for version in versions or (ANY_VERSION,):
            table = _rewrites.setdefault((domain, op_type), {})
            assert version not in table, f"{domain}:{op_type} has two rewrites for version {version}"
            table[version] = function
        return function

    return register


def unchanged(op_type: str, *versions: int) -> None:
    """Nodes of these versions mean the same in the next version: it only widened the types."""
    _unchanged.setdefault(("", op_type), set()).update(versions)


def find_rewrite(domain: str, op_type: str, version: int) -> Formula | None:
    """The rewrite for this version of an operator, or None."""
    _load_tables()
    table = _rewrites.get((domain, op_type), {})
    return table.get(version) or table.get(ANY_VERSION)


def is_unchanged(domain: str, op_type: str, version: int) -> bool:
    """Whether nodes of this version may be read as nodes of the next."""
    _load_tables()
    return version in _unchanged.get((domain, op_type), ())


def find_answer(domain: str, op_type: str, version: int, input_name: str) -> Answer | None:
    """The answer for one input of one version of an operator, or None where nothing was decided."""
    _load_tables()
    inputs = _answers.get((domain, op_type), {})
    versions = inputs.get(input_name) or inputs.get(ALL_INPUTS) or {}
    known = [since for since in versions if since <= version]
    return versions[max(known)] if known else None


def has_answers(domain: str, op_type: str) -> bool:
    """Whether anything was decided about an operator's derivative."""
    _load_tables()
    return (domain, op_type) in _answers


@functools.cache
def schema(domain: str, op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """The schema in force for an operator at an opset version, or None for an operator ONNX does not define."""
    import onnx.defs

    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


@functools.cache
def input_names(domain: str, op_type: str, opset: int) -> tuple[tuple[str, ...], bool]:
    """The formal input names of an operator, and whether the last of them is variadic."""
    found = schema(domain, op_type, opset)
    if found is None:
        return (), False
    formal = tuple(parameter.name for parameter in found.inputs)
    variadic = bool(found.inputs) and found.inputs[-1].option == found.inputs[-1].option.__class__.Variadic
    return formal, variadic


@functools.cache
def _load_tables() -> None:
    """Import every rule and rewrite file once; they register themselves here."""
    import importlib
    import pkgutil

    from onnxgain.gradient import rewrites, rules

    for package in (rules, rewrites):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
