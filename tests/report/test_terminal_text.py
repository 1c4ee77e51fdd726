"""Control characters from model files are not printed."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import onnx
import pytest

import onnxgain
from onnxgain.report.text.formatting import new_console, printed
from tests.support import models

HOSTILE = "a\x1b[31m\x9b5m\x85b\u202ec\u2066d\u200e\ne\u2028f"


def obeyed(text: str) -> set[str]:
    return {c for c in text if c != "\n" and (unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in BIDI)}


BIDI = {"RLO", "LRO", "RLE", "LRE", "PDF", "LRI", "RLI", "FSI", "PDI", "R", "L\u200e"}


def test_inspect_removes_control_characters(tmp_path: Path) -> None:
    model = models.conv_net()
    model.producer_name = HOSTILE
    names = {index: HOSTILE.replace("\n", " ") for index in range(5)}
    onnx.helper.set_model_props(model, {"task": "classify", "names": str(names), "imgsz": "12"})
    text = str(onnxgain.inspect(models.save(model, tmp_path / "model.onnx")))
    assert "producer" not in text and "\N{REPLACEMENT CHARACTER}" in text
    assert not obeyed(text), obeyed(text)
    assert len(text.splitlines()) == len(text.split("\n")) - 1


@pytest.mark.parametrize("character", ["\x07", "\x9b", "\x85", "\u202e", "\u2067", "\u2028"])
def test_what_is_printed_keeps_lines_and_letters_only(character: str) -> None:
    console = new_console(colour=True)
    console.print(f"one{character}two", markup=False)
    console.print("three")
    lines = printed(console).split("\n")
    assert lines[-2:] == ["three", ""] and character not in "".join(lines)
    assert lines[0].startswith("one") and lines[0].endswith("two")
