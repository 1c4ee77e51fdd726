"""The HTML report of `diff`: what changed, how much, and at which frequencies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from numpy.typing import NDArray

from onnxgain.analysis.difference import Difference, reading, summary
from onnxgain.analysis.layers import LayerChanges
from onnxgain.files import command_line
from onnxgain.measure import preview
from onnxgain.measure.record import Record, stimulus_text
from onnxgain.report.charts import compare as charts
from onnxgain.report.charts.diff import DiffImages, DiffPanel
from onnxgain.report.charts.layers import layers_along_depth
from onnxgain.report.html.answers import differing_answers
from onnxgain.report.html.elements import assumptions, facts, listed, picture, section, steps, table, with_minus
from onnxgain.report.html.markup import Child, Markup, element
from onnxgain.report.html.page import Page
from onnxgain.report.text.diff import (
    BAND_HEADING,
    GAIN_HEADING,
    RECORDS_HOLD,
    DiffReport,
    answers,
    band_rows,
    gain_rows,
    sameness,
    sentences,
)  # fmt: skip
from onnxgain.report.text.formatting import capitalized, scale_text
from onnxgain.report.text.layers import exclusion, heading, layer_rows, recovery_words

SHOWN = 12
"""The largest number of stimuli with pictures; more would make the file too large."""


def render_html(report: DiffReport, *, when: datetime | None = None) -> str:
    """Render the page.

    Raises:
        OnnxgainError: the chart library is not installed.
    """
    before, after = report.models
    page = Page(f"{before.name} → {after.name}")
    page.sections.append(_summary(report))
    answered = list(differing_answers(report.function, [difference.change for difference in report.differences]))
    if answered:
        page.sections.append(element("section", *answered, class_="answers"))
    if report.layers is not None:
        page.sections.append(_layers(page, report.layers))
    for number, difference in enumerate(report.differences):
        panel = report.panels[number] if number < min(len(report.panels), SHOWN) else None
        page.sections.append(_stimulus(page, difference, panel))
    if report.missing:
        page.sections.append(section("Could not be compared", listed(report.missing), class_="lists"))
    page.sections.append(_explanation(drawn=bool(report.panels), layers=report.layers is not None))
    return page.render(when)


def _summary(report: DiffReport) -> Markup:
    before, after = report.models
    change = report.differences[0].change
    rows: list[tuple[str, Child]] = [
        ("before", before.path),
        ("after", after.path),
        ("image", "×".join(map(str, change.after.interface.image_shape))),
        ("projection", change.after.projection),
        ("input scale", _both(change.before, change.after)),
        ("engine", f"{change.after.engine.package} {change.after.engine.version}, {change.after.engine.provider}"),
        ("gain", "dB per 8-bit level"),
    ]
    return element(
        "section",
        element(
            "div",
            element("b", with_minus(capitalized(sameness(report) if report.identical else answers(report)))),
            element("p", "In frequency: ", with_minus(summary(report.differences))),
            element("p", with_minus(capitalized(f"{report.evidence}."))) if report.evidence is not None else None,
            element("p", f"Compared: {RECORDS_HOLD}.") if report.from_records else None,
            class_="verdict",
        ),
        steps(_steps(report)),
        element("h3", "What else is different"),
        listed(report.changed),
        assumptions(report.assumed()),
        facts(rows),
        class_="summary",
    )


def _steps(report: DiffReport) -> Iterator[tuple[str, str | None]]:
    before, after = (command_line([model.path]) for model in report.models)
    if any("assumed" in _both(d.change.before, d.change.after) for d in report.differences[:1]):
        yield "The input scale is assumed: give it with --preprocess; see", "onnxgain docs scale"
    if report.to_do is not None:
        yield f"{capitalized(report.to_do)}.", None
    if len(report.differences) <= 2 and report.panels:
        yield "Look at photographs of yours too:", f"onnxgain diff {before} {after} --image photos/"
    yield "Hold later versions to a bound:", f"onnxgain gate {after} --baseline baseline.json --update-baseline"


def _both(before: Record, after: Record) -> str:
    names = [scale_text(r) for r in (before, after)]
    return names[0] if names[0] == names[1] else " → ".join(names)


def _layers(page: Page, changes: LayerChanges) -> Markup:
    spec = layers_along_depth(changes)
    left = ("layer", "operator")
    return section(
        "Which layers carry the change",
        element("p", element("b", with_minus(capitalized(changes.summary)))),
        element("p", with_minus(capitalized(measured))) if (measured := recovery_words(changes)) is not None else None,
        element("p", capitalized(advice)) if (advice := exclusion(changes)) is not None else None,
        page.chart(spec, "effects of the layers along the depth of the network") if spec else None,
        table(heading(changes), layer_rows(changes), left=left) if changes.layers else None,
        class_="layers",
    )


def _stimulus(page: Page, difference: Difference, panel: DiffPanel | None) -> Markup:
    return section(
        stimulus_text(difference.change.after),
        element("p", element("b", with_minus(reading(difference)))),
        element(
            "div",
            element("div", table(GAIN_HEADING, gain_rows(difference), left=("channel",))),
            element("div", listed(sentences(difference))),
            class_="columns",
        ),
        element("h3", "Where in frequency"),
        *spectrum_changed(page, difference),
        *(_pictures(panel) if panel is not None else ()),
        class_="stimulus",
    )


def spectrum_changed(page: Page, difference: Difference) -> Iterator[Markup]:
    """The change of the spectrum by band, and of the radial profiles."""
    if difference.spectrum is not None:
        yield table(BAND_HEADING, band_rows(difference), left=("cycles/pixel",))
    spec = charts.profile_change(difference.change)
    if spec:
        yield page.chart(spec, "radial profiles before and after, a panel a channel, and their difference")


# ------------------------------------------------------------------------------------------------ pictures
def _pictures(panel: DiffPanel) -> Iterator[Markup]:
    yield element("h3", "Derivatives and frequency responses")
    images = panel.images()
    derivatives = _about_zero(images, panel)
    responses = _responses(images)
    for channel, name in enumerate(panel.channel_names):
        yield element("h4", name)
        yield element(
            "div",
            *(row[channel] for row in derivatives),
            *(row[channel] for row in responses),
            class_="pictures six",
        )


def _about_zero(images: DiffImages, panel: DiffPanel) -> list[list[Markup]]:
    columns = [
        ("derivative before", panel.derivatives[0], images.derivative_limit),
        ("derivative after", panel.derivatives[1], images.derivative_limit),
        ("derivative, change", images.derivative_change, images.derivative_change_limit),
    ]
    return [_signed(name, values, limit, f"{limit:.2g}") for name, values, limit in columns]


def _responses(images: DiffImages) -> list[list[Markup]]:
    low, high = images.response_limits
    found = []
    for name, values in zip(("response before", "response after"), images.responses, strict=True):
        indices = preview.levels(values, (low, high), preview.PICTURE)
        pngs = (preview.encoded(channel, preview.VIRIDIS) for channel in indices)
        found.append([_figure(png, name, "viridis", f"{low:.0f} dB", f"{high:.0f} dB") for png in pngs])
    limit = images.response_change_limit
    return [*found, _signed("response, change", images.response_change, limit, f"{limit:.1f} dB")]


def _signed(name: str, values: NDArray[Any], limit: float, end: str) -> list[Markup]:
    indices = preview.signed_levels(values, limit, preview.PICTURE)
    pngs = (preview.encoded(channel, preview.BLUE_RED) for channel in indices)
    return [_figure(png, name, "bluered", f"−{end}", f"+{end}") for png in pngs]


def _figure(png: str, caption: str, scale: str, low: str, high: str) -> Markup:
    ends = element("span", element("span", with_minus(low)), element("span", with_minus(high)), class_="ends")
    return element(
        "figure",
        picture(png, caption),
        element("span", class_=f"scale {scale}"),
        element("figcaption", ends, caption),
    )


# ---------------------------------------------------------------------------------------------- explanation
def _explanation(*, drawn: bool, layers: bool) -> Markup:
    rows: list[tuple[str, Child]] = [
        ("gain", MAXIMUM_GAIN),
        (
            "spectrum, rms",
            "Root mean square of the differences in dB, bin by bin, weighted by power within the band; values more "
            "than 60 dB below the maximum are raised to that level.",
        ),
        ("bands", "Of radial frequency; the level of a band is 10 log10 of the mean of |H|². Corners: diagonals only."),
        (
            "radial profile",
            "The mean power of the response over rings of equal radial frequency, in dB; the last panel is after minus "
            "before.",
        ),
        (
            "logits",
            "Distance of the logits, without what softmax ignores (their mean). KL: Kullback-Leibler divergence of the "
            "class probabilities.",
        ),
        ("derivative", "Distance of the derivatives, and the cosine of the angle between them."),
    ]
    if layers:
        rows.append(
            (
                "effect of a layer",
                "How far the error that the layer itself adds moves the logits, to first order, relative to how far "
                "they moved; the mean of synthetic images. share: its square, relative to the sum of all layers. put "
                "back: measured, the part of the difference between the answers that is gone with this layer as "
                "before. along: the part along the whole change. adds: the layer's own error. total: with those of "
                "earlier layers.",
            )
        )
    if drawn:
        rows.append(
            (
                "pictures",
                "Before and after share their colours. In derivatives and changes red is positive, blue negative; the "
                "frequency 0 is in the middle of a response, ±1/2 cycle a pixel at its edges.",
            )
        )
    return section("How each number was measured", facts(rows), id_="method")


MAXIMUM_GAIN = (
    "The maximum of the frequency response 20 log10 |FFT2(derivative)|, for each channel. The derivative is taken of "
    "what the projection names (for 1/score the logarithm of the class's probability) with respect to the image at the "
    "stimulus, per 8-bit level; mean: of the channels' dB values."
)
