"""The registry of operators: their derivatives, or why they have none, and rewrites into other operators.

Every (domain, operator, version, input) has one of three answers: a formula, ``ZERO``, or ``Unsupported``. A formula is
only mathematics; its callers handle broadcasting, accumulation, naming and the lowering for a target.

    @rule("Sin", "input")
    def sin(op, dy, x):
        return dy * op.Cos(x)

A formula gets the emitter, the upstream gradient of the node's first output, the node's inputs as the operator's schema
lists them (absent optional ones are None) and its attributes as keywords. It returns the gradient of one input, or None
if this node does not depend on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from onnxgain.gradient.emitter import Emitter
    from onnxgain.gradient.operator_calls import Attribute
    from onnxgain.gradient.reverse.backpropagate import Path

Formula: TypeAlias = "Callable[..., ir.Value | None]"
Rewritten: TypeAlias = "ir.Value | Sequence[ir.Value | None]"
F = TypeVar("F", bound="Formula")
G = TypeVar("G", bound="Callable[..., Rewritten | Declined]")


class Rule(NamedTuple):
    """A formula. With ``broadcasts``, its result is summed down to the input's shape, to undo NumPy broadcasting."""

    formula: Formula
    broadcasts: bool = False


class Declined(NamedTuple):
    """Returned by a rewrite for a node that must stay as it is; ``reason`` says why such a node has no derivative."""

    reason: str = ""


class Rewrite(NamedTuple):
    """An operator expressed in other operators.

    Attributes:
        function: called with the emitter, the inputs and the attributes (a subgraph as `operator_calls.Body`).
        may_decline: whether it may return `Declined`.
        counts_outputs: whether it takes the number of the node's outputs as ``output_count``: some old operators
            behave differently with several outputs.
        attributes: a class with the operator's attributes as fields, for functions that take them all in one argument
            ``given``.
    """

    function: Callable[..., Rewritten | Declined]
    may_decline: bool = False
    counts_outputs: bool = False
    attributes: type | None = None

    def __call__(
        self, op: Emitter, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Attribute], outputs: int = 1
    ) -> Rewritten | Declined:
        """Rewrite a node."""
        keywords = dict(attributes) if self.attributes is None else {"given": self.attributes(**attributes)}
        if self.counts_outputs:
            keywords["output_count"] = outputs
        result = self.function(op, *inputs, **keywords)
        assert self.may_decline or not isinstance(result, Declined), "register it with may_decline=True"
        return result


class Wiring(NamedTuple):
    """How values pass between a node and its subgraphs.

    Attributes:
        bodies: the subgraphs.
        enter: (outer value, body input) pairs.
        leave: (body output, node output) pairs.
        carry: (body output, body input in the next iteration) pairs.
    """

    bodies: Sequence[ir.Graph]
    enter: Sequence[tuple[ir.Value, ir.Value]] = ()
    leave: Sequence[tuple[ir.Value, ir.Value]] = ()
    carry: Sequence[tuple[ir.Value, ir.Value]] = ()


class BodyRule(NamedTuple):
    """The derivative of a node with subgraphs. These can capture outer values, so all gradients are emitted at once.

    Attributes:
        wiring: called with the node.
        obstacle: called with the node; returns the reason why it has no derivative, or None.
        formula: called with the emitter, the node, the upstream gradients of its outputs (None where there is none) and
            the path (`onnxgain.gradient.reverse.backpropagate.Path`); returns the gradient of each value in
            ``path.bodies[node]``.
    """

    wiring: Callable[[ir.Node], Wiring]
    obstacle: Callable[[ir.Node], str | None]
    formula: Callable[[Emitter, ir.Node, Sequence[ir.Value | None], Path], Sequence[ir.Value]]


class Unsupported(NamedTuple):
    """There is no derivative; ``reason`` tells users what they can do."""

    reason: str


ZERO: Literal["zero"] = "zero"
Answer = Rule | BodyRule | Unsupported | Literal["zero"]

ALL_INPUTS = "*"
_answers: dict[tuple[str, str], dict[str, dict[int, Answer]]] = {}
_body_rules: dict[tuple[str, str], BodyRule] = {}
_rewrites: dict[tuple[str, str], dict[int, Rewrite]] = {}
_unchanged: dict[tuple[str, str], set[int]] = {}
_definitions: list[Callable[[str, int], Rewrite | None]] = []
# The oldest opset we emit: in it, reductions take axes as inputs, and ScatterElements can add.
OLDEST_EMITTED_OPSET = 18
# Operators of that opset that a later version changed in more than the accepted types.
_CHANGED_LATER = {("DFT", 17), ("GridSample", 16), ("GroupNormalization", 18)}
ANY_VERSION = 0


def _record(domain: str, op_type: str, name: str, since: int, answer: Answer) -> None:
    versions = _answers.setdefault((domain, op_type), {}).setdefault(name, {})
    assert since not in versions, f"{domain}:{op_type} input {name} has two answers since version {since}"
    versions[since] = answer


def rule(op_type: str, *inputs: str, domain: str = "", since: int = 1, broadcasts: bool = False) -> Callable[[F], F]:
    """Register the decorated formula as the derivative of ``op_type`` with respect to ``inputs`` (default: all)."""

    def register(formula: F) -> F:
        for name in inputs or (ALL_INPUTS,):
            _record(domain, op_type, name, since, Rule(formula, broadcasts))
        return formula

    return register


def rules(op_type: str, *, domain: str = "", since: int = 1, broadcasts: bool = False, **formulas: Formula) -> None:
    """Register one formula per input: ``rules("Mul", A=lambda op, dy, A, B: dy * B, ...)``."""
    for name, formula in formulas.items():
        _record(domain, op_type, name, since, Rule(formula, broadcasts))


def body_rule(
    op_type: str,
    *inputs: str,
    wiring: Callable[[ir.Node], Wiring],
    obstacle: Callable[[ir.Node], str | None],
    formula: Callable[[Emitter, ir.Node, Sequence[ir.Value | None], Path], Sequence[ir.Value]],
) -> None:
    """Register the derivative of an operator with subgraphs, for the named inputs and the captured outer values."""
    answer = BodyRule(wiring, obstacle, formula)
    _body_rules[("", op_type)] = answer
    for name in inputs:
        _record("", op_type, name, 1, answer)


def zero(op_type: str, *inputs: str, domain: str = "", since: int = 1) -> None:
    """Register inputs whose derivative is zero almost everywhere, or that are indices, shapes, seeds and the like."""
    for name in inputs or (ALL_INPUTS,):
        _record(domain, op_type, name, since, ZERO)


def unsupported(op_type: str, *inputs: str, reason: str, domain: str = "", since: int = 1) -> None:
    """Register inputs whose derivative standard operators cannot express; ``reason`` tells users what to do."""
    for name in inputs or (ALL_INPUTS,):
        _record(domain, op_type, name, since, Unsupported(reason))


def rewrite(
    op_type: str,
    *versions: int,
    domain: str = "",
    may_decline: bool = False,
    counts_outputs: bool = False,
    attributes: type | None = None,
) -> Callable[[G], G]:
    """Register the decorated function as a rewrite of ``op_type``, for these versions or for all.

    It is called with the emitter, the inputs and the attributes (a subgraph as `operator_calls.Body`), and returns one
    output or a sequence of outputs. The options are those of `Rewrite`.
    """

    def register(function: G) -> G:
        for version in versions or (ANY_VERSION,):
            table = _rewrites.setdefault((domain, op_type), {})
            assert version not in table, f"{domain}:{op_type} has two rewrites for version {version}"
            table[version] = Rewrite(function, may_decline, counts_outputs, attributes)
        return function

    return register


_DECLINED = "onnxgain.declined"


def note_declined(node: ir.Node | None, reason: str) -> None:
    """Record on the node why a rewrite declined it."""
    assert node is not None
    node.meta[_DECLINED] = reason


def declined_because(node: ir.Node) -> str | None:
    """The reason that a rewrite gave for declining the node, or None."""
    reason: str | None = node.meta.get(_DECLINED)
    return reason


def unchanged(op_type: str, *versions: int) -> None:
    """Register versions whose nodes are valid in the next version as they are: it only widened the types."""
    _unchanged.setdefault(("", op_type), set()).update(versions)


def find_rewrite(domain: str, op_type: str, version: int) -> Rewrite | None:
    """The rewrite for this version of an operator, or None."""
    _load_tables(domain)
    table = _rewrites.get((domain, op_type), {})
    known = table.get(version) or table.get(ANY_VERSION)
    if known is None and domain == "" and not has_answers(domain, op_type):
        return _definitions[0](op_type, version)
    return known


def definitions(find: Callable[[str, int], Rewrite | None]) -> Callable[[str, int], Rewrite | None]:
    """Register the function that finds a rewrite for operators without any answer, given the operator and version."""
    _definitions.append(find)
    return find


def is_unchanged(domain: str, op_type: str, version: int) -> bool:
    """Whether nodes of this version may be read as nodes of the next."""
    _load_tables(domain)
    if version in _unchanged.get((domain, op_type), ()):
        return True
    oldest = schema(domain, op_type, OLDEST_EMITTED_OPSET)
    return (oldest is None or version >= oldest.since_version) and (op_type, version) not in _CHANGED_LATER


def find_answer(domain: str, op_type: str, version: int, input_name: str) -> Answer | None:
    """The answer for one input of one version of an operator, or None if none is registered."""
    _load_tables(domain)
    inputs = _answers.get((domain, op_type), {})
    versions = inputs.get(input_name) or inputs.get(ALL_INPUTS) or {}
    known = [since for since in versions if since <= version]
    return versions[max(known)] if known else None


def find_body_rule(domain: str, op_type: str) -> BodyRule | None:
    """The derivative of an operator with subgraphs; None for all other operators."""
    _load_tables(domain)
    return _body_rules.get((domain, op_type))


def has_answers(domain: str, op_type: str) -> bool:
    """Whether any answer about an operator's derivative is registered."""
    _load_tables(domain)
    return (domain, op_type) in _answers


def registered(domain: str) -> list[str]:
    """The operators of a domain with a registered answer or rewrite, sorted."""
    _load_tables(domain)
    return sorted({op_type for known, op_type in (*_answers, *_rewrites) if known == domain})


@functools.cache
def schema(domain: str, op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """The schema of an operator at an opset version, or None if the installed onnx does not define it."""
    import onnx.defs

    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def next_version(op_type: str, version: int) -> int:
    """The next version of an operator of the default domain after ``version``."""
    import onnx.defs

    opset = version + 1
    while True:
        following = schema("", op_type, opset)
        if following is not None and following.since_version > version:
            return following.since_version
        opset += 1
        assert opset <= onnx.defs.onnx_opset_version(), (op_type, version)


@functools.cache
def input_names(domain: str, op_type: str, opset: int) -> tuple[tuple[str, ...], bool]:
    """The formal input names of an operator, and whether the last of them is variadic."""
    definition = schema(domain, op_type, opset)
    if definition is None:
        return (), False
    formal = tuple(parameter.name for parameter in definition.inputs)
    variadic = (
        bool(definition.inputs) and definition.inputs[-1].option == definition.inputs[-1].option.__class__.Variadic
    )
    return formal, variadic


def _load_tables(domain: str) -> None:
    """Import the rule and rewrite modules that may cover a domain, once; importing them fills the registry."""
    _load(domain not in ("", "ai.onnx"))


@functools.cache
def _load(all_domains: bool) -> None:
    import importlib
    import pkgutil

    from onnxgain.gradient.forward import rewrites
    from onnxgain.gradient.reverse import rules

    for package in (rules, rewrites):
        for module in pkgutil.iter_modules(package.__path__):
            if all_domains or module.name not in rewrites.OTHER_DOMAINS:
                importlib.import_module(f"{package.__name__}.{module.name}")
