"""Class names from metadata and from the file next to a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import onnxgain
from onnxgain.model.class_names import find_class_names
from onnxgain.model.classifier import load_classifier
from tests.support import models

NAMES = {0: "tench", 1: "rock 'n' roll", 2: 'a "b"', 3: "cat", 4: "dog"}
LABELS = {"id2label": {str(index): name for index, name in NAMES.items()}}


@pytest.mark.parametrize("text", [str(NAMES), json.dumps(NAMES), json.dumps(list(NAMES.values()))])
def test_ultralytics_names_are_read(text: str) -> None:
    found = find_class_names({"task": "classify", "names": text, "imgsz": "16"}, {})
    assert (found.names, found.source) == (NAMES, "metadata")


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_names_of_other_tasks_are_ignored(task: str) -> None:
    assert not find_class_names({"task": task, "names": str(NAMES)}, {}).names


@pytest.mark.parametrize("labels", [{"a": "b"}, {"0": 1}, {"-1": "a"}, {"9999999999": "a"}, "0: a", None, 7])
def test_invalid_names_are_ignored(labels: object) -> None:
    assert not find_class_names({}, {"config.json": {"id2label": labels}}).names


def test_names_are_shown_with_their_source(tmp_path: Path) -> None:
    path = models.save(models.conv_net(), tmp_path / "model.onnx")
    assert "class_names" in onnxgain.inspect(path).value["head"]
    (tmp_path / "config.json").write_text(json.dumps(LABELS))
    found = onnxgain.inspect(path)
    assert found.value["head"]["class_names"] == LABELS["id2label"]
    assert found.value["head"]["class_names_source"] == "config.json"
    text = str(found)
    assert "0 tench" in text and "2 more" in text and "(read from config.json)" in text


def test_wrong_number_of_names_is_reported(tmp_path: Path) -> None:
    path = models.save(models.conv_net(), tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}}))
    assert any("config.json names 2 classes, the output holds 5" in s for s in load_classifier(path).assumptions)
    (tmp_path / "config.json").write_text(json.dumps(LABELS))
    assert not any("names" in sentence for sentence in load_classifier(path).assumptions)


@pytest.mark.parametrize(
    ("described", "said"),
    [(None, "n01440764"), ({"n01440764": "tench"}, "tench"), ({"n01440764": 3}, "n01440764"), ("tench", "n01440764")],
)
def test_names_in_timm_configurations_are_read(described: object, said: str) -> None:
    config = {"label_names": ["n01440764", "cat"], "label_descriptions": described}
    assert find_class_names({}, {"config.json": config}).names == {0: said, 1: "cat"}


@pytest.mark.parametrize(
    ("model", "config", "read"),
    [
        ("onnx/model.onnx", "config.json", True), ("onnx/fp16/model.onnx", "config.json", True),
        ("onnx/fp16/model.onnx", "onnx/config.json", True), ("exports/model.onnx", "config.json", False),
        ("a/models--org--net/snapshots/1f/b/model.onnx", "a/models--org--net/snapshots/1f/config.json", True),
        ("a/models--org--net/snapshots/1f/b/model.onnx", "a/models--org--net/config.json", False),
    ],
)  # fmt: skip
def test_names_are_read_up_to_the_root_of_a_repository(model: str, config: str, read: bool, tmp_path: Path) -> None:
    path = tmp_path / "repository" / model
    path.parent.mkdir(parents=True)
    models.save(models.conv_net(), path)
    (tmp_path / "repository" / config).write_text(json.dumps(LABELS))
    names = load_classifier(path).class_names
    assert (names is not None and names.names == NAMES) is read


def test_names_of_the_nearest_folder_count(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    path = models.save(models.conv_net(), tmp_path / "onnx" / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a"}}))
    (tmp_path / "onnx" / "config.json").write_text(json.dumps(LABELS))
    names = load_classifier(path).class_names
    assert names is not None and names.names == NAMES


def test_folder_that_holds_the_model_is_found_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx").mkdir()
    models.save(models.conv_net(), tmp_path / "onnx" / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps(LABELS))
    monkeypatch.chdir(tmp_path / "onnx")
    names = load_classifier(Path("model.onnx")).class_names
    assert names is not None and names.names == NAMES


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_key_twice_beside_a_model_is_refused(name: str, tmp_path: Path) -> None:
    """Readers differ in which of the values they take."""
    from onnxgain.errors import ModelError
    from onnxgain.model.companions import read_companions

    (tmp_path / name).write_text('{"image_mean": [0.5], "image_mean": [0.4]}')
    with pytest.raises(ModelError, match=rf"{name}: an object has the key 'image_mean' twice; remove one of them"):
        read_companions(tmp_path / "model.onnx")
    (tmp_path / name).write_text("no JSON")
    assert read_companions(tmp_path / "model.onnx") == {}
