"""The README is short and links to the pages. tests/test_docs.py runs its examples and checks its links."""

from __future__ import annotations

import re
from pathlib import Path

from onnxgain.commands import docs
from onnxgain.commands.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 250


def test_it_names_every_page() -> None:
    linked = set(re.findall(r"\]\(onnxgain/docs/([\w-]+)\.md[)#]", README))
    assert linked == {page.name for page in docs.pages()} - set(docs.GENERATED)


def test_it_names_every_command() -> None:
    for name in cli.commands:
        assert f"onnxgain {name}" in README, name


def test_it_has_one_picture() -> None:
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) == 1
