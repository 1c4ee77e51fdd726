"""`onnxgain gate --init`: sets up the gate for the models of a repository, and overwrites nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.analysis.gate_result import GOOD
from onnxgain.commands.config_values import leads_into
from onnxgain.commands.gate_config import FILES, RUN_KEYS, configurable
from onnxgain.commands.gate_workflows import PYTHON, WHEEL, github_workflow, gitlab_job, is_plain
from onnxgain.commands.gating import UNMEASURED
from onnxgain.commands.model_history import git
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
        models = self._folders(names, [model for model, _ in left_out])
        self._write(kept, models)
        done = [(CONFIG, f"gates {', '.join(models[:3])}{' and others' if len(models) > 3 else ''}")]
        done += [(self.baseline, f"the baseline: gain and answers of {_count(len(kept))}")]
        done += [(name, "runs the gate on every change that is proposed") for name in self.workflows]
        setup = GateSetup(tuple(done), self._assumptions(kept), tuple(left_out), self._next(left_out))
        return kept, setup

    def _reason(self, result: GateResult, named: bool) -> str | None:
        """The reason that a model is left out; None if it is not."""
        if result.verdict not in GOOD:
            return "; ".join(check.message for check in result.failed)
        if not leads_into(result.model, self.folder):
            return "it lies outside this folder"
        if not named and self.root is not None and _ignored(result.model):
            tracked = Path(f"{result.model}.dvc").exists()
            return "DVC has it, not git: let the workflow run `dvc pull`, and name it" if tracked else "git ignores it"
        return None

    def _folders(self, models: Sequence[str], left_out: Sequence[str]) -> list[str]:
        """The names for the configuration: a folder if all models in it are gated, else files."""
        named: list[str] = []
        for model in models:
            top = Path(os.path.relpath(model)).parts
            folder = f"{top[0]}/"
            whole = len(top) > 1 and not any(Path(os.path.relpath(other)).parts[0] == top[0] for other in left_out)
            named.append(folder if whole else Path(*top).as_posix())
        return list(dict.fromkeys(named))

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

    def _next(self, left_out: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        top = os.path.relpath(self.root or self.folder)
        files = [CONFIG, self.baseline, *(os.path.normpath(f"{top}/{name}") for name in self.workflows)]
        steps = [("run the gate here", "onnxgain gate")]
        if not (self.folder / self.wheel).exists():
            command = f"pip wheel --no-deps -w {os.path.dirname(self.wheel)} CHECKOUT"  # noqa: PTH120
            steps.append(("put a wheel there, made from a checkout of onnxgain", command))
            files.append(self.wheel)
        if GITLAB_INCLUDED in self.workflows:
            steps.append((f"add to {GITLAB}", f"include: {{local: {GITLAB_INCLUDED}}}"))
        steps.append(("commit, and open a pull request", f"git add {command_line(files)}"))
        if left_out:
            named = dict.fromkeys(re.findall(r"--([a-z][a-z-]+)", " ".join(reason for _, reason in left_out)))
            keys = f", with {', '.join(named)}" if named else ""
            steps.append((f"add what was left out to {CONFIG}{keys}, then", "onnxgain gate MODEL --update-baseline"))
        return tuple(steps)


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


def _ignored(model: str) -> bool:
    """Whether git ignores a file; False if git is not installed."""
    return git("check-ignore", "--quiet", "--", model) is not None


def _count(models: int) -> str:
    return f"{models} model{'s' if models != 1 else ''}"
