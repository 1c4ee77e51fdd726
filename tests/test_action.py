"""The GitHub action: runs its steps as a runner would, with fakes for everything that needs the network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest

from onnxgain.commands.cli import cli
from tests.support import models

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="no bash"),
    pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts"),
]

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".github" / "actions" / "gate"
ACTION = yaml.safe_load((FOLDER / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]

NOT_INPUTS = {"format", "out", "write", "update-baseline", "init", "no-cache", "help"}
"""Options that are not inputs: the action sets them, or they are for people at a terminal."""
OWN = {"models", "onnxgain", "python-version", "working-directory", "comment", "cache", "token"}
"""Inputs that are not options, or not the option with the same name."""


def test_every_option_is_an_input() -> None:
    options = {
        max(p.opts, key=len).removeprefix("--") for p in cli.commands["gate"].params if isinstance(p, click.Option)
    }
    assert sorted((options - NOT_INPUTS) ^ (set(ACTION["inputs"]) - OWN | {"cache"})) == []
    assert all(ACTION["inputs"][name]["default"] == "" for name in options - NOT_INPUTS - {"cache"})
    assert all(entry["description"].endswith(".") for entry in ACTION["inputs"].values())


def test_no_input_becomes_part_of_a_script() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert len(scripts) == 3
    assert [script for script in scripts if "${{" in script] == []


def test_no_module_of_the_repository_is_imported() -> None:
    for step in STEPS:
        for line in re.findall(r".*python.*", step.get("run", "")):
            assert re.search(r'python"? -I ', line), line


# ----------------------------------------------------------------------------------------------------- a runner
GH = """#!/bin/sh
echo "$*" >> "$FAKES/gh.log"
case "$*" in
*--silent*) [ -z "$FORK" ] || exit 1 ;;
*) [ ! -f "$FAKES/comment" ] || cat "$FAKES/comment" ;;
esac
"""
PYTHON = """#!/bin/sh
[ "$1 $2 $3" = "-I -m venv" ] || exec {python} "$@"
mkdir -p "$4/bin"
cat > "$4/bin/python" <<'END'
#!/bin/sh
if [ "$1 $2 $3" = "-I -m pip" ]; then shift 3; echo "$*" >> "$FAKES/pip.log"; exit; fi
exec {python} "$@"
END
chmod +x "$4/bin/python"
"""


@dataclass
class Runner:
    """Runs the action's steps with fakes of `python -m venv`, pip and gh that record their arguments."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fakes = self.folder / "fakes"
        fakes.mkdir()
        for name, text in {"gh": GH, "python": PYTHON.format(python=sys.executable)}.items():
            (fakes / name).write_text(text)
            (fakes / name).chmod(0o755)
        (self.folder / "work").mkdir()
        (self.folder / "temporary").mkdir()
        self.environment = {
            "PATH": f"{fakes}{os.pathsep}{os.environ['PATH']}", "FAKES": str(fakes), "HOME": str(self.folder),
            "GITHUB_ACTION_PATH": str(FOLDER), "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_REPOSITORY": "owner/name", "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "RUNNER_TEMP": str(self.folder / "temporary"), "GITHUB_OUTPUT": str(self.folder / "outputs"),
            **{k: v for k, v in os.environ.items() if k in ("LD_LIBRARY_PATH", "OMP_NUM_THREADS")},
        }  # fmt: skip

    @property
    def workspace(self) -> Path:
        return self.folder / "work"

    def log(self, name: str) -> list[str]:
        path = self.folder / "fakes" / f"{name}.log"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, inputs: dict[str, str]) -> list[tuple[str, int, str]]:
        """(name, exit code, standard output) of the steps; after a failed step, only those with always() run."""
        given = {name: str(entry.get("default", "")) for name, entry in ACTION["inputs"].items()} | inputs
        (self.folder / "outputs").write_text("")
        done: list[tuple[str, int, str]] = []
        for step in STEPS:
            failed = any(code for _, code, _ in done)
            if "run" not in step or not self._wanted(step, given, failed):
                continue
            own = {name: self._value(str(text), given) for name, text in step.get("env", {}).items()}
            finished = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.workspace, env={**self.environment, **own}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            done.append((step["name"], finished.returncode, finished.stdout + finished.stderr))
            lines = (self.folder / "outputs").read_text().splitlines()
            self.outputs = dict(line.split("=", 1) for line in lines)
        return done

    def _wanted(self, step: dict[str, Any], inputs: dict[str, str], failed: bool) -> bool:
        condition = step.get("if", "")
        if failed and "always()" not in condition:
            return False
        known = {
            "always()": True, "inputs.comment == 'true'": inputs["comment"] == "true",
            "inputs.cache == 'true'": inputs["cache"] == "true", "github.event.pull_request": True,
            "steps.gate.outputs.exit-code != ''": "exit-code" in self.outputs,
        }  # fmt: skip
        return all(known[part] for part in condition.split(" && ") if part)

    def _value(self, text: str, inputs: dict[str, str]) -> str:
        known = {
            "toJSON(inputs)": json.dumps(inputs), "runner.temp": str(self.folder / "temporary"),
            "github.event.pull_request.number": "7", "inputs.token": "secret",
        }  # fmt: skip
        known |= {f"inputs.{name}": value for name, value in inputs.items() if name != "token"}
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: known[match[1]], text)


@pytest.fixture
def runner(tmp_path: Path, own_cache: Path) -> Runner:
    made = Runner(tmp_path)
    models.save(models.conv_net(), made.workspace / "a.onnx")
    return made


def test_a_model_that_passes(runner: Runner) -> None:
    steps = runner.run({"models": "a.onnx", "max-gain": "90"})
    assert [(name, code) for name, code, _ in steps] == [("install", 0), ("gate", 0), ("comment", 0)], steps
    assert runner.log("pip") == [f"install -q --no-compile {FOLDER}/../../..[cpu]"]
    folder = runner.folder / "temporary" / "onnxgain"
    assert runner.outputs == {"exit-code": "0", "verdict": "pass", "folder": str(folder)}
    assert {"gate.json", "gate.md", "gate.xml", "metrics.json", "cache"} <= set(os.listdir(folder))
    assert "onnxgain gate: PASS" in (runner.folder / "summary.md").read_text()
    comments = "repos/owner/name/issues/7/comments"
    assert runner.log("gh")[0].startswith(f"api --paginate {comments} --jq .[] | select(")
    assert runner.log("gh")[1:] == [f"api --silent {comments} -F body=@{folder}/gate.md"]
    assert "secret" not in "".join(out for _, _, out in steps)


def test_its_own_comment_is_edited(runner: Runner) -> None:
    (runner.folder / "fakes" / "comment").write_text("https://api/comments/3\nhttps://api/comments/4\n")
    runner.run({"models": "a.onnx", "max-gain": "90"})
    assert runner.log("gh")[1].startswith("api --silent --method PATCH https://api/comments/3 -F body=@")


def test_a_fork_may_not_comment_and_passes_all_the_same(runner: Runner) -> None:
    runner.environment["FORK"] = "yes"
    steps = runner.run({"models": "a.onnx", "max-gain": "90"})
    assert steps[-1][:2] == ("comment", 0)
    assert steps[-1][2].startswith("::warning::the comment could not be written")


@pytest.mark.parametrize(
    ("inputs", "code", "verdict"),
    [
        ({"models": "a.onnx", "max-gain": "-90"}, 1, "fail"),
        ({"models": "a.onnx\nnone.onnx", "max-gain": "90"}, 2, "error"),
        ({"models": "a.onnx"}, 2, "error"),
        ({"models": "a.onnx", "max-gain": "nonsense"}, 2, "error"),
        ({"models": "a.onnx", "max-gain": "90", "verified": "maybe"}, 2, "error"),
    ],
)
def test_what_does_not_pass_fails_the_job(inputs: dict[str, str], code: int, verdict: str, runner: Runner) -> None:
    steps = runner.run(inputs)
    assert steps[1][:2] == ("gate", code)
    assert runner.outputs["verdict"] == verdict
    assert [name for name, _, _ in steps[2:]] == ["comment"]


@pytest.mark.parametrize(
    ("inputs", "configuration", "problem"),
    [
        ({"models": "a.onnx", "max-gain": "9%nonsense"}, "", "'9%nonsense' is not a valid float"),
        (
            {"models": "a.onnx", "max-gain": "9", "verified": "maybe"},
            "",
            "input verified: is 'maybe', neither true nor",
        ),
        ({}, "", "onnxgain gate --init"),
        ({"models": "a.onnx"}, "[gate]\ncustom-ops = ['@all.so']\n", "'custom-ops' cannot be set in a configuration"),
    ],
)
def test_a_gate_that_cannot_begin_says_so_everywhere(
    inputs: dict[str, str], configuration: str, problem: str, runner: Runner
) -> None:
    """Otherwise the comment would be that of an earlier run, which may have passed."""
    comment = runner.folder / "fakes" / "comment"
    comment.write_text("https://api/comments/3\n")
    runner.run({"models": "a.onnx", "max-gain": "90"})
    (runner.workspace / "onnxgain.toml").write_text(configuration)
    (runner.folder / "summary.md").write_text("")
    steps = runner.run(inputs)
    assert [(name, code) for name, code, _ in steps] == [("install", 0), ("gate", 2), ("comment", 0)]
    (shown,) = [line for line in steps[1][2].splitlines() if line.startswith("::error title=onnxgain gate::")]
    assert problem.replace("%", "%25") in shown
    text = (runner.folder / "temporary" / "onnxgain" / "gate.md").read_text()
    assert text.startswith("<!-- onnxgain gate -->\n\n### onnxgain gate: ERROR: no model was judged\n")
    assert re.sub(r"\\(.)", r"\1", text).count(problem) == 1 and not re.search(r"(?<!\\)@", text)
    assert (runner.folder / "summary.md").read_text() == text
    assert runner.log("gh")[-1].startswith("api --silent --method PATCH https://api/comments/3 -F body=@")


def test_inputs_are_arguments_whatever_they_hold(runner: Runner) -> None:
    hostile = ["$(touch ran)", "`touch ran`", "; touch ran", "--update-baseline", '"', "-x.onnx"]
    for name in ("-x.onnx", "$(touch ran)"):
        models.save(models.conv_net(), runner.workspace / name)
    steps = runner.run({"models": "\n".join(hostile), "baseline": "$(touch ran)", "onnxgain": "$(touch ran)"})
    assert steps[1][1] == 2
    assert runner.log("pip") == ["install -q --no-compile $(touch ran)[cpu]"]
    document = json.loads((runner.folder / "temporary" / "onnxgain" / "gate.json").read_text())
    assert [model["model"] for model in document["models"]] == hostile
    assert sorted(os.listdir(runner.workspace)) == sorted(["a.onnx", "-x.onnx", "$(touch ran)"])


def test_a_module_of_the_repository_is_not_run(runner: Runner) -> None:
    for name in ("pip", "venv", "json", "onnxgain", "click", "sitecustomize", "gate"):
        (runner.workspace / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit(0)\n")
    steps = runner.run({"models": "a.onnx", "max-gain": "-90"})
    assert steps[1][:2] == ("gate", 1)
    assert not (runner.workspace / "ran").exists()


def test_flags_lists_and_a_folder(runner: Runner) -> None:
    (runner.workspace / "part").mkdir()
    shutil.move(runner.workspace / "a.onnx", runner.workspace / "part" / "a.onnx")
    inputs = {"stimulus": "impulse\nnoise:seed=1\n", "per-channel": "true", "same-class": "false", "max-gain": "90"}
    runner.run({"models": "a.onnx", "working-directory": "part", "comment": "false", "cache": "false", **inputs})
    assert runner.outputs["verdict"] == "pass"
    document = json.loads((runner.folder / "temporary" / "onnxgain" / "gate.json").read_text())
    (model,) = document["models"]
    assert model["policy"]["per_channel"] is True
    assert [measured["stimulus"] for measured in model["measurements"]] == ["impulse", "noise:seed=1"]
    assert runner.log("gh") == []
    assert not (runner.folder / "temporary" / "onnxgain" / "cache").exists()


def test_results_of_an_earlier_run_do_not_stay(runner: Runner) -> None:
    runner.run({"models": "a.onnx", "max-gain": "90"})
    runner.run({"models": "a.onnx", "max-gain": "nonsense"})
    assert runner.outputs["verdict"] == "error"
    folder = runner.folder / "temporary" / "onnxgain"
    assert "PASS" not in (folder / "gate.md").read_text()
    assert not (folder / "gate.json").exists()
