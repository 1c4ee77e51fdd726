"""Run the examples in README.md and in the documentation pages, and update their outputs.

    python -m scripts.generate.pages [--check] [PAGE ...]

PAGE is a file; the default is all pages. The code blocks of a page run in order, in one temporary folder with the
folder models/. The language of a block determines its use:

    console    commands after "$ ", each followed by its output; a line "..." stands for any lines.
               `$ echo $?` shows the exit code; without it, the command must succeed.
    sh         commands that must succeed; their output is not shown
    python     code; the output of `print(...)  # text` must be part of the text, or the other way round
    bash       commands that cannot run here: the command line is only parsed
    toml       onnxgain.toml: must be valid
    python3    code that needs packages that are not installed here: only shown
    py         part of the file in the repository that its first line names

"shared" after the language marks a block that needs the models of ../shared/data/models; it runs in its own folder, and
is skipped if they are missing. With --check nothing is written, and the exit code is 1 if an output differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from scripts import ROOT

SHARED_MODELS = ROOT.parent / "shared" / "data" / "models"
COLUMNS = "100"
CHECKOUT = "/path/to/onnxgain"
"""What the pages show for the folder of this checkout."""

_BLOCK = re.compile(r"^```(\w+)( shared)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]\d+)?(?![\w])")


@dataclass(frozen=True)
class Block:
    """A block of code of a page; `start` and `end` delimit its text."""

    language: str
    needs_shared: bool
    text: str
    start: int
    end: int


@dataclass
class State:
    """State that later blocks of a page share with earlier ones."""

    names: dict[str, Any] = field(default_factory=dict)
    code: int = 0


def pages() -> list[Path]:
    """The README and the pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "onnxgain" / "docs").glob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The blocks of code of a page."""
    return [Block(m[1], bool(m[2]), m[3], m.start(3), m.end(3)) for m in _BLOCK.finditer(text)]


def commands(block: Block) -> list[tuple[str, str]]:
    """(command, expected output) pairs of a `console` block; (command, "") for `sh` and `bash`."""
    if block.language == "console":
        parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert not parts[0].strip(), f"output before the first command: {parts[0]}"
        return [(command, output) for command, _, output in (part.partition("\n") for part in parts[1:])]
    lines = block.text.replace("\\\n", " ").splitlines()
    return [(line.split("  #")[0].strip(), "") for line in lines if line.strip() and not line.startswith("#")]


def is_runnable(block: Block) -> bool:
    """Whether a block can run on this machine."""
    return block.language in ("console", "sh", "python") and (not block.needs_shared or SHARED_MODELS.exists())


def run(block: Block, folder: Path, state: State) -> str:
    """Run a block in a folder; return its text with its current output."""
    with contextlib.chdir(folder):
        if block.language == "python":
            return _run_python(block, state)
        result = []
        for position, (command, expected) in enumerate(found := commands(block)):
            if command == "echo $?":
                output = f"{state.code}\n"
            else:
                output = execute(command, state)
                follows = found[position + 1 :][:1]
                if state.code != 0 and not (follows and follows[0][0] == "echo $?"):
                    raise AssertionError(f"{command}: exit code {state.code}\n{output}")
            kept = expected if is_alike(output, expected) else shortened(output, expected)
            result.append(f"$ {command}\n{kept}" if block.language == "console" else "")
        return "".join(result) if block.language == "console" else block.text


def execute(command: str, state: State) -> str:
    """Run one command line and return its standard output and error; set the exit code in ``state``."""
    words = shlex.split(command)
    environment = {"COLUMNS": COLUMNS}
    if words[0] != "onnxgain" or set(words) & {"|", ">", "&&", "||", ";"}:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command],
            env={**os.environ, **environment, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        state.code = done.returncode
        return done.stdout
    from onnxgain.commands.cli import main

    stream = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            main(words[1:])
    except SystemExit as error:
        state.code = int(error.code or 0)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    output = stream.getvalue().replace(str(ROOT), CHECKOUT)
    # matplotlib prints this once on each machine.
    return re.sub(r"^Matplotlib is building the font cache.*\n", "", output, flags=re.MULTILINE)


def _run_python(block: Block, state: State) -> str:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        exec(compile(block.text, "page", "exec"), state.names)
    printed = stream.getvalue().splitlines()
    shown = re.findall(r"print\(.*\)  # (.*)", block.text)
    if len(printed) != len(shown):
        raise AssertionError(f"{len(printed)} lines are printed, {len(shown)} shown:\n{block.text}")
    for have, want in zip(printed, shown, strict=True):
        if have not in want and want not in have:
            raise AssertionError(f"the page shows {want!r}, the program prints {have!r}")
    return block.text


def is_alike(actual: str, expected: str) -> bool:
    """Whether outputs agree: the same words, decimals within 0.01, errors (1e-7) within a factor of 100.

    A line "..." in ``expected`` stands for any lines.
    """
    parts = re.split(r"^\.\.\.\n", expected, flags=re.MULTILINE)
    if len(parts) == 1:
        return _same(actual, expected)
    have, want = actual.splitlines(), [part.splitlines() for part in parts]
    if not _same("\n".join(have[: len(want[0])]), "\n".join(want[0])):
        return False
    place = len(want[0])
    for lines in want[1:-1]:
        starts = range(place, len(have) - len(lines) + 1)
        place = next(
            (i + len(lines) for i in starts if _same("\n".join(have[i : i + len(lines)]), "\n".join(lines))), -1
        )
        if place < 0:
            return False
    last = want[-1]
    return not last or (len(have) - place >= len(last) and _same("\n".join(have[-len(last) :]), "\n".join(last)))


def shortened(output: str, expected: str) -> str:
    """The output with "..." as on the page: as many lines are kept at the start and at the end."""
    first, dots, rest = expected.partition("...\n")
    if not dots:
        return output
    lines = output.splitlines(keepends=True)
    head, tail = len(first.splitlines()), len(rest.rpartition("...\n")[2].splitlines())
    return "".join([*lines[:head], dots, *lines[len(lines) - tail :]])


def _same(actual: str, expected: str) -> bool:
    if _NUMBER.sub("#", actual).split() != _NUMBER.sub("#", expected).split():
        return False
    for have, want in zip(_NUMBER.findall(actual), _NUMBER.findall(expected), strict=True):
        if "e" in want:
            if float(have) > 100 * float(want) or float(want) > 100 * float(have) > 0:
                return False
        elif abs(float(have) - float(want)) > (0.011 if "." in want else 0):
            return False
    return True


def parse_only(command: str) -> None:
    """Check a command line without running it.

    Raises:
        AssertionError: the command or an option does not exist.
    """
    words = shlex.split(re.split(r" [>|] |;|&&", command)[0])
    if not words or words[0] != "onnxgain":
        return
    from onnxgain.commands.cli import cli

    assert len(words) > 1 and words[1] in cli.commands, f"no such command: {command}"
    try:
        with cli.commands[words[1]].make_context(words[1], words[2:]):
            pass
    except click.MissingParameter:
        pass  # in running text, commands appear without their arguments
    except click.ClickException as error:
        raise AssertionError(f"{command}: {error.format_message()}") from error


@contextlib.contextmanager
def working_folder(needs_shared: bool = False) -> Iterator[Path]:
    """A temporary folder with the models that the pages use, and its own cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "work"
        folder.mkdir()
        (folder / "models").symlink_to(ROOT / "models")
        if needs_shared and SHARED_MODELS.exists():
            for path in SHARED_MODELS.glob("*.onnx"):
                (folder / path.name).symlink_to(path)
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        try:
            yield folder
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before


def updated(text: str) -> str:
    """A page with the current outputs of its commands."""
    pieces, position, state = [], 0, State()
    with working_folder() as own:
        for block in blocks(text):
            if not is_runnable(block):
                continue
            if block.needs_shared:
                with working_folder(needs_shared=True) as other:
                    now = run(block, other, State())
            else:
                now = run(block, own, state)
            pieces += [text[position : block.start], now]
            position = block.end
    return "".join([*pieces, text[position:]])


def main() -> None:
    """Check or update pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where an output differs")
    options = parser.parse_args()
    stale = 0
    for page in options.pages or pages():
        text = page.read_text(encoding="utf-8")
        try:
            now = updated(text)
        except AssertionError as error:
            print(f"{page}: {error}")
            stale += 1
            continue
        if now != text:
            stale += 1
            print(f"{page}: {'differs' if options.check else 'updated'}")
            if not options.check:
                page.write_text(now, encoding="utf-8")
    sys.exit(1 if stale and options.check else 0)


if __name__ == "__main__":
    main()
