"""Messages of the command line, reworded for Python callers."""

from __future__ import annotations

import pytest

from onnxgain.commands.wording import in_python


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("give them, e.g. --input mask=1", 'give them, e.g. input="mask=1"'),
        ("give them, e.g. --input x:0=0, or leave it", 'give them, e.g. input="x:0=0", or leave it'),
        ("set it with --image-shape 3x8x8", "set it with image_shape=3x8x8"),
    ],
)
def test_options_become_arguments(said: str, expected: str) -> None:
    assert in_python(said) == expected
