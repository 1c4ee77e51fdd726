"""The command lines that a gate's result advises. They can be pasted in the folder where the gate was run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.model_history import earlier_version, place_for
from onnxgain.commands.options import MeasureOptions, ReadingOptions
from onnxgain.commands.parameters import Numbers, parameter_names
from onnxgain.commands.saved_model import SEPARATOR
from onnxgain.files import command_line

if TYPE_CHECKING:
    from onnxgain.analysis.gate_result import Commands
    from onnxgain.measure.record import ModelRecord

_OLD_FILE = "OLD.onnx"
"""Placeholder for the file of the model before if its location is not known."""


def option_words(command: click.Command, names: set[str], values: Mapping[str, Any]) -> Iterator[str]:
    """The command-line words that set parameters to values; values equal to the default are left out."""
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
        given: its parameters on the command line; the advised command reads those of the configuration again.
        config: the value of --config; None if it was not given.
    """

    def __init__(self, command: click.Command, given: Mapping[str, Any], config: str | None) -> None:
        self._command = command
        self._given = given
        self._config = config

    def commands(
        self,
        model: str,
        baseline: str | None,
        before: ModelRecord | None,
        values: Mapping[str, Any],
        *,
        good: bool,
        renamed_from: str | None = None,
    ) -> Commands:
        """The command lines for a model.

        Args:
            model: the argument that names it.
            baseline: the file it was compared with.
            before: the model before, according to the baseline; None if it is not known.
            values: the parameters that it was measured with.
            good: whether it passed, so that nobody needs to find the file of the model before.
            renamed_from: the argument for the missing file that has its bytes, whose records it replaces.
        """
        from onnxgain.analysis.gate_result import Commands
        from onnxgain.analysis.policy import KEPT, Policy

        inspect = look = accept = allow = layers = None
        with_old_file = False
        if Path(model).is_file() or "://" in model:
            reading = option_words(self._command, parameter_names(ReadingOptions), values)
            inspect = _line("inspect", _file(model), *reading)
        if baseline is not None:
            measure = parameter_names(MeasureOptions) - {"threads"}
            if before is not None:
                options = list(option_words(self._command, measure, values))
                there = _is_another_file(before.path, model)
                old = _file(before.path) if there else f"{_file(baseline)}{SEPARATOR}{before.path}"
                look = _line("diff", old, _file(model), *options)
                if not good and Path(model).suffix == ".onnx":
                    show = None if there else earlier_version(model, before.sha256, before.bytes)
                    with_old_file = not there and show is None
                    old = old if there else _OLD_FILE if show is None else place_for(model)
                    layers = _line("diff", old, _file(model), *options, "--layers")
                    layers = f"{show} > {command_line([old])} && {layers}" if show is not None else layers
            # A baseline on the command line would switch off what the configuration allows.
            named = ["--baseline", baseline] if "baseline" in self._given else []
            named += [] if self._config is None else ["--config", self._config]
            policy = parameter_names(Policy) - {"allow_scale_change"}
            own = [*option_words(self._command, measure | policy, self._given)]
            allow = _line("gate", _file(model), *named, *own, "--allow-scale-change")
            own = [*option_words(self._command, measure | (policy & KEPT), self._given)]
            old_name = [] if renamed_from is None else [_file(renamed_from)]
            accept = _line("gate", _file(model), *old_name, *named, *own, "--update-baseline")
        return Commands(inspect, look, accept, allow, layers, with_old_file)


def _is_another_file(before: str, model: str) -> bool:
    """Whether the file of the model before exists and is not the one that was judged."""
    return Path(before).is_file() and os.path.realpath(before) != os.path.realpath(model)


def _file(name: str) -> str:
    """A name that cannot be mistaken for an option."""
    return f"./{name}" if name.startswith("-") else name


def _line(*words: str) -> str:
    return command_line(["onnxgain", *words])
