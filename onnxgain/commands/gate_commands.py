"""Command lines that a gate's result advises: they work as they stand where the gate was run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.options import MeasureOptions, ReadingOptions
from onnxgain.commands.parameters import Numbers, parameter_names
from onnxgain.commands.saved_model import SEPARATOR

if TYPE_CHECKING:
    from onnxgain.analysis.verdict import Commands


def option_words(command: click.Command, names: set[str], values: Mapping[str, Any]) -> Iterator[str]:
    """The words that give a command its values for some of its parameters, but for those that are its defaults."""
    for parameter in command.params:
        name = parameter.name or ""
        if name not in names or name not in values or not isinstance(parameter, click.Option):
            continue
        value = values[name]
        if value is None or value == () or value == parameter.get_default(click.Context(command)):
            continue
        if parameter.is_flag:
            yield parameter.opts[0] if value else parameter.secondary_opts[0]
            continue
        for item in value if parameter.multiple else (value,):
            text = str(item)
            if isinstance(item, tuple):
                text = (",".join(map(repr, item))) if isinstance(parameter.type, Numbers) else "x".join(map(str, item))
            yield parameter.opts[0]
            yield text


class Adviser:
    """Makes the command lines for the models of one run of the gate.

    Args:
        command: the gate.
        given: its parameters on the command line; those of the configuration are read again.
        config: the configuration that was named, None where none was.
    """

    def __init__(self, command: click.Command, given: Mapping[str, Any], config: str | None) -> None:
        self._command = command
        self._given = given
        self._config = config

    def commands(self, model: str, baseline: str | None, before: str | None, values: Mapping[str, Any]) -> Commands:
        """The command lines for a model.

        Args:
            model: the argument that names it.
            baseline: the file it was compared with.
            before: the path of the model before, as the baseline says; None where that is not known.
            values: the parameters it was measured by.
        """
        from onnxgain.analysis.verdict import Commands

        reading = option_words(self._command, parameter_names(ReadingOptions), values)
        look = accept = allow = None
        if baseline is not None:
            measure = parameter_names(MeasureOptions) - {"threads"}
            if before is not None:
                options = option_words(self._command, measure, values)
                look = _line("diff", _before(before, model, baseline), _file(model), *options)
            own = option_words(self._command, measure | {"fingerprint"}, self._given)
            config = [] if self._config is None else ["--config", self._config]
            gate = _line("gate", _file(model), "--baseline", baseline, *config, *own)
            accept, allow = f"{gate} --update-baseline", f"{gate} --allow-scale-change"
        return Commands(_line("inspect", _file(model), *reading), look, accept, allow)


def _before(before: str, model: str, baseline: str) -> str:
    """The file of the model before where it is there and is another, else its records."""
    if Path(before).is_file() and os.path.realpath(before) != os.path.realpath(model):
        return _file(before)
    return f"{_file(baseline)}{SEPARATOR}{before}"


def _file(name: str) -> str:
    """A name that is not taken for an option."""
    return f"./{name}" if name.startswith("-") else name


def _line(*words: str) -> str:
    return shlex.join(["onnxgain", *words])
