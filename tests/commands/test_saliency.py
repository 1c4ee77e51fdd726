"""`onnxgain saliency`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from onnxgain.commands import saliency as command
from onnxgain.measure.saliency import METHODS
from tests.support import models


@pytest.fixture
def run(run: Any) -> Any:
    return functools.partial(run, "saliency")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = np.random.default_rng(0).normal(size=(6, 3, 8, 8))
    return Path(models.save(models.linear(weights, np.zeros(6)), tmp_path / "m.onnx"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (10, 10, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_method_names_match_the_code() -> None:
    assert command.METHODS == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_arrays_and_json(run: Any, model: Path, photos: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "maps.npz"
    arguments = ("--method", method, "--samples", "3", "--map", out, "--format", "json")
    code, text, err = run(model, photos, *arguments)
    assert (code, err) == (0, f"wrote {out}\n")
    document = json.loads(text)
    assert document["schema"] == "onnxgain.saliency/1"
    assert [one["parameters"]["file"] for one in document["images"]] == ["0.png", "1.png"]
    with np.load(out) as maps:
        for number, one in enumerate(document["images"]):
            found = maps[f"map_{number}"]
            assert found.shape == (3, 8, 8)
            assert found.sum() == pytest.approx(one["sum"])
            size = np.square(found).sum(axis=0)
            assert size[one["strongest"]["y"], one["strongest"]["x"]] == size.max()


def test_a_picture(run: Any, model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    code, text, _ = run(model, photos, "--map", out, "--class", "3")
    assert code == 0
    assert "class 3" in text and "top classes" in text
    with PIL.Image.open(out) as picture:
        assert picture.width > picture.height


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--map", "map.txt"), "neither a picture nor an .npz"), (("--class", "6"), "no class 6")],
)
def test_unsupported_requests_are_refused(
    run: Any, model: Path, photos: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, text, err = run(model, photos, *arguments)
    assert (code, text) == (2, "")
    assert message in err


@pytest.mark.parametrize("name", ["map.png", "map.svg", "maps.npz"])
def test_out_takes_a_map_too(run: Any, model: Path, photos: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    code, text, err = run(model, photos, "-o", out)
    assert (code, err) == (0, f"wrote {out}\n")
    assert "top classes" in text
    assert not out.read_bytes().startswith(b"0.png")
    assert out.read_bytes()[:2] in (b"\x89P", b"<?", b"PK")
