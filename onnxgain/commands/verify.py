"""`onnxgain verify`: check a model's emitted gradient against finite differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.options import (
    count_stimuli,
    echo_or_write,
    gain_options,
    make_device,
    make_reading,
    make_stimuli,
    reading_options,
    stimulus_options,
)
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.measure.ort_training import EngineCheck
    from onnxgain.measure.verify import GradientCheck
    from onnxgain.model.classifier import Classifier


@click.command(
    epilog="""\b
Examples:
  onnxgain verify model.onnx
  onnxgain verify model.onnx --directions 20 --image cat.jpg
  onnxgain verify model.onnx --against ort-training --python ~/ort-training/bin/python
  onnxgain verify model.onnx --format json
"""
)
@click.argument("model", type=click.Path())
@reading_options
@stimulus_options
@gain_options
@click.option(
    "--directions",
    type=click.IntRange(1, 10_000),
    default=6,
    show_default=True,
    help="Random directions to difference along.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the directions.")
@click.option(
    "--against",
    type=click.Choice(["ort-training"]),
    help="Also compare with another engine: onnxruntime-training, which needs an environment of its own (--python).",
)
@click.option("--python", metavar="PATH", help="The interpreter of that environment.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("-o", "--out", type=click.Path(), help="Write the result there instead of printing it.")
def verify(
    model: str,
    stimuli: tuple[str, ...],
    images: tuple[str, ...],
    projection: Any,
    class_index: int | None,
    threads: int | None,
    device: str,
    providers: str | None,
    tf32: bool,
    directions: int,
    seed: int,
    against: str | None,
    python: str | None,
    form: str,
    out: str | None,
    **reading: Any,
) -> None:
    """Check the gradient of a model against directional finite differences, evaluated in float64.

    The differences are evaluated by an engine of its own that shares nothing with the one that measures. Directions
    along which the model has a kink (a ReLU or a maximum changing over) within the smallest step are counted, not
    compared. Exit code 1 where the gradient does not agree, with them or with the engine of --against.

    onnxruntime-training 1.19.2 shares its folder with other runtimes, so install it in an environment of its own
    (Python 3.8 to 3.11): pip install onnxruntime-training-cpu "onnx<1.17" "numpy<2". It is asked only about
    operators that it is known to differentiate correctly; any other model is refused (exit code 2).
    """
    import dataclasses
    import json

    if (against is None) != (python is None):
        raise OnnxgainError("come together", where="--against and --python", remedy="give both")
    from onnxgain.measure.verify import VERIFY_SCHEMA, verify_gradient
    from onnxgain.model.classifier import load_classifier

    chosen = make_device(device, providers, tf32)
    classifier = load_classifier(model, make_reading(**reading))
    specifications, paths = count_stimuli(stimuli, images)
    checks = [
        verify_gradient(
            classifier,
            stimulus,
            projection=projection,
            class_index=class_index,
            threads=threads,
            device=chosen,
            directions=directions,
            seed=seed,
        )
        for stimulus in make_stimuli(classifier, specifications, paths)
    ]
    others = _against(classifier, specifications, paths, python, checks, threads) if python is not None else []
    everything: list[GradientCheck | EngineCheck] = [*checks, *others]
    if form == "json":
        document = {
            "schema": VERIFY_SCHEMA,
            "model": model,
            "checks": [{**dataclasses.asdict(c), "agrees": c.agrees} for c in checks],
            "against": [{**dataclasses.asdict(c), "agrees": c.agrees} for c in others],
        }
        echo_or_write(json.dumps(document, indent=1) + "\n", out)
    else:
        echo_or_write("".join(f"{model}: {check.text()}\n" for check in everything), out)
    if not all(check.agrees for check in everything):
        raise click.exceptions.Exit(1)


def _against(
    classifier: Classifier,
    specifications: tuple[str, ...],
    paths: tuple[Path, ...],
    python: str,
    checks: list[GradientCheck],
    threads: int | None,
) -> list[EngineCheck]:
    """The same measurements by onnxruntime-training."""
    from onnxgain.measure.measure import measure
    from onnxgain.measure.ort_training import check_against_training
    from onnxgain.measure.request import Request

    found = []
    for check, stimulus in zip(checks, make_stimuli(classifier, specifications, paths), strict=True):
        projection: Any = check.projection
        request = Request(stimuli=(stimulus,), projection=projection, class_index=check.class_index)
        (ours,) = measure(classifier, request, threads=threads)
        found.append(check_against_training(classifier, stimulus, ours, python=python))
    return found
