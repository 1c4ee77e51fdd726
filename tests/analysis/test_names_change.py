"""The names of the classes decide what a program answers that looks them up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from onnxgain.analysis.function_change import function_change
from onnxgain.analysis.function_verdict import in_words, judged, to_json
from onnxgain.measure.class_names_record import packed_names
from onnxgain.measure.fingerprint import require_intact
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.measure import measure
from onnxgain.measure.request import Request
from onnxgain.model.class_names import ClassNames
from onnxgain.model.classifier import Reading, load_classifier
from onnxgain.model.input_scale import input_scale
from tests.support import models

Run = Callable[..., tuple[int, str, str]]
NAMES = ("tench", "tabby cat", "dog", "crane", "crane")


def model(names: tuple[str, ...] | None, **options: object) -> onnx.ModelProto:
    metadata = {} if names is None else {"task": "classify", "names": json.dumps(list(names))}
    return models.conv_net(metadata=metadata, head="softmax", **options)


def fingerprint_of(names: tuple[str, ...] | None, folder: Path) -> FingerprintRecord:
    path = models.save(model(names), folder / "model.onnx")
    request = Request(fingerprint=True)
    (found,) = measure(load_classifier(path, Reading(scale=input_scale("unit"))), request, threads=1)
    assert found.record.fingerprint is not None
    return found.record.fingerprint


@pytest.mark.parametrize(
    ("after", "words", "pairs"),
    [
        (("tabby cat", "tench", "dog", "crane", "crane"), "class names are exchanged: 0 and 1; ", [[0, 1], [1, 0]]),
        (
            ("dog", "tench", "tabby cat", "crane", "crane"),
            "the order of the class names changed: 0 is now 1, 1 is now 2, 2 is now 0; ",
            [[0, 1], [1, 2], [2, 0]],
        ),
        (("TABBY_CAT", "Tench", "Hund", "crane", "crane"), "class names are exchanged: 0 and 1; ", [[0, 1], [1, 0]]),
        (("roach", "tench", "dog", "crane", "crane"), "the order of the class names changed: 0 is now 1; ", [[0, 1]]),
    ],
)
def test_exchanged_names_fail(after: tuple[str, ...], words: str, pairs: list[list[int]], tmp_path: Path) -> None:
    change = function_change(fingerprint_of(NAMES, tmp_path), fingerprint_of(after, tmp_path))
    assert judged(change) == "fail"
    assert in_words(change).startswith(words + "its answers differ by ")
    assert to_json(change)["moved_names"] == pairs


@pytest.mark.parametrize(
    ("after", "renamed"),
    [
        (NAMES, 0),
        (("Tench", "tabby  cat", "DOG", "crane", "crane"), 0),
        (("Schleie", "Katze", "Hund", "Kranich", "Kran"), 5),
        (("tench", "tabby_cat", "puppy", "crane", "crane"), 1),
        (None, 0),
    ],
)
def test_other_words_for_the_same_classes_are_a_note(
    after: tuple[str, ...] | None, renamed: int, tmp_path: Path
) -> None:
    change = function_change(fingerprint_of(NAMES, tmp_path), fingerprint_of(after, tmp_path))
    assert judged(change) == "same function"
    assert to_json(change)["moved_names"] == []
    assert to_json(change)["renamed_classes"] == renamed


def test_a_gate_fails_for_exchanged_names_and_diff_says_so(run: Run, tmp_path: Path, own_cache: Path) -> None:
    old, new, base = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "base.json"
    models.save(model(NAMES), old)
    models.save(model(("dog", "tabby cat", "tench", "crane", "crane")), new)
    scale = ("--preprocess", "unit")
    assert run("gate", old, "--baseline", base, "--update-baseline", *scale)[0] == 0
    assert run("gate", old, "--baseline", base, *scale)[0] == 0
    code, out, _ = run("gate", new, "--baseline", base, *scale)
    assert code == 1
    assert "class names are exchanged: 0 and 2; its answers differ by " in out
    assert "class names are exchanged: 0 and 2" in run("diff", old, new, *scale)[1]
    models.save(model(("Schleie", "Katze", "Hund", "Kranich", "Kran")), new)
    code, out, _ = run("gate", new, "--baseline", base, *scale)
    assert code == 0
    assert "class names changed: 5" in out


def test_older_records_have_no_names_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    named = fingerprint_of(NAMES, tmp_path)
    assert named.names == packed_names(ClassNames(dict(enumerate(NAMES))), 5)
    assert packed_names(ClassNames(dict(enumerate(NAMES))), 6) is None
    without = FingerprintRecord(**{**vars(named), "names": None})
    assert judged(function_change(without, named)) == "same function"
    for names in ("~~~", "aaaa", ""):
        with pytest.raises(Exception, match=r"net.onnx: the fingerprint in its record is damaged"):
            require_intact(FingerprintRecord(**{**vars(named), "names": names}), "net.onnx")
