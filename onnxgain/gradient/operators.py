"""The table of operators: what the registry answers for each.

In: the registry of rules and rewrites, and the operator schemas of the installed onnx. Out: one row per operator, as
Markdown or as JSON-compatible objects.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from onnxgain.gradient import registry
from onnxgain.gradient.registry import OLDEST_EMITTED_OPSET, ZERO, BodyRule, Rule, Unsupported, next_version

STANDARD = "ai.onnx"
OTHER_DOMAINS = ("ai.onnx.ml", "com.microsoft")
KINDS = ("formula", "rewritten", "zero", "unsupported")
"""The kinds of answers, most useful first."""

LEGEND = """\
- *formula*: onnxgain emits the derivative.
- *rewritten*: the operator is first expressed in others, which have derivatives.
- *zero*: the output is piecewise constant, or is no numeric quantity (indices, shapes, seeds).
- *unsupported*: a model with this operator between image and logits is refused, for the reason given.

Inputs are named where they differ. What follows "else" holds for nodes that the rewrite leaves alone. Versions marked °
are first brought into a newer form."""


@dataclass(frozen=True)
class Answer:
    """The answer for some inputs of an operator.

    Attributes:
        kind: one of `KINDS`.
        inputs: the names of the inputs; empty if all inputs have this answer.
    """

    kind: str
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        name: its name in the schema.
        versions: the opset versions in which it changed.
        upgraded: those of them that are first upgraded to a newer version.
        is_rewritten: whether nodes of the newest version are rewritten.
        answers: the answers for nodes that are not rewritten.
        note: from the docstring of its rule or rewrite, with the reasons for unsupported inputs.
    """

    name: str
    versions: tuple[int, ...]
    upgraded: tuple[int, ...]
    is_rewritten: bool
    answers: tuple[Answer, ...]
    note: str

    @property
    def kind(self) -> str:
        """The most useful kind among its answers."""
        return min([answer.kind for answer in self.answers] + ["rewritten"] * self.is_rewritten, key=KINDS.index)


def tables() -> dict[str, list[Operator]]:
    """The operators of every domain, sorted by name."""
    import onnx.defs

    names = sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""})
    others = {domain: [_foreign(domain, name) for name in registry.registered(domain)] for domain in OTHER_DOMAINS}
    return {STANDARD: [_standard(name) for name in names], **others}


def as_json(domains: dict[str, list[Operator]]) -> dict[str, Any]:
    """The tables as JSON-compatible objects."""
    import onnx

    return {
        "onnx": onnx.__version__,
        "domains": {
            domain: [
                {
                    "operator": operator.name,
                    "kind": operator.kind,
                    "versions": list(operator.versions),
                    "upgraded": list(operator.upgraded),
                    "rewritten": operator.is_rewritten,
                    "answers": [{"kind": answer.kind, "inputs": list(answer.inputs)} for answer in operator.answers],
                    "note": operator.note,
                }
                for operator in operators
            ]
            for domain, operators in domains.items()
        },
    }


def as_markdown(domains: dict[str, list[Operator]]) -> str:
    """The tables as a page of Markdown."""
    import onnx

    standard = domains[STANDARD]
    versions = sum(len(operator.versions) for operator in standard)
    counts = {kind: [operator.name for operator in standard if operator.kind == kind] for kind in KINDS}
    refused = counts["unsupported"]
    head = [
        "# Operators",
        "",
        f"Every operator of `{STANDARD}` (onnx {onnx.__version__}) has an answer: {len(standard)} operators in "
        f"{versions} versions. {len(counts['formula'])} have a formula, {len(counts['rewritten'])} are rewritten, "
        f"{len(counts['zero'])} have derivative zero, {len(refused)} {'is' if len(refused) == 1 else 'are'} "
        f"unsupported ({', '.join(refused) or 'none'}).",
        *(_counted(domain, domains[domain]) for domain in OTHER_DOMAINS),
        "",
        LEGEND,
        "",
    ]
    return "\n".join(head + [line for domain, operators in domains.items() for line in _table(domain, operators)])


def _counted(domain: str, operators: list[Operator]) -> str:
    refused = sum(operator.kind == "unsupported" for operator in operators)
    return f"`{domain}`: {len(operators) - refused} operators are supported, {refused} refused."


def _table(domain: str, operators: list[Operator]) -> Iterator[str]:
    yield from (f"## {domain}", "", "| operator | versions | derivative | note |", "|---|---|---|---|")
    for operator in operators:
        versions = " ".join(f"{n}{'°' if n in operator.upgraded else ''}" for n in operator.versions)
        answers = "; ".join(
            answer.kind + (f" in {_escaped(', '.join(answer.inputs))}" if answer.inputs else "")
            for answer in operator.answers
        )
        answer = ", else ".join(filter(None, ("rewritten" * operator.is_rewritten, answers)))
        yield f"| {operator.name} | {versions} | {answer} | {_escaped(operator.note)} |"
    yield ""


@functools.cache
def _schemas(op_type: str) -> dict[int, Any]:
    """The schemas of an operator of the default domain by version, oldest first."""
    import onnx.defs

    schemas = [registry.schema("", op_type, opset) for opset in range(1, onnx.defs.onnx_opset_version() + 1)]
    return {schema.since_version: schema for schema in schemas if schema is not None}


def _standard(op_type: str) -> Operator:
    """The row of an operator of the default domain."""
    schemas = _schemas(op_type)
    newest = max(schemas)
    rewrite = _upgrade(op_type, newest)
    if rewrite is None and newest >= _emitted_version(op_type):
        rewrite = registry.find_rewrite("", op_type, newest)
    answers = {
        parameter.name: registry.find_answer("", op_type, newest, parameter.name)
        for parameter in schemas[newest].inputs
    }
    upgraded = tuple(version for version in schemas if _upgrade(op_type, version) is not None)
    return _operator("", op_type, (tuple(schemas), upgraded), rewrite, answers)


def _foreign(domain: str, op_type: str) -> Operator:
    """The row of an operator of another domain; onnx has no schema for most of them."""
    import onnx.defs

    newest = registry.schema(domain, op_type, 2**30)
    inputs = [parameter.name for parameter in newest.inputs] if newest else [registry.ALL_INPUTS]
    history = [s for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == (domain, op_type)]
    versions = tuple(sorted(schema.since_version for schema in history)) or (1,)
    version = newest.since_version if newest else 1
    answers = {name: registry.find_answer(domain, op_type, version, name) for name in inputs}
    return _operator(domain, op_type, (versions, ()), registry.find_rewrite(domain, op_type, version), answers)


def _operator(
    domain: str,
    op_type: str,
    versions: tuple[tuple[int, ...], tuple[int, ...]],
    rewrite: registry.Rewrite | None,
    answers: dict[str, Any],
) -> Operator:
    """The row of an operator, from what is registered for its newest version."""
    may_stay = rewrite is None or rewrite.may_decline
    merged = tuple(_merged(answers)) if may_stay else ()
    if registry.find_body_rule(domain, op_type):
        merged = (Answer("formula", ("what its subgraphs read",)),)
    functions = [answer.formula for answer in answers.values() if isinstance(answer, Rule)]
    reasons = {answer.reason for answer in answers.values() if isinstance(answer, Unsupported) and may_stay}
    summary = _summary([rewrite.function] if rewrite else functions)
    notes = [summary, *(f"unsupported: {reason}" for reason in sorted(reasons))]
    return Operator(op_type, *versions, rewrite is not None, merged, "; ".join(filter(None, notes)))


def _merged(answers: dict[str, Any]) -> Iterator[Answer]:
    """Group inputs by the kind of their answer, most useful kind first."""
    kinds: dict[str, list[str]] = {}
    for name, answer in answers.items():
        if answer is not None:
            kinds.setdefault(_kind(answer), []).append(name)
    for kind in sorted(kinds or {"zero": []}, key=KINDS.index):
        yield Answer(kind, tuple(kinds[kind]) if len(kinds) > 1 else ())


def _kind(answer: Any) -> str:
    if isinstance(answer, (Rule, BodyRule)):
        return "formula"
    assert answer == ZERO or isinstance(answer, Unsupported), answer
    return "unsupported" if isinstance(answer, Unsupported) else "zero"


def _emitted_version(op_type: str) -> int:
    """The oldest version of an operator that needs no upgrade."""
    oldest = registry.schema("", op_type, OLDEST_EMITTED_OPSET)
    return oldest.since_version if oldest is not None else min(_schemas(op_type))


def _upgrade(op_type: str, version: int) -> registry.Rewrite | None:
    """The rewrite that upgrades an old version of an operator, or None if it needs none."""
    while version < _emitted_version(op_type):
        if not registry.is_unchanged("", op_type, version):
            return registry.find_rewrite("", op_type, version)
        version = next_version(op_type, version)
    return None


def _summary(functions: list[Callable[..., Any]]) -> str:
    """The first sentence of the first docstring among ``functions``."""
    texts = [inspect.getdoc(function) or "" for function in functions]
    text = next((" ".join(text.split("\n\n")[0].split()) for text in texts if text), "")
    return re.split(r"(?<=[a-z)\d])\. (?=[A-Z`])", text)[0].removesuffix(".")


def _escaped(text: str) -> str:
    """Escape Markdown's special characters outside of code spans."""
    parts = text.replace("``", "`").split("`")
    return "`".join(part if i % 2 else re.sub(r"([*_|<\[\]~])", r"\\\1", part) for i, part in enumerate(parts))
