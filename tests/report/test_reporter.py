"""Every format of every command has a reporter, and every command offers all of its formats."""

from __future__ import annotations

import threading
from pathlib import Path

import click
import pytest

from onnxgain.commands.cli import cli
from onnxgain.errors import OnnxgainError
from onnxgain.report import reporter
from onnxgain.report.reporter import FORMATS


@pytest.mark.parametrize(("command", "form"), [(name, form) for name, forms in FORMATS.items() for form in forms])
def test_reporters_exist(command: str, form: str) -> None:
    assert callable(reporter.reporter(command, form))


@pytest.mark.parametrize("command", FORMATS)
def test_commands_offer_their_formats(command: str) -> None:
    (option,) = (p for p in cli.commands[command].params if p.name == "form")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == tuple(FORMATS[command])
    has_report = any(p.name == "report" for p in cli.commands[command].params)
    assert has_report == ("html" in FORMATS[command])


def test_a_report_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"schema": "x/1", "name": "é"}
    reporter.report("inspect", "json", document)
    printed = capsys.readouterr().out
    reporter.report("inspect", "json", document, str(tmp_path / "r.json"))
    assert (tmp_path / "r.json").read_text() == printed
    assert capsys.readouterr().out == ""


def test_unwritable_report_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OnnxgainError, match="create the folder first"):
        reporter.report("inspect", "json", {}, str(tmp_path / "missing" / "r.json"))
    assert list(tmp_path.iterdir()) == []


def test_a_reporter_that_fails_to_load_ahead_is_reported_only_when_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FORMATS["gate"], "broken", "report.text.missing:render")
    before = set(threading.enumerate())
    reporter.import_meanwhile("gate", "broken")
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert capsys.readouterr().err == ""
    with pytest.raises(ModuleNotFoundError):
        reporter.reporter("gate", "broken")
