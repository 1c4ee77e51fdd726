"""What changed between two models in what their files answer as they stand, beyond their logits.

That is what lies behind the class scores, the labels that classes are mapped to, and all other outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import first_names
from onnxgain.measure.fingerprint_record import FingerprintRecord, OutputRecord, OwnRecord
from onnxgain.measure.own_sketch import (
    DARK,
    LEAST_WINS,
    MIXED,
    MOSTLY_UNCLEAR,
    NARROW,
    ONE_SIZE,
    OVERFLOWING,
    REFUSED,
    TOLERANCE,
    UNCLEAR,
    own_images,
    unpacked_labels,
    unpacked_sketch,
)

SAME = 0.02
PASS = 0.25
REVIEW = 0.5
"""Relative changes of an output's numbers, largest of a same function, a pass and a review. 8-bit quantization changes
features by a tenth to a fifth."""

_OTHER = (REFUSED, MOSTLY_UNCLEAR)
_DOUBTFUL = (MIXED, OVERFLOWING, ONE_SIZE, UNCLEAR, DARK, NARROW)
"""Remarks that make a file another function, and those to be looked at, where the baseline lacks them."""
_TIED = "its output is largest for several classes, or for another one than its class scores"
_IN_WORDS = {
    UNCLEAR: f"for some images {_TIED}: they are rounded behind the last layer (keep that in float, or its output)",
    MOSTLY_UNCLEAR: f"for many images {_TIED}",
}

_CONSTANT = 1e-3
_SHOWN = 3


@dataclass(frozen=True)
class OwnChange:
    """What changed beside the logits.

    Attributes:
        found: what makes it another function, a clause each.
        doubts: what a person has to look at.
        exact: nothing changed by more than `SAME`.
        remarks: what was not compared and why, and what the file itself contradicts, a clause each.
    """

    found: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    exact: bool = True
    remarks: tuple[str, ...] = ()


UNCHANGED = OwnChange()


def own_change(
    before: FingerprintRecord, after: FingerprintRecord, winners: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> OwnChange:
    """Compare what two files answer.

    Args:
        winners: the classes with the largest logits at each of the fingerprint's images, before and after.

    Raises:
        OnnxgainError: a fingerprint is damaged.
    """
    old, new = before.own, after.own
    if old is None or new is None:
        return _without(old, new)
    if old.images == 0 and new.images == 0:
        return OwnChange(remarks=(f"what lies behind the class scores was not compared: {_reason(new)}",))
    if new.images == 0:
        return OwnChange(found=(f"the file's own outputs cannot be compared: {_reason(new)}",), exact=False)
    if old.images == 0 or old.images != new.images:
        return OwnChange(remarks=("what lies behind the class scores was not compared: the baseline's was not run",))
    found, doubts, exact = _of_head(old, new)
    if (LEAST_WINS in new.remarks) != (LEAST_WINS in old.remarks):
        now, then = ("least", "largest") if LEAST_WINS in new.remarks else ("largest", "least")
        found.append(f"the {now} value of the head's output wins now, the {then} did before")
    arisen = [remark for remark in new.remarks if remark not in old.remarks]
    found += [_IN_WORDS.get(remark, remark) for remark in _OTHER if remark in arisen]
    doubts += [_IN_WORDS.get(remark, remark) for remark in _DOUBTFUL if remark in arisen]
    here = own_images(before.count)
    same = winners[0][here] == winners[1][here]
    known = {output.name: output for output in old.outputs}
    partners = _partners(old, new)
    faithful = all(d is not None and d <= TOLERANCE for d in (old.disagreement, new.disagreement))
    for output in new.outputs:
        if output.name not in partners:
            first = output is new.outputs[0]
            (found if first and _led(old) else doubts).append(
                f"output {output.name!r} is new{', and the first' * first}"
            )
            continue
        partner = known[partners[output.name]]
        if faithful and (output.name, partner.name) == (new.head, old.head):
            # Its logits are compared; it may hold logits instead of probabilities now.
            found += _labels(partner, output, repr(output.name))
            continue
        more, look, alike = _of_output(partner, output, old.images, same)
        found, doubts, exact = found + more, doubts + look, exact and alike
    confused, reordered = _places(old, new, partners)
    (found if _loses_head(old, new, partners) else doubts).extend(confused)
    gone = [name for name in known if name not in partners.values()]
    found += [f"output {name!r} is gone" for name in gone]
    judged = {ONE_SIZE, *(remark for remark in arisen if remark in (*_OTHER, *_DOUBTFUL))}
    remarks = (*reordered, *(remark for remark in dict.fromkeys(new.remarks) if remark not in judged))
    return OwnChange(tuple(found), tuple(doubts), exact and not doubts, remarks)


def _without(old: OwnRecord | None, new: OwnRecord | None) -> OwnChange:
    """Nothing to compare with: what the file itself contradicts is still to be looked at."""
    if old is None and new is None:
        return UNCHANGED
    remark = "the baseline holds no answers of the file itself, so what lies behind the class scores was not compared"
    if new is None:
        return OwnChange(found=("there are no answers of the file itself; measure it again",), exact=False)
    doubts = new.remarks if new.disagreement is not None and new.disagreement > TOLERANCE else ()
    return OwnChange(doubts=doubts, exact=not doubts, remarks=(f"{remark}; --update-baseline adds them",))


def _reason(record: OwnRecord) -> str:
    return record.remarks[0] if record.remarks else "the file was not run"


def _of_head(old: OwnRecord, new: OwnRecord) -> tuple[list[str], list[str], bool]:
    """Whether the head's output still follows its logits as it did."""
    one, other = old.disagreement, new.disagreement
    if other is None:
        lost = one is not None and one <= TOLERANCE
        return (["the head's output holds no probabilities any more"] if lost else []), [], not lost
    if one is None or abs(other - one) <= TOLERANCE or (other < one and other <= TOLERANCE):
        return [], [], True
    if one > TOLERANCE and abs(other - one) <= PASS * max(one, other):
        return [], [], False
    words = f"what lies behind the class scores changes probabilities by up to {other:.2g}, before by {one:.2g}"
    return [words], [], False


def _partners(old: OwnRecord, new: OwnRecord) -> dict[str, str]:
    """For each output after, that before: the head's, of the same name, or in the same place if all names changed.

    Where another output of before is the head now, names count if what these outputs hold goes with them.
    """
    names = {output.name for output in old.outputs}
    if new.head != old.head and new.head in names and _go_with_names(old, new):
        found = {}
    else:
        found = {new.head: old.head}
        names.discard(old.head)
    found |= {output.name: output.name for output in new.outputs if output.name in names and output.name != new.head}
    left = [output.name for output in old.outputs if output.name not in found.values()]
    free = [output.name for output in new.outputs if output.name not in found]
    return found | (dict(zip(free, left, strict=True)) if len(free) == len(left) else {})


def _go_with_names(old: OwnRecord, new: OwnRecord) -> bool:
    """Whether both heads are outputs of both files, and hold in each what they hold in the other."""
    sides = [{output.name: output for output in record.outputs} for record in (old, new)]
    for name in (old.head, new.head):
        one, other = (side.get(name) for side in sides)
        if one is None or other is None or one.kind != other.kind:
            return False
        sketches = [unpacked_sketch(output, old.images) for output in (one, other)]
        if one.kind == "numbers" and _relative(*sketches) > REVIEW:
            return False
        if one.kind == "answers" and np.mean(sketches[0] != sketches[1]) > REVIEW:
            return False
    return True


def _led(record: OwnRecord) -> bool:
    """Whether the first output is that of the head, so that programs may take it without a name."""
    return bool(record.outputs) and record.outputs[0].name == record.head


def _loses_head(old: OwnRecord, new: OwnRecord, partners: dict[str, str]) -> bool:
    """Whether the place or the name that the head's output had is that of an output with something else now."""
    return (_led(old) and not _led(new)) or partners.get(old.head, old.head) != old.head


def _places(old: OwnRecord, new: OwnRecord, partners: dict[str, str]) -> tuple[list[str], list[str]]:
    """What is wrong with the order and the names of the outputs, and what is only to be said.

    A program that takes the first output, or one by its name, gets another one without an error.
    """
    before, after = ([output.name for output in record.outputs] for record in (old, new))
    kept = [partners[name] for name in after if name in partners]
    doubts = []
    exchanged = [(name, partners[name]) for name in after if partners.get(name, name) != name and name in before]
    if exchanged:
        listed = first_names([f"{name!r} is what {was!r} was" for name, was in exchanged], _SHOWN)
        doubts.append(f"names of outputs are exchanged: {listed}")
    if after and after[0] in partners and partners[after[0]] != before[0]:
        doubts.append(f"the first output is what {partners[after[0]]!r} was, instead of {before[0]!r}")
    if kept == [name for name in before if name in kept]:
        return doubts, []
    orders = [first_names(list(map(repr, names)), 2 * _SHOWN) for names in (before, kept)]
    return doubts, [f"the outputs are in another order: {' -> '.join(orders)}"]


def _of_output(
    old: OutputRecord, new: OutputRecord, count: int, same: NDArray[np.bool_]
) -> tuple[list[str], list[str], bool]:
    """What makes an output another one, what is to be looked at, and whether it stayed the same."""
    name = repr(new.name)
    if old.kind != new.kind:
        return [f"output {name} holds {new.kind} instead of {old.kind}"], [], False
    labels = _labels(old, new, name)
    if labels:
        return labels, [], False
    one, other = unpacked_sketch(old, count), unpacked_sketch(new, count)
    if new.kind == "answers":
        changed = int(np.sum((one != other) & same))
        if not changed:
            return [], [], bool((one == other).all())
        words = f"output {name} says something else for {changed} of {int(same.sum())} images of the same class"
        return [words], [], False
    change = _relative(one, other)
    words = f"output {name} changed by {100 * change:.0f} %"
    if change > REVIEW:
        return [words], [], False
    return [], [words] if change > PASS else [], change <= SAME


def _labels(old: OutputRecord, new: OutputRecord, name: str) -> list[str]:
    one, other = unpacked_labels(old), unpacked_labels(new)
    if not one.size and not other.size:
        return []
    if one.size != other.size:
        if one.size and other.size:
            return [f"output {name} was asked for other classes"]
        return [f"output {name} maps classes otherwise than before"]
    places = np.flatnonzero(one != other)
    if not places.size:
        return []
    listed = first_names(list(map(str, places)), _SHOWN)
    classes = "class" if places.size == 1 else "classes"
    return [f"output {name} says something else for {places.size} {classes} of {one.size} ({listed})"]


def _relative(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The change relative to the size, or half of that of what differs between the images, whichever is more."""
    size = float(np.linalg.norm(one))
    if not np.isfinite(other).all() or not size:
        return float(not np.isfinite(other).all() or bool(np.linalg.norm(other)))
    change = float(np.linalg.norm(other - one)) / size
    apart = [a - a.mean(axis=0) for a in (one, other)]
    spread = float(np.linalg.norm(apart[0]))
    if spread > _CONSTANT * size:
        change = max(change, float(np.linalg.norm(apart[1] - apart[0])) / spread / 2)
    return change
