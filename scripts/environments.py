"""Virtual environments for programs that cannot live in ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSTALLED = "installed.txt"


def environment(name: str, packages: Sequence[str], folder: Path, python: str = sys.executable) -> Path:
    """The interpreter of an environment that has some packages; makes it where it is missing.

    Args:
        name: of the environment.
        packages: what pip is asked to install.
        folder: where environments are kept.
        python: the interpreter to make it with.

    Raises:
        subprocess.CalledProcessError: the packages do not install.
    """
    home = folder.resolve() / name
    found, done = home / "bin" / "python", home / INSTALLED
    if not done.exists():
        print(f"installing {', '.join(packages)} in {home}", flush=True)
        subprocess.run([python, "-m", "venv", home], check=True)
        subprocess.run([found, "-m", "pip", "install", "--quiet", *packages], check=True)
        frozen = subprocess.run([found, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
        done.write_text(frozen, encoding="utf-8")
    return found


def version(package: str, name: str, folder: Path) -> str:
    """The version of a package in an environment."""
    installed = (folder / name / INSTALLED).read_text(encoding="utf-8").splitlines()
    return next(line.split("==")[1] for line in installed if line.startswith(f"{package}=="))
