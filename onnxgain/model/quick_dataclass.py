"""Frozen dataclasses that are made in a tenth of the time.

`dataclasses.dataclass` compiles an initializer and four more methods for every class, a millisecond each time Python
starts; a score needs fifty classes. The classes made here share these methods. `fields`, `replace` and `asdict` work as
on other dataclasses; making an instance takes a few microseconds longer.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inspect
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, eq: bool = True) -> Any:
        """`dataclasses.dataclass(frozen=True)`, without its other options."""
        assert frozen

        def made(cls: type) -> type:
            for name in ("__init__", "__repr__", "__setattr__", "__delattr__", *(("__eq__", "__hash__") if eq else ())):
                if name not in cls.__dict__:
                    setattr(cls, name, _Methods.__dict__[name])
            cls.__signature__ = _Signature()
            return dataclasses.dataclass(init=False, repr=False, eq=False)(cls)

        return made


class _Signature:
    """The signature of a class for help() and editors, made when it is asked for."""

    def __get__(self, instance: object, owner: Any) -> inspect.Signature:
        import inspect

        def parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
            default = field.default
            if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            elif default is dataclasses.MISSING:
                default = inspect.Parameter.empty
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            return inspect.Parameter(field.name, kind, default=default, annotation=field.type)

        return inspect.Signature([parameter(field) for field in dataclasses.fields(owner)], return_annotation=None)


def _compared(instance: Any) -> tuple[Any, ...]:
    return tuple([getattr(instance, f.name) for f in instance.__dataclass_fields__.values() if f.compare])


def _refuse_misfits(kind: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    fields = list(kind.__dataclass_fields__)
    if len(positional) > len(fields):
        raise TypeError(f"{kind.__name__}() takes {len(fields)} positional arguments but {len(positional)} were given")
    for name in named:
        if name not in fields:
            raise TypeError(f"{kind.__name__}() got an unexpected keyword argument {name!r}")
        if name in fields[: len(positional)]:
            raise TypeError(f"{kind.__name__}() got multiple values for argument {name!r}")


def _default(kind: type, field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"{kind.__name__}() missing required argument: {field.name!r}")


class _Methods:
    def __init__(self: Any, *positional: Any, **named: Any) -> None:
        fields, own = self.__dataclass_fields__, self.__dict__
        own.update(zip(fields, positional, strict=False))
        own.update(named)
        given = len(positional) + len(named)
        if not given == len(own) == len(fields) or own.keys() != fields.keys():
            _refuse_misfits(type(self), positional, named)
            for field in fields.values():
                if field.name not in own:
                    own[field.name] = _default(type(self), field)
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    def __repr__(self: Any) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in self.__dataclass_fields__.values() if f.repr]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self: Any, other: object) -> Any:
        return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(_compared(self))

    def __setattr__(self: Any, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self: Any, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
