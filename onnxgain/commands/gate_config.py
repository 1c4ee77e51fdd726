"""The gate's configuration: `[tool.onnxgain.gate]` in pyproject.toml, `[gate]` in onnxgain.toml.

    [tool.onnxgain.gate]                 # for every model; keys are the command's options without dashes
    models = ["exports/*.onnx"]          # gated where the command line names none
    baseline = "gain.json"
    max-change = 0.1

    [[tool.onnxgain.gate.overrides]]     # for some; later ones win, the command line wins over all
    match = ["*_int8.onnx"]              # without a slash: of the file name; with one: of the path from this folder
    max-change = 3.0

Paths are relative to the file's folder. Unknown keys are refused.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.config_values import from_folder, leads_into, strings, values_of
from onnxgain.errors import OnnxgainError, text_problem
from onnxgain.files import read_text

if TYPE_CHECKING:
    from onnxgain.fleet.sources import Source

FILES = ("onnxgain.toml", "pyproject.toml")
"""The names of configuration files; in a folder, the first one that holds a configuration is used."""

CONFIG_LIMIT = 1 << 20
"""The largest configuration file that is read, bytes."""

_COMMAND_LINE_ONLY = {
    "custom-ops": "it loads native code",
    "cache": "it decides where files are written",
}
"""Options that a configuration may not set, because it comes from the repository under test."""

RUN_KEYS = frozenset({"jobs", "timeout", "memory_limit", "threads", "cache", "no_cache", "max_download"})
"""Parameters of the whole run rather than of a model."""

_NOT_CONFIGURED = frozenset(
    {"models", "config", "form", "out", "writes", "report", "update_baseline", "init", "log", "help"}
)
_LOOSENING = {
    "fingerprint": False,
    "require": "review",
    "allow_float16": True,
    "allow_random": True,
    "allow_scale_change": True,
}
"""Values that let more models pass. They have no effect on a baseline that only the command line names: whoever names
it there may hold a pull request to another branch's, and the configuration is part of the pull request."""

_TOGETHER = (frozenset({"stimuli", "images"}), frozenset({"preprocess", "mean", "std", "scale"}))
"""Groups of parameters that a later layer replaces together: a preset must not be mixed with another layer's mean."""


@dataclass(frozen=True)
class Config:
    """The configuration. Values have the names of the command's parameters.

    Attributes:
        path: the file; None if there is none.
        models: the models to gate.
        run: parameters of the run.
        defaults: parameters for every model.
        overrides: (patterns, parameters) in the order of the file.
    """

    path: Path | None = None
    models: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = ()

    def values_for(self, model: str) -> dict[str, Any]:
        """The parameters for the model with this path."""
        path = _relative(model, self.path.parent if self.path is not None else Path())
        values = dict(self.defaults)
        for patterns, given in self.overrides:
            if any(matches(pattern, path) for pattern in patterns):
                values = layered(values, given)
        return values

    def without_loosening(self) -> tuple[Config, list[str]]:
        """The configuration without what lets more models pass, and the keys that this takes out."""
        taken: dict[str, None] = {}

        def kept(values: Mapping[str, Any]) -> dict[str, Any]:
            loosening = [name for name, value in values.items() if name in _LOOSENING and value == _LOOSENING[name]]
            taken.update(dict.fromkeys(name.replace("_", "-") for name in loosening))
            return {name: value for name, value in values.items() if name not in loosening}

        overrides = tuple((patterns, kept(values)) for patterns, values in self.overrides)
        return replace(self, defaults=kept(self.defaults), overrides=overrides), list(taken)

    def contained(self, sources: Sequence[Source]) -> list[Source]:
        """The sources that `models` names; saved records, and what lies outside the folder, become errors."""
        return [self._corrected(source) if source.error else self._contained(source) for source in sources]

    def _corrected(self, source: Source) -> Source:
        """The source; if it leads to nothing, the error says where it is named."""
        if source.error is None or not source.is_absent:
            return source
        error = source.error
        remedy = f"correct `models` in {self.path}"
        return replace(source, error=type(error)(error.what, where=error.where, remedy=remedy))

    def _contained(self, source: Source) -> Source:
        assert self.path is not None
        if source.has_records:  # the repository could bring good records beside a damaged model
            error = OnnxgainError(
                "holds saved records, and a configuration can only name models",
                where=source.name,
                remedy="name the .onnx files in `models`, or the records on the command line",
            )
            return replace(source, error=error)
        if source.url is None and leads_into(source.path, self.path.parent):
            return source
        error = OnnxgainError(
            "lies outside the folder of the configuration that names it",
            where=source.name,
            remedy="name it on the command line if you trust it",
        )
        return replace(source, error=error)

    def unused(self, models: Sequence[str]) -> list[str]:
        """The patterns of overrides that match no model."""
        folder = self.path.parent if self.path is not None else Path()
        paths = [_relative(model, folder) for model in models]
        listed = [" ".join(patterns) for patterns, _ in self.overrides]
        used = [any(matches(pattern, path) for pattern in p for path in paths) for p, _ in self.overrides]
        return [text for text, is_used in zip(listed, used, strict=True) if not is_used]


def _relative(model: str, folder: Path) -> str:
    """The path relative to a folder, with slashes; unchanged if there is no such path (another drive)."""
    try:
        return Path(os.path.relpath(model, folder)).as_posix()
    except (ValueError, OSError):  # another drive; the current folder was deleted
        return Path(model).as_posix()


def layered(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two layers of parameters; the second takes precedence."""
    hidden = {name for group in _TOGETHER if group & above.keys() for name in group}
    return {name: value for name, value in below.items() if name not in hidden} | dict(above)


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a path with slashes, or only its name if it has no slash. ** matches any folders."""
    names, parts = path.split("/"), pattern.removeprefix("./").split("/")
    return _fits(parts, names[-1:] if len(parts) == 1 else names)


def _fits(parts: Sequence[str], names: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(parts[1:], names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(parts[1:], names[1:])


# ------------------------------------------------------------------------------------------------- reading
def load_config(path: str | None, command: click.Command, context: click.Context) -> Config:
    """Read the configuration at a path, or else the nearest one in this folder and its parents.

    Raises:
        OnnxgainError: it cannot be read, is not TOML, holds an unknown key or a value of the wrong kind, or the given
            file holds no configuration.
    """
    if path is not None:
        table = _gate_table(Path(path))
        if table is None:
            where = "[gate]" if Path(path).name == FILES[0] else "[tool.onnxgain.gate]"
            raise OnnxgainError(f"has no {where}", where=f"--config {path}", remedy="add it, or name another file")
        return _config(Path(path), table, command, context)
    for folder in _searched():
        for name in FILES:
            file = folder / name
            if file.is_file() and (table := _gate_table(file)) is not None:
                if not leads_into(file, folder):
                    raise OnnxgainError(
                        "is a link that leads out of its folder", where=str(file), remedy="copy the file there"
                    )
                return _config(_shown(file), table, command, context)
    return Config()


def _searched() -> Iterator[Path]:
    """This folder and its parents, up to the root of the repository, as long as they have the same owner."""
    try:
        here = Path.cwd()
        owner = here.stat().st_uid
    except OSError:  # the folder was deleted
        return
    for folder in (here, *here.parents):
        try:
            if folder.stat().st_uid != owner:
                return
        except OSError:
            return
        yield folder
        if os.path.lexists(folder / ".git"):
            return


def _shown(file: Path) -> Path:
    """The shortest form of a path: relative if it is in the current folder."""
    return Path(file.name) if file.parent == Path.cwd() else file


def _gate_table(path: Path) -> dict[str, Any] | None:
    """The gate's table in a TOML file; None if it has none."""
    import tomllib

    try:
        document = tomllib.loads(read_text(path, CONFIG_LIMIT).replace("\r\n", "\n"))
        _refuse_long_integers(document)
    except (RecursionError, ValueError) as error:
        raise OnnxgainError(f"is not TOML: {text_problem(error)}", where=str(path), remedy="correct it") from error
    if path.name == FILES[0]:
        _refuse_unknown(document, {"gate"}, str(path))
        table = document.get("gate")
    else:
        tool = document.get("tool", {})
        ours = tool.get("onnxgain", {}) if isinstance(tool, dict) else {}
        if not isinstance(ours, dict):
            raise OnnxgainError("is not a table", where=f"{path}: tool.onnxgain", remedy="write [tool.onnxgain.gate]")
        _refuse_unknown(ours, {"gate"}, f"{path}: tool.onnxgain")
        table = ours.get("gate")
    if table is not None and not isinstance(table, dict):
        raise OnnxgainError("is not a table", where=f"{path}: gate", remedy="write its keys below a heading")
    return table


def _refuse_long_integers(value: Any) -> None:
    """TOML's integers have 64 bits; Python reads longer ones in hexadecimal, but cannot write them."""
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError("an integer of more than 64 bits")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_long_integers(item)


def _config(path: Path, table: dict[str, Any], command: click.Command, context: click.Context) -> Config:
    parameters = configurable(command)
    of_models = {key: p for key, p in parameters.items() if p.name not in RUN_KEYS}
    where = f"{path}: gate"
    top = {key: value for key, value in table.items() if key not in ("models", "overrides")}
    _refuse_unknown(table, {*parameters, "models", "overrides"}, where)
    values = values_of(top, parameters, path, where, context)
    overrides = []
    listed = table.get("overrides", [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise OnnxgainError("is not a list of tables", where=f"{where}.overrides", remedy="write [[...overrides]]")
    for number, entry in enumerate(listed, 1):
        place = f"{where}.overrides {number}"
        _refuse_unknown(entry, {*of_models, "match"}, place)
        patterns = strings(entry.get("match"), f"{place}: match")
        rest = {key: value for key, value in entry.items() if key != "match"}
        overrides.append((patterns, values_of(rest, of_models, path, place, context)))
    models = strings(table["models"], f"{where}.models") if "models" in table else ()
    return Config(
        path=path,
        models=tuple(from_folder(path, model, f"{where}.models") for model in models),
        run={name: value for name, value in values.items() if name in RUN_KEYS},
        defaults={name: value for name, value in values.items() if name not in RUN_KEYS},
        overrides=tuple(overrides),
    )


def configurable(command: click.Command) -> dict[str, click.Option]:
    """The options that a configuration may set, by key."""
    return {
        _key(p): p
        for p in command.params
        if isinstance(p, click.Option) and p.name not in _NOT_CONFIGURED and _key(p) not in _COMMAND_LINE_ONLY
    }


def _key(option: click.Option) -> str:
    return max(option.opts, key=len).removeprefix("--")


def _refuse_unknown(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in table:
        if key in _COMMAND_LINE_ONLY:
            raise OnnxgainError(
                f"{key!r} cannot be set in a configuration: {_COMMAND_LINE_ONLY[key]}",
                where=where,
                remedy=f"give --{key} on the command line if you trust it",
            )
        if key not in known:
            (nearest,) = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.0)
            raise OnnxgainError(f"unknown key {key!r}", where=where, remedy=f"the nearest known one is {nearest!r}")
