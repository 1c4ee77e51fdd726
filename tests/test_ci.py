"""The README's test command and the project's own check are one and the same."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_check_runs_the_readmes_test_command() -> None:
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    commands = re.findall(r"^python -m venv \.venv && (.*pytest)$", readme, re.MULTILINE)
    assert len(commands) == 1
    install, test = commands[0].replace(".venv/", "$venv/").split(" && ")
    assert f"    {install} ||" in script
    assert f"\ncheck {test}\n" in script
    assert '"$python" -m venv --clear $venv &&' in script


def test_the_check_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
