"""Results of commands that no package below has: what `onnxgain.report.reporter` renders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.ort_training import EngineCheck
    from onnxgain.measure.record import Record
    from onnxgain.measure.verify import GradientCheck

Document = Mapping[str, Any]
"""A result that is a JSON document already: that of `inspect` and of `doctor`."""


class Scores(NamedTuple):
    """What `score` measured.

    Attributes:
        measurements: with pictures where a page is made.
        failures: models that could not be measured, and why.
    """

    measurements: tuple[Measurement, ...]
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        """Of the measurements."""
        return tuple(measurement.record for measurement in self.measurements)


class Verifications(NamedTuple):
    """What `verify` found out about a model: a check a stimulus.

    Attributes:
        checks: against finite differences.
        against: against another engine; empty where none was asked for.
    """

    model: str
    checks: tuple[GradientCheck, ...]
    against: tuple[EngineCheck, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether all checks agree."""
        return all(check.agrees for check in self.checks) and all(check.agrees for check in self.against)


class GateSetup(NamedTuple):
    """What `gate --init` did.

    Attributes:
        written: (file, what it is for).
        assumed: (model, what was assumed of it); of the repository where the model is empty.
        left_out: (model, why it is not gated).
        next: (what for, command).
    """

    written: tuple[tuple[str, str], ...]
    assumed: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    next: tuple[tuple[str, str], ...]
