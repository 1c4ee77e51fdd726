"""Makes any number of records and pictures for reports, without a model for each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np

from onnxgain.analysis.comparison import Comparison, compare_records
from onnxgain.measure.measure import score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.preview import THUMBNAIL, Preview, make_preview
from onnxgain.measure.record import GainRecord, Record
from onnxgain.measure.spectrum import frequency_response
from tests.support import models


@functools.cache
def measured() -> Measurement:
    """A real measurement, with as many peaks and rings as for a large image."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return score(models.save(models.conv_net(size=(64, 64)), Path(folder) / "net.onnx"))[0]


def a_record(number: int = 0, *, name: str | None = None, assumed: bool = False, **changes: Any) -> Record:
    """A record with its own path, gains and score."""
    base = measured().record
    gains = tuple(-20.0 + 0.5 * (number * 7 % 40) + channel for channel in range(3))
    name = name if name is not None else f"model_{number}.onnx"
    model = dataclasses.replace(base.model, name=name, path=f"exports/{name}")
    scale = dataclasses.replace(base.scale, source="default" if assumed else "option")
    given: dict[str, Any] = {
        "model": model, "scale": scale, "gain": GainRecord(gains, float(np.mean(gains))),
        "score": (number % 10 + 1) / 11, "class_index": number,
    }  # fmt: skip
    return dataclasses.replace(base, **given | changes)


@functools.cache
def a_preview(seed: int = 0, size: int = 224, side: int = THUMBNAIL) -> Preview:
    """Pictures of noise, which compress no better than those of real models."""
    derivative = np.random.default_rng(seed).normal(size=(3, size, size))
    return make_preview(derivative, frequency_response(derivative, window=True).db, side)


def comparison_of(records: Sequence[Record], **rest: Any) -> Comparison:
    """The comparison of these records. Every third model has no error."""
    errors = {r.model.path: {"top5 error": 5.0 + i % 13} for i, r in enumerate(records) if i % 3 < 2}
    return compare_records(records, errors=errors, metrics=("top5 error",), **rest)


class Elements(HTMLParser):
    """The elements of a page, with their attributes and the text directly inside them (code: of its words, too).

    Raises:
        AssertionError: an element is not closed where it should be.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("img", "input", "link", "meta", "wbr"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        self.texts.append(("code" if inside == "span" and "code" in self._open else inside, data))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of the elements with this name that have the given attributes."""
        return [a for t, a in self.found if t == tag and all(a.get(k.rstrip("_")) == v for k, v in attributes.items())]

    def text(self, *tags: str) -> str:
        """The text of elements with these names, or of all elements but scripts and styles."""
        return "".join(
            text for tag, text in self.texts if (tag in tags if tags else tag not in ("script", "style"))
        )  # fmt: skip
