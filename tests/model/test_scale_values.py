"""The mean and std of pixels on 0..1 are not taken on 0..255 silently; fractions are numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import onnxgain
from onnxgain.analysis.accuracy import read_accuracy
from onnxgain.errors import OnnxgainError
from onnxgain.model.input_scale import PRESETS, input_scale
from onnxgain.model.scale_values import DOUBT, are_of_unit_range, number
from tests.support import models

MEAN, STD = "0.485,0.456,0.406", "0.229,0.224,0.225"
NORMALIZE = ("--mean", MEAN, "--std", STD)


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return models.save(models.conv_net(), tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("text", "value"), [("1/255", 1 / 255), ("0.25", 0.25), (" 2 / 4 ", 0.5), ("-1/2", -0.5), ("1e-3/2", 0.0005)]
)
def test_numbers_and_fractions(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "/", "1/", "1/0", "1/2/3", "a/b"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError):
        number(text)
    with pytest.raises(OnnxgainError, match="scale is"):
        input_scale(scale=text)


def test_presets_and_usual_scales_are_of_their_range() -> None:
    for preset in PRESETS.values():
        assert not are_of_unit_range(preset.mean, preset.std, preset.scale), preset.name
    for mean, std, scale in ((127.0, 128.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 1 / 127.5), (123.7, 1.0, 1.0)):
        assert not are_of_unit_range((mean,), (std,), scale)


@pytest.mark.parametrize("options", [NORMALIZE, ("--mean", "0.5"), ("--std", "0.5"), ("--mean", "1", "--std", "1")])
def test_normalize_without_a_scale_is_refused(run: Any, options: tuple[str, ...]) -> None:
    code, out, err = run("score", "net.onnx", *options)
    assert (code, out) == (2, "")
    assert "are those of pixels on 0..1, and no scale is given" in err
    assert "add --scale 1/255 if they are those of torchvision's Normalize" in err
    assert "or --scale 1 if the model takes 0..255" in err


def test_normalize_with_its_scale_is_the_preset(run: Any) -> None:
    found = []
    for options in ((*NORMALIZE, "--scale", "1/255"), ("--preprocess", "imagenet")):
        code, out, _ = run("score", "net.onnx", *options, "--format", "json")
        assert code == 0
        (record,) = json.loads(out)["records"]
        assert record["assumptions"] == []
        found.append(record["gain"])
    assert found[0] == found[1]


@pytest.mark.parametrize("options", [(), ("--scale", "1")])
@pytest.mark.parametrize("name", ["raw", "caffe"])
def test_who_asks_for_0_to_255_gets_it_with_a_caution(run: Any, options: tuple[str, ...], name: str) -> None:
    code, out, _ = run("score", "net.onnx", *NORMALIZE, *(options or ("--preprocess", name)))
    assert code == 0
    assert (
        " ".join(out.split()).count(
            f"caution: {DOUBT}mean {MEAN} and std {STD} are those of pixels on 0..1, but pixels on"
        )
        == 1
    )


def test_a_file_that_declares_such_a_scale_is_measured_with_a_caution(run: Any) -> None:
    declared = json.dumps({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]})
    models.save(models.conv_net(metadata={"onnxgain.preprocess": declared}), Path("declared.onnx"))
    for command in ("score", "inspect"):
        code, out, _ = run(command, "declared.onnx")
        assert code == 0
        assert out.count(f"caution: {DOUBT}mean {MEAN}") == 1
    declared = json.dumps({**json.loads(declared), "scale": "1/255"})
    models.save(models.conv_net(metadata={"onnxgain.preprocess": declared}), Path("declared.onnx"))
    code, out, _ = run("inspect", "declared.onnx", "--format", "json")
    assert json.loads(out)["scale"]["scale"] == 1 / 255
    assert json.loads(out)["assumptions"] == []


def test_python_names_its_arguments() -> None:
    numbers = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with pytest.raises(OnnxgainError, match=r"mean=, std=: .*add scale=1/255 .* or scale=1 if"):
        onnxgain.score("net.onnx", mean=numbers[0], std=numbers[1])
    for scale in ("1/255", 1 / 255):
        (found,) = onnxgain.score("net.onnx", mean=numbers[0], std=numbers[1], scale=scale)
        assert found.record.scale.scale == 1 / 255


def test_a_configuration_takes_fractions_and_is_held_to_the_same(run: Any) -> None:
    text = '[gate]\nmodels = ["net.onnx"]\nmax-gain = 90\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n'
    Path("onnxgain.toml").write_text(text)
    code, _, err = run("gate")
    assert code == 2
    assert "add --scale 1/255" in err
    Path("onnxgain.toml").write_text(f'{text}scale = "1/255"\n')
    assert run("gate")[0] == 0
    Path("onnxgain.toml").write_text(f'{text}scale = "a/b"\n')
    code, _, err = run("gate")
    assert code == 2
    assert "is not a number or a fraction such as 1/255" in err


def test_an_accuracy_table_is_held_to_the_same() -> None:
    def table(scale: str) -> Path:
        cell = json.dumps({"mean": 0.5, "std": 0.5} | ({"scale": scale} if scale else {})).replace('"', '""')
        Path("table.csv").write_text(f'model,top1,preprocess\nnet.onnx,50,"{cell}"\n')
        return Path("table.csv")

    with pytest.raises(OnnxgainError, match=r"are those of pixels on 0..1"):
        read_accuracy(table(""))
    (row,) = read_accuracy(table("1/255")).rows
    assert row.scale is not None and row.scale.scale == 1 / 255


@pytest.mark.parametrize(
    ("scale", "words"), [("1e-30", "2.6e-28 of model input, less than 1e-06"), ("1e5", "2.6e+07 of model input, more")]
)
def test_a_scale_out_of_all_proportion_is_a_caution(run: Any, scale: str, words: str) -> None:
    code, out, _ = run("inspect", "net.onnx", "--scale", scale)
    assert code == 0
    assert " ".join(out.split()).count(f"{DOUBT}black to white is {words}") == 1


@pytest.mark.parametrize("scale", ["1", "1/255", "257", "1e-5"])
def test_a_scale_that_models_take_is_none(run: Any, scale: str) -> None:
    assert "black to white" not in run("inspect", "net.onnx", "--scale", scale)[1]
