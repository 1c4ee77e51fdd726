"""Pictures in the HTML reports: how they are reduced, and how many a page holds."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxgain.measure import preview
from onnxgain.report.html import pictures as html_pictures
from tests.report.test_html import comparison_page, data_of
from tests.support.reports import Elements, a_preview

pytest.importorskip("vl_convert")


def decoded(png: str) -> np.ndarray[Any, Any]:
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


def test_reduced_picture_keeps_the_strongest_value() -> None:
    derivative = np.zeros((1, 240, 240))
    derivative[0, 100, 30], derivative[0, 7, 200] = 4.0, -4.0
    db = np.full((1, 240, 240), -50.0)
    db[0, 120, 122] = 3.0
    found = preview.make_preview(derivative, db, 60)
    slope, response = decoded(found.derivatives[0]), decoded(found.responses[0])
    assert slope.shape == response.shape == (60, 60)
    middle = (preview.LEVELS - 2) // 2
    assert slope[25, 7] == preview.LEVELS - 2 and slope[1, 50] == 0
    assert (slope == middle).sum() == slope.size - 2
    assert response[30, 30] == preview.LEVELS - 1 and (response > 0).sum() == 1
    assert found.derivative_limit == 1.0  # few pixels are as large as 4, so the limit is a quarter of it
    assert found.response_limits == (-50.0, 3.0)


def test_picture_colours_match_the_scales() -> None:
    image = Image.open(io.BytesIO(base64.b64decode(preview.encoded(np.array([[0, 31]], np.uint8), preview.VIRIDIS))))
    assert image.mode == "P"
    assert [image.convert("RGB").getpixel(place) for place in ((0, 0), (1, 0))] == [(68, 1, 84), (253, 231, 37)]
    middle = preview.BLUE_RED[45:48]
    assert middle == (247, 247, 247)
    assert preview.gradient(preview.VIRIDIS).startswith("#440154,")


def test_small_and_empty_derivatives_are_drawn() -> None:
    found = preview.make_preview(np.zeros((3, 8, 12)), np.full((3, 8, 12), -np.inf), 96)
    assert decoded(found.derivatives[0]).shape == (8, 12)
    assert found.derivative_limit == 0.0


def test_preview_json_round_trip() -> None:
    assert preview.from_json(json.loads(json.dumps(preview.to_json(a_preview())))) == a_preview()


@pytest.mark.parametrize(
    "change",
    [
        {"derivatives": ['"><script>']}, {"derivatives": []}, {"responses": "AAAA"}, {"responses": [7]},
        {"derivative_limit": "x"}, {"derivative_limit": float("nan")}, {"response_limits": [1.0]},
    ],
)  # fmt: skip
def test_invalid_pictures_are_refused(change: dict[str, Any]) -> None:
    values = preview.to_json(a_preview())
    preview.from_json(values)
    with pytest.raises(ValueError, match="not"):
        preview.from_json(values | change)
    with pytest.raises(ValueError, match="not a preview"):
        preview.from_json(None)


def test_more_pictures_than_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(a_preview().derivatives[0]) + len(a_preview().responses[0])
    monkeypatch.setattr(html_pictures, "PICTURE_BYTES", int(size * 2.5))
    page = comparison_page(8)
    assert len(Elements(page).all("img")) == 4
    assert "pictures of 2 of 8" in Elements(page).text()
    assert all(model.get("others", []) == [] for model in data_of(page)["groups"][0]["models"])


def test_few_models_have_large_pictures() -> None:
    assert preview.picture_side(1) == preview.picture_side(preview.FEW) == preview.PICTURE
    assert preview.picture_side(preview.FEW + 1) == preview.THUMBNAIL
