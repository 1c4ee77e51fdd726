"""Which of several models compute the same function: the divergences of their outputs, and a tree of nearest models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxgain.analysis.function_change import divergence_of, function_change
from onnxgain.analysis.function_verdict import judged
from onnxgain.measure.fingerprint import require_intact
from onnxgain.measure.fingerprint_record import FingerprintRecord


@dataclass(frozen=True)
class Link:
    """A model of the tree and its parent, the nearest of the models that joined the family before it.

    Attributes:
        model, parent: labels; the parent is None for the first model of a family.
        verdict: the verdict on the step from parent to model; "" for the first of a family.
        divergence: the divergence of the two, 0 to 1.
        depth: number of steps from the first of the family.
    """

    model: str
    parent: str | None = None
    verdict: str = ""
    divergence: float = 0.0
    depth: int = 0


@dataclass(frozen=True)
class FunctionTree:
    """Models by their functions.

    Attributes:
        labels: the labels of the models.
        matrix: the divergences from the model of each row to that of each column, in the order of the labels, as `diff`
            has them; None for pairs that cannot be compared. The other direction may differ: the model after is made as
            confident as the one before.
        links: the families one after another, each depth first, so that each model follows its parent.
    """

    labels: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    links: tuple[Link, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "models": list(self.labels),
            "divergence": [list(row) for row in self.matrix],
            "tree": [vars(link) for link in self.links],
        }


def function_tree(prints: Mapping[str, FingerprintRecord]) -> FunctionTree | None:
    """The tree of models by label; None for fewer than two.

    A family consists of models that verdicts other than "fail" connect.

    Raises:
        OnnxgainError: a fingerprint is damaged.
    """
    labels = tuple(prints)
    if len(labels) < 2:
        return None
    for label in labels:
        require_intact(prints[label], label)
    changes = {
        (one, other): function_change(prints[one], prints[other])
        for place, one in enumerate(labels)
        for other in labels[place + 1 :]
    }

    def between(one: str, other: str) -> tuple[float, str]:
        change = changes.get((one, other)) or changes[other, one]
        return (change.divergence if change.obstacle is None else 2.0), judged(change)

    def divergence(before: str, after: str) -> float | None:
        change = changes.get((before, after)) or changes.get((after, before))
        if change is None:
            return 0.0
        if change.obstacle is not None:
            return None
        return change.divergence if (before, after) in changes else divergence_of(prints[before], prints[after])

    matrix = tuple(tuple(divergence(a, b) for b in labels) for a in labels)
    place = {label: number for number, label in enumerate(labels)}
    links: list[Link] = []
    waiting = list(labels)
    while waiting:
        family = {waiting[0]: Link(waiting.pop(0))}
        while True:
            steps = [(*between(a, b), a, b) for a in family for b in waiting]
            near = min((s for s in steps if s[1] != "fail"), key=lambda step: step[0], default=None)
            if near is None:
                break
            _, verdict, parent, model = near
            step = matrix[place[parent]][place[model]]
            assert step is not None
            family[model] = Link(model, parent, verdict, step, family[parent].depth + 1)
            waiting.remove(model)
        links += _depth_first(family.values())
    return FunctionTree(labels, matrix, tuple(links))


def _depth_first(family: Iterable[Link]) -> list[Link]:
    """The links of a family depth first; the children of a model in the order in which they joined, nearest first."""
    below: dict[str | None, list[Link]] = {}
    for link in family:
        below.setdefault(link.parent, []).append(link)
    waiting, found = below[None][::-1], []
    while waiting:
        link = waiting.pop()
        found.append(link)
        waiting += below.get(link.model, [])[::-1]
    return found


def branches(links: Sequence[Link]) -> list[str]:
    """The branch lines to draw in front of each model of a tree; empty for the first of a family."""
    found: list[str] = []
    open_below: set[int] = set()
    for link in reversed(links):
        open_below = {depth for depth in open_below if depth <= link.depth}
        if link.depth == 0:
            found.append("")
        else:
            lines = ["│  " if depth in open_below else "   " for depth in range(1, link.depth)]
            found.append("".join(lines) + ("├─ " if link.depth in open_below else "└─ "))
            open_below.add(link.depth)
        if link.depth == 0:
            open_below = set()
    return found[::-1]
