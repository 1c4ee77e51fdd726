"""Names for the models and images that a Python program passes in memory, in place of the files that hold them."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping
from typing import Any

from onnxgain.analysis.gate_result import Commands
from onnxgain.errors import OnnxgainError


def kind_of(model: Any) -> str:
    """What a model in memory is, for people: the name of its class."""
    return "bytes" if isinstance(model, (bytes, bytearray, memoryview)) else type(model).__name__


def file_name(label: str) -> str:
    """The name of the file for a model with a label: the label itself where the system allows it."""
    return label if os.name != "nt" else f"{label.strip('<>')}.onnx"


class Labels:
    """Shows labels in place of paths.

    Args:
        names: labels by path.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._seen: set[int] = set()

    def text(self, text: str) -> str:
        """The text with labels in place of the paths in it."""
        for path, label in self._names.items():
            text = text.replace(path, label)
        return text

    def error(self, error: OnnxgainError) -> OnnxgainError:
        """The error with labels in place of paths."""
        where, remedy = (None if text is None else self.text(text) for text in (error.where, error.remedy))
        return type(error)(self.text(error.what), where=where, remedy=remedy)

    def shown_in(self, value: Any) -> Any:
        """The value of a command with labels in place of paths; its dataclasses are changed in place.

        Command lines that name such a path are left out, because nobody can run them.
        """
        if not self._names:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.shown_in(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self.shown_in(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if dataclasses.is_dataclass(value) and type(value).__module__.startswith("onnxgain.") and not self._was(value):
            for name in [field.name for field in dataclasses.fields(value)]:
                old = getattr(value, name)
                gone = isinstance(value, Commands) and isinstance(old, str) and self._names_label(old)
                new = None if gone else self.shown_in(old)
                if new is not old:
                    object.__setattr__(value, name, new)
        return value

    def _names_label(self, line: str) -> bool:
        return not set(self._names.values()).isdisjoint(shlex.split(self.text(line)))

    def _was(self, value: object) -> bool:
        known = id(value) in self._seen
        self._seen.add(id(value))
        return known
