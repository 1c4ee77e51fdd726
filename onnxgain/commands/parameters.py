"""Option types that click lacks, and groups of options that are passed as one dataclass."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxgain.model.scale_values import number

if TYPE_CHECKING:
    ParamType = click.ParamType
else:

    class ParamType(click.ParamType):
        """click's own, which is generic since 8.4 only."""

        def __class_getitem__(cls, kind: object) -> type[ParamType]:
            return cls


F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Decorator = Callable[[F], F]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


_LONGEST_SIDE = 1 << 16
"""The largest size of a side of an image, in pixels."""


class ImageShape(ParamType[tuple[int, ...]]):
    """An image shape: CxHxW or HxW, or HxWxC for a flattened image with channels last."""

    name = "CxHxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse the sizes; fails if the text is not a shape."""
        if isinstance(value, tuple):
            return value
        try:
            shape = tuple(int(part) for part in str(value).lower().replace(",", "x").strip("[]").split("x"))
        except ValueError:
            shape = ()
        if len(shape) in (2, 3) and min(shape) == 0:
            self.fail(f"{value!r} has a side of zero: an image has at least one pixel", param, ctx)
        if len(shape) in (2, 3) and min(shape) > 0 and max(shape) > _LONGEST_SIDE:
            self.fail(f"{value!r} is too large: no side may exceed {_LONGEST_SIDE:,}", param, ctx)
        if len(shape) not in (2, 3) or min(shape) < 0:
            self.fail(f"{value!r} is not a shape such as 3x224x224 (channels, height, width) or 224x224", param, ctx)
        return shape


class Draws(ParamType[int]):
    """A number of noisy copies: 0 for none, or 2 to 1000."""

    name = "N"
    usual = 8

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the number; fails if the text is not one, for example if a model follows the option."""
        if isinstance(value, int):
            return value
        if not str(value).isdecimal():
            self.fail(f"{value!r} is not a number; write --steadiness={self.usual}, or put models first", param, ctx)
        if not 2 <= int(value) <= 1000:
            self.fail(f"{value} is not in the range 2 to 1000", param, ctx)
        return int(value)


class Factor(ParamType[float]):
    """A number, or a fraction such as 1/255."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the number; fails if the text is none."""
        try:
            return number(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a number or a fraction such as 1/255", param, ctx)


class Numbers(ParamType[tuple[float, ...]]):
    """One number, or one per channel, separated by commas; fractions such as 1/255 too."""

    name = "NUMBERS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parse the numbers; fails if the text contains anything else."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(number(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number or a list such as 0.485,0.456,0.406", param, ctx)


class ByteSize(ParamType[int]):
    """A number of bytes: 800M, 2G, 1.5GiB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the number of bytes; fails if the text is not a size."""
        text = str(value).strip().lower().removesuffix("b")
        number = text.rstrip("kmgi")
        try:
            size = float(number) * _UNITS[text[len(number) :]]
        except (ValueError, KeyError):
            size = 0.0
        if not 1 <= size < 1 << 62:
            self.fail(f"{value!r} is not a size such as 800M or 2G", param, ctx)
        return int(size)


# -------------------------------------------------------------------------------------------- option groups
GROUP = "group"
"""The metadata key of a field that is itself an option group; its value is the class of that group."""


def fill(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make an option group from the command's parameters, which have the names of its fields.

    Fields without a parameter need a default.
    """
    given = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if GROUP in field.metadata:
            given[field.name] = fill(field.metadata[GROUP], values)
        elif field.name in values:
            given[field.name] = values[field.name]
    return kind(**given)


def parameter_names(kind: type[Any]) -> set[str]:
    """The names of the parameters that `fill` reads."""
    names: set[str] = set()
    for field in dataclasses.fields(kind):
        names |= parameter_names(field.metadata[GROUP]) if GROUP in field.metadata else {field.name}
    return names


def apply_options(options: list[Callable[[F], F]]) -> Decorator[F]:
    """Combine several decorators into one; the help lists their options in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def option_group(argument: str, kind: type[Any], *options: Decorator[Any]) -> Callable[[F], F]:
    """A decorator that adds options to a command and passes their values to it as one argument.

    Args:
        argument: the name of the argument.
        kind: a frozen dataclass with a field for every option, or nested groups of them; see `fill`.
    """

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def grouped(*args: Any, **values: Any) -> Any:
            # From the context, because another group may already have removed a parameter that both share.
            group = fill(kind, click.get_current_context().params)
            rest = {name: value for name, value in values.items() if name not in parameter_names(kind)}
            return function(*args, **rest, **{argument: group})

        return apply_options(list(options))(grouped)

    return decorate
