"""A gate's results on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from onnxgain.analysis.gate_result import GOOD, GateResult
from onnxgain.report.text.formatting import UNBROKEN, hanging, new_console, printed
from onnxgain.report.text.gate_text import (
    HEADING,
    LEFT,
    assumed_of,
    compared_with,
    evidence,
    finding,
    group_advice,
    group_names,
    group_title,
    grouped,
    headline,
    others_failed,
    reasons,
    rows,
    spectrum_words,
    word,
)
from onnxgain.report.text.tables import ESSENTIAL, Column, Table

_STYLES = {
    "same function": "bold green",
    "pass": "bold green",
    "review": "bold yellow",
    "fail": "bold red",
    "error": "bold red",
}


def render_table(results: Sequence[GateResult], *, colour: bool = True) -> str:
    """Failed models first, with reasons and numbers; passed models in one line each, a single model with numbers."""
    console = new_console(colour, width=UNBROKEN)
    for group in grouped(results):
        result = group[0]
        _line(console, f"{word(result):5} ", _STYLES[result.verdict], group_title(group))
        if len(group) == 1 and (other := compared_with(result)) is not None:
            _line(console, f"  {'compared with':17} ", "bold", other)
        for check in others_failed(result):
            _line(console, f"  {check.name:17} ", "bold", finding(result, check))
        if len(group) > 1:
            _line(console, f"  {'models':17} ", "bold", group_names(group))
        if result.verdict not in GOOD and (spectrum := spectrum_words(result)):
            _line(console, f"  {'spectrum':17} ", "dim", spectrum)
        for reason in reasons(result):
            _line(console, f"  {'why' if result.verdict not in GOOD else 'note':17} ", "dim", reason)
        for purpose, command in group_advice(group):
            _line(console, f"  {purpose:17} ", "cyan", command, whole=True)
        if len(group) == 1 and result.records and (result.verdict not in GOOD or len(results) == 1):
            _numbers(result).print(console)
    for line in assumed_of(results):
        _line(console, "", "", line)
    if (sentence := evidence(results, of_passes=False)) is not None:
        _line(console, "", "", sentence)
    if len(results) != 1:
        console.print()
        console.print(Text(headline(results), style="bold"))
    return printed(console)


def _line(console: Console, label: str, style: str, text: str, *, whole: bool = False) -> None:
    """Print a line, unwrapped if `whole`, else wrapped on a terminal with continuation lines aligned with its text.

    In a file or pipe, a message stays one line that can be searched for.
    """
    shown = hanging(label, text, UNBROKEN if whole else console.width)
    console.print(Text(label, style=style) + Text(shown[len(label) :]), soft_wrap=True)


def _numbers(result: GateResult) -> Table:
    ranks = {"scale": 3, "score": 2, "class": 1}
    columns = [
        Column(name, left=name in LEFT, rank=ranks.get(name, ESSENTIAL), names=name == "stimulus") for name in HEADING
    ]
    return Table.of(columns, rows(result))
