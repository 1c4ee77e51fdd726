"""Tables fit terminals of any width and name the columns that they leave out."""

from __future__ import annotations

import pytest

from onnxgain.report.text.formatting import merged
from onnxgain.report.text.tables import Column, Table, columns_of

COLUMNS = (
    Column("#"),
    Column("model", left=True, names=True),
    Column("class", rank=3),
    Column("score", rank=2),
    *(Column(f"{channel} dB", rank=1) for channel in "RGB"),
    Column("mean dB", strong=True),
    Column("scale", left=True, rank=4),
)
NAMES = ("exports/torchvision/efficientnet_v2_s_int8_dynamic.onnx", "b.onnx", "模型/网络.onnx")
CELLS = ("285", "0.9912", "-10.25", "-11.50", "-9.75", "-10.50", "imagenet*")
TABLE = Table.of(COLUMNS, [(str(i), name, *CELLS) for i, name in enumerate(NAMES)])


def texts(width: int) -> list[str]:
    return ["".join(part for part, _ in line) for line in TABLE.lines(width)]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200, 10_000])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = [line for line in texts(width) if columns_of(line) > width]
    assert [line for line in long if line not in NAMES] == []
    assert all(any(name in line for line in texts(width)) for name in NAMES)
    assert sum("-10.50" in line for line in texts(width)) == len(NAMES)


def test_a_wide_terminal_shows_everything() -> None:
    heading, *rows = texts(120)
    assert len(rows) == len(NAMES)
    assert heading.split() == ["#", "model", "class", "score", "R", "dB", "G", "dB", "B", "dB", "mean", "dB", "scale"]
    assert all(row.endswith("imagenet*") for row in rows)


def test_names_move_to_their_own_lines_before_columns_are_dropped() -> None:
    lines = texts(80)
    assert NAMES[0] in lines
    assert "imagenet*" in lines[lines.index(NAMES[0]) + 1]
    assert not lines[-1].startswith("too narrow")


def test_the_least_important_columns_are_left_out_and_named() -> None:
    assert texts(48)[-1] == "too narrow for: class, scale"
    narrow = texts(20)
    assert narrow[0].split() == ["#", "mean", "dB"]
    assert narrow[-3:] == ["too narrow for:", "class, score, R dB,", "G dB, B dB, scale"]


def test_markdown_has_all_columns() -> None:
    heading, rule, *rows = TABLE.markdown().splitlines()
    assert heading == "| # | model | class | score | R dB | G dB | B dB | mean dB | scale |"
    assert rule == "| ---: | :--- | ---: | ---: | ---: | ---: | ---: | ---: | :--- |"
    assert len(rows) == len(NAMES)


def test_width_counts_terminal_cells() -> None:
    assert columns_of("model") == 5
    assert columns_of("模型") == 4
    assert columns_of("e\N{COMBINING ACUTE ACCENT}") == 1


def test_equal_reasons_are_merged_with_a_count() -> None:
    damaged = "not an ONNX model; export it again"
    reasons = [(f"m{i}.onnx", f"m{i}.onnx: {damaged}") for i in range(14)]
    assert merged([*reasons, ("x.onnx", "timed out")]) == [
        f"14 times: {damaged} ({', '.join(f'm{i}.onnx' for i in range(12))} and 2 more)",
        "x.onnx: timed out",
    ]
