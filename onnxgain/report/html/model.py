"""The data about one model in the HTML report of many measurements: its profile, pictures and details."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from onnxgain.analysis.comparison import MEAN, Entry
from onnxgain.measure.record import Record, channel_names
from onnxgain.measure.words import SCALE_SOURCES, class_text, producer_text, steadiness_text
from onnxgain.report.html.pictures import Pictures, first_channel
from onnxgain.report.text.formatting import decibels, printable, probability


def model_data(entry: Entry, pictures: Pictures) -> dict[str, Any]:
    """The data that the page's script shows about a model."""
    record = entry.record
    preview = entry.preview
    profile = dict(zip(channel_names(record), record.spectrum.profile_db, strict=False))
    data: dict[str, Any] = {
        "label": printable(entry.label),
        "frequency": [round(f, 4) for f in record.spectrum.profile_frequency],
        "profile": {name: _rounded(row) for name, row in profile.items()} | {MEAN: _mean_profile(record)},
        "details": [[name, [[k, printable(v)] for k, v in rows]] for name, rows in details(record)],
    }
    if preview is not None:
        low, high = preview.response_limits
        data["first"] = channel_names(record)[first_channel(record)]
        data["others"] = list(pictures.others(entry))
        data["limits"] = [f"±{preview.derivative_limit:.2g}", f"{low:.0f}", f"{high:.0f}"]
    return data


def _rounded(row: Iterable[float | None]) -> list[float | None]:
    return [None if gain is None else round(gain, 2) for gain in row]


def _mean_profile(record: Record) -> list[float | None]:
    columns = zip(*record.spectrum.profile_db, strict=True)
    return _rounded(None if None in gains else fmean(g for g in gains if g is not None) for gains in columns)


def details(record: Record) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """All facts about a measurement, as (heading, [(name, value)])."""
    names, spectrum, model, scale, engine = (
        channel_names(record), record.spectrum, record.model, record.scale, record.engine
    )  # fmt: skip
    steady = steadiness_text(record.gain.mean, record.steadiness)
    yield (
        "Result",
        [
            *(
                (f"gain {name}", f"{decibels(gain)} dB")
                for name, gain in zip(names, record.gain.channels, strict=False)
            ),
            ("mean gain", f"{decibels(record.gain.mean, record)} dB"),
            *((("steadiness", steady),) if steady is not None else ()),
            ("class", f"{class_text(record)}, {'given' if record.class_given else 'the winner'}"),
            ("score", probability(record)),
            ("margin", f"{record.margin:.4g} (its logit less the next)"),
            ("−3 dB at", _by_channel(spectrum.bandwidth_3db)),
            ("−6 dB at", _by_channel(spectrum.bandwidth_6db)),
            ("centroid", _by_channel(spectrum.centroid)),
            *(
                (
                    f"peak {names[p.channel]}",
                    f"{p.gain_db:.2f} dB at fy {p.fy:.3f}, fx {p.fx:.3f}" + _suffix(p.harmonic),
                )
                for p in _strongest(record)
            ),
        ],
    )
    parameters = ", ".join(f"{key} {value}" for key, value in record.stimulus.parameters.items())
    yield (
        "Question",
        [
            ("stimulus", f"{record.stimulus.name} ({parameters})" if parameters else record.stimulus.name),
            ("window", "Hann" if record.stimulus.windowed else "none"),
            ("projection", record.projection),
            ("scale", f"{scale.name} ({SCALE_SOURCES.get(scale.source, scale.source)})"),
            ("mean, std, factor", f"{_numbers(scale.mean)}; {_numbers(scale.std)}; {scale.scale:.6g}"),
            ("channels", "BGR" if scale.bgr else "as they are"),
            ("8-bit level", f"{_numbers(scale.step)} of model input"),
        ],
    )
    shape = "×".join(map(str, record.interface.image_shape))
    yield (
        "Model",
        [
            ("path", model.path),
            ("sha256", model.sha256),
            ("size", f"{model.bytes:,} bytes, {model.parameters:,} parameters"),
            ("opset", str(model.opset)),
            ("producer", producer_text(record)),
            ("input", f"{record.interface.input}: {record.interface.layout} {record.interface.dtype}, {shape}"),
            ("output", f"{record.interface.output}: {record.interface.head}, {record.interface.classes} classes"),
        ],
    )
    seconds = record.time
    yield (
        "Engine",
        [
            ("runtime", f"{engine.package} {engine.version}"),
            ("provider", f"{engine.provider}, {engine.threads} threads"),
            ("gradient", f"onnxgain {engine.onnxgain}"),
            (
                "seconds",
                f"read {seconds.read:.2f}, differentiate {seconds.differentiate:.2f}, load {seconds.load:.2f}, "
                f"run {seconds.run:.2f}",
            ),
        ],
    )
    if record.assumptions:
        yield "Assumed", [("", sentence) for sentence in record.assumptions]


def _strongest(record: Record) -> Iterator[Any]:
    """The strongest peak of each channel."""
    seen: set[int] = set()
    for peak in record.spectrum.peaks:
        if peak.channel not in seen and peak.channel < len(channel_names(record)):
            seen.add(peak.channel)
            yield peak


def _suffix(harmonic: str | None) -> str:
    return f", {harmonic}" if harmonic else ""


def _by_channel(values: Iterable[float | None]) -> str:
    return ", ".join("–" if value is None else f"{value:.3f}" for value in values) + " cycles/pixel"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
