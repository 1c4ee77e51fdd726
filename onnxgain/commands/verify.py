"""`onnxgain verify`: check a model's emitted gradient against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.options import MeasureOptions, measure_options
from onnxgain.commands.output import OutputOptions, output_options
from onnxgain.commands.parameters import option_group
from onnxgain.commands.time_limit import limited, timeout_option
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.measure.ort_training import EngineCheck
    from onnxgain.measure.request import Request
    from onnxgain.measure.verify import GradientCheck
    from onnxgain.model.classifier import Classifier
    from onnxgain.report.reporter import Verifications


VERIFYING = 1800.0
"""Seconds that verifying at one image may take by default: it runs the network in float64 many times."""


@dataclass(frozen=True)
class OtherEngine:
    """Another engine to compare with, and the interpreter of its environment."""

    against: str | None
    python: str | None

    def check(self) -> None:
        """Check that both or neither are given.

        Raises:
            OnnxgainError: only one is given.
        """
        if (self.against is None) != (self.python is None):
            raise OnnxgainError("must be given together", where="--against and --python", remedy="give both")


@click.command(
    short_help="Check the gradient against finite differences.",
    epilog="""\b
Examples:
  onnxgain verify model.onnx
  onnxgain verify model.onnx --directions 20 --image cat.jpg
  onnxgain verify exports/*.onnx
  onnxgain verify model.onnx --against ort-training --python ~/ort-training/bin/python
  onnxgain verify model.onnx --format json
""",
)
@click.argument("models", nargs=-1, required=True, type=click.Path(), metavar="MODELS...")
@measure_options
@click.option(
    "--directions",
    type=click.IntRange(1, 10_000),
    default=6,
    show_default=True,
    help="Random directions to difference along.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the directions.")
@option_group(
    "other",
    OtherEngine,
    click.option(
        "--against",
        type=click.Choice(["ort-training"]),
        help="Also compare with another engine: onnxruntime-training, which needs an environment of its own "
        "(--python).",
    ),
    click.option("--python", metavar="PATH", help="The interpreter of that environment."),
)
@timeout_option
@output_options("verify")
def verify(
    models: tuple[str, ...],
    measure: MeasureOptions,
    directions: int,
    seed: int,
    other: OtherEngine,
    timeout: float | None,
    delivery: OutputOptions,
) -> None:
    """Check the gradient of each model against directional finite differences, evaluated in float64.

    A separate engine evaluates the differences; it shares nothing with the one that measures. Directions along which
    the model has a kink (a ReLU or maximum that switches) within the smallest step are counted, not compared. The exit
    code is 1 if a gradient disagrees with them or with the engine of --against, and 2 if one could not be checked; the
    other models are still checked.

    onnxruntime-training 1.19.2 shares its folder with other runtimes, so install it in an environment of its own
    (Python 3.8 to 3.11): pip install onnxruntime-training-cpu "onnx<1.17" "numpy<2". It is used only for operators
    that it is known to differentiate correctly; any other model is refused (exit code 2).
    """
    from onnxgain.report.reporter import VerifiedModels

    other.check()
    delivery.check()
    request = measure.request(models=models)
    found: list[Verifications] = []
    failures: list[OnnxgainError] = []
    for model in models:
        try:
            with limited(model, timeout, VERIFYING) as step:
                found.append(_verified(model, request, measure.threads, other.python, (directions, seed), step))
        except OnnxgainError as error:
            if len(models) == 1:
                raise
            failures.append(error)
    if found:
        delivery.deliver("verify", found[0] if len(models) == 1 else VerifiedModels(tuple(found)))
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    if failures:
        raise click.exceptions.Exit(2)
    if not all(result.agrees for result in found):
        raise click.exceptions.Exit(1)


def _verified(
    model: str,
    request: Request,
    threads: int | None,
    python: str | None,
    drawn: tuple[int, int],
    step: Callable[[], None],
) -> Verifications:
    """The checks of one model along a number of random directions. Calls `step` after each step."""
    from onnxgain.measure.verify import verify_gradient
    from onnxgain.model.classifier import load_classifier
    from onnxgain.report.reporter import Verifications

    classifier = load_classifier(model, request.reading)
    projection: Any = request.projection
    directions, seed = drawn
    checks = []
    for stimulus in request.stimuli_for(classifier):
        step()
        check = verify_gradient(
            classifier,
            stimulus,
            projection=projection,
            class_index=request.class_index,
            threads=threads,
            device=request.device,
            directions=directions,
            seed=seed,
        )
        checks.append(check)
    step()
    against = _against(classifier, request, checks, python, threads) if python is not None else []
    return Verifications(model, tuple(checks), tuple(against), classifier.assumptions)


def _against(
    classifier: Classifier, request: Request, checks: list[GradientCheck], python: str, threads: int | None
) -> list[EngineCheck]:
    """The comparison of the measurements with onnxruntime-training."""
    from onnxgain.measure.measure import measure
    from onnxgain.measure.ort_training import check_against_training
    from onnxgain.measure.request import Request

    found = []
    for check, stimulus in zip(checks, request.stimuli_for(classifier), strict=True):
        projection: Any = check.projection
        ours_asked = Request(stimuli=(stimulus,), projection=projection, class_index=check.class_index)
        (ours,) = measure(classifier, ours_asked, threads=threads)
        found.append(check_against_training(classifier, stimulus, ours, python=python))
    return found
