"""A measurement prints as one line."""

from __future__ import annotations

from tests.support import reports


def test_a_measurement_prints_as_one_line() -> None:
    measurement = reports.measured()
    record = measurement.record
    assert record.gain.mean is not None
    assert str(measurement) == repr(measurement) == (
        f"<Measurement 'net.onnx': impulse, class {record.class_index}, score {record.score:.4f}, "
        f"{record.gain.mean:.2f} dB, scale {record.scale.name}>"
    )  # fmt: skip
