"""The pages of the documentation: their examples run, their options exist, and their links have targets."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import types
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from onnxgain.commands import docs
from onnxgain.commands.cli import cli
from onnxgain.measure.record import Record
from onnxgain.model.input_scale import PRESETS
from onnxgain.report.reporter import FORMATS
from scripts.generate import pages as examples

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "onnxgain" / "docs"
PAGES = examples.pages()
NAMES = [page.name for page in docs.pages()]
WRITTEN = [name for name in NAMES if name not in docs.GENERATED]


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_examples(path: Path) -> None:
    state = examples.State()
    with examples.working_folder() as folder:
        for block in examples.blocks(path.read_text(encoding="utf-8")):
            if examples.is_runnable(block) and not block.needs_shared:
                assert examples.run(block, folder, state) == block.text


SHARED = [
    pytest.param(block, id=f"{path.stem}: {block.text.splitlines()[0][2:60]}")
    for path in PAGES
    for block in examples.blocks(path.read_text(encoding="utf-8"))
    if block.needs_shared
]


@pytest.mark.skipif(not examples.SHARED_MODELS.exists(), reason="../shared/data/models is not there")
@pytest.mark.parametrize("block", SHARED)
def test_examples_with_downloaded_models(block: examples.Block) -> None:
    with examples.working_folder(needs_shared=True) as folder:
        assert examples.run(block, folder, examples.State()) == block.text


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_command_lines_that_are_not_run_are_valid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = [
        command
        for block in examples.blocks(text)
        if block.language == "bash"
        for command, _ in examples.commands(block)
    ]
    lines += [line.split(": ", 1)[1] for line in re.findall(r"^ *- (run: onnxgain .*)$", text, re.MULTILINE)]
    lines += re.findall(r"^ *- (onnxgain .*)$", text, re.MULTILINE)
    lines += re.findall(r"`(onnxgain [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        if "COMMAND" not in line and "PAGE" not in line and len(line.split()) > 2:
            examples.parse_only(line)


def test_a_wrong_command_line_or_output_is_noticed(tmp_path: Path) -> None:
    for line in ("onnxgain nothing x", "onnxgain score x --no-such-option", "onnxgain verify m.onnx --seed x"):
        with pytest.raises(AssertionError):
            examples.parse_only(line)
    block = examples.blocks("```console\n$ onnxgain docs nothing\n```\n")[0]
    with pytest.raises(AssertionError, match="exit code 2"):
        examples.run(block, tmp_path, examples.State())
    block = examples.blocks("```console\n$ onnxgain docs nothing\n...\n$ echo $?\n1\n```\n")[0]
    assert examples.run(block, tmp_path, examples.State()) == block.text.replace("\n1\n", "\n2\n")


def test_alike_means_equal_but_for_rounding() -> None:
    assert examples.is_alike("gain -1.23 dB of 10, 2.0e-07", "gain  -1.22 dB of 10, 1.0e-07")
    for wrong in ("gain -1.25 dB of 10, 2.0e-07", "gain -1.22 dB of 11, 2e-7", "loss -1.22 dB of 10, 2e-7"):
        assert not examples.is_alike(wrong, "gain -1.22 dB of 10, 1.0e-07")
    assert examples.is_alike("a\nb\nc\nd\n", "a\n...\nd\n")
    assert examples.is_alike("a\nb\nc\nd\n", "a\n...\nc\n...\n")
    for pattern in ("b\n...\n", "a\n...\nc\n", "a\n...\ne\n...\nd\n"):
        assert not examples.is_alike("a\nb\nc\nd\n", pattern)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_configurations_are_valid(path: Path, tmp_path: Path) -> None:
    from onnxgain.commands.gate_config import load_config

    for block in examples.blocks(path.read_text(encoding="utf-8")):
        if block.language == "toml":
            file = tmp_path / "onnxgain.toml"
            file.write_text(block.text, encoding="utf-8")
            load_config(str(file), cli.commands["gate"], click.Context(cli.commands["gate"]))


@pytest.mark.parametrize("path", [*PAGES, ROOT / ".github" / "CONTRIBUTING.md"], ids=page_id)
def test_excerpts_are_what_the_files_hold(path: Path) -> None:
    """A block of `py` begins with the name of its source file."""
    for block in examples.blocks(path.read_text(encoding="utf-8")):
        if block.language != "py":
            continue
        name, _, excerpt = block.text.removeprefix("# ").partition("\n")
        text = re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8"))
        for part in excerpt.split("\n\n"):
            assert re.sub(r"\s+", " ", part).strip() in text, part


# Options


def option_tables(text: str) -> list[tuple[str, str]]:
    """(heading with the commands, rows) of every table of options of a page."""
    pattern = re.compile(r"^Options of (.+):\n\n\| option \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE)
    return pattern.findall(text)


def described() -> Iterator[tuple[str, str, str]]:
    """(command, option, page) of every row of a table of options."""
    for name in WRITTEN:
        text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        assert text.count("| option | meaning |") == len(option_tables(text)), name
        for heading, rows in option_tables(text):
            for row in rows.splitlines():
                for option in re.findall(r"(?<=`)--?[\w-]+", row.split("|")[1]):
                    yield from ((command, option, name) for command in re.findall(r"`(\w+)`", heading))


def options() -> set[tuple[str, str]]:
    return {
        (name, option)
        for name, command in cli.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts + parameter.secondary_opts
    }


def test_every_option_is_described_on_exactly_one_page() -> None:
    found = list(described())
    there = {(command, option) for command, option, _ in found}
    assert sorted(options() - there) == [], "add a row to a table of options in onnxgain/docs"
    assert sorted(there - options()) == [], "these options are described and do not exist"
    assert [row for row, times in Counter((c, o) for c, o, _ in found).items() if times > 1] == []


# Tables


def fields(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, type) of every field of a record."""
    for name, kind in typing.get_type_hints(record).items():
        is_list = typing.get_origin(kind) is tuple
        item = typing.get_args(kind)[0] if is_list or type(None) in typing.get_args(kind) else kind
        if dataclasses.is_dataclass(item):
            yield from fields(item, f"{prefix}{name}{'[]' if is_list else ''}.")
        else:
            yield prefix + name, kind


WORDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def type_in_words(kind: Any) -> str:
    if kind in WORDS:
        return WORDS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        return "object"
    if origin in (types.UnionType, typing.Union):
        return f"{type_in_words(arguments[0])} or null"
    assert origin is tuple
    if arguments[-1] is not Ellipsis:
        return f"list of {len(arguments)} {type_in_words(arguments[0])}s"
    inner = type_in_words(arguments[0])
    first, _, rest = inner.partition(" ")
    return f"list of {first}s" + (f" {rest}" if rest else "")


def test_the_table_of_fields_is_complete() -> None:
    text = docs.read_page("output-schema")
    table = text.partition("<!-- fields:begin -->")[2].partition("<!-- fields:end -->")[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|", table, re.MULTILINE)
    assert rows == [(name, type_in_words(kind)) for name, kind in fields(Record)]


def test_the_table_of_input_scales_is_complete() -> None:
    assert re.findall(r"^\| `(\w+)` \|", docs.read_page("scale"), re.MULTILINE) == list(PRESETS)


# Links


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


DOCUMENTS = [
    *PAGES,
    *sorted((ROOT / ".github").glob("*.md")),
    ROOT / "scripts" / "README.md",
    ROOT / "tests" / "README.md",
]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.exists()], ids=page_id)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    for target in (first or second for first, second in targets):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_paths_named_in_the_text_exist() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"`((?:scripts|tests|onnxgain|models)/[\w./-]+)`", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page_id(path)}: {name}"


def test_pages_named_anywhere_exist() -> None:
    files = [*(ROOT / "onnxgain").rglob("*.py"), *PAGES]
    named = {
        (match, page_id(path))
        for path in files
        for match in re.findall(r"onnxgain docs ([a-z][\w-]*)", path.read_text(encoding="utf-8"))
    }
    assert named
    assert [(name, where) for name, where in sorted(named) if name not in NAMES] == []


def test_the_list_and_the_files_agree() -> None:
    files = {path.stem for path in FOLDER.glob("*.md")} - {docs.CONTENTS}
    assert files == set(WRITTEN)
    assert len(WRITTEN) == len(set(WRITTEN))


# The command


def test_listing(run: Any) -> None:
    code, out, _ = run("docs")
    assert code == 0
    for name in NAMES:
        assert re.search(rf"^  {name} +\S", out, re.MULTILINE)
    document = json.loads(run("docs", "--format", "json")[1])
    assert document["schema"] == "onnxgain.docs/1"
    assert [page["name"] for page in document["pages"]] == NAMES


@pytest.mark.parametrize("name", WRITTEN)
def test_pages_are_printed_and_rendered(run: Any, name: str) -> None:
    source = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert run("docs", name) == (0, source, "")
    code, out, _ = run("docs", name, "--format", "text")
    assert code == 0
    assert "](" not in re.sub(r"https?://\S+", "", out)
    assert json.loads(run("docs", name, "--format", "json")[1])["text"] == source


@pytest.mark.parametrize("width", [60, 80, 120])
def test_rendering_keeps_to_the_width(width: int) -> None:
    for name in WRITTEN:
        source = re.sub(r"^```.*?^```$", "", docs.read_page(name), flags=re.MULTILINE | re.DOTALL)
        for line in docs.render(source, width=width, color=False).splitlines():
            assert len(line) <= width, (name, line)


def test_an_unknown_page_names_the_closest(run: Any) -> None:
    code, out, error = run("docs", "gates")
    assert (code, out) == (2, "")
    assert "did you mean `onnxgain docs gate`?" in error
    assert "`onnxgain docs` lists the pages" in run("docs", "zzzz")[2]


def test_operators_are_those_of_the_registry(run: Any) -> None:
    import onnx.defs

    document = json.loads(run("docs", "operators", "--format", "json")[1])
    rows = {row["operator"]: row for row in document["domains"]["ai.onnx"]}
    assert set(rows) == {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert rows["Conv"]["kind"] == "formula"
    assert rows["ArgMax"]["kind"] == "zero"
    assert rows["LSTM"]["rewritten"]
    assert rows["Clip"]["answers"] == [{"kind": "formula", "inputs": []}]
    text = run("docs", "operators")[1]
    for name in rows:
        assert f"\n| {name} | " in text
    assert "| LinearClassifier |" in text
    assert run("docs", "operators", "--format", "text")[0] == 0


def test_help_of_docs_is_an_example_that_runs(run: Any) -> None:
    for line in re.findall(r"^  (onnxgain docs.*)$", cli.commands["docs"].epilog or "", re.MULTILINE):
        assert run(*shlex.split(line)[1:])[0] == 0


# Formats


@pytest.mark.parametrize("command", FORMATS)
def test_every_format_is_described(command: str) -> None:
    rows = [
        row
        for name in WRITTEN
        for heading, table in option_tables(docs.read_page(name))
        if f"`{command}`" in heading
        for row in table.splitlines()
        if row.startswith("| `--format")
    ]
    assert len(rows) == 1
    for form in FORMATS[command]:
        assert f"`{form}`" in rows[0], form


def test_the_format_of_the_contributing_guide_works() -> None:
    from onnxgain.analysis.gate_result import Check, GateResult
    from onnxgain.analysis.policy import Policy

    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    for block in examples.blocks(text):
        if block.language == "python":
            exec(compile(block.text, "CONTRIBUTING.md", "exec"), namespace)
    assert [model["verdict"] for model in json.loads(namespace["text"])["models"]] == ["fail", "error"]
    checks = (Check("max-gain", "finding", "too high"), Check("min-gain", "pass", ""))
    assert namespace["render_tap"]([GateResult("m\n.onnx", Policy(), checks)]) == (
        "TAP version 13\n1..2\nnot ok 1 - m\N{REPLACEMENT CHARACTER}.onnx: max-gain\n"
        "ok 2 - m\N{REPLACEMENT CHARACTER}.onnx: min-gain\n"
    )


def test_errors_that_name_a_page_say_so_at_the_end(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxgain import errors

    with_page = [kind for kind in vars(errors).values() if isinstance(kind, type) and getattr(kind, "page", None)]
    assert {kind.page for kind in with_page} <= set(NAMES)
    for kind in with_page:

        def fail(*_: Any, kind: Any = kind, **__: Any) -> None:
            raise kind("wrong", where="here", remedy="mend it")

        monkeypatch.setattr(docs, "_contents", fail)
        assert run("docs") == (2, "", f"error: here: wrong; mend it; see: onnxgain docs {kind.page}\n")


def test_updating_keeps_what_is_left_out() -> None:
    assert examples.shortened("A\nB\nC\nD\n", "a\n...\nd\n") == "A\n...\nD\n"
    assert examples.shortened("A\nB\nC\nD\n", "a\nb\n...\n") == "A\nB\n...\n"
    assert examples.shortened("A\nB\n", "a\n") == "A\nB\n"
