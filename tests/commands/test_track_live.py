"""The live chart of `onnxgain track --follow` in a terminal."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import rich.live
from rich.console import Console

from onnxgain.analysis.series import Series, Snapshot
from onnxgain.commands import following


@pytest.mark.parametrize("terminal", [True, False])
def test_the_live_chart_goes_where_the_result_has_another(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays where the result goes to a file; it says how far its verdict can be relied on."""
    options: list[bool] = []
    shown: list[str] = []

    class Recorder:
        def __init__(self, *_: Any, transient: bool, **others: Any) -> None:
            options.append(transient)

        def __enter__(self) -> Recorder:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, view: Any) -> None:
            console = Console(width=100, record=True, file=io.StringIO())
            console.print(view)
            shown.append(console.export_text())

    monkeypatch.setattr(rich.live, "Live", Recorder)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, write=lambda _: 0, flush=lambda: None))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal, write=lambda _: 0, flush=lambda: None))
    snapshots = tuple(Snapshot(n, f"epoch{n}.onnx", (), (-30.0 + n,)) for n in range(1, 9))
    with following._showing() as show:
        show([Series("run", snapshots, channels=("grey",))], "epoch8.onnx")
    assert options == [terminal]
    assert "\nA hint from the gains of 8 snapshots: right in " in shown[0]
