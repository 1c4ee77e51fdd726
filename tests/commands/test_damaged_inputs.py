"""Spreadsheet formulas in names, damaged lines of records, vanished snapshots, commands that hang, odd numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onnxgain.analysis.accuracy import read_accuracy
from onnxgain.analysis.training_log import read_log
from onnxgain.commands import following
from onnxgain.commands.cli import main
from onnxgain.commands.following import Notifier
from onnxgain.errors import OnnxgainError
from onnxgain.files import csv_text, read_bytes, require_writable
from onnxgain.fleet.record_lines import RecordLines
from onnxgain.measure.measure import score
from onnxgain.measure.record import to_json
from onnxgain.measure.record_csv import to_csv
from tests.support import models
from tests.support.hostile_data import external


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_cells_are_not_formulas(tmp_path: Path, start: str) -> None:
    (measured,) = score(models.save(models.conv_net(), tmp_path / "m.onnx"))
    record = replace(measured.record, model=replace(measured.record.model, path=f"{start}cmd|' /C calc'!A0"))
    row = to_csv([record]).split("\n", 1)[1]
    assert row.lstrip('"').startswith("'")
    assert csv_text("a=b") == "a=b"


def test_damaged_last_line_of_records_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    records = [m.record for m in score(models.save(models.conv_net(), tmp_path / "m.onnx"))]
    line = json.dumps(json.loads(to_json(records)))
    for rest in (b'{"schema": "onnx', b'{"schema": "onnx\n', b"\xff\xfe\n", b"\0\0\0\0", b"[" * 10_000 + b"\n"):
        path.write_bytes(line.encode() + b"\n" + rest)
        store = RecordLines(path)
        other = [replace(r, model=replace(r.model, sha256="0" * 64)) for r in records]
        store.append(other)
        assert len(path.read_text().splitlines()) == 2
        RecordLines(path)
    path.write_bytes(rest + line.encode() + b"\n")
    with pytest.raises(OnnxgainError, match="line 1"):
        RecordLines(path)


def test_hanging_command_does_not_delay_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.2)
    notifier = Notifier("exec sleep 5")
    found = SimpleNamespace(verdict="converged", onset=None, sentence="x\0" * 500_000)
    series = cast("Any", SimpleNamespace(name="run", epochs=(10**12,), diagnosis=found))
    start = time.monotonic()
    notifier.tell(series)
    notifier.wait()
    assert time.monotonic() - start < 4
    assert "still running" in capsys.readouterr().err
    for process in notifier._running:
        process.kill()
        process.wait()


def test_vanished_snapshot_sorts_as_the_oldest(tmp_path: Path) -> None:
    assert following._written(tmp_path / "none.onnx") == 0


@pytest.mark.parametrize("text", ["[" * 50_000, '{"loss": [' + "1" * 5000 + "]}", '{"loss": [1e999, -1e999]}', "\0"])
def test_odd_logs_are_refused_or_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.json").write_text(text)
    with suppress(OnnxgainError):  # nothing else may be raised
        read_log(tmp_path / "log.json")


@pytest.mark.parametrize(
    "cell", ["1" * 5000, "1e999", "[" * 50_000, '{"mean": ' + "1" * 400 + "}", '{"mean": [' * 9000]
)
def test_odd_tables_are_refused(tmp_path: Path, cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    (tmp_path / "table.csv").write_text(f"model,top1,preprocess\nm.onnx,{quoted},{quoted}\n")
    with pytest.raises(OnnxgainError):
        read_accuracy(tmp_path / "table.csv")


def test_endless_files_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(OnnxgainError, match="is not a regular file"):
        read_bytes("/dev/zero", 10)
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(OnnxgainError, match="has more than 10 bytes"):
        read_bytes(tmp_path / "long", 10)


def test_outputs_do_not_overwrite_inputs(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"model")
    (tmp_path / "link").symlink_to("m.onnx")
    with pytest.raises(OnnxgainError, match="would overwrite"):
        require_writable(tmp_path / "link", [tmp_path / "m.onnx"])
    (tmp_path / "out").symlink_to("/nonexistent/place")
    with pytest.raises(OnnxgainError, match="leads out of its folder"):
        require_writable(tmp_path / "out")


@pytest.mark.parametrize(
    "line",
    ["score m.onnx -o m.onnx", "score m.onnx --format json -o m.onnx", "inspect m.onnx -o m.onnx",
     "compare m.onnx -o m.onnx --no-cache", "diff m.onnx n.onnx -o n.onnx", "gradient m.onnx -o m.onnx",
     "compare r.json --save-records r.json", "merge p.json -o p.json", "score m.onnx --image i.png --plot i.png"],
)  # fmt: skip
def test_no_command_overwrites_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    models.save(models.conv_net(), tmp_path / "m.onnx")
    models.save(models.conv_net(margin=1.0), tmp_path / "n.onnx")
    for name in ("r.json", "p.json", "i.png"):
        (tmp_path / name).write_text("kept")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code == 2
    assert "would overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


LONG = "1" * 5000
"""An integer of more digits than Python reads."""

Written = Callable[[Path], list[str]]


def _model(folder: Path, preprocess: str | None = None) -> str:
    metadata = {} if preprocess is None else {"onnxgain.preprocess": preprocess}
    return str(models.save(models.conv_net(metadata=metadata), folder / "m.onnx"))


def _beside(name: str, text: str, *arguments: str, model: str | None = None) -> Written:
    def write(folder: Path) -> list[str]:
        (folder / name).write_text(text)
        return [part.replace("MODEL", _model(folder, model)).replace("FOLDER", str(folder)) for part in arguments]

    return write


LONG_INTEGERS: dict[str, Written] = {
    "metadata": _beside("x", "", "score", "MODEL", model=f'{{"mean": {LONG}}}'),
    "metadata beyond float64": _beside("x", "", "score", "MODEL", model=f'{{"mean": {LONG[:400]}}}'),
    "a record": _beside("r.json", f'{{"schema": {LONG}}}', "diff", "FOLDER/r.json", "FOLDER/r.json"),
    "a baseline": _beside("r.json", f"[{LONG}]", "gate", "MODEL", "--baseline", "FOLDER/r.json"),
    "a configuration": _beside(
        "c.toml", f"[gate]\nmax-gain = {LONG}\n", "gate", "MODEL", "--config", "FOLDER/c.toml"
    ),
    "a configuration in hexadecimal": _beside(
        "c.toml", f"[gate]\nmax-gain = 0x{LONG}\n", "gate", "MODEL", "--config", "FOLDER/c.toml"
    ),
    "a text in a configuration in hexadecimal": _beside(
        "c.toml", f"[gate]\nmodels = [0x{LONG}]\n", "gate", "MODEL", "--config", "FOLDER/c.toml"
    ),
    "an input": _beside("x", "", "score", "MODEL", "--input", f"training={LONG}"),
    "a class": _beside("x", "", "score", "MODEL", "--class", LONG),
    "a shape": _beside("x", "", "score", "MODEL", "--image-shape", f"3x{LONG}x8"),
    "a stimulus": _beside("x", "", "score", "MODEL", "--stimulus", f"noise:seed={LONG}"),
    "external data": lambda folder: ["score", str(external(folder, offset=LONG).rename(folder / "m.onnx"))],
}  # fmt: skip


@pytest.mark.parametrize("name", LONG_INTEGERS)
def test_integers_of_thousands_of_digits(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(LONG_INTEGERS[name](tmp_path))
    out, err = capsys.readouterr()
    assert raised.value.code == 2
    err = f"{out}{err}"
    assert ("not judged" if name == "a baseline" else "error") in err.lower()
    assert "integer string conversion" not in err and "sys.set_int_max" not in err and "a bug" not in err, err
    assert "int too large" not in err and "cannot be evaluated" not in err, err


def test_integers_of_thousands_of_digits_in_tables(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f'model,error,preprocess\na.onnx,1,"{{""mean"": {LONG}}}"\n')
    (tmp_path / "log.json").write_text(f'{{"loss": [{LONG}]}}')
    with pytest.raises(OnnxgainError, match="is not an input scale: an integer of too many digits"):
        read_accuracy(tmp_path / "table.csv")
    with pytest.raises(OnnxgainError, match="an integer of too many digits"):
        read_log(tmp_path / "log.json")


def test_keys_that_stand_twice_in_a_training_log(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text('{"loss": [2, 1], "val_loss": [2, 1], "loss": [1, 2]}')
    with pytest.raises(OnnxgainError, match="an object has the key 'loss' twice"):
        read_log(tmp_path / "log.json")
