"""The values of a gate's configuration: types as on the command line, paths inside the configuration's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from onnxgain.commands.parameters import Factor, ImageShape, Numbers
from onnxgain.errors import OnnxgainError
from onnxgain.files import is_url
from onnxgain.fleet.secrets import without_secrets

LONGEST_TIMEOUT = 3600.0
"""The largest time limit per model that a configuration may set, seconds."""

_PATHS = {"baseline", "images"}


def leads_into(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path, with links resolved, is in a folder or below it."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except (OSError, ValueError):
        return False


def strings(value: Any, where: str) -> tuple[str, ...]:
    """A text or a list of texts as a tuple; raises OnnxgainError for anything else and for an empty list."""
    if value == []:
        raise OnnxgainError("is an empty list", where=where, remedy='name one, e.g. ["*.onnx"], or leave the key out')
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str) and item for item in listed):
        raise OnnxgainError("is not a text or a non-empty list of texts", where=where, remedy='write e.g. ["*.onnx"]')
    return tuple(listed)


def values_of(
    table: Mapping[str, Any], parameters: Mapping[str, click.Option], path: Path, where: str, context: click.Context
) -> dict[str, Any]:
    """The values of a table by parameter name, converted as the command line does."""
    values = {}
    for key, value in table.items():
        parameter = parameters[key]
        assert parameter.name is not None
        given = _value(parameter, value, f"{where}.{key}", context)
        if parameter.name == "timeout" and given > LONGEST_TIMEOUT:
            raise OnnxgainError(
                f"is {given:g} s, a configuration may give at most {LONGEST_TIMEOUT:g}",
                where=f"{where}.{key}",
                remedy="give --timeout on the command line",
            )
        values[parameter.name] = _located(parameter.name, given, path, f"{where}.{key}")
    return values


def _value(parameter: click.Option, value: Any, where: str, context: click.Context) -> Any:
    if parameter.multiple:
        return strings(value, where)
    expected, fits = _expectation(parameter)
    if not fits(value):
        raise OnnxgainError(f"is {value!r}, not {expected}", where=where, remedy="correct it")
    if isinstance(value, bool):
        return value
    items = value if isinstance(value, list) else [value]
    text = ("x" if isinstance(parameter.type, ImageShape) else ",").join(map(str, items))
    try:
        return parameter.type.convert(text, parameter, context)
    except click.UsageError as error:
        raise OnnxgainError(error.message.rstrip("."), where=where, remedy="correct it") from error


def _expectation(parameter: click.Option) -> tuple[str, Callable[[Any], bool]]:
    """The kind of value that a parameter takes, in words and as a predicate."""
    kind = parameter.type
    if parameter.is_flag:
        return "true or false", lambda value: isinstance(value, bool)
    if isinstance(kind, Factor):
        return 'a number or a fraction such as "1/255"', lambda value: _is_number(value) or isinstance(value, str)
    if isinstance(kind, Numbers):
        return "a number or a list of numbers", lambda value: _is_number(value) or _are_numbers(value)
    if isinstance(kind, ImageShape):
        return "a shape such as [3, 224, 224]", lambda value: isinstance(value, str) or _are_numbers(value)
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return "a number", _is_number
    return "a text", lambda value: isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _located(name: str, value: Any, path: Path, where: str) -> Any:
    """A value with its paths relative to the configuration's folder instead of the current one."""
    if name == "inputs":
        return tuple(_located_input(text, path, where) for text in value)
    if name not in _PATHS:
        return value
    if not isinstance(value, tuple):
        return from_folder(path, value, where)
    return tuple(from_folder(path, item, where) for item in value)


def _located_input(text: str, path: Path, where: str) -> str:
    name, _, value = text.partition("=")
    return f"{name}={from_folder(path, value, where)}" if value.endswith(".npy") else text


def from_folder(path: Path, name: str, where: str) -> str:
    """A path of the configuration relative to the current folder, keeping the @ of a list.

    Raises:
        OnnxgainError: the path leads out of the configuration's folder, or is a URL.
    """
    if name.startswith("@"):
        return "@" + from_folder(path, name[1:], where)
    found = path.parent / name
    inside = not is_url(name) and leads_into(found, path.parent)
    if inside and found.is_dir():
        inside = all(leads_into(file, path.parent) for file in found.iterdir() if not file.is_dir())
    if not inside:
        raise OnnxgainError(
            f"{without_secrets(name)} leads out of the configuration's folder",
            where=where,
            remedy="a configuration names files in its own folder; name others on the command line",
        )
    return str(found)
