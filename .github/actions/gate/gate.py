"""Runs `onnxgain gate` with the inputs of the action, which stand as JSON in INPUTS. Writes the action's outputs.

Values reach the command as arguments and pass no shell, whatever they hold.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from pathlib import Path

import click

from onnxgain.commands.cli import cli, main
from onnxgain.errors import OnnxgainError
from onnxgain.report.text.gate_markdown import MARKER
from onnxgain.report.text.github import annotation
from onnxgain.report.text.markdown import escaped

FILES = {"json": "gate.json", "markdown": "gate.md", "junit": "gate.xml", "metrics": "metrics.json"}


def arguments(inputs: Mapping[str, str]) -> Iterator[str]:
    """The arguments that inputs of the options' names amount to; empty ones are not given.

    Raises:
        OnnxgainError: a flag that is neither true nor false.
    """
    for option in cli.commands["gate"].params:
        name = max(option.opts, key=len).removeprefix("--")
        value = inputs.get(name, "").strip()
        if not isinstance(option, click.Option) or not value or name == "cache":
            continue
        if option.is_flag:
            if value not in ("true", "false"):
                raise OnnxgainError(f"is {value!r}, neither true nor false", where=f"input {name}")
            yield from [f"--{name}"] if value == "true" else option.secondary_opts
        else:
            yield from (f"--{name}={line}" for line in _lines(value, option.multiple))
    yield "--"
    yield from _lines(inputs.get("models", ""), True)


def _lines(value: str, several: bool) -> list[str]:
    return [line.strip() for line in value.splitlines() if line.strip()] if several else [value]


def run(inputs: Mapping[str, str], work: Path) -> int:
    """Gate, and write the results to a folder; the exit code."""
    for name in FILES.values():
        (work / name).unlink(missing_ok=True)
    kept = f"--cache={work / 'cache'}" if inputs.get("cache") == "true" else "--no-cache"
    writes = [f"--write={form}={work / name}" for form, name in FILES.items()]
    code, said = 2, io.StringIO()
    try:
        with redirect_stderr(said):
            main(["gate", "--format=github", kept, *writes, *arguments(inputs)])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 2
    except OnnxgainError as error:
        said.write(f"error: {error}\n")
    sys.stderr.write(said.getvalue())
    if code and not (work / FILES["markdown"]).exists():
        _report(said.getvalue(), work)
    return code


def _report(said: str, work: Path) -> None:
    """Annotate, and write the job summary and the comment, where the command ended before it judged anything.

    Without it, the pull request would keep the comment of an earlier run, which may say that all is well."""
    problems = [line.removeprefix("error: ") for line in said.splitlines() if line.startswith("error: ")]
    problem = problems[-1] if problems else "the command ended without a result; see the log of this step"
    print(annotation("error", "onnxgain gate", problem))
    text = f"{MARKER}\n\n### onnxgain gate: ERROR: no model was judged\n\n{escaped(problem)}\n"
    (work / FILES["markdown"]).write_text(text, encoding="utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)


def _verdict(work: Path) -> str:
    try:
        return str(json.loads((work / FILES["json"]).read_text(encoding="utf-8"))["verdict"])
    except (OSError, ValueError, KeyError):
        return "error"  # the command could not even begin


if __name__ == "__main__":
    folder = Path(os.environ["WORK"])
    code = run(json.loads(os.environ["INPUTS"]), folder)
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as outputs:
        outputs.write(f"exit-code={code}\nverdict={_verdict(folder)}\nfolder={folder}\n")
    sys.exit(code)
