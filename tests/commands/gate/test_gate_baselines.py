"""`onnxgain gate --update-baseline`: what is written, what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxgain.measure.record import from_json
from tests.support import models
from tests.support.gate_models import louder


def test_updated_baseline_passes(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    stimuli = ("--stimulus", "impulse", "--stimulus", "noise:seed=3")
    code, out, err = run("a.onnx", "loud.onnx", "--baseline", path, "--update-baseline", *stimuli)
    assert code == 0, out + err
    assert f"wrote {path}: 2 models" in err
    assert run("a.onnx", "loud.onnx", "--baseline", path)[0] == 0
    assert run("loud.onnx", "--baseline", path)[0] == 0
    assert run("quiet.onnx", "--baseline", path)[0] == 2  # is not in it
    records = from_json(path.read_text())
    assert [(r.model.path, r.stimulus.name) for r in records] == [
        ("a.onnx", "impulse"), ("a.onnx", "noise"), ("loud.onnx", "impulse"), ("loud.onnx", "noise"),
    ]  # fmt: skip


def test_updating_one_model_keeps_the_others(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    assert run("a.onnx", "loud.onnx", "--baseline", path, "--update-baseline")[0] == 0
    old = from_json(path.read_text())
    models.save(louder(1.2), folder / "later.onnx")
    (folder / "sub").mkdir(exist_ok=True)
    models.save(louder(1.2), folder / "sub" / "a.onnx")
    code, _, err = run("later.onnx", "sub/a.onnx", "--baseline", path, "--update-baseline")
    assert (code, f"wrote {path}: 3 models" in err) == (0, True)
    new = from_json(path.read_text())
    assert [r.model.path for r in new] == ["sub/a.onnx", "loud.onnx", "later.onnx"]
    assert new[1] == old[1]
    assert new[0].gain != old[0].gain


def test_updating_uses_the_old_stimuli_and_shows_the_change(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text((folder / "two.json").read_text())
    code, out, _ = run("several/b.onnx", "a.onnx", "--baseline", path, "--update-baseline", "--max-change", "0")
    assert code == 0
    assert [stimulus.name for stimulus in [r.stimulus for r in from_json(path.read_text())]] == [
        "impulse", "noise", "impulse",
    ]  # fmt: skip
    code, out, _ = run("a.onnx", "--baseline", path, "--update-baseline")
    assert "+0.00" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("a.onnx missing.onnx", 2),
        ("a.onnx nan.onnx", 2),
        ("a.onnx zero.onnx", 1),
        ("a.onnx dead.onnx", 1),
        ("a.onnx --max-gain -100", 1),
    ],
)
def test_failing_model_does_not_become_a_baseline(arguments: str, expected: int, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    code, _, err = run(*arguments.split(), "--baseline", path, "--update-baseline")
    assert code == expected
    assert "the baseline is left as it is" in err
    assert list(tmp_path.iterdir()) == []
    path.write_text('{"schema": "onnxgain.records/1", "records": []}')
    assert run(*arguments.split(), "--baseline", path, "--update-baseline")[0] == expected
    assert path.read_text() == '{"schema": "onnxgain.records/1", "records": []}'


def test_a_baseline_of_another_version_is_replaced(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text((folder / "schema.json").read_text())
    assert run("a.onnx", "--baseline", path)[0] == 2
    assert run("a.onnx", "--baseline", path, "--update-baseline")[0] == 0
    assert run("a.onnx", "--baseline", path)[0] == 0


@pytest.mark.parametrize(
    ("baseline", "accepted", "deleted"),
    [("half.json", False, True), ("text.txt", False, False), ("a.onnx", False, False), ("field.json", True, False)],
)
def test_accepting_is_only_advised_if_it_would_work(baseline: str, accepted: bool, deleted: bool, run: Any) -> None:
    code, out, _ = run("a.onnx", "--baseline", baseline)
    assert code == 2
    assert ("to accept" in out) is accepted
    assert ("delete it and run" in out) is deleted
