"""Fixtures of several test modules."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxgain.commands.cli import main

ROOT = Path(__file__).parent.parent

# Shells start background processes with SIGINT ignored, which every process that a test interrupts would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as raised:
            main([str(argument) for argument in arguments])
        assert isinstance(raised.value.code, int)
        return raised.value.code, *capfd.readouterr()

    return call


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate cache folder for the test and the processes that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("LOCALAPPDATA", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder
