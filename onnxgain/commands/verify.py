"""`onnxgain verify`: check a model's emitted gradient against finite differences."""

from __future__ import annotations

from typing import Any

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


@click.command(
    epilog="""\b
Examples:
  onnxgain verify model.onnx
  onnxgain verify model.onnx --directions 20 --image cat.jpg
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
    form: str,
    out: str | None,
    **reading: Any,
) -> None:
    """Check the gradient of a model against directional finite differences, evaluated in float64.

    The differences are evaluated by an engine of its own that shares nothing with the one that measures. Directions
    along which the model has a kink (a ReLU or a maximum changing over) within the smallest step are counted, not
    compared. Exit code 1 where the gradient does not agree.
    """
    import dataclasses
    import json

    from onnxgain.classifier import load_classifier
    from onnxgain.verify import VERIFY_SCHEMA, verify_gradient

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
    if form == "json":
        document = {
            "schema": VERIFY_SCHEMA,
            "model": model,
            "checks": [{**dataclasses.asdict(c), "agrees": c.agrees} for c in checks],
        }
        echo_or_write(json.dumps(document, indent=1) + "\n", out)
    else:
        echo_or_write("".join(f"{model}: {check.text()}\n" for check in checks), out)
    if not all(check.agrees for check in checks):
        raise click.exceptions.Exit(1)
