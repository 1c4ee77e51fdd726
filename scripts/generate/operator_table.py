"""Write the table of operators in README.md: what is known of each one's derivative, as the registry has it.

    python -m scripts.generate.operator_table [--check] [--readme FILE]

The text between the markers `<!-- operators:begin -->` and `<!-- operators:end -->` is replaced; where there are none,
a section with them is added at the end. With --check nothing is written, and the exit code is 1 if the text is stale.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.defs

from onnxgain.gradient import registry
from onnxgain.gradient.forward.transcribe import next_version
from onnxgain.gradient.registry import OLDEST_EMITTED_OPSET, ZERO, BodyRule, Rule, Unsupported

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- operators:begin -->", "<!-- operators:end -->"
OTHER_DOMAINS = ("ai.onnx.ml", "com.microsoft")
ORDER = ("formula", "rewritten", "zero", "unsupported")

LEGEND = """\
*formula*: the derivative is emitted. *rewritten*: the operator is first expressed in others. *zero*: constant almost
everywhere, or no quantity at all (indices, shapes, seeds). *unsupported*: a model with it between image and logits is
refused, by `onnxgain inspect` too, for the reason given. Inputs are named where they differ; what follows "else" holds
for nodes that are not rewritten. Versions marked ° are brought into a newer form first."""


@dataclass(frozen=True)
class Row:
    """One operator.

    Attributes:
        versions: those in which it changed, with a mark on those that are brought into a newer form.
        rewritten: whether nodes (of the newest version) are rewritten.
        answers: kind ("formula", ...) and the inputs it holds for, for nodes that are not; no inputs stand for all.
        note: from the docstring of its formula or rewrite, and the reasons for what is unsupported.
    """

    operator: str
    versions: str
    rewritten: bool
    answers: tuple[tuple[str, str], ...]
    note: str

    @property
    def kind(self) -> str:
        """The answer it counts as: its most useful one."""
        kinds = [kind for kind, _ in self.answers] + ["rewritten"] * self.rewritten
        return min(kinds, key=ORDER.index)

    def line(self) -> str:
        """It in Markdown."""
        answer = "; ".join(kind + (f" in {escaped(inputs)}" if inputs else "") for kind, inputs in self.answers)
        answer = ", else ".join(filter(None, ("rewritten" * self.rewritten, answer)))
        return f"| {self.operator} | {self.versions} | {answer} | {escaped(self.note)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the table is stale")
    parser.add_argument("--readme", type=Path, default=README)
    options = parser.parse_args()
    before = options.readme.read_text(encoding="utf-8")
    after = replaced(before, section())
    if after == before:
        return
    if options.check:
        sys.exit(f"{options.readme}: the table of operators is stale; run scripts/generate/operator_table.py")
    options.readme.write_text(after, encoding="utf-8")


def replaced(text: str, table: str) -> str:
    """A README with another table between the markers."""
    block = f"{BEGIN}\n{table}\n{END}"
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n## Operators\n\n{block}\n"
    head, _, rest = text.partition(BEGIN)
    _, marker, tail = rest.partition(END)
    if not marker:
        raise SystemExit(f"{BEGIN} without {END}")
    return f"{head}{block}{tail}"


def section() -> str:
    """What stands between the markers."""
    rows = [standard(op_type) for op_type in operators()]
    versions = sum(len(schemas(op_type)) for op_type in operators())
    refused = [row.operator for row in rows if row.kind == "unsupported"]
    counts = {kind: sum(row.kind == kind for row in rows) for kind in ORDER}
    others = {domain: [foreign(domain, name) for name in registry.registered(domain)] for domain in OTHER_DOMAINS}
    tables = [table("ai.onnx", rows), *(table(domain, found) for domain, found in others.items())]
    return "\n".join(
        [
            f"All {len(rows)} operators of `ai.onnx` in all {versions} versions (onnx {onnx.__version__}) are decided: "
            f"{counts['formula']} have a formula, {counts['rewritten']} are rewritten in others, {counts['zero']} have "
            f"derivative zero, {counts['unsupported']} "
            f"{'is' if len(refused) == 1 else 'are'} unsupported ({', '.join(refused)}). "
            + " ".join(f"Of `{domain}`, {known(found)}." for domain, found in others.items()),
            "",
            "<details><summary>Every operator</summary>",
            "",
            LEGEND,
            "",
            *tables,
            "</details>",
        ]
    )


def known(rows: list[Row]) -> str:
    unsupported = sum(row.kind == "unsupported" for row in rows)
    return f"{len(rows) - unsupported} operators are known" + (f" and {unsupported} refused" if unsupported else "")


def table(domain: str, rows: list[Row]) -> str:
    head = ["| operator | versions | derivative | note |", "|---|---|---|---|"]
    return "\n".join([f"`{domain}`", "", *head, *(row.line() for row in rows), ""])


def operators() -> list[str]:
    """The operators of the default domain."""
    return sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""})


@functools.cache
def schemas(op_type: str) -> dict[int, Any]:
    """The schemas of an operator of the default domain by version, oldest first."""
    found = [registry.schema("", op_type, opset) for opset in range(1, onnx.defs.onnx_opset_version() + 1)]
    return {schema.since_version: schema for schema in found if schema is not None}


def standard(op_type: str) -> Row:
    """The row of an operator of the default domain."""
    versions = " ".join(f"{v}{'°' if is_upgraded(op_type, v) else ''}" for v in schemas(op_type))
    newest = max(schemas(op_type))
    inputs = [parameter.name for parameter in schemas(op_type)[newest].inputs]
    rewrite = upgrade(op_type, newest)
    if rewrite is None and newest >= emitted_version(op_type):
        rewrite = registry.find_rewrite("", op_type, newest)
    answers = {name: registry.find_answer("", op_type, newest, name) for name in inputs}
    return row("", op_type, versions, rewrite, answers)


def foreign(domain: str, op_type: str) -> Row:
    """The row of an operator of another domain, most of which have no schema here."""
    newest = registry.schema(domain, op_type, 2**30)
    inputs = [parameter.name for parameter in newest.inputs] if newest else [registry.ALL_INPUTS]
    history = [s for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == (domain, op_type)]
    versions = " ".join(str(v) for v in sorted(s.since_version for s in history)) or "1"
    version = newest.since_version if newest else 1
    answers = {name: registry.find_answer(domain, op_type, version, name) for name in inputs}
    return row(domain, op_type, versions, registry.find_rewrite(domain, op_type, version), answers)


def row(domain: str, op_type: str, versions: str, rewrite: Any, answers: dict[str, Any]) -> Row:
    """A row from what is registered for the newest version."""
    left = rewrite is None or declines(rewrite)
    kept = tuple(merged(answers)) if left else ()
    if registry.find_body_rule(domain, op_type):
        kept = (("formula", "what its subgraphs read"),)
    functions = [answer.formula for answer in answers.values() if isinstance(answer, Rule)]
    reasons = {answer.reason for answer in answers.values() if isinstance(answer, Unsupported) and left}
    notes = [summary([rewrite] if rewrite else functions), *(f"unsupported: {reason}" for reason in sorted(reasons))]
    return Row(op_type, versions, rewrite is not None, kept, "; ".join(filter(None, notes)))


def merged(answers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kinds of answers, most useful first, with the inputs that have them; without where all inputs agree."""
    kinds: dict[str, list[str]] = {}
    for name, answer in answers.items():
        if answer is not None:
            kinds.setdefault(kind_of(answer), []).append(name)
    for kind in sorted(kinds or {"zero": []}, key=ORDER.index):
        yield kind, ", ".join(kinds[kind]) if len(kinds) > 1 else ""


def kind_of(answer: Any) -> str:
    if isinstance(answer, (Rule, BodyRule)):
        return "formula"
    assert answer == ZERO or isinstance(answer, Unsupported), answer
    return "unsupported" if isinstance(answer, Unsupported) else "zero"


def emitted_version(op_type: str) -> int:
    """The oldest version of an operator that is differentiated as it is."""
    oldest = registry.schema("", op_type, OLDEST_EMITTED_OPSET)
    return oldest.since_version if oldest is not None else min(schemas(op_type))


def upgrade(op_type: str, version: int) -> Callable[..., Any] | None:
    """The rewrite that brings an old version of an operator to a newer one, or None where it needs none."""
    while version < emitted_version(op_type):
        if not registry.is_unchanged("", op_type, version):
            return registry.find_rewrite("", op_type, version)
        version = next_version(op_type, version)
    return None


def is_upgraded(op_type: str, version: int) -> bool:
    return upgrade(op_type, version) is not None


def declines(rewrite: Callable[..., Any]) -> bool:
    """Whether a rewrite may leave a node as it is."""
    return "NotImplemented" in inspect.getsource(rewrite)


def summary(functions: list[Callable[..., Any]]) -> str:
    """The first sentence of the first docstring."""
    texts = [inspect.getdoc(function) or "" for function in functions]
    text = next((" ".join(text.split("\n\n")[0].split()) for text in texts if text), "")
    return re.split(r"(?<=[a-z)\d])\. (?=[A-Z`])", text)[0].removesuffix(".")


def escaped(text: str) -> str:
    """Text whose formulas Markdown leaves alone."""
    parts = text.replace("``", "`").split("`")
    return "`".join(part if i % 2 else re.sub(r"([*_|<\[\]~])", r"\\\1", part) for i, part in enumerate(parts))


if __name__ == "__main__":
    main()
