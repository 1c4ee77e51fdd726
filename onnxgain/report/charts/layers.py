"""The effects of layers along the depth of a network: a Vega-Lite specification for pages, a drawing for --plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxgain.report.charts.figure import ACCENT, INK, wrapped
from onnxgain.report.charts.parts import COLOURS, OTHER, Spec, axis, chart, panel
from onnxgain.report.text.formatting import printable
from onnxgain.report.text.layers import operators

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from onnxgain.analysis.layers import LayerChanges

WORST = 10
"""Number of layers that are coloured."""
_NAMED = 3
"""Number of layers that are named in a drawing."""
_DEPTH = "depth: 0 at the image, 1 at the logits"


def points(changes: LayerChanges) -> list[dict[str, Any]]:
    """One point per changed layer, worst first. Layers whose value is not finite are left out."""
    found = []
    for rank, layer in enumerate(changes.layers, 1):
        size = layer.added_error if changes.no_effects is not None else layer.error.effect
        if size is not None and abs(size) < float("inf"):
            found.append(
                {
                    "rank": rank,
                    "layer": printable(layer.name),
                    "operator": printable(operators(layer)),
                    "depth": layer.depth,
                    "size": 100 * size,
                    "share": None if layer.share is None else 100 * layer.share,
                    "worst": rank <= WORST,
                }
            )
    return found


def size_title(changes: LayerChanges) -> str:
    """The title of the axis of `size`."""
    return "effect on the logits (%)" if changes.no_effects is None else "the layer's own error (%)"


def layers_along_depth(changes: LayerChanges) -> Spec:
    """One stem per changed layer, with the worst `WORST` coloured and numbered. Empty if no layer changed."""
    values = points(changes)
    if not values:
        return {}
    x, y = axis("depth", _DEPTH, domain=(0.0, 1.0)), axis("size", size_title(changes))
    x["scale"] |= {"nice": False, "padding": 12}
    y["scale"] = {"zero": True}
    colour = {"condition": {"test": {"field": "worst", "equal": True}, "value": COLOURS["R"]}, "value": OTHER}
    about = [
        {"field": "layer", "type": "nominal", "title": "layer"},
        {"field": "operator", "type": "nominal", "title": "operator"},
        {"field": "rank", "type": "quantitative", "title": "rank"},
        {"field": "size", "type": "quantitative", "title": size_title(changes), "format": ".2g"},
        {"field": "share", "type": "quantitative", "title": "share of the change (%)", "format": ".2g"},
    ]
    stems = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"x": x, "y": y, "y2": {"datum": 0}, "color": colour, "tooltip": about},
    }
    heads = {
        "mark": {"type": "circle", "size": 70, "opacity": 1},
        "encoding": {"x": x, "y": y, "color": colour, "tooltip": about},
    }
    numbers = {
        "mark": {"type": "text", "dy": -11, "fontSize": 12},
        "transform": [{"filter": {"field": "worst", "equal": True}}],
        "encoding": {"x": x, "y": y, "text": {"field": "rank", "type": "quantitative"}},
    }
    return chart([panel(None, [stems, heads, numbers])], values)


def draw_layers(axes: Axes, changes: LayerChanges) -> None:
    """Draw the same chart on the axes of a figure, with the names of the first `_NAMED` layers."""
    values = points(changes)
    for point in values:
        colour = ACCENT if point["worst"] else OTHER
        axes.vlines(point["depth"], 0, point["size"], colors=colour, linewidth=1.6)
        axes.plot(point["depth"], point["size"], "o", color=colour, markersize=4)
    for point in values[:_NAMED]:
        right = point["depth"] > 0.5
        axes.annotate(
            f"{point['rank']}: {wrapped(point['layer'], 60)}", (point["depth"], point["size"]),
            xytext=(-6 if right else 6, 2), textcoords="offset points", ha="right" if right else "left", color=INK,
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(_DEPTH)
    axes.set_ylabel(size_title(changes))
