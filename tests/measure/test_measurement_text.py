"""A measurement prints as one line; a result of one thing has one item."""

from __future__ import annotations

from pathlib import Path

import onnxgain
from tests.support import models, reports


def test_a_measurement_prints_as_one_line() -> None:
    measurement = reports.measured()
    record = measurement.record
    assert record.gain.mean is not None
    assert str(measurement) == repr(measurement) == (
        f"<Measurement 'net.onnx': impulse, class {record.class_index}, score {record.score:.4f}, "
        f"{record.gain.mean:.2f} dB, scale {record.scale.name}>"
    )  # fmt: skip


def test_a_result_of_one_thing_is_iterated_as_one(tmp_path: Path) -> None:
    path = models.save(models.conv_net(), tmp_path / "a.onnx")
    found = onnxgain.diff(path, path, preprocess="unit")
    assert list(found) == [found[0]] == [found.value]
    assert len(found) == 1 and found
