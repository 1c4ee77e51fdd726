"""The commands as Python functions: options are keyword arguments, and the result is what the command would print.

The functions' signatures and help are generated from the commands, so that they cannot differ.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import keyword
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from onnxgain.commands.in_memory import Labels, file_name, kind_of
from onnxgain.commands.outcome import Outcome
from onnxgain.commands.wording import as_python, in_python
from onnxgain.errors import OnnxgainError, kind_in_words
from onnxgain.fleet.sources import LABELS
from onnxgain.report.reporter import CAPTURED

FUNCTIONS = ("score", "compare", "diff", "gate", "track", "verify", "inspect", "saliency")
"""The commands that the package provides as functions."""


@functools.cache
def function(name: str) -> Callable[..., Outcome]:
    """Make the function of a command.

    Positional arguments are the command's: a path or URL, or a model in memory (`bytes`, `onnx.ModelProto`,
    `onnx_ir.Model`, a `torch.onnx.ONNXProgram`). Keyword arguments are its options, with underscores: --image-shape is
    ``image_shape``. Options that may be repeated take one value or a sequence of them.

    Raises (the function):
        OnnxgainError: the error that the command would print, naming arguments instead of options.
    """
    command: click.Command = getattr(importlib.import_module(f"onnxgain.commands.{name}"), name)

    def call(*models: Any, **options: Any) -> Outcome:
        with ExitStack() as stack:
            arguments = command_arguments(command, options, stack)
            labels: dict[str, str] = {}
            places = _places(models, labels, stack)
            stack.callback(LABELS.reset, LABELS.set(labels))
            return _run(name, command, [*arguments, "--", *places], Labels(labels))

    call.__name__ = call.__qualname__ = name
    call.__module__ = "onnxgain"
    call.__doc__ = f"{_help(command)}\n\nThe options are those of `onnxgain {name} --help`."
    call.__signature__ = _signature(command)  # type: ignore[attr-defined]
    return call


def argument_names(command: click.Command) -> dict[str, click.Option]:
    """The keyword argument of each option of a command."""
    named = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            option = max(parameter.opts, key=len).lstrip("-").replace("-", "_")
            named[f"{option}_" if keyword.iskeyword(option) else option] = parameter
    return named


def _signature(command: click.Command) -> inspect.Signature:
    kind = inspect.Parameter
    parameters = [kind("models", kind.VAR_POSITIONAL)]
    parameters += [kind(name, kind.KEYWORD_ONLY, default=None) for name in argument_names(command)]
    return inspect.Signature(parameters, return_annotation=Outcome)


def _help(command: click.Command) -> str:
    return inspect.cleandoc((command.help or "").replace("\b\n", ""))


def _run(name: str, command: click.Command, arguments: Sequence[str], labels: Labels) -> Outcome:
    captured: list[Any] = []
    token = CAPTURED.set(captured)
    code, problem = 0, None
    try:
        ended_with = command.main(list(arguments), prog_name=f"onnxgain {name}", standalone_mode=False)
        code = ended_with if isinstance(ended_with, int) else 0
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.MissingParameter as error:
        problem = _missing(name, command, error)
    except click.ClickException as error:
        problem = OnnxgainError(in_python(error.format_message()))
    except OnnxgainError as error:
        problem = as_python(error)
    finally:
        CAPTURED.reset(token)
    if problem is not None:
        # The error says all that a caller can act on; the frames of the command line would only hide it.
        raise labels.error(problem) from None
    if not captured:
        raise OnnxgainError(f"{name} gave no result", remedy="see what it wrote to standard error")
    draw = next((one for one in captured if callable(one)), None)
    return Outcome(name, labels.shown_in(captured[0]), code, draw)


def _missing(name: str, command: click.Command, error: click.MissingParameter) -> OnnxgainError:
    taken = [parameter.name or "" for parameter in command.params if isinstance(parameter, click.Argument)]
    missing = error.param.name if error.param is not None else None
    call = f"call onnxgain.{name}({', '.join(taken)})"
    return OnnxgainError(f"the argument {missing or taken[0]} is missing", where=f"onnxgain.{name}", remedy=call)


# ------------------------------------------------------------------------------------------------ arguments
def command_arguments(command: click.Command, options: Mapping[str, Any], stack: ExitStack) -> list[str]:
    """Convert keyword arguments to command-line arguments. Arrays become files that exist while ``stack`` is open.

    Raises:
        OnnxgainError: the command has no such option.
    """
    named = argument_names(command)
    named |= {option.name: option for option in named.values() if option.name is not None and option.name not in named}
    found: list[str] = []
    for name, value in options.items():
        if name not in named:
            taken = ", ".join(sorted(argument_names(command)))
            where = f"onnxgain.{command.name}"
            raise OnnxgainError(f"there is no argument {name}", where=where, remedy=f"it takes {taken}")
        if value is not None:
            found += _option(named[name], value, stack)
    return found


def _option(option: click.Option, value: Any, stack: ExitStack) -> Iterator[str]:
    flag = max(option.opts, key=len)
    if option.is_flag:
        if value:
            yield flag
        elif option.secondary_opts:
            yield option.secondary_opts[0]
        return
    if isinstance(value, Mapping):
        value = [f"{name}={_text(_array_file(one, stack) or one)}" for name, one in value.items()]
    values = value if option.multiple and _is_sequence(value) else [value]
    for one in values:
        yield f"{flag}={_text(_picture_file(one, stack) or one)}"


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _text(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # of NumPy and others
        value = value.tolist()
    if _is_sequence(value):
        return ",".join(map(str, value))
    return str(value)


def _array_file(value: Any, stack: ExitStack) -> str | None:
    """A file with the array; None if the value is not an array."""
    if not hasattr(value, "__array__") or getattr(value, "ndim", 0) == 0:
        return None
    import numpy as np

    path = _temporary(stack) / "value.npy"
    np.save(path, np.asarray(value))
    return str(path)


def _picture_file(value: Any, stack: ExitStack) -> str | None:
    """A file with an image, given as a Pillow image or pixels (H, W) or (H, W, 1, 3 or 4); None for other values.

    Raises:
        OnnxgainError: an array of two or more dimensions that is no such image, or whose pixels are not uint8.
    """
    if not (hasattr(value, "__array__") or hasattr(value, "__array_interface__")):
        return None
    import numpy as np
    from PIL import Image, ImageOps

    if isinstance(value, Image.Image) and value.mode != "F":
        image = ImageOps.exif_transpose(value)
        image = image if image.mode in _PNG_MODES else image.convert("RGB")
    else:
        pixels = np.asarray(value)
        if pixels.ndim < 2:
            return None
        planes = pixels.shape[2:]
        if pixels.dtype != np.uint8 or not pixels.size or planes not in ((), (1,), (3,), (4,)):
            remedy = "pass 8-bit pixels (uint8), of shape (H, W), (H, W, 3) or (H, W, 4)"
            if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and planes not in ((1,), (3,), (4,)):
                remedy += "; this one has the order (C, H, W): np.moveaxis(image, 0, -1) makes it (H, W, C)"
            raise OnnxgainError(f"an array of {pixels.dtype}, shape {pixels.shape}, is not an image", remedy=remedy)
        image = Image.fromarray(pixels[..., 0] if planes == (1,) else pixels)
    path = _temporary(stack) / "image.png"
    image.save(path)
    return str(path)


_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""Modes of Pillow images that a PNG file holds as they are."""


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxgain-")))


def _places(models: Sequence[Any], labels: dict[str, str], stack: ExitStack) -> list[str]:
    """The files of models or images, given as paths or in memory; adds the labels of models in memory by path."""
    found: list[str] = []
    unsaved: list[tuple[int, Any]] = []
    for model in _flat(models):
        place = os.fspath(model) if isinstance(model, (str, os.PathLike)) else _picture_file(model, stack)
        if place is None:
            unsaved.append((len(found), model))
        found.append(place or "")
    for number, (index, model) in enumerate(unsaved, 1):
        label = f"<{kind_of(model)} {number}>" if len(unsaved) > 1 else f"<{kind_of(model)}>"
        path = _temporary(stack) / "model.onnx"
        _save(model, path)
        found[index] = str(path.rename(path.with_name(file_name(label))))
        labels[found[index]] = label
    return found


def _flat(models: Any) -> Iterator[Any]:
    for model in models:
        if isinstance(model, (list, tuple)):
            yield from _flat(model)
        else:
            yield model


def _save(model: Any, path: Path) -> None:
    """Write a model from memory to a file.

    Raises:
        OnnxgainError: the object is not a model.
    """
    if isinstance(model, (bytes, bytearray, memoryview)):
        path.write_bytes(model)
        return
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(model).__mro__}
    if "onnx.ModelProto" in kinds or hasattr(model, "SerializeToString"):
        import onnx

        onnx.save(model, path)
    elif "onnx_ir.Model" in kinds:
        import onnx_ir as ir

        ir.save(model, path)
    elif "torch.ONNXProgram" in kinds:
        model.save(path)
    elif "onnxruntime.InferenceSession" in kinds and getattr(model, "_model_bytes", None):
        path.write_bytes(model._model_bytes)
    else:
        remedy = "pass a path, a URL, bytes, an onnx.ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram"
        if "onnxruntime.InferenceSession" in kinds:
            remedy = "pass the file it was made from: it may have changed since, and a session does not give it back"
        raise OnnxgainError(f"{kind_in_words(model)} is not an ONNX model", remedy=remedy)
