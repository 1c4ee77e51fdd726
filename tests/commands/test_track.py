"""`onnxgain track`: order, bad snapshots, formats, following a folder while it is written to."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnxgain.analysis.diagnosis import VERDICTS
from onnxgain.analysis.series import ORDERS, Found, epoch_numbers, gaps, make_series
from onnxgain.analysis.series_documents import to_csv, to_json
from onnxgain.analysis.training_log import read_log
from onnxgain.commands import track as command
from onnxgain.commands import track_options
from onnxgain.commands.cli import main
from onnxgain.errors import OnnxgainError
from onnxgain.fleet.batch import Cache
from onnxgain.fleet.follow import PATIENCE, QUIET, Watch
from onnxgain.report.text.track import chart
from tests.support import models
from tests.support.reports import Elements, a_record

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and shells")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def run(run: Any) -> Any:
    """Run `onnxgain track` in this process: (exit code, standard output, standard error)."""
    return functools.partial(run, "track")


def snapshot(epoch: int) -> bytes:
    """A classifier whose gain rises with the epochs and then stays."""
    model = models.conv_net()
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1:
            factor = 1 - np.exp(-epoch / 3) + 0.001 * np.sin(5 * epoch)
            tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), tensor.name))
    return model.SerializeToString()


def write_run(folder: Path, epochs: int, name: str = "epoch{}.onnx") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, epochs + 1):
        (folder / name.format(epoch)).write_bytes(snapshot(epoch))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", 12)


# ------------------------------------------------------------------------------------------------- the command
def test_a_folder_is_tracked(run: Any, trained: Path) -> None:
    code, out, err = run(trained, "--preprocess", "imagenet", "--format", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["schema"] == "onnxgain.track/1"
    (found,) = document["runs"]
    assert found["run"] == "run" and found["channels"] == ["R", "G", "B"]
    assert [s["epoch"] for s in found["snapshots"]] == list(range(1, 13))
    assert [Path(s["model"]).name for s in found["snapshots"]] == [f"epoch{e}.onnx" for e in range(1, 13)]
    means = [s["gain_mean_db"] for s in found["snapshots"]]
    assert means == [pytest.approx(np.mean(s["gain_channels_db"])) for s in found["snapshots"]]
    assert found["verdict"] in VERDICTS and found["evidence"]
    # The same numbers as `score`.
    scores = {s["model"]: s["gain_mean_db"] for s in found["snapshots"]}
    with pytest.raises(SystemExit):
        main(["score", str(trained / "epoch7.onnx"), "--preprocess", "imagenet", "--format", "json", "-o", "/dev/null"])
    assert scores[str(trained / "epoch7.onnx")] == pytest.approx(means[6])


def test_formats_agree(run: Any, trained: Path) -> None:
    document = json.loads(run(trained, "--format", "json")[1])["runs"][0]
    rows = list(csv.DictReader(io.StringIO(run(trained, "--format", "csv")[1])))
    assert [float(row["gain_mean_db"]) for row in rows] == [s["gain_mean_db"] for s in document["snapshots"]]
    assert {row["verdict"] for row in rows} == {document["verdict"]}
    table = run(trained)[1]
    markdown = run(trained, "--format", "markdown")[1]
    for text in (table, markdown):
        assert document["sentence"] in text
        for row in document["snapshots"]:
            assert f"{row['gain_mean_db']:.2f}" in text
    assert "gain dB" in table and "⠀" in table


def test_a_new_snapshot_costs_one_measurement(
    run: Any, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", 6)
    run(folder)
    kept: list[str] = []
    real = Cache.put
    monkeypatch.setattr(Cache, "put", lambda self, key, text: (kept.append(key), real(self, key, text))[1])
    (folder / "epoch7.onnx").write_bytes(snapshot(7))
    assert len(json.loads(run(folder, "--format", "json")[1])["runs"][0]["snapshots"]) == 7
    assert len(kept) == 1


def test_records_are_appended_and_reused(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lines = write_run(tmp_path / "run", 6), tmp_path / "records.jsonl"
    first = run(folder, "--no-cache", "--records", lines, "--format", "json")[1]
    before = lines.read_text()
    assert before.count("\n") == 6
    measured: list[Any] = []
    real = command.run_batch
    monkeypatch.setattr(command, "run_batch", lambda s, *rest: (measured.extend(s), real(s, *rest))[1])
    (folder / "epoch7.onnx").write_bytes(snapshot(7))
    run(folder, "--no-cache", "--records", lines)
    assert [source.path.name for source in measured] == ["epoch7.onnx"]
    assert lines.read_text().startswith(before) and lines.read_text().count("\n") == 7
    # The records alone are a series, without the models.
    again = json.loads(run(lines, "--format", "json")[1])["runs"][0]
    assert again["snapshots"][:6] == json.loads(first)["runs"][0]["snapshots"]
    # A different request is measured again.
    measured.clear()
    run(folder, "--no-cache", "--records", lines, "--preprocess", "unit")
    assert len(measured) == 7
    # An incomplete last line, left by a killed run, is rewritten.
    lines.write_text(before + '{"schema": "onnxgain.rec')
    run(folder, "--no-cache", "--records", lines)
    assert lines.read_text().startswith(before) and lines.read_text().count("\n") == 7


def test_several_runs(run: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "snapshots", 7)
    code, out, _ = run(tmp_path / "a", tmp_path / "b", "--plot", tmp_path / "p.svg", "--report", tmp_path / "p.html")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("no advice: gains do not say which run to take") and lines[1] == ""
    assert lines[3].startswith("a/snapshots") and lines[4].startswith("b/snapshots")
    picture = (tmp_path / "p.svg").read_text()
    assert "a/snapshots" in picture and "Maximum Gain" in picture
    page = Elements((tmp_path / "p.html").read_text())
    assert len([a for a in page.all("tr") if "data-words" in a]) == 14
    assert len(page.all("figure")) == 1


def test_verdicts_decide_the_exit_code(run: Any, trained: Path) -> None:
    verdict = json.loads(run(trained, "--format", "json")[1])["runs"][0]["verdict"]
    assert run(trained, "--fail-on", verdict)[0] == 1
    assert run(trained, "--fail-on", next(v for v in VERDICTS if v != verdict))[0] == 0


@posix
def test_command_gets_the_verdict(run: Any, trained: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    run(trained, "--on-verdict", f'echo "$ONNXGAIN_RUN $ONNXGAIN_EPOCH $ONNXGAIN_VERDICT" >> {told}')
    verdict = json.loads(run(trained, "--format", "json")[1])["runs"][0]["verdict"]
    assert told.read_text() == f"run 12 {verdict}\n"


def test_option_values_match_the_modules() -> None:
    assert track_options.ORDERS == ORDERS and track_options.VERDICTS == VERDICTS


# ----------------------------------------------------------------------------------------------- bad snapshots
def test_bad_snapshots_are_listed_and_left_out(run: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 9)
    (folder / "epoch3.onnx").write_bytes(snapshot(3)[:500])
    (folder / "epoch5.onnx").unlink()
    models.save(models.conv_net(classes=7), folder / "epoch6.onnx")
    (folder / "best.onnx").write_bytes(snapshot(9))
    code, out, err = run(folder, "--format", "json")
    assert code == 0
    (found,) = json.loads(out)["runs"]
    assert [s["epoch"] for s in found["snapshots"]] == [1, 2, 4, 7, 8, 9]
    reasons = {Path(entry["what"]).name: entry["why"] for entry in found["left_out"]}
    assert "damaged" in reasons["epoch3.onnx"]
    assert reasons["epoch 5"] == "missing"
    assert "classes 7, the others" in reasons["epoch6.onnx"]
    assert "number" in reasons["best.onnx"]
    assert all(name in err for name in ("epoch3.onnx", "epoch 5", "epoch6.onnx", "best.onnx"))
    code, _, err = run(folder, "--bad", "refuse")
    assert code == 2 and "4 snapshots refused" in err


def test_no_measurable_snapshot_is_an_error(run: Any, tmp_path: Path) -> None:
    (tmp_path / "epoch1.onnx").write_bytes(b"nonsense")
    code, _, err = run(tmp_path)
    assert code == 2 and "no snapshot could be measured" in err


def found(path: str, number: int = 0) -> Found:
    return Found(path, (a_record(number),))


# ------------------------------------------------------------------------------------------------------ series
@pytest.mark.parametrize(
    ("names", "epochs"),
    [
        (["e1", "e2", "e10"], [1, 2, 10]),
        (["epoch=0-step=100", "epoch=1-step=200"], [0, 1]),
        (["run3_epoch01", "run3_epoch02"], [1, 2]),
        (["epoch1_0.93", "epoch2_0.91", "epoch3_0.95"], [1, 2, 3]),
        (["e1", "e2", "e3", "last"], [1, 2, 3, None]),
        (["first", "second"], None),
        (["a1", "b1", "c1"], None),
    ],
)
def test_epochs_in_names(names: list[str], epochs: list[int | None] | None) -> None:
    assert epoch_numbers([f"some2/{name}.onnx" for name in names]) == epochs


def test_gaps() -> None:
    assert gaps([1, 2, 4, 5, 8]) == [3, 6, 7]
    assert gaps([10, 20, 30, 50]) == [40]
    assert gaps([1, 10, 100]) == [] and gaps([]) == [] and gaps([3]) == []


def test_orders() -> None:
    given = [Found("b/e10.onnx", (a_record(0),), modified=1.0), Found("b/e9.onnx", (a_record(1),), modified=2.0)]
    assert [s.path for s in make_series("b", given).snapshots] == ["b/e9.onnx", "b/e10.onnx"]
    for order in ("time", "given"):
        series = make_series("b", given, order=order)
        assert [(s.epoch, s.path) for s in series.snapshots] == [(1, "b/e10.onnx"), (2, "b/e9.onnx")]


def test_dead_snapshot_keeps_its_epoch_without_a_gain() -> None:
    dead = Found("r/e2.onnx", problem="the derivative is exactly zero", no_gain=True)
    series = make_series("r", [found("r/e1.onnx"), dead, found("r/e3.onnx", 1)])
    assert series.epochs == [1, 2, 3]
    assert np.isnan(series.gains[1]).all() and np.isfinite(series.gains[[0, 2]]).all()
    assert series.left_out == (("r/e2.onnx", "the derivative is exactly zero"),)
    assert json.loads(to_json([series]))["runs"][0]["snapshots"][1]["gain_mean_db"] is None
    assert [row["gain_mean_db"] == "" for row in csv.DictReader(io.StringIO(to_csv([series])))] == [False, True, False]


def test_chart_lines_break_at_gaps() -> None:
    whole = make_series("r", [found(f"r/e{e}.onnx") for e in range(1, 9)])
    cut = make_series("r", [found(f"r/e{e}.onnx") for e in (1, 2, 7, 8)])
    dots = [sum(0x2801 <= ord(c) <= 0x28FF for c in chart(series, 40, 4)) for series in (whole, cut)]
    assert dots[1] < dots[0] / 2


# -------------------------------------------------------------------------------------------------------- logs
@pytest.mark.parametrize(
    "text",
    [
        "epoch,accuracy,loss,val_loss\n0,0.5,2.0,2.1\n1,0.6,1.0,1.5\n",
        "epoch,step,train_loss,val_loss\n0,9,,2.1\n0,9,2.0,\n1,19,,1.5\n1,19,1.0,\n",
        '{"loss": [2.0, 1.0], "val_loss": [2.1, 1.5], "epoch": [0, 1]}',
        '[{"epoch": 0, "train/loss": 2.0, "val/loss": 2.1}, {"epoch": 1, "train/loss": 1.0, "val/loss": 1.5}]',
    ],
    ids=["keras", "lightning", "history", "objects"],
)
def test_logs(text: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    log = read_log(path)
    assert dict(log.training) == {0: 2.0, 1: 1.0} and dict(log.validation) == {0: 2.1, 1: 1.5}
    assert dict(log.aligned([1, 2]).training) == {1: 2.0, 2: 1.0}
    assert log.aligned([0, 1]) == log


@pytest.mark.parametrize("text", ["", "{", "a,b\n1,2\n", "[1, 2]", '{"loss": ["x"]}'])
def test_invalid_logs_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(OnnxgainError, match=r"log\.csv"):
        read_log(path)


def test_log_is_shown_next_to_the_gains(run: Any, trained: Path, tmp_path: Path) -> None:
    log = tmp_path / "history.csv"
    log.write_text("loss,val_loss\n" + "".join(f"{2 / e:.4f},{2.5 / e:.4f}\n" for e in range(1, 13)))
    code, out, _ = run(trained, "--log", log, "--plot", tmp_path / "p.svg")
    assert code == 0 and "0.1667" in out and "0.2083" in out
    assert "validation" in (tmp_path / "p.svg").read_text()
    code, _, err = run(trained, "--log", log, "--log", log)
    assert code == 2 and "2 logs are given for 1 runs" in err


# -------------------------------------------------------------------------------------------------- following
class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_file_is_complete_when_it_stops_changing(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.onnx", Clock()
    watch = Watch(lambda: [path] if path.exists() else [], clock)
    seen = []
    for step in range(6):
        with path.open("ab") as file:
            file.write(b"x")
        os.utime(path, ns=(step, step))
        clock.now += 0.3
        seen += watch.ready()
    assert seen == [] and watch.pending
    clock.now += QUIET + 0.01
    assert watch.ready() == [path] and watch.ready() == [] and not watch.pending
    # External data that still grows counts too.
    (tmp_path / "a.onnx.data").write_bytes(b"y")
    assert watch.ready() == []
    clock.now += QUIET + 0.01
    assert watch.ready() == [path]


def test_file_that_does_not_load_is_retried(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.onnx", Clock()
    path.write_bytes(b"x")
    watch = Watch(lambda: [path], clock)
    watch.ready()
    tries = 0
    while clock.now < 3 * PATIENCE:
        clock.now += 0.25
        for one in watch.ready():
            tries += 1
            watch.again(one)
    assert 5 < tries < 15
    path.write_bytes(b"xy")
    watch.ready()
    clock.now += QUIET + 0.01
    assert watch.ready() == [path]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Any]:
    """Start `onnxgain track --follow` on a folder; lines of standard error come with the time of their arrival."""
    started: list[subprocess.Popen[str]] = []

    def call(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], list[tuple[float, str]]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "onnxgain", "track", str(folder), "--follow", "--no-cache", "--threads", "1",
             *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        lines: list[tuple[float, str]] = []
        assert process.stderr is not None
        stream = process.stderr
        threading.Thread(target=lambda: lines.extend((time.monotonic(), line) for line in stream), daemon=True).start()
        return process, lines

    yield call
    for process in started:
        process.kill()
        process.communicate()


def wait_for(lines: list[tuple[float, str]], text: str, seconds: float = 60.0) -> float:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for seen, line in list(lines):
            if text in line:
                return seen
        time.sleep(0.02)
    raise AssertionError(f"{text!r} was never said: {lines}")


@posix
def test_following_reads_only_complete_files_and_is_quick(follow: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 1)
    process, lines = follow(folder)
    wait_for(lines, "epoch 1:")
    # Written slowly in pieces, with a pause longer than the time for which a file must not change.
    whole = snapshot(2)
    with (folder / "epoch2.onnx").open("wb") as file:
        for start in range(0, len(whole), len(whole) // 4 + 1):
            file.write(whole[start : start + len(whole) // 4 + 1])
            file.flush()
            time.sleep(0.3 if start else QUIET + 0.5)
    delays = [wait_for(lines, "epoch 2:") - time.monotonic()]
    # Written under another name and renamed.
    (tmp_path / "temporary").write_bytes(snapshot(3))
    (tmp_path / "temporary").rename(folder / "epoch3.onnx")
    finished = time.monotonic()
    delays.append(wait_for(lines, "epoch 3:") - finished)
    assert delays[-1] > 0
    # Permanently damaged: reported once.
    (folder / "epoch4.onnx").write_bytes(snapshot(4)[:300])
    wait_for(lines, "left out:")
    (folder / "epoch5.onnx").write_bytes(snapshot(5))
    wait_for(lines, "epoch 5:")
    process.send_signal(2)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    said = [line for _, line in lines if "left out" in line]
    assert len(said) == 1 and "epoch4.onnx" in said[0]
    assert not any("epoch2" in line for line in said)
    assert [line.split()[1] for line in out.splitlines() if ".onnx" in line and "left out" not in line] == [
        f"epoch{e}.onnx" for e in (1, 2, 3, 5)
    ]


@posix
def test_following_stops_at_a_verdict(follow: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 4)
    process, lines = follow(folder, "--fail-on", "undecided", "--patience", "5")
    wait_for(lines, "epoch 4:")
    assert process.poll() is None
    (folder / "epoch5.onnx").write_bytes(snapshot(5))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "too few snapshots for a hint" in out


@posix
def test_following_ends_when_idle(follow: Any, tmp_path: Path) -> None:
    process, _ = follow(write_run(tmp_path / "run", 8), "--idle", "1", "--format", "json")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(json.loads(out)["runs"][0]["snapshots"]) == 8


def test_only_folders_are_followed(run: Any, trained: Path) -> None:
    code, _, err = run(trained / "epoch1.onnx", "--follow")
    assert code == 2 and "name the run's folder" in err


def test_listing_does_not_load_models() -> None:
    """The parent needs neither onnx nor the runtime: children measure."""
    modules = ("commands.following", "fleet.follow", "analysis.series", "fleet.batch")
    code = "import sys, " + ", ".join(f"onnxgain.{name}" for name in modules) + "; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"onnx", "onnxruntime", "scipy", "rich", "matplotlib"} & set(loaded)


def test_without_a_snapshot_there_is_no_verdict(run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run(tmp_path / "empty")
    assert (code, out) == (2, "")
    missing = f"left out: {tmp_path / 'empty'}: no .onnx file in this folder or below; name another folder"
    assert err.splitlines() == [missing, "error: no snapshot could be measured"]
