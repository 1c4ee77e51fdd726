"""`onnxgain gate --init`: sets up the gate for the models of a repository, and overwrites nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.analysis.gate_result import GOOD
from onnxgain.commands.config_values import leads_into, values_of
from onnxgain.commands.gate_commit import commit_of, external_files, files_of_model, is_ignored, other_repository
from onnxgain.commands.gate_config import FILES, RUN_KEYS, configurable
from onnxgain.commands.gate_workflows import PYTHON, WHEEL, github_workflow, gitlab_job, is_plain
from onnxgain.commands.gating import UNMEASURED
from onnxgain.commands.own_package import package_place
from onnxgain.commands.parameters import ByteSize, Draws
from onnxgain.commands.toml_text import toml_text
from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write, command_line
from onnxgain.report.reporter import GateSetup

if TYPE_CHECKING:
    from onnxgain.analysis.gate_result import GateResult
    from onnxgain.commands.gating import Gate
    from onnxgain.fleet.sources import Source

CONFIG = FILES[0]
BASELINE = "gain.json"
GITHUB = ".github/workflows/onnxgain.yml"
GITLAB = ".gitlab-ci.yml"
GITLAB_INCLUDED = ".gitlab/onnxgain.yml"

_FOREIGN = frozenset({"node_modules", "site-packages", "dist-packages", "__pycache__"})
"""Folders of other projects' files."""


class Initialization:
    """The files to write, determined before anything is measured.

    Args:
        given: the parameters on the command line, for the configuration.
        known: a configuration that already applies.

    Raises:
        OnnxgainError: a file already exists, or the gate cannot be set up.
    """

    def __init__(self, command: click.Command, given: Mapping[str, Any], known: Path | None) -> None:
        self.folder = Path.cwd()
        self.root = next((f for f in (self.folder, *self.folder.parents) if os.path.lexists(f / ".git")), None)
        self.command = command
        self.given = given
        self.baseline = str(given.get("baseline") or BASELINE)
        top = self.root or self.folder
        self.below = self.folder.relative_to(top).as_posix() if top != self.folder else ""
        self.workflows = _workflows(top)
        wheels = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.glob("*/onnxgain-*.whl"))
        self.wheel = next(filter(is_plain, wheels), WHEEL)
        files = [self.folder / CONFIG, self.folder / self.baseline, *(top / name for name in self.workflows)]
        self._refuse(command, files, known)

    def _refuse(self, command: click.Command, files: Sequence[Path], known: Path | None) -> None:
        there = [os.path.relpath(path) for path in files if os.path.lexists(path)]
        if known is not None and known.name not in there:
            there.insert(0, str(known))
        if there:
            raise OnnxgainError(
                f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already, and nothing is overwritten",
                where="gate --init",
                remedy="edit what is there, or delete it and run this again",
            )
        if not leads_into(self.folder / self.baseline, self.folder):
            raise OnnxgainError(
                "is outside this folder", where=f"--baseline {self.baseline}", remedy="name a file in it"
            )
        if not is_plain(self.below):
            raise OnnxgainError(
                f"the path {self.below!r} holds characters that a workflow cannot take as they are",
                where="gate --init",
                remedy="run it in the root of the repository",
            )
        for name in self.given.keys() - RUN_KEYS - {option.name for option in configurable(command).values()}:
            raise OnnxgainError(
                "cannot stand in a configuration, so the workflow would not have it",
                where=f"--{name.replace('_', '-')}",
                remedy="leave it out, and write the workflow by hand",
            )
        self._refuse_values()

    def _refuse_values(self) -> None:
        """Raise if the configuration that would be written could not be read."""
        import tomllib

        table = tomllib.loads(self._config([]))["gate"]
        del table["models"]
        try:
            values_of(table, configurable(self.command), Path(CONFIG), "gate", click.Context(self.command))
        except OnnxgainError as error:
            key = (error.where or "").rpartition(".")[2]
            remedy = "a configuration takes only files in its own folder; copy it there"
            raise OnnxgainError(
                error.what, where=f"--{key}", remedy=remedy if "folder" in error.what else error.remedy
            ) from error

    def found(self, sources: Iterable[Source]) -> list[Source]:
        """The repository's own sources, without those in folders of other projects.

        Raises:
            OnnxgainError: there are none.
        """
        own = [source for source in sources if source.error is None and not self._is_foreign(source.path)]
        if not own:
            raise OnnxgainError(
                "there is no .onnx file in this folder or below",
                where="gate --init",
                remedy="export a model and run this again; `onnxgain demo` shows what a gate does",
            )
        return [replace(source, index=index) for index, source in enumerate(own)]

    def _is_foreign(self, path: Path) -> bool:
        if _FOREIGN & set(path.parts):
            return True
        return any((folder / "pyvenv.cfg").exists() for folder in path.parents)

    def complete(self, gate: Gate, named: bool, warn: Callable[[str], object]) -> tuple[list[GateResult], GateSetup]:
        """Measure and write the files. Returns the results of the gated models, and what was done.

        Args:
            named: whether the command line names the models, so that none may be left out.

        Raises:
            OnnxgainError: a named model cannot be gated, or no model can. Nothing is written then.
        """
        results = gate.run()
        if any(subject.error == UNMEASURED for subject in gate.subjects):
            raise click.Abort
        reasons = {result.model: self._reason(result, named) for result in results}
        left_out = [(model, reason) for model, reason in reasons.items() if reason is not None]
        if left_out and (named or len(left_out) == len(results)):
            for model, reason in left_out:
                warn(f"{model}: {reason.removeprefix(f'{model}: ')}")
            what = f"{len(left_out)} of {_count(len(results))} cannot be gated, so nothing was written"
            raise OnnxgainError(what, where="gate --init", remedy="see above what each of them needs")
        kept = [result for result in results if reasons[result.model] is None]
        names = [result.model for result in kept]
        models = _folders(names)
        self._write(kept, models)
        done = [(CONFIG, f"gates {', '.join(models[:3])}{' and others' if len(models) > 3 else ''}")]
        done += [(self.baseline, f"the baseline: gain and answers of {_count(len(kept))}")]
        done += [(name, "runs the gate on every change that is proposed") for name in self.workflows]
        steps = (*self._next(gate, names), *self._later(left_out))
        return kept, GateSetup(tuple(done), self._assumptions(kept), tuple(left_out), steps)

    def _reason(self, result: GateResult, named: bool) -> str | None:
        """The reason that a model is left out; None if it is not."""
        if result.verdict not in GOOD:
            return "; ".join(check.message for check in result.failed)
        if not leads_into(result.model, self.folder):
            return "it lies outside this folder"
        if self.root is None:
            return None
        if (other := other_repository(Path(result.model), self.root)) is not None:
            return f"it lies in another repository, {os.path.relpath(other)}, which the workflow does not check out"
        if named:
            return None
        if is_ignored(result.model):
            tracked = Path(f"{result.model}.dvc").exists()
            return "DVC has it, not git: let the workflow run `dvc pull`, and name it" if tracked else "git ignores it"
        weights = [os.path.relpath(file) for file in external_files(Path(result.model)) if is_ignored(file)]
        return f"git ignores {', '.join(weights)}, with its weights" if weights else None

    def _write(self, results: Sequence[GateResult], models: Sequence[str]) -> None:
        """Write all of the files or none."""
        from onnxgain.analysis.baseline import write_baseline

        written: list[Path] = []
        top = self.root or self.folder
        texts = {self.folder / CONFIG: self._config(models)}
        for name in self.workflows:
            make = github_workflow if name == GITHUB else gitlab_job
            texts[top / name] = make(self.wheel, self.below)
        made: list[Path] = []
        try:
            baseline = self.folder / self.baseline
            _make_folder(baseline.parent, made)
            write_baseline(baseline, [record for result in results for record in result.records])
            written.append(baseline)
            for path, text in texts.items():
                _make_folder(path.parent, made)
                atomic_write(path, text)
                written.append(path)
        except BaseException:
            with suppress(OSError):
                for path in written:
                    path.unlink()
                for folder in reversed(made):
                    folder.rmdir()
            raise

    def _config(self, models: Sequence[str]) -> str:
        table: dict[str, Any] = {"models": list(models), "baseline": Path(self.baseline).as_posix()}
        for key, option in configurable(self.command).items():
            if option.name in self.given and option.name not in _HERE:
                value = self.given[option.name]
                table[key] = str(value) if isinstance(option.type, (ByteSize, Draws)) else value
        return f"# What `onnxgain gate` judges, and by what: see `onnxgain docs gate`.\n[gate]\n{toml_text(table)}"

    def _assumptions(self, results: Sequence[GateResult]) -> tuple[tuple[str, str], ...]:
        host = {GITHUB: "GitHub", GITLAB: "GitLab", GITLAB_INCLUDED: "GitLab"}
        hosts = " and ".join(dict.fromkeys(host[name] for name in self.workflows))
        general = [
            "this folder is a part of the repository" if self.below else "this folder is the whole repository",
            f"{hosts} will run the gate, with Python {PYTHON}",
            f"the package onnxgain will be installed from {self.wheel}",
        ]
        of_models = [(r.model, text) for r in results for record in r.records for text in record.assumptions]
        return (*(("", text) for text in general), *dict.fromkeys(of_models))

    def _next(self, gate: Gate, models: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(purpose, command) from a check of the gate to a commit with everything that the workflow needs."""
        yield "run the gate here", "onnxgain gate"
        if self.root is None:
            yield "make this folder a repository", "git init"
        made_later = [] if (self.folder / self.wheel).exists() else [self.wheel]
        if made_later:
            place = package_place()
            purpose = "make the wheel that the workflow installs"
            purpose += "" if place is not None else "; write the folder of onnxgain's source for CHECKOUT"
            words = ["pip", "wheel", "-q", "--no-deps", "-w", os.path.dirname(self.wheel), place or "CHECKOUT"]  # noqa: PTH120
            yield purpose, command_line(words)
        if GITLAB_INCLUDED in self.workflows:
            yield f"add to {GITLAB}", f"include: {{local: {GITLAB_INCLUDED}}}"
            made_later.append(os.path.relpath((self.root or self.folder) / GITLAB))
        in_dvc = [model for model in models if is_ignored(model) and Path(f"{model}.dvc").exists()]
        if in_dvc:
            purpose = "DVC has what git does not: add this to the workflow, before the gate"
            yield purpose, f"pip install dvc && {command_line(['dvc', 'pull', *in_dvc])}"
        commit = commit_of(self._files(gate, models, in_dvc), self.root or self.folder, later=made_later)
        plain = list(commit.plain)
        if commit.large:
            yield "put files of over 100 MB into Git LFS", command_line(["git", "lfs", "track", *commit.large])
            plain += [] if ".gitattributes" in plain else [".gitattributes"]
        yield "add what the workflow needs", f"git add -- {command_line(plain)}"
        if commit.ignored:
            yield "add what it needs although git ignores it", f"git add -f -- {command_line(commit.ignored)}"
        yield "commit, then push and open a pull request", "git commit -m 'Gate models with onnxgain'"

    def _files(self, gate: Gate, models: Sequence[str], in_dvc: Sequence[str]) -> list[Path]:
        """The files that the workflow reads."""
        top = self.root or self.folder
        written = [self.folder / CONFIG, self.folder / self.baseline, *(top / name for name in self.workflows)]
        written += [self.folder / self.wheel] if (self.folder / self.wheel).exists() else []
        read = [file for model in models if model not in in_dvc for file in files_of_model(Path(model))]
        read += [Path(f"{model}.dvc") for model in in_dvc]
        gate = replace(gate, subjects=[subject for subject in gate.subjects if subject.name in models])
        return [*written, *read, *(file for file in gate.inputs([], None) if file.exists())]

    def _later(self, left_out: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """(purpose, command) for the models that could be gated with other options."""
        wanting: dict[tuple[str, ...], list[str]] = {}
        for model, reason in left_out:
            if options := tuple(dict.fromkeys(re.findall(r"--([a-z][a-z-]+)", reason))):
                wanting.setdefault(options, []).append(model)
        for options, models in wanting.items():
            files = [CONFIG, self.baseline, *(os.path.relpath(f) for m in models for f in files_of_model(Path(m)))]
            update = command_line(["onnxgain", "gate", *models, "--update-baseline"])
            purpose = f"to gate the rest too, add it to {CONFIG} with {', '.join(options)}, then"
            yield purpose, f"{update} && git add -- {command_line(files)}"


_HERE = frozenset({"baseline", "jobs", "cache", "no_cache"})
"""Options that only affect this run, or that the configuration has anyway."""


def _workflows(top: Path) -> list[str]:
    """The workflow files for the hosts detected from the repository's files."""
    found = []
    if (top / GITLAB).exists():
        found.append(GITLAB_INCLUDED)
    elif (top / ".gitlab").is_dir():
        found.append(GITLAB)
    if not found or (top / ".github" / "workflows").is_dir():
        found.append(GITHUB)
    return found


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Create a folder and its parents, and record which ones were created."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    for one in reversed(missing):
        try:
            one.mkdir()
        except OSError as error:
            raise OnnxgainError(
                f"cannot be made: {error.strerror}", where=str(one), remedy="check the folder's permissions"
            ) from error
        made.append(one)


def _folders(models: Sequence[str]) -> list[str]:
    """The names for the configuration: a folder if the gate would find just these models in it, else files."""
    from onnxgain.fleet.sources import collect_models

    paths = [Path(os.path.relpath(model)).as_posix() for model in models]
    named: list[str] = []
    for path in paths:
        folder = f"{path.partition('/')[0]}/"
        whole = "/" in path and folder not in named
        if whole:
            found = (source.path for source in collect_models([folder], notice=lambda _: None))
            whole = {Path(os.path.relpath(file)).as_posix() for file in found} <= set(paths)
        named.append(folder if whole or folder in named else path)
    return list(dict.fromkeys(named))


def _count(models: int) -> str:
    return f"{models} model{'s' if models != 1 else ''}"
