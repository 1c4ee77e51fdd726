"""The command line: parse, call, print, exit. 0 success, 1 a gate's finding, 2 usage or tool error."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from onnxgain.commands.signals import terminable
from onnxgain.engine.environment import VERSION
from onnxgain.engine.startup import end_soon, start_soon
from onnxgain.errors import OnnxgainError, first_line

EXIT_OK = 0
EXIT_ERROR = 2


_JUDGING = ("gate", "track", "verify")
"""Commands whose exit code is a verdict, so that a closed pipe must not end them with 0."""


class _ReaderGoneError(Exception):
    """The reader of standard output, such as head or less, closed it while a command ran."""

    def __init__(self, command: str | None) -> None:
        super().__init__(command)
        self.command = command


SECTIONS = {
    "One model": ("score", "inspect", "verify", "gradient", "saliency"),
    "Two models": ("diff",),
    "Many models": ("compare", "merge"),
    "Continuous integration": ("gate",),
    "Training": ("track",),
    "Help": ("demo", "docs", "doctor"),
}
"""The commands as --help lists them. Each is a function in a module, both with the name of the command."""

COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


class _Commands(Mapping[str, click.Command]):
    """The group of commands; each is imported when it is used."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in COMMANDS:
            raise KeyError(name)
        command: click.Command = getattr(importlib.import_module(f"onnxgain.commands.{name}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(click.Group):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commands = _Commands()  # type: ignore[assignment]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. click itself would turn a closed pipe into exit code 1, which means a gate's finding."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError(ctx.invoked_subcommand) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by purpose."""
        widest = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                limit = formatter.width - widest - 6
                formatter.write_dl(
                    [(name.ljust(widest), self.commands[name].get_short_help_str(limit)) for name in names]
                )

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command. If a model is in its place, the error suggests the command that was probably meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            command = _meant(args[0])
            if command is None:
                raise
            raise click.UsageError(f"{error.message.rstrip('.')}; did you mean `onnxgain {command}`?", ctx) from error


def _meant(argument: str) -> str | None:
    """The command line that was probably meant by a file, a folder or a URL in place of a command."""
    if Path(argument).is_dir():
        return f"compare {argument}"
    if "://" in argument or argument.lower().endswith(".onnx"):
        return f"score {argument}"
    return None


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 a gate's finding, 2 usage or tool error, 3 a model that needs a look (gate).",
)
@click.version_option(VERSION, prog_name="onnxgain")
def cli() -> None:
    """Measure how an exported image classifier responds to spatial frequencies, without any data.

    \b
    Start here:
      onnxgain demo               measure the models that come with it
      onnxgain score model.onnx   the Maximum Gain of a model
      onnxgain gate --init        gate the models of a repository
      onnxgain docs               the documentation
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit. Every problem gives one message on standard error and exit code 2."""
    if arguments is None:  # this process runs only our command; it is not a program that calls one
        _open_standard_streams()
        start_soon()
    # onnx_ir also logs what is wrong with a model, which the error that follows says anyway.
    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())
    try:
        with terminable(EXIT_ERROR):
            code = cli.main(arguments, prog_name="onnxgain", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        _show(error)
        code = EXIT_ERROR
    except OnnxgainError as error:
        page = f"; see: onnxgain docs {error.page}" if error.page else ""
        click.echo(f"error: {error}{page}", err=True)
        code = EXIT_ERROR
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = EXIT_ERROR
    except _ReaderGoneError as error:
        _drop_output()
        code = EXIT_ERROR if error.command in _JUDGING else EXIT_OK
    except BrokenPipeError:
        _drop_output()
        code = EXIT_OK
    except MemoryError:
        click.echo("error: out of memory; measure one model at a time, or fewer images at once", err=True)
        code = EXIT_ERROR
    except Exception as error:
        if os.environ.get("ONNXGAIN_DEBUG"):
            raise
        code = EXIT_ERROR
        if isinstance(error, OSError):
            _drop_output()
            on_output = error.filename is None and error.errno in (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT)
            place = "standard output" if on_output else str(error.filename or "a file or folder")
            problem = OnnxgainError(
                error.strerror or first_line(error), where=place, remedy="check the file, its folder and the disk"
            )
            click.echo(f"error: {problem}", err=True)
            sys.exit(code)
        detail = first_line(error) if str(error) else ""
        click.echo(
            f"error: a bug in onnxgain: {type(error).__name__} {detail}; please report it with the output of "
            "`ONNXGAIN_DEBUG=1 onnxgain ...` and of `onnxgain doctor`",
            err=True,
        )
    if arguments is None:
        end_soon()
    sys.exit(code if isinstance(code, int) else EXIT_OK)


def _open_standard_streams() -> None:
    """Open streams that were closed before the start to the null device, and escape characters they cannot encode."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free file descriptor
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Keep the interpreter from reporting errors at exit about output that cannot be delivered."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(error: click.ClickException) -> None:
    """Print a usage error in one line like all other problems, or the whole help if no arguments were given."""
    no_arguments = getattr(click.exceptions, "NoArgsIsHelpError", None)
    if no_arguments is not None and isinstance(error, no_arguments):
        error.show()
        return
    context = getattr(error, "ctx", None)
    place = context.command_path if context is not None else "onnxgain"
    remedy = f"see `{place} --help`"
    if isinstance(error, click.MissingParameter) and context is not None:
        example = re.search(rf"^  ({re.escape(place)} .*)$", context.command.epilog or "", re.MULTILINE)
        remedy = f"for example `{example[1].strip()}`; {remedy}" if example is not None else remedy
    if isinstance(error, click.NoSuchOption) and context is not None and (hint := _home_of(error.option_name, place)):
        remedy = f"{hint}; {remedy}"
    click.echo(f"error: {place}: {error.format_message().rstrip('.')}; {remedy}", err=True)


def _home_of(option: str, place: str) -> str | None:
    """Where an option that a command does not have is at home."""
    if place.endswith(" saliency") and option in ("--image", "--images"):
        return "name the images behind the model: `onnxgain saliency MODEL IMAGE`"
    homes = [name for name, command in cli.commands.items() if any(option in p.opts for p in command.params)]
    return f"it is an option of `onnxgain {homes[0]}`" if len(homes) == 1 else None


if __name__ == "__main__":
    main()
