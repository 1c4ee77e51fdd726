"""What the README shows is what happens: its outputs, its Python, its tables, its links."""

from __future__ import annotations

import dataclasses
import re
import shlex
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands.cli import main
from onnxgain.measure.record import Record
from onnxgain.model.input_scale import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REAL_MODELS = ROOT.parent / "shared" / "data" / "models"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def sessions() -> Iterator[Any]:
    """(arguments, expected output) of each command shown with its output."""
    for block in blocks("console"):
        command, _, output = block.partition("\n")
        words = shlex.split(command)
        assert words[:2] == ["$", "onnxgain"], command
        yield pytest.param(words[2:], output, id=" ".join(words[2:])[:60])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the models that the README names."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    if REAL_MODELS.exists():
        for path in REAL_MODELS.glob("*.onnx"):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "expected"), [*sessions()])
def test_outputs(arguments: list[str], expected: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for word in arguments:
        if word.endswith(".onnx") and not (folder / word).exists():
            pytest.skip(f"{word} is not in ../shared/data/models")
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 0
    assert_alike(capfd.readouterr().out, expected)


def assert_alike(actual: str, expected: str) -> None:
    """The same words; decimals may differ in their last digits, errors written as 1e-7 by any factor up to 100."""
    assert NUMBER.sub("#", actual).split() == NUMBER.sub("#", expected).split()
    for have, want in zip(NUMBER.findall(actual), NUMBER.findall(expected), strict=True):
        if "e" in want:
            assert float(have) <= 100 * float(want)
        else:
            assert float(have) == pytest.approx(float(want), abs=0.011 if "." in want else 0), (have, want)


def test_alike_is_not_anything() -> None:
    assert_alike("gain -1.23 dB of 10, 2.0e-07", "gain  -1.22 dB of 10, 1.0e-07")
    for wrong in ("gain -1.25 dB of 10, 2.0e-07", "gain -1.22 dB of 11, 2e-7", "loss -1.22 dB of 10, 2e-7"):
        with pytest.raises(AssertionError):
            assert_alike(wrong, "gain -1.22 dB of 10, 1.0e-07")


def test_python_and_the_commands_before_it(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in "".join(blocks("sh")).splitlines():
        if line.startswith("onnxgain "):
            with pytest.raises(SystemExit) as raised:
                main(shlex.split(line)[1:])
            assert raised.value.code == 0
    namespace: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    out = capfd.readouterr().out
    comments = re.findall(r"print\(.*\)  # (.*)", "".join(blocks("python")))
    assert len(out.splitlines()) == len(comments)
    for printed, comment in zip(out.splitlines(), comments, strict=True):
        assert comment.startswith(printed) or comment.endswith(printed), (printed, comment)
    assert len(namespace["gains"]) == 8
    assert namespace["saliency"].shape == (1, 28, 28)[1:]


def test_excerpts_are_what_the_files_hold() -> None:
    """A block of `py` begins with the name of the file that it is from."""
    for block in blocks("py"):
        name, _, excerpt = block.removeprefix("# ").partition("\n")
        text = re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8"))
        for part in excerpt.split("\n\n"):
            assert re.sub(r"\s+", " ", part).strip() in text, part


def fields(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, type) of every field of a record."""
    for name, kind in typing.get_type_hints(record).items():
        item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
        if dataclasses.is_dataclass(item):
            yield from fields(item, f"{prefix}{name}{'[]' if item is not kind else ''}.")
        else:
            yield prefix + name, kind


WORDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def described(kind: Any) -> str:
    if kind in WORDS:
        return WORDS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        return "object"
    if origin in (types.UnionType, typing.Union):
        return f"{described(arguments[0])} or null"
    assert origin is tuple
    if arguments[-1] is not Ellipsis:
        return f"list of {len(arguments)} {described(arguments[0])}s"
    inner = described(arguments[0])
    first, _, rest = inner.partition(" ")
    return f"list of {first}s" + (f" {rest}" if rest else "")


def test_the_table_of_fields_is_complete() -> None:
    table = README.partition("<!-- fields:begin -->")[2].partition("<!-- fields:end -->")[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|", table, re.MULTILINE)
    assert rows == [(name, described(kind)) for name, kind in fields(Record)]


def test_the_table_of_input_scales_is_complete() -> None:
    section = README.partition("## Input scale")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(PRESETS)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith(("https://", "#")) or (ROOT / target).exists(), target


def test_headings_that_are_linked_to_are_there() -> None:
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)", README, re.M)
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in headings
