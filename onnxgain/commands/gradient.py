"""`onnxgain gradient`: write a classifier's gradient graph as a stand-alone ONNX file."""

from __future__ import annotations

from typing import Any, Literal

import click

from onnxgain.commands.options import ReadingOptions, class_option, projection_option, reading_options
from onnxgain.commands.output import files_read
from onnxgain.commands.time_limit import limited, timeout_option
from onnxgain.errors import OnnxgainError


@click.command(
    short_help="Write the gradient graph as an ONNX file.",
    epilog="""\b
Examples:
  onnxgain gradient model.onnx -o model.grad.onnx
  onnxgain gradient model.onnx -o model.grad.onnx --class 285 --projection logit
  onnxgain gradient model.onnx -o model.grad.onnx --target portable --batch 8
""",
)
@click.argument("model", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="The file to write.")
@reading_options
@projection_option
@class_option
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Images evaluated together. Default: the model's fixed batch size, else 1.",
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "portable"]),
    default="cpu",
    show_default=True,
    help="cpu: lowered for onnxruntime's CPU kernels. portable: plain operators for any runtime.",
)
@timeout_option
def gradient(
    model: str,
    out: str,
    reading: ReadingOptions,
    projection: Any,
    class_index: int | None,
    batch: int | None,
    target: Literal["cpu", "portable"],
    timeout: float | None,
) -> None:
    """Write the gradient graph of a classifier: image in; logits, class, score and derivative out.

    Only standard ONNX operators are used. The class choice and the softmax seed are inside; the derivative is in
    model-input units (per 8-bit level: multiply by the step that `onnxgain inspect` shows).
    """
    from onnxgain.files import require_writable
    from onnxgain.model.classifier import load_classifier
    from onnxgain.model.differentiate import differentiate, require_batch
    from onnxgain.model.write_model import write_model

    if not out.endswith(".onnx"):
        raise OnnxgainError("the file name must end in .onnx", where=f"--out {out}", remedy="rename it")
    require_writable(out, files_read())
    with limited(model, timeout) as step:
        classifier = load_classifier(model, reading.reading())
        step()
        if batch is not None:
            require_batch(classifier, batch)
        graph = differentiate(classifier, projection=projection, class_index=class_index, batch=batch, target=target)
        files = write_model(graph, out)
    image, outputs = graph.graph.inputs[0], ", ".join(str(value.name) for value in graph.graph.outputs)
    click.echo(f"wrote {' and '.join(files)}: {image.name} {image.shape} -> {outputs}", err=True)
