"""Files of this project for other tools: pre-commit's hook and DVC's recipe, run by these tools, and GitLab's job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands.gate_workflows import github_workflow, gitlab_job
from tests.support import models

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
ROOT = Path(__file__).parent.parent

needs_bash = pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="no bash")


# --------------------------------------------------------------------------------------------------- pre-commit
def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def committed(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all", "--no-verify")
    return git(folder, "rev-parse", "HEAD")


def test_the_hook_ends_its_options() -> None:
    """A file name that begins with a dash is not taken for an option, and the user's arguments come before it."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["entry"], hook["args"], hook["require_serial"]) == ("onnxgain gate", ["--"], True)
    assert re.search(hook["files"], "a/b.onnx") and not re.search(hook["files"], "a/b.onnx.md")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.skipif(sys.platform == "win32", reason="the environment is found by PYTHONPATH")
def test_the_hook_gates_what_a_commit_changes(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pre_commit", reason="pre-commit is not installed")
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    hooks = tmp_path / "onnxgain"
    hooks.mkdir()
    for name in ("onnxgain", "models"):
        shutil.copytree(ROOT / name, hooks / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".pre-commit-hooks.yaml", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, hooks / name)
    revision = committed(hooks)
    project = tmp_path / "project"
    project.mkdir()
    for name in ("a.onnx", "-x.onnx"):
        models.save(models.conv_net(), project / name)
    (project / "onnxgain.toml").write_text("[gate]\nmax-gain = 90\n")
    (project / ".pre-commit-config.yaml").write_text(
        f"repos:\n  - repo: {hooks}\n    rev: {revision}\n    hooks:\n      - id: onnxgain-gate\n"
    )
    committed(project)
    # pre-commit installs the clone in an environment of its own; without a network, from the packages installed here.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([sysconfig.get_path("purelib"), *filter(os.path.isdir, sys.path)]))
    for name, value in {"NO_INDEX": "1", "NO_BUILD_ISOLATION": "0", "NO_DEPS": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pre_commit", "run", "--verbose", *arguments]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, out = run("--all-files")
    assert code == 0, out
    assert "PASS: 2 models passed" in out
    (project / "onnxgain.toml").write_text("[gate]\nmax-gain = -90\n")
    code, out = run("--files", "a.onnx", "onnxgain.toml")
    assert code == 1 and "FAIL  a.onnx" in out, out
    assert "no files to check" in run("--files", "onnxgain.toml")[1]


# ---------------------------------------------------------------------------------------------------------- DVC
DVC = shutil.which("dvc", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))


@pytest.mark.skipif(DVC is None or shutil.which("git") is None, reason="dvc is not installed")
def test_dvc_shows_what_changed(tmp_path: Path, run: Any, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "onnxgain" / "docs" / "gate.md").read_text(encoding="utf-8")
    recipe = page.partition("# dvc.yaml\n")[2].partition("```")[0]
    commands = [line.partition("# onnxgain ")[2] for line in recipe.splitlines() if "# onnxgain " in line]
    assert len(commands) == 2
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}

    def dvc(*arguments: str) -> str:
        command = [str(DVC), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def measured(margin: float) -> None:
        (tmp_path / "models").mkdir(exist_ok=True)
        models.save(models.conv_net(margin=margin), tmp_path / "models" / "a.onnx")
        for command in commands:
            asked = command.replace("gate", "gate models --max-gain 90")
            assert run(*asked.split())[0] == 0, asked

    (tmp_path / "dvc.yaml").write_text(recipe)
    git(tmp_path, "init", "-q")
    dvc("init", "-q")
    measured(0.0)
    committed(tmp_path)
    measured(1.0)
    (changed,) = json.loads(dvc("metrics", "diff", "--json")).values()
    assert changed["a.onnx.impulse.gain_mean_db"]["diff"] != 0
    shown = json.loads(dvc("plots", "diff", "--json"))["data"]["gains.csv"]
    values = [row for plot in shown for row in plot["content"]["data"]["values"]]
    assert {row["rev"] for row in values} == {"HEAD", "workspace"}
    assert len({row["gain_mean_db"] for row in values}) == 2


# ------------------------------------------------------------------------------------------------------- GitLab
FAKE = '#!/bin/sh\necho "$(pwd): $(basename "$0") $*" >> "$LOG"\n'


def gitlab(text: str, inputs: dict[str, str]) -> dict[str, Any]:
    """The jobs of a GitLab CI file, with inputs filled in if its header declares them."""
    header, _, body = text.partition("\n---\n")
    if body:
        declared = yaml.safe_load(header)["spec"]["inputs"]
        assert not inputs.keys() - declared.keys()
        values = {name: str(entry["default"]) for name, entry in declared.items() if "default" in entry} | inputs
        assert values.keys() == declared.keys(), "an input without a default must be given"
        text = re.sub(r"\$\[\[ inputs\.(\w+) \]\]", lambda match: values[match[1]], body)
    jobs: dict[str, Any] = yaml.safe_load(text)
    return jobs


@needs_bash
@pytest.mark.parametrize("folder", [".", "part"])
@pytest.mark.parametrize("kind", ["included", "written"])
def test_the_gitlab_job_runs(kind: str, folder: str, tmp_path: Path) -> None:
    wheel = "./tools/onnxgain-0.1.0-py3-none-any.whl"
    if kind == "included":
        text = (ROOT / ".gitlab" / "gate.yml").read_text()
        jobs = gitlab(text, {"onnxgain": wheel, "folder": folder, "job": "models"})
    else:
        jobs = gitlab(gitlab_job(folder="" if folder == "." else folder), {})
    (job,) = jobs.values()
    assert list(jobs) == ["models" if kind == "included" else "onnxgain"]
    assert not any("[[" in line or "inputs" in line for line in job["script"])
    (tmp_path / "part").mkdir()
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for name in ("pip", "onnxgain"):
        (fakes / name).write_text(FAKE)
        (fakes / name).chmod(0o755)
    environment = {"PATH": f"{fakes}{os.pathsep}{os.environ['PATH']}", "LOG": str(tmp_path / "log"), **job["variables"]}
    script = "set -eo pipefail\n" + "\n".join(job["script"])
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
    place = tmp_path if folder == "." else tmp_path / folder
    assert (tmp_path / "log").read_text().splitlines() == [
        f"{place}: pip install --no-compile {wheel}[cpu]",
        f"{place}: onnxgain gate --write junit=gate.xml --write markdown=gate.md",
    ]
    report = job["artifacts"]["reports"]["junit"]
    assert Path(os.path.normpath(tmp_path / report)) == place / "gate.xml"
    assert job["artifacts"]["when"] == "always", "a gate that fails has a report too"


# ------------------------------------------------------------------------------------------------------- GitHub
@needs_bash
@pytest.mark.parametrize("judged", [True, False])
def test_the_workflow_replaces_its_comment_whatever_happened(judged: bool, tmp_path: Path) -> None:
    """A gate that could not begin writes no gate.md; the comment of an earlier run would say that all is well."""
    (job,) = yaml.safe_load(github_workflow())["jobs"].values()
    (step,) = [step for step in job["steps"] if step.get("name") == "comment"]
    assert step["if"] == "always()"
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    (fakes / "gh").write_text(
        '#!/bin/sh\ncase "$*" in *--silent*) echo "$*" > "$LOG"; cp gate.md sent ;; *) echo https://api/3 ;; esac\n'
    )
    (fakes / "gh").chmod(0o755)
    if judged:
        (tmp_path / "gate.md").write_text("the result\n")
    environment = {"PATH": f"{fakes}{os.pathsep}{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "NUMBER": "7"}
    command = ["bash", "-eo", "pipefail", "-c", step["run"]]
    subprocess.run(command, cwd=tmp_path, env=environment | {"GITHUB_REPOSITORY": "owner/name"}, check=True)
    assert (tmp_path / "log").read_text() == "api --silent --method PATCH https://api/3 -F body=@gate.md\n"
    sent = (tmp_path / "sent").read_text()
    expected = "<!-- onnxgain gate -->\n\nonnxgain gate: ERROR, see the log\n"
    assert sent == ("the result\n" if judged else expected)
