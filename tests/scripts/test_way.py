"""The steps of a score in the contributors' guide match those of a real run."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import ROOT
from scripts.generate import way


def test_the_steps_of_the_guide_are_those_of_a_real_run(tmp_path: Path) -> None:
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\| \d+ \| `([\w/.]+:\w+)` \|", text, re.MULTILINE)
    assert len(steps) > 10
    assert len({step.partition(":")[0] for step in steps}) <= 20
    calls = way.calls(way.runs(tmp_path)["score"], ROOT, tmp_path)
    assert [step for step in steps if step not in calls] == []
    places = [calls.index(step) for step in steps]
    assert places == sorted(places)


def test_each_file_counts_once() -> None:
    assert way.first_calls(["a.py:f", "b.py:g", "a.py:h"]) == ["a.py:f", "b.py:g"]
