"""`onnxgain diff` through the real command line: its formats, saved records, plots and messages."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxgain.measure.record import from_json
from tests.support import models

LENET = Path(__file__).parents[2] / "models" / "lenet_small_mnist_torch.onnx"


@pytest.fixture
def run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command in a folder with two models: (exit code, standard output, standard error)."""
    model = models.conv_net()
    models.save(model, tmp_path / "a.onnx")
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor)
    models.save(models.conv_net(classes=7), tmp_path / "seven.onnx")
    models.save(models.conv_net(size=(14, 10)), tmp_path / "large.onnx")
    models.save(models.conv_net(channels=1), tmp_path / "grey.onnx")
    models.save(models.conv_net(channels=1, pool="AveragePool"), tmp_path / "pooled.onnx")
    tensor.CopyFrom(numpy_helper.from_array((weights * 1.3).astype(np.float32), tensor.name))
    models.save(model, tmp_path / "b.onnx")
    monkeypatch.chdir(tmp_path)
    return run


def test_table(run: Any) -> None:
    code, out, err = run("diff", "a.onnx", "b.onnx")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "a.onnx -> b.onnx"
    assert lines[2].startswith("frequency  the change sits ")
    assert "impulse: the change sits" in out
    assert "noise:seed=0: the change sits" in out
    first = lines.index(next(line for line in lines if line.startswith("channel")))
    assert [line.split()[0] for line in lines[first : first + 5]] == ["channel", "R", "G", "B", "mean"]
    assert [line.split()[0] for line in lines if line.startswith(("0-1/8", "corners"))] == ["0-1/8", "corners"] * 2
    assert "derivative changed by " in out
    assert "KL " in out


def test_the_same_model_has_no_difference(run: Any) -> None:
    code, out, _ = run("diff", "a.onnx", "a.onnx", "--stimulus", "grating:frequency=0.1", "--preprocess", "unit")
    assert code == 0
    assert (
        out
        == "a.onnx -> a.onnx\nidentical  the same file, byte for byte, with the same result at grating:frequency=0.1\n"
    )
    document = json.loads(run("diff", "a.onnx", "a.onnx", "--format", "json")[1])
    assert (document["identical"], document["compared"]) == (True, "models")
    assert "**Identical: the same file" in run("diff", "a.onnx", "a.onnx", "--format", "markdown")[1]
    assert "The same file, byte for byte" in run("diff", "a.onnx", "a.onnx", "--format", "html")[1]


def test_records_say_what_is_compared(run: Any) -> None:
    run("score", "a.onnx", "--format", "json", "-o", "one.json")
    for words in (("one.json", "b.onnx"), ("a.onnx", "one.json")):
        out = run("diff", *words)[1]
        assert ("\ncompared   records, which hold gains, scores, fingerprints" in out) is (words[1] == "b.onnx")
        document = json.loads(run("diff", *words, "--format", "json")[1])
        assert document["compared"] == "records"
    assert "Compared: records, which hold" in run("diff", "one.json", "b.onnx", "--format", "markdown")[1]
    assert "compared   " not in run("diff", "a.onnx", "b.onnx")[1]


def test_json_csv_and_markdown_agree(run: Any) -> None:
    _, text, _ = run("diff", "a.onnx", "b.onnx", "--format", "json")
    document = json.loads(text)
    assert document["schema"] == "onnxgain.diff/1"
    assert [entry["stimulus"] for entry in document["stimuli"]] == ["impulse", "noise:seed=0"]
    _, table, _ = run("diff", "a.onnx", "b.onnx", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["stimulus"], row["channel"]) for row in rows] == [
        (stimulus, channel) for stimulus in ("impulse", "noise:seed=0") for channel in ("R", "G", "B", "mean")
    ]
    for row in rows:
        (entry,) = (entry for entry in document["stimuli"] if entry["stimulus"] == row["stimulus"])
        gain = entry["gain_db"][row["channel"]]
        assert float(row["before_db"]) == gain["before"]
        assert float(row["change_db"]) == gain["delta"] == gain["after"] - gain["before"]
        assert float(row["spectrum_rms_db"]) == entry["spectrum"]["rms_db"]
        assert float(row["band_1_8-1_4_change_db"]) == entry["spectrum"]["bands"][1]["delta_db"]
        assert float(row["kl_nats"]) == entry["logits"]["kl"]
    _, markdown, _ = run("diff", "a.onnx", "b.onnx", "--format", "markdown")
    assert document["reading"].replace("(", "\\(").replace(")", "\\)") in markdown
    (mean,) = (line for line in markdown.split("noise:seed=0**")[1].splitlines() if line.startswith("| mean"))
    delta = document["stimuli"][1]["gain_db"]["mean"]["delta"]
    assert f"{delta:+.2f}" in mean


@pytest.mark.parametrize("other", ["large.onnx", "grey.onnx"])
def test_different_image_sizes_cannot_be_compared(other: str, run: Any) -> None:
    code, _, err = run("diff", "a.onnx", other)
    assert code == 2
    assert {"large.onnx": "image sizes (3x12x10 and 3x14x10)", "grey.onnx": "channels (3x12x10 and 1x12x10)"}[
        other
    ] in err


def test_different_class_counts_are_compared_in_part(run: Any) -> None:
    code, out, _ = run("diff", "a.onnx", "seven.onnx")
    assert code == 0
    assert "classes, scores and logits cannot be compared: 5 before, 7 after classes" in out
    assert "logits: " not in out
    assert "spectrum: " in out


def test_saved_records(run: Any) -> None:
    arguments = ("--stimulus", "impulse", "--stimulus", "noise:seed=5", "--format", "json")
    for name in ("a", "b"):
        run("score", f"{name}.onnx", *arguments, "-o", f"{name}.json")
    _, full, _ = run("diff", "a.onnx", "b.onnx", *arguments)
    for before, after in (("a.json", "b.json"), ("a.json", "b.onnx"), ("a.onnx", "b.json")):
        code, out, err = run("diff", before, after, "--format", "json")
        assert code == 0, err
        found = json.loads(out)
        assert [entry["stimulus"] for entry in found["stimuli"]] == ["impulse", "noise:seed=5"]
        for entry, other in zip(found["stimuli"], json.loads(full)["stimuli"], strict=True):
            assert entry["gain_db"] == other["gain_db"]
            assert (entry["logits"], entry["derivative"]) == (None, None)
            assert entry["spectrum"]["bands"]
            assert "not known" in entry["notes"][0]
    code, out, _ = run("diff", "a.json", "b.onnx", "--stimulus", "impulse")
    assert code == 0
    assert "noise:seed=5 was measured before, but not now" in out
    code, _, err = run("diff", "a.json", "b.onnx", "--stimulus", "noise:seed=6")
    assert code == 2
    assert "nothing can be compared" in err
    records = from_json(Path("a.json").read_text())
    assert len({record.model.path for record in records}) == 1
    run("score", "a.onnx", "b.onnx", "--format", "json", "-o", "both.json")
    code, _, err = run("diff", "both.json", "grey.onnx")
    assert code == 2
    assert "holds records of 2 models: a.onnx, b.onnx; say which, as in both.json::a.onnx" in err
    _, wanted, _ = run("diff", "a.json", "b.onnx", "--stimulus", "impulse", "--format", "csv")
    for sides in (("both.json::a.onnx", "b.onnx"), ("a.json", "both.json::b.onnx"), ("a.onnx", "both.json::b.onnx")):
        code, out, _ = run("diff", *sides, "--stimulus", "impulse", "--format", "csv")
        assert code == 0
        assert [row["change_db"] for row in csv.DictReader(io.StringIO(out))] == [
            row["change_db"] for row in csv.DictReader(io.StringIO(wanted))
        ]
    code, out, _ = run("diff", "both.json", "b.onnx")  # the model of that name
    assert code == 0
    assert out.startswith("b.onnx (record in both.json) -> b.onnx\n")
    code, out, _ = run("diff", "a.onnx", "both.json::b.onnx", "--format", "markdown")
    assert out.startswith("### a.onnx → b.onnx \\(record in both.json\\)\n")
    code, _, err = run("diff", "both.json::c.onnx", "b.onnx")
    assert code == 2
    assert "both.json: holds no records of c.onnx: a.onnx, b.onnx" in err
    before = Path("both.json").read_bytes()
    code, _, err = run("diff", "both.json::a.onnx", "b.onnx", "-o", "both.json")
    assert (code, Path("both.json").read_bytes()) == (2, before)
    assert "would overwrite" in err
    code, _, err = run("diff", "a.json", "b.json", "--plot", "x.png")
    assert code == 2
    assert "nothing to draw" in err


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_plot(form: str, run: Any) -> None:
    arguments = ("diff", "grey.onnx", "pooled.onnx", "--stimulus", "impulse", "--plot")
    code, _, err = run(*arguments, f"d.{form}")
    assert (code, err.strip()) == (0, f"wrote d.{form}")
    first = Path(f"d.{form}").read_bytes()
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form])
    run(*arguments, f"e.{form}")
    assert Path(f"e.{form}").read_bytes() == first


def test_the_plot_shows_what_changed(run: Any) -> None:
    from xml.etree import ElementTree as ET

    run("diff", "a.onnx", "b.onnx", "--stimulus", "impulse", "--plot", "d.svg")
    text = Path("d.svg").read_text()
    ET.fromstring(text)
    for label in ("R: derivative before", "B: derivative after less before", "G: response after, max", "impulse"):
        assert label in text
    code, _, err = run("diff", "a.onnx", "b.onnx", "--plot", "d.jpg")
    assert code == 2
    assert "cannot draw a 'jpg' file" in err


@pytest.mark.parametrize("arguments", ["a.onnx missing.onnx", "missing.json a.onnx", "a.onnx", "a.onnx b.onnx c.onnx"])
def test_unreadable_inputs_are_refused(arguments: str, run: Any) -> None:
    code, out, err = run("diff", *arguments.split())
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_a_real_model(run: Any) -> None:
    """Rounding the weights of LeNet to 4 bits is a difference; the same file is none."""
    model = onnx.load(LENET)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1:
            step = np.abs(values).max() / 7
            tensor.CopyFrom(numpy_helper.from_array((np.rint(values / step) * step).astype(values.dtype), tensor.name))
    onnx.save(model, "rounded.onnx")
    code, out, _ = run("diff", LENET, "rounded.onnx")
    assert code == 0
    assert "the change sits " in out
    assert "identical  the same file, byte for byte, with the same result" in run("diff", LENET, LENET)[1]
