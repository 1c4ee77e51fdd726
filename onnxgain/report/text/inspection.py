"""The result of `inspect` as text."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxgain.errors import first_names
from onnxgain.measure.words import SCALE_SOURCES
from onnxgain.report.reporter import Document
from onnxgain.report.text.assumptions import assumed
from onnxgain.report.text.formatting import new_console, printable, printed


def render_table(found: Document, *, colour: bool = True) -> str:
    """The text that `onnxgain inspect` prints."""
    console = new_console(colour)
    model, image, head, scale = found["model"], found["image"], found["head"], found["scale"]
    step = ", ".join(f"{s:.6g}" for s in scale["step"])
    producer = f", {model['producer']}" if model["producer"] else ""
    size = "x".join(map(str, image["shape"]))
    rows = [
        ("model", f"{model['path']}  opset {model['opset']}, {model['parameters']:,} parameters{producer}"),
        ("image", f"{image['input']}  {image['layout']} {image['dtype']}, {size} (channels x height x width)"),
        ("classes", f"{head['classes']} from output {head['output']} ({head['kind']})"),
        ("scale", f"{scale['name']} ({SCALE_SOURCES[scale['source']]}); one 8-bit level = {step} of model input"),
    ]
    if head["class_names"]:
        rows.insert(3, ("", f"{_class_names(head['class_names'])} ({SCALE_SOURCES[head['class_names_source']]})"))
    rows += [("input", f"{name} {shape}") for name, shape in found["other_inputs"].items()]
    rows.append(("operators", ", ".join(f"{name} {count}" for name, count in found["operators"].items())))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(printable(str(value))))
    console.print(grid)
    for line in assumed(((model["path"], sentence) for sentence in found["assumptions"]), models=1):
        word, _, sentence = line.partition(" ")
        console.print(Text(f"{word} ", style="yellow") + Text(printable(sentence)))
    if found["without_gradient"]:
        console.print(Text("no gradient, so it cannot be scored:", style="red"))
        for gap in found["without_gradient"]:
            operator = f"{gap['domain']}.{gap['operator']}" if gap["domain"] else gap["operator"]
            where = f"input {gap['input']!r} at node {gap['node']!r}"
            console.print(Text(printable(f"  {operator} (version {gap['version']}) {where}: {gap['reason']}")))
    else:
        console.print(Text("every operator between image and logits has a gradient", style="green"))
    if found["without_slope"]:
        nodes = first_names([f"{node['operator']} {node['node']!r}" for node in found["without_slope"]], _NODES)
        console.print(Text(printable(f"zero slope everywhere, so no derivative passes: {nodes}"), style="yellow"))
    if found["random"]:
        nodes = first_names(found["random"], _NODES)
        console.print(Text(printable(f"draws at random, so each run gives other numbers: {nodes}"), style="yellow"))
    if "placement" in found:
        _print_placement(console, found["placement"])
    return printed(console)


_NAMES = 3
_NODES = 5
_LONGEST_NAME = 40


def _class_names(names: Document) -> str:
    """The first class names by index, and how many more there are."""
    shown = [f"{index} {name[:_LONGEST_NAME]}" for index, name in names.items()]
    return first_names(shown, _NAMES)


_LISTED = 2
"""The largest number of nodes that are named per operator and reason; of more, only the number is printed."""


def _print_placement(console: Console, placement: Document) -> None:
    """The operators that a device leaves to the CPU."""
    left, source = placement["on_cpu"], f"(by {placement['source']})"
    if not left:
        console.print(Text(f"{placement['device']} computes all {placement['nodes']} nodes {source}", style="green"))
        return
    text = f"{placement['device']} leaves {len(left)} of {placement['nodes']} nodes to the CPU {source}:"
    console.print(Text(text, style="yellow"))
    alike: dict[tuple[str, str], list[str]] = {}
    for node in left:
        alike.setdefault((node["operator"], node["reason"] or ""), []).append(node["node"])
    for (operator, reason), names in alike.items():
        which = ", ".join(map(repr, names)) if len(names) <= _LISTED else f"{len(names)} nodes, the first {names[0]!r}"
        console.print(Text(printable(f"  {operator} {which}{': ' if reason else ''}{reason}")))
