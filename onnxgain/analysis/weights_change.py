"""Describes in words what changed between the weights of two models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnxgain.measure.weights_record import DIGITS, WeightsRecord

_NAMED = 3
"""The largest number of changed tensors that are named."""

_SPARSITY = 0.01
"""The smallest change of the fraction of zero weights that is reported."""

_TYPES = {"float": "float32", "double": "float64"}


def weights_change(before: WeightsRecord | None, after: WeightsRecord | None) -> list[str]:
    """The changes, one clause each; empty if either side is unknown."""
    if before is None or after is None:
        return []
    pairs = list(_pairs(before, after))
    changed = [(one, other) for one, other in pairs if before.checksums[one] != after.checksums[other]]
    added, removed = len(after.names) - len(pairs), len(before.names) - len(pairs)
    if not (changed or added or removed):
        same = before.rest == after.rest
        return ["the weights are the same" if same else "only biases, statistics or scales changed, not the weights"]
    found = []
    if changed:
        every = len(changed) == len(after.names)
        names = [after.names[other] for _, other in changed] if len(changed) <= _NAMED and not every else []
        named = f" ({', '.join(names)})" if names else ""
        which = "all" if every else f"{len(changed)} of"
        rounding = _rounding(before, after, changed)
        how = f"equal except for rounding to {rounding}" if rounding else f"changed{named}"
        found.append(f"weights of {which} {_layers(len(after.names))} {how}")
    if added or removed:
        found.append(f"{_layers(len(before.names))} with weights before, {len(after.names)} now")
    found += _types(before, after)
    old, new = (_sparsity(side) for side in (before, after))
    if old is not None and new is not None and abs(new - old) >= _SPARSITY:
        found.append(f"sparsity {100 * old:.0f} % -> {100 * new:.0f} %")
    return found


def _pairs(before: WeightsRecord, after: WeightsRecord) -> Iterator[tuple[int, int]]:
    """Pair the tensors of both sides: by name, then by content, and the rest in order if all their sizes agree."""
    free = dict.fromkeys(range(len(after.names)))
    waiting = list(range(len(before.names)))
    for key in ("names", "checksums"):
        places: dict[str, list[int]] = {}
        for other in free:
            places.setdefault(getattr(after, key)[other], []).append(other)
        left = []
        for one in waiting:
            candidates = places.get(getattr(before, key)[one])
            if candidates:
                other = candidates.pop(0)
                del free[other]
                yield one, other
            else:
                left.append(one)
        waiting = left
    order = list(free)
    if [before.sizes[one] for one in waiting] == [after.sizes[other] for other in order]:
        yield from zip(waiting, order, strict=True)


def _rounding(before: WeightsRecord, after: WeightsRecord, pairs: list[tuple[int, int]]) -> str | None:
    """The type that turns the weights of both sides into the same numbers; None if there is none."""
    for kind, old, new in (
        ("float16", before.float16, after.float16),
        ("bfloat16", before.bfloat16, after.bfloat16),
    ):
        if old and new and all(_one(old, i) == _one(new, j) for i, j in pairs):
            return kind
    return None


def _one(checksums: str, index: int) -> str:
    return checksums[DIGITS * index : DIGITS * (index + 1)]


def _types(before: WeightsRecord, after: WeightsRecord) -> Iterator[str]:
    """A clause if the element type changed."""
    old, new = (_largest_type(side) for side in (before, after))
    if old is not None and new is not None and old != new:
        yield f"stored as {new} instead of {old}"


def _largest_type(weights: WeightsRecord) -> str | None:
    """The element type of most weights."""
    counts: Counter[str] = Counter()
    for kind, size in zip(weights.types, weights.sizes, strict=False):
        counts[_TYPES.get(kind, kind)] += size
    return max(counts, key=lambda kind: counts[kind], default=None)


def _sparsity(weights: WeightsRecord) -> float | None:
    """The fraction of zero weights; None if most weights are integers."""
    floating = [i for i, kind in enumerate(weights.types) if "float" in kind or kind == "double"]
    total = sum(weights.sizes[i] for i in floating)
    return sum(weights.zeros[i] for i in floating) / total if 2 * total > sum(weights.sizes) else None


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count != 1 else ''}"
