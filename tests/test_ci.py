"""The README's test command equals that of the project's own check, and the workflow runs the check."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "run"


def test_the_check_runs_the_test_command_of_the_readme() -> None:
    readme, script = (ROOT / "README.md").read_text(encoding="utf-8"), SCRIPT.read_text(encoding="utf-8")
    commands = re.findall(r"^python -m venv \.venv && (.*pytest.*)$", readme, re.MULTILINE)
    assert len(commands) == 1
    install, test = commands[0].replace(".venv/bin", "$bin").split(" && ")
    assert f"\n{install} || exit 1\n" in script
    assert f"\ncheck {test}\n" in script
    assert '"$python" -m venv --clear $venv || exit 1' in script


def test_the_check_can_be_run() -> None:
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_check_fails_where_a_check_fails(tmp_path: Path) -> None:
    """With fakes of Python and the tools: mypy fails, everything else passes; ray cannot be installed."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci" / "run")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python").write_text(
        "#!/bin/sh\nmkdir -p .ci-venv/bin\nfor tool in pip pytest ruff mypy; do cp tools/$tool .ci-venv/bin/; done\n"
    )
    (tools / "chromium").write_text("#!/bin/sh\n")
    for name, code in {
        "pip": '[ "$4" != ray ] || { echo one; echo no ray; exit 1; }',
        "pytest": 'echo "options$PYTEST_ADDOPTS"',
        "ruff": ":",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{code}\n")
    (tools / "mypy").write_text("#!/bin/sh\nexit 1\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = {"PYTHON": "tools/python", "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(tmp_path / ".ci" / "run")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "options -rs -n auto" in done.stdout
    assert done.stdout.endswith("skipped: compare --ray: ray cannot be installed: no ray\nmypy failed\n")
    (tools / "mypy").write_text("#!/bin/sh\n")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "all checks passed" in done.stdout


def test_the_workflow_runs_the_check_everywhere() -> None:
    text = (ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8")
    assert "- run: .ci/run" in text
    for name in ("ubuntu", "macos", "windows"):
        assert f"{name}-latest" in text
    requires = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert re.findall(r'"(3\.\d+)"', text) == requires
