"""Einsum: the gradient of one operand is an Einsum of dy with the other operands."""

from __future__ import annotations

import string
from collections.abc import Sequence

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule
from onnxgain.gradient.values import Value, rank, static_shape

Labels = list[str]


@rule("Einsum", "Inputs", broadcasts=True)
def einsum(op: RuleOp, dy: Value, *Inputs: Value, equation: str) -> Value:
    """Swap the operand with the output: ``ij,jk->ik`` gives dA = ``ik,jk->ij``(dy, B).

    Along an index that only this operand has, the gradient is constant, because the forward pass sums over it. If an
    index occurs twice in this operand, the forward pass takes the diagonal, so the gradient is zero off the diagonal.
    """
    operands, output = parse(equation, [rank(x) for x in Inputs])
    own = operands[op.index]
    factors = [(dy, output)]
    for i, (x, labels) in enumerate(zip(Inputs, operands, strict=True)):
        if i != op.index:
            factors.append(_without_broadcast_axes(op, x, labels, operands, Inputs))
    available = {label for _, labels in factors for label in labels}
    unique = list(dict.fromkeys(own))
    product = _contract(op, factors, [label for label in unique if label in available])
    x = Inputs[op.index]
    summed = [own.index(label) for label in unique if label not in available]
    repeated = [i for i, label in enumerate(own) if own.index(label) != i]
    if summed or repeated:
        product = op.Unsqueeze(product, sorted(summed + repeated))
    if summed:
        product = op.expand_like(product, x)
    for i in repeated:
        product = op.Where(_diagonal(op, x, own.index(own[i]), i), product, op.like(0.0, product))
    return product


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The index letters of each operand and of the output; an ellipsis is replaced by unused letters.

    Args:
        equation: the attribute of Einsum.
        ranks: the rank of each operand.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = max((n - len(term) + 3 for term, n in zip(terms, ranks, strict=True) if "..." in term), default=0)
    dots = "".join([letter for letter in string.ascii_letters if letter not in equation][:hidden])
    operands = [list(term.replace("...", dots)) for term in terms]
    if arrow:
        return operands, list(right.replace("...", dots))
    letters = left.replace(",", "").replace(".", "")
    return operands, [*dots, *sorted(letter for letter in letters if letters.count(letter) == 1)]


def _without_broadcast_axes(
    op: Op, x: Value, labels: Labels, operands: list[Labels], inputs: Sequence[Value]
) -> tuple[Value, Labels]:
    """Squeeze axes of length 1 that the forward Einsum broadcasts: in the gradient's Einsum they are not needed."""
    shape = static_shape(x)
    if shape is None:
        return x, labels
    lengths: dict[str, int] = {}
    for operand, indices in zip(inputs, operands, strict=True):
        for label, length in zip(indices, static_shape(operand) or (), strict=False):
            lengths[label] = max(lengths.get(label, 1), length)
    axes = [i for i, label in enumerate(labels) if shape[i] == 1 and lengths[label] > 1]
    if not axes:
        return x, labels
    return op.Squeeze(x, axes), [label for i, label in enumerate(labels) if i not in axes]


def _contract(op: Op, factors: list[tuple[Value, Labels]], wanted: Labels) -> Value:
    """The product of the factors, summed over every index that is not in ``wanted``."""
    scalars = [x for x, labels in factors if not labels]
    tensors = [(x, labels) for x, labels in factors if labels]
    product: Value | None = None
    if tensors:
        equation = ",".join("".join(labels) for _, labels in tensors) + "->" + "".join(wanted)
        product = op.Einsum(*(x for x, _ in tensors), equation=equation)
    for x in scalars:
        product = x if product is None else product * x
    assert product is not None
    return product


def _diagonal(op: Op, x: Value, first: int, second: int) -> Value:
    """True where the coordinates along two axes of ``x`` are equal."""

    def coordinate(axis: int) -> Value:
        view = [1] * rank(x)
        view[axis] = -1
        return op.Reshape(op.Range(0, op.Reshape(op.Shape(x, start=axis, end=axis + 1), []), 1), view)

    return op.Equal(coordinate(first), coordinate(second))
