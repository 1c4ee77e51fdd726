"""Quick dataclasses behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from onnxgain.model import quick_dataclass


def definition(decorator: Any) -> Any:
    class Point:
        """A point."""

        x: int
        y: float = 2.0
        labels: tuple[str, ...] = dataclasses.field(default_factory=tuple, repr=False, compare=False)

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("negative")

    Point.__qualname__ = "Point"
    return decorator(Point)


Plain = definition(dataclasses.dataclass(frozen=True))
Point = definition(quick_dataclass.dataclass(frozen=True))
Identity = definition(quick_dataclass.dataclass(frozen=True, eq=False))


def outcome(make: Any) -> Any:
    try:
        return make()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize(
    "arguments",
    [((1,), {}), ((1, 3.0, ("a",)), {}), ((), {"y": 1.0, "x": 4}), ((), {}), ((1, 2, 3, 4), {}), ((1,), {"x": 1}),
     ((1,), {"z": 1}), ((-1,), {})],
)  # fmt: skip
def test_instances_are_the_same(arguments: Any) -> None:
    positional, named = arguments
    uses = [
        lambda kind: repr(kind(*positional, **named)),
        lambda kind: dataclasses.asdict(kind(*positional, **named)),
        lambda kind: hash(kind(*positional, **named)),
        lambda kind: repr(dataclasses.replace(kind(*positional, **named), y=7.0)),
        lambda kind: [field.name for field in dataclasses.fields(kind(*positional, **named))],
    ]
    for use in uses:
        assert outcome(lambda use=use: use(Point)) == outcome(lambda use=use: use(Plain))


def test_equality() -> None:
    assert Point(1, 2.0, ("a",)) == Point(1, 2.0, ("b",))
    assert Point(1) != Point(2)
    assert Point(1) != Plain(1)
    first, second = Identity(1), Identity(1)
    assert first != second
    assert len({first, second}) == 2


def test_instances_cannot_change() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.other = 2
    assert point.x == 1


def test_signatures_name_the_fields() -> None:
    assert list(inspect.signature(Point).parameters) == ["x", "y", "labels"]
    assert inspect.signature(Point).parameters["y"] == inspect.signature(Plain).parameters["y"]
    assert inspect.signature(Point).bind(1).arguments == {"x": 1}


def test_copies_and_pickles() -> None:
    from onnxgain.measure.record import StimulusRecord

    record = StimulusRecord(name="impulse", parameters={}, windowed=False)
    assert pickle.loads(pickle.dumps(record)) == record
    assert copy.deepcopy(record) == record
    assert copy.copy(record) == record
