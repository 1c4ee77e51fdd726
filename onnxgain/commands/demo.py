"""`onnxgain demo`: runs the main commands on the models that come with onnxgain."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from onnxgain.errors import OnnxgainError

_PACKAGE = Path(__file__).parents[1]
FOLDERS = (_PACKAGE / "models", _PACKAGE.parent / "models")
"""The folders of the models: in an installed package and in a checkout."""

MODELS = ("lenet_small_mnist_torch.onnx", "lenet_mnist_keras.onnx", "mlp_mnist_sklearn.onnx")

COMPRESSED = "lenet_small_4bit.onnx"

STEPS = (
    (
        "How strongly does a small digit classifier react to changes of its image, and at which frequencies?",
        "score lenet_small_mnist_torch.onnx",
        0,
    ),
    (
        "How do three classifiers of the same digits compare?",
        "compare lenet_small_mnist_torch.onnx lenet_mnist_keras.onnx mlp_mnist_sklearn.onnx --image-shape 1x28x28 "
        "--no-cache",
        0,
    ),
    (
        "Keep the numbers of the one in use as a baseline ...",
        "gate lenet_small_mnist_torch.onnx --baseline baseline.json --update-baseline --no-cache",
        0,
    ),
    (
        "... so that continuous integration passes the same model again ...",
        "gate lenet_small_mnist_torch.onnx --baseline baseline.json --no-cache",
        0,
    ),
    (
        "... and stops a copy whose weights somebody rounded to 4 bits, for review (exit code 3).",
        f"gate {COMPRESSED} --baseline baseline.json --no-cache",
        3,
    ),
    ("What did the rounding change, and where in frequency?", f"diff lenet_small_mnist_torch.onnx {COMPRESSED}", 0),
)
"""The steps: the question that each answers, its command line, and its exit code."""

NEXT = """Next, with a model of yours:

  onnxgain inspect model.onnx                          can it be measured, and how is it read?
  onnxgain score model.onnx --preprocess imagenet      its gain; the input scale must be right
  onnxgain gate model.onnx --baseline baseline.json --update-baseline
  onnxgain docs getting-started"""


@click.command(
    short_help="Try the commands on models that come with onnxgain.",
    epilog="""\b
Examples:
  onnxgain demo
  onnxgain demo --keep demo/
""",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Keep the models and all output in this folder. Default: a folder that is deleted.",
)
def demo(keep: str | None) -> None:
    """Score, compare, gate and diff the models that come with onnxgain.

    Prints every command line before its output, so that it can be repeated.
    """
    from onnxgain.commands.cli import cli

    source = _source()
    with _open_folder(keep) as folder, _noticing_interruptions() as interruptions:
        for name in MODELS:
            shutil.copyfile(source / name, folder / name)
        _round_weights(folder / MODELS[0], folder / COMPRESSED)
        with _inside(folder):
            for number, (question, command, expected) in enumerate(STEPS, 1):
                _say(f"{number}. {question}")
                click.secho(f"$ onnxgain {command}", fg="cyan")
                code = _run(cli, command.split())
                if interruptions:
                    raise click.Abort  # some commands end normally with partial results
                if code != expected:
                    raise OnnxgainError(
                        f"ended with exit code {code} instead of {expected}",
                        where=f"onnxgain {command}",
                        remedy="see `onnxgain doctor`",
                    )
                click.echo()
    click.echo(NEXT)


def _source() -> Path:
    for folder in FOLDERS:
        if all((folder / name).is_file() for name in MODELS):
            return folder
    raise OnnxgainError(
        "the models of the demo are not installed", where="demo", remedy="install onnxgain again, or from a checkout"
    )


def _round_weights(before: Path, after: Path) -> None:
    """Write a copy of a model whose weights are rounded to 4 bits, tensor by tensor."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(before)
    for initializer in model.graph.initializer:
        weights = numpy_helper.to_array(initializer)
        if weights.dtype == np.float32 and weights.ndim > 1:
            step = np.abs(weights).max() / 7
            rounded = (np.rint(weights / step) * step).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(rounded, initializer.name))
    onnx.save(model, after)


@contextmanager
def _open_folder(keep: str | None) -> Iterator[Path]:
    """The folder to work in: a new or empty one, so that no file is overwritten."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="onnxgain-demo-") as temporary:
            yield Path(temporary)
        return
    folder = Path(keep)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise OnnxgainError(
            f"cannot be used: {error.strerror}", where=f"--keep {keep}", remedy="name another folder"
        ) from error
    if taken:
        raise OnnxgainError("the folder is not empty", where=f"--keep {keep}", remedy="name a new one")
    yield folder


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Change to a folder, so that command lines can name its files directly."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _noticing_interruptions() -> Iterator[list[int]]:
    """A list that receives the number of each signal with which a user ends the run."""
    noticed: list[int] = []

    def notice(number: int, frame: FrameType | None) -> None:
        noticed.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield noticed
        return
    before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noticed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    click.secho(text, bold=True)


def _run(cli: click.Group, arguments: list[str]) -> int:
    """The exit code of a command line."""
    try:
        code = cli.main(arguments, prog_name="onnxgain", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    return code if isinstance(code, int) else 0
