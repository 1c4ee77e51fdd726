"""Builds frozen dataclasses from JSON values by their annotations."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
from typing import Any


@functools.cache
def _hints(kind: typing.Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def build(kind: Any, value: Any, name: str) -> Any:
    """Build a value of an annotated type from JSON. Raises TypeError or ValueError if it does not fit."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{name} is not an object")
        hints = _hints(typing.cast(typing.Hashable, kind))
        known = [field for field in dataclasses.fields(kind) if field.name in value]
        optional = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
        missing = [f.name for f in dataclasses.fields(kind) if f.name not in value and f.name not in optional]
        if missing:
            raise TypeError(f"{name} lacks {', '.join(missing)}")
        fields = {f.name: build(hints[f.name], value[f.name], f"{name}.{f.name}") for f in known}
        record_type: Any = kind
        return record_type(**fields)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{name} is not a list")
        if arguments[-1] is Ellipsis:
            return tuple(build(arguments[0], item, f"{name}[{i}]") for i, item in enumerate(value))
        return tuple(build(a, item, name) for a, item in zip(arguments, value, strict=True))
    if origin in (types.UnionType, typing.Union):
        return None if value is None else build(arguments[0], value, name)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:
            raise ValueError(f"{name} is not a finite number")
        return float(value)
    expected = origin or kind
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise TypeError(f"{name} is {type(value).__name__}, expected {expected.__name__}")
    return value
