"""Rows for `onnxgain/gradient/reverse/rules/einsum.py`."""

from __future__ import annotations

from typing import Any

from tests.gradient.arrays import normal
from tests.gradient.checker import Case


def _row(equation: str, *shapes: tuple[int, ...], torch: bool = True, **options: Any) -> Case:
    def function(*operands: Any) -> Any:
        import torch

        return torch.einsum(equation, *operands)

    inputs = [normal(*shape) for shape in shapes]
    options.setdefault("versions", (12,))
    return Case("Einsum", inputs, {"equation": equation}, torch=function if torch else None, **options)


CASES = [
    _row("ij,jk->ik", (2, 3), (3, 4), versions=(12, 28)),
    _row("bij, bjk -> bik", (2, 3, 4), (2, 4, 5)),
    _row("ij,jk", (2, 3), (3, 4), note="implied output"),
    _row("bA,Ac", (2, 3), (3, 4), note="implied output of upper case"),
    _row("i,j->ji", (2,), (3,)),
    _row("i,i->", (3,), (3,)),
    _row("ij,kj->ik", (2, 3), (4, 3)),
    _row("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5), note="attention bias"),
    # one operand
    _row("ij->ji", (2, 3)),
    _row("ijk->k", (2, 3, 4), note="sums"),
    _row("ij->", (2, 3)),
    _row("ii->i", (3, 3), note="diagonal"),
    _row("ii->", (3, 3), note="trace"),
    _row("ii", (3, 3), note="implied trace"),
    _row("iji->j", (3, 2, 3), note="partial trace"),
    _row("iii->i", (3, 3, 3)),
    # an index that one operand sums alone, and a diagonal inside a product
    _row("ijk,jl->il", (2, 3, 4), (3, 2)),
    _row("ij,k->i", (2, 3), (4,)),
    _row("iij,jk->ik", (3, 3, 2), (2, 4)),
    _row("i,ii->i", (3,), (3, 3)),
    _row("ii,jj->ij", (2, 2), (3, 3)),
    # three operands and more, one of them twice
    _row("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    _row("i,ij,j->", (2,), (2, 3), (3,)),
    _row("ab,bc,cd,de->ae", (2, 3), (3, 2), (2, 3), (3, 2)),
    # scalars
    _row(",ij->ij", (), (2, 3)),
    _row("->", ()),
    # ellipses
    _row("...ij,...jk->...ik", (2, 5, 3, 4), (2, 5, 4, 2)),
    _row("...ij,jk->...ik", (2, 3, 4), (4, 2)),
    _row("...ij,...jk", (2, 3, 4), (2, 4, 2), note="implied output"),
    _row("...ij,...jk->...ik", (1, 2, 3, 4), (5, 1, 4, 2), note="broadcast"),
    _row("...ii->...i", (2, 3, 3)),
    _row("i...->...", (2, 3, 4)),
    _row("...,...->...", (2, 3), (1, 3)),
]
