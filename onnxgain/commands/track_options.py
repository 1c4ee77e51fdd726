"""The options of `onnxgain track`: how snapshots form runs, images they are evaluated on, consequences of verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxgain.commands.parameters import option_group
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.measure.sample_source import SampleSource

# Repeated here so that help needs no numpy; tests compare them with the original tables.
ORDERS = ("natural", "time", "given")
VERDICTS = ("too-high", "too-low", "converged", "overfitting", "undecided")


@dataclass(frozen=True)
class SeriesOptions:
    """How snapshots are grouped into runs."""

    order: str
    logs: tuple[str, ...]
    bad: str
    records: str | None


series_options = option_group(
    "series",
    SeriesOptions,
    click.option(
        "--order",
        type=click.Choice(ORDERS),
        default="natural",
        show_default=True,
        help="natural: by the numbers in the names, which count the epochs. time: of writing. given: as listed.",
    ),
    click.option(
        "--log",
        "logs",
        multiple=True,
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="Losses of the run (.csv, .json), shown next to the gains; one for each run, in order.",
    ),
    click.option(
        "--bad",
        type=click.Choice(["skip", "refuse"]),
        default="skip",
        show_default=True,
        help="What becomes of damaged, missing or differently shaped snapshots: they are named, and left out or "
        "refused.",
    ),
    click.option(
        "--records",
        type=click.Path(dir_okay=False),
        metavar="FILE.jsonl",
        help="Append the records of new snapshots, one per line; snapshots already in the file are not measured again.",
    ),
)


@dataclass(frozen=True)
class SampleOptions:
    """The labelled images on which snapshots are evaluated."""

    sample_images: str | None
    sample_labels: str | None
    held_out: bool

    def source(self, *, remote: bool) -> SampleSource | None:
        """The source of the images; None if none are given.

        Raises:
            OnnxgainError: there are no images, they have no labels, or other machines would have to read them.
        """
        from onnxgain.measure.sample_source import SampleSource

        if self.sample_images is None:
            if self.sample_labels is not None:
                raise OnnxgainError("labels of no images", where="--labels", remedy="give their folder with --images")
            if self.held_out:
                raise OnnxgainError("no images are given", where="--held-out", remedy="give them with --images")
            return None
        if remote:
            raise OnnxgainError("images are not sent to other machines", where="--images", remedy="leave out --ray")
        labels = Path(self.sample_labels).resolve() if self.sample_labels else None
        source = SampleSource(Path(self.sample_images).resolve(), labels, self.held_out)
        source.digest  # noqa: B018  whatever is wrong with the images is said before anything is measured
        return source


sample_options = option_group(
    "sample",
    SampleOptions,
    click.option(
        "--images",
        "sample_images",
        type=click.Path(),
        metavar="FOLDER|FILE",
        help="64 to 1,000 of the labelled images that the network is trained on: a folder for each class, an .npz of "
        "images and labels, or a .csv of paths and labels. The verdict is then read off a surrogate of the validation "
        "loss, which is right far more often.",
    ),
    click.option(
        "--labels",
        "sample_labels",
        type=click.Path(dir_okay=False),
        metavar="FILE.csv",
        help="File names in the folder of --images and their labels, a line each.",
    ),
    click.option(
        "--held-out",
        is_flag=True,
        help="The network is not trained on --images: read the verdict off the loss on them, which is right more often "
        "still.",
    ),
)


@dataclass(frozen=True)
class FollowOptions:
    """The consequences of verdicts, and whether to watch the folders."""

    follow: bool
    fail_on: tuple[str, ...]
    patience: int
    idle: float | None
    on_verdict: str | None


follow_options = option_group(
    "follow",
    FollowOptions,
    click.option(
        "--fail-on",
        "fail_on",
        multiple=True,
        type=click.Choice(VERDICTS),
        help="Exit with code 1 if a run gets this verdict. Repeatable.",
    ),
    click.option("--follow", is_flag=True, help="Watch the folders while training runs, until Ctrl-C."),
    click.option(
        "--patience",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        help="With --follow: snapshots in a row that must give a verdict of --fail-on.",
    ),
    click.option(
        "--idle", type=click.FloatRange(min=0), metavar="SECONDS", help="End --follow after so long without news."
    ),
    click.option(
        "--on-verdict",
        metavar="COMMAND",
        help="Run by the shell whenever a verdict changes, with ONNXGAIN_RUN, ONNXGAIN_EPOCH, ONNXGAIN_VERDICT, "
        "ONNXGAIN_ONSET and ONNXGAIN_SENTENCE in its environment.",
    ),
)
