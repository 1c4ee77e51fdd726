"""Checks that every operator version of ONNX has an answer and a test, and that rules fit the schemas."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.defs
import pytest

from onnxgain.gradient import registry
from onnxgain.gradient.registry import OLDEST_EMITTED_OPSET, BodyRule, Rewrite, Rule, next_version
from tests.gradient.test_rules import TABLES

Schema = Any
NEWEST = onnx.defs.onnx_opset_version()
OPERATORS = sorted({s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""})


def versions(op_type: str) -> list[Schema]:
    """The schemas of an operator, oldest first."""
    found = [registry.schema("", op_type, opset) for opset in range(1, NEWEST + 1)]
    return list({s.since_version: s for s in found if s is not None}.values())


def every_version() -> Iterator[Schema]:
    for op_type in OPERATORS:
        yield from versions(op_type)


@cache
def emitted_form(op_type: str, version: int) -> tuple[int | None, list[Callable[..., Any]]]:
    """How `transcribe` handles a node of this version.

    Returns:
        The version in which it is differentiated, and the rewrites that lead there. The version is None if a rewrite
        may replace the node by other operators, or if nothing is known about it (then there are no rewrites).
    """
    oldest = registry.schema("", op_type, OLDEST_EMITTED_OPSET)
    while oldest is not None and version < oldest.since_version:
        rewrite = registry.find_rewrite("", op_type, version)
        if registry.is_unchanged("", op_type, version):
            version = next_version(op_type, version)
        else:
            return None, [] if rewrite is None else [rewrite]
    rewrite = registry.find_rewrite("", op_type, version)
    if rewrite is None:
        return version, []
    return (version if rewrite.may_decline else None), [rewrite]


def answers(op_type: str, version: int) -> dict[str, registry.Answer | None]:
    schema = registry.schema("", op_type, version)
    assert schema is not None and schema.since_version == version
    return {parameter.name: registry.find_answer("", op_type, version, parameter.name) for parameter in schema.inputs}


def fail_on(found: list[str], what: str) -> None:
    """Fail with one message that lists everything that was found."""
    if found:
        pytest.fail(f"{len(found)} {what}:\n" + "\n".join(found), pytrace=False)


def test_every_input_of_every_version_has_an_answer() -> None:
    undecided = []
    for schema in every_version():
        version, rewrites = emitted_form(schema.name, schema.since_version)
        if version is None and not rewrites:
            undecided.append(f"{schema.name}-{schema.since_version}: neither `unchanged` nor a rewrite")
        elif version is not None:
            missing = [name for name, answer in answers(schema.name, version).items() if answer is None]
            if missing:
                undecided.append(f"{schema.name}-{schema.since_version}: no answer for {', '.join(missing)}")
    fail_on(undecided, "operator versions are undecided")


def needs_a_row(schema: Schema) -> bool:
    """Whether the version is differentiated by a formula, or rewritten."""
    if schema.deprecated:
        return False  # no valid model contains it
    version, rewrites = emitted_form(schema.name, schema.since_version)
    if rewrites or version is None:
        return True
    return any(isinstance(answer, (Rule, BodyRule)) for answer in answers(schema.name, version).values())


def test_every_version_with_a_formula_has_a_row() -> None:
    covered = set()
    for table in TABLES.values():
        for case in table:
            if case.domain == "":
                for opset in case.versions or (NEWEST,):
                    schema = registry.schema("", case.op_type, opset)
                    assert schema is not None, f"{case} runs at opset {opset}, where there is no {case.op_type}"
                    covered.add((case.op_type, schema.since_version))
    bare = [schema for schema in every_version() if needs_a_row(schema)]
    bare = [schema for schema in bare if (schema.name, schema.since_version) not in covered]
    fail_on([f"{s.name}-{s.since_version}" for s in bare], "operator versions have no row in tests/gradient/cases")


def test_unsupported_answers_say_what_to_do() -> None:
    reasons = {
        f"{op_type} {name}": answer.reason
        for (domain, op_type), inputs in registry._answers.items()
        for name, by_version in inputs.items()
        for answer in by_version.values()
        if isinstance(answer, registry.Unsupported)
    }
    short = [where for where, reason in reasons.items() if len(reason.split()) < 8]
    fail_on(short, "reasons are too short to act on")


@dataclass(frozen=True)
class Signature:
    """The parameters of a formula or rewrite: (op, [dy,] *inputs, **attributes).

    Attributes:
        positional: its parameters for inputs.
        variadic: whether it takes any number of inputs.
        keywords: its attributes with their defaults.
        takes_any: whether it takes other attributes, too.
    """

    positional: list[inspect.Parameter]
    variadic: bool
    keywords: dict[str, Any]
    takes_any: bool


def signature(function: Rewrite | Callable[..., Any], lead: int) -> Signature:
    """The signature of a function with ``lead`` parameters before the inputs."""
    called = function.function if isinstance(function, Rewrite) else function
    parameters = list(inspect.signature(called).parameters.values())
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    if isinstance(function, Rewrite):
        if function.counts_outputs:
            keywords.pop("output_count", None)  # may be part of **attributes
        if function.attributes is not None:
            del keywords["given"]
            keywords |= {p.name: p.default for p in inspect.signature(function.attributes).parameters.values()}
    return Signature(
        [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][lead:],
        any(p.kind is p.VAR_POSITIONAL for p in parameters),
        keywords,
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def served() -> Iterator[tuple[str, Rewrite | Callable[..., Any], list[tuple[Schema, int]], int]]:
    """The calls of formulas and rewrites.

    Returns:
        For each function: its operator (and input); the function; the schemas whose nodes reach it, each with the
        minimum number of inputs of such nodes; and the number of parameters before the inputs.
    """
    uses: dict[tuple[str, Rewrite | Callable[..., Any], int], list[tuple[Schema, int]]] = {}
    for schema in every_version():
        names = [parameter.name for parameter in schema.inputs]
        required = [i for i, parameter in enumerate(schema.inputs, 1) if parameter.option != parameter.option.Optional]
        emitted, rewrites = emitted_form(schema.name, schema.since_version)
        for rewrite in rewrites:
            uses.setdefault((schema.name, rewrite, 1), []).append((schema, max(required, default=0)))
        if emitted == schema.since_version:
            for name, answer in answers(schema.name, emitted).items():
                if isinstance(answer, Rule):
                    present = max([names.index(name) + 1, *required])
                    uses.setdefault((f"{schema.name} {name}", answer.formula, 2), []).append((schema, present))
    for (where, function, lead), schemas in uses.items():
        yield where, function, schemas, lead


def mismatches(function: Rewrite | Callable[..., Any], schemas: list[tuple[Schema, int]], lead: int) -> Iterator[str]:
    """The errors in a signature, given the calls from `served`."""
    takes = signature(function, lead)
    positional, keywords = takes.positional, takes.keywords
    for name in keywords:
        if not any(name in schema.attributes for schema, _ in schemas):
            yield f"{name} is no attribute"
    for schema, present in schemas:
        here = f"of version {schema.since_version}"
        if not takes.variadic and len(positional) < len(schema.inputs):
            yield f"takes {len(positional)} inputs, not the {len(schema.inputs)} {here}"
        needed = [p.name for p in positional[present : len(schema.inputs)] if p.default is p.empty]
        if needed:
            yield f"needs the inputs {needed}, which are optional {here}"
        if not takes.takes_any:
            # An attribute that became an input may still be taken by its name.
            for name in schema.attributes.keys() - keywords - {p.name for p in positional[len(schema.inputs) :]}:
                yield f"does not take the attribute {name} {here}"
        for name in schema.attributes.keys() & keywords.keys():
            if not fits(schema.attributes[name], keywords[name]):
                yield f"{name}={keywords[name]!r}, but the default {here} is {default(schema.attributes[name])!r}"


def default(attribute: Any) -> Any:
    """An attribute's default as a Python value; None if it has none."""
    if attribute.default_value.type == onnx.AttributeProto.UNDEFINED:
        return None
    value = onnx.helper.get_attribute_value(attribute.default_value)
    if isinstance(value, list):
        return [item.decode() if isinstance(item, bytes) else item for item in value]
    return value.decode() if isinstance(value, bytes) else value


# GridSample's modes, before and since opset 20.
RENAMED = {"bilinear": "linear", "bicubic": "cubic"}


def fits(attribute: Any, given: Any) -> bool:
    """Whether a keyword's default is right for an attribute. Required attributes need no default."""
    expected = default(attribute)
    expected = RENAMED.get(expected, expected) if isinstance(expected, str) else expected
    if attribute.required or expected is None:
        return True
    if isinstance(expected, float) and isinstance(given, float):
        return bool(np.float32(expected) == np.float32(given))
    return bool(expected == (list(given) if isinstance(given, tuple) else given))


def test_signatures_match_the_schemas() -> None:
    wrong = [
        f"{where}: {function} {problem}"
        for where, function, schemas, lead in served()
        for problem in mismatches(function, schemas, lead)
    ]
    fail_on(wrong, "signatures do not fit")


def test_the_signature_check_finds_mistakes() -> None:
    """Tests the check itself."""
    gemm = [(registry.schema("", "Gemm", 13), 2)]

    def right(op: Any, dy: Any, A: Any, B: Any, C: Any = None, *, alpha: float = 1.0, **_: Any) -> None: ...
    def unknown(op: Any, dy: Any, A: Any, B: Any, C: Any = None, *, gamma: float = 1.0, **_: Any) -> None: ...
    def other_default(op: Any, dy: Any, A: Any, B: Any, C: Any = None, *, alpha: float = 2.0, **_: Any) -> None: ...
    def missing(op: Any, dy: Any, A: Any, B: Any, C: Any = None, *, alpha: float = 1.0) -> None: ...
    def too_few(op: Any, dy: Any, A: Any, B: Any, **_: Any) -> None: ...
    def not_optional(op: Any, dy: Any, A: Any, B: Any, C: Any, **_: Any) -> None: ...

    assert not list(mismatches(right, gemm, 2))
    for function in (unknown, other_default, missing, too_few, not_optional):
        assert list(mismatches(function, gemm, 2)), function.__name__


def test_files_about_other_domains_know_nothing_of_onnx_s_own() -> None:
    """They are only imported for models with operators of other domains, so they must not change other answers."""
    code = """
from onnxgain.gradient import registry
known = []
for domain in ("", "com.microsoft"):
    registry.has_answers(domain, "Relu")
    tables = (registry._answers, registry._rewrites, registry._body_rules, registry._unchanged)
    own = [{key: dict(found) if isinstance(found, dict) else found for key, found in table.items() if not key[0]}
           for table in tables]
    known.append(own)
    print(any(key[0] for key in registry._rewrites))
print(known[0] == known[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
