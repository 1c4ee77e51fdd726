"""`onnxgain inspect`: what a model contains and whether it can be measured, without measuring it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.fetching import download_option, local_model, open_downloads
from onnxgain.commands.options import ReadingOptions, reading_options
from onnxgain.commands.output import OutputOptions, output_options
from onnxgain.commands.time_limit import limited, timeout_option
from onnxgain.files import is_url
from onnxgain.fleet.secrets import without_secrets

if TYPE_CHECKING:
    from onnxgain.model.classifier import Classifier

INSPECT_SCHEMA = "onnxgain.inspect/1"


@click.command(
    short_help="Show what is in a model and how it would be read.",
    epilog="""\b
Examples:
  onnxgain inspect model.onnx
  onnxgain inspect model.onnx --image-shape 3x260x260
  onnxgain inspect model.onnx --format json
  onnxgain inspect model.onnx --device cuda
""",
)
@click.argument("model", type=click.Path())
@reading_options
@click.option(
    "--device",
    metavar="DEVICE",
    default="cpu",
    show_default=True,
    help="With cuda, also lists the nodes of the gradient graph that CUDA would leave to the CPU; no GPU is needed.",
)
@timeout_option
@download_option
@output_options("inspect")
def inspect(
    model: str,
    reading: ReadingOptions,
    device: str,
    timeout: float | None,
    max_download: int,
    delivery: OutputOptions,
) -> None:
    """Show what a model contains and how it would be read, without measuring it.

    Lists image input, class head, input scale, assumptions, operators, and the operators between image and logits that
    have no gradient rule (the exit code is then 2, as `score` would fail).
    """
    from onnxgain.model.classifier import load_classifier

    delivery.check()
    with local_model(model, open_downloads(max_download)) as path, limited(str(path), timeout) as step:
        classifier = load_classifier(path, reading.reading())
        step()
        found = description(classifier)
        step()
        if device != "cpu" and not found["without_gradient"]:
            found["placement"] = placement(classifier, device)
    if is_url(model):
        found["model"]["path"] = without_secrets(model)
    delivery.deliver("inspect", found)
    if found["without_gradient"]:
        raise click.exceptions.Exit(2)


def description(classifier: Classifier) -> dict[str, Any]:
    """The result of `inspect` as JSON-able values."""
    from onnxgain.measure.caveat_finder import random_operators
    from onnxgain.model.differentiate import find_flat_nodes, find_gaps

    scale, called = classifier.scale, classifier.class_names
    return {
        "schema": INSPECT_SCHEMA,
        "model": {
            "path": str(classifier.path or ""),
            "opset": classifier.opset,
            "producer": classifier.producer,
            "parameters": classifier.parameters,
            "metadata": dict(classifier.model.metadata_props),
        },
        "image": {
            "input": classifier.image.name,
            "layout": classifier.image.layout,
            "shape": list(classifier.image.image_shape),
            "dtype": classifier.image.dtype.lower(),
        },
        "other_inputs": {
            name: list(value.shape) for name, value in {**classifier.inputs, **classifier.initializers}.items()
        },
        "head": {
            "output": classifier.head.output, "kind": classifier.head.kind, "classes": classifier.head.classes,
            "class_names": {str(index): name for index, name in sorted(called.names.items())} if called else {},
            "class_names_source": called.source if called else "",
        },
        "scale": {
            "name": scale.name, "mean": list(scale.mean), "std": list(scale.std), "scale": scale.scale,
            "bgr": scale.bgr, "step": [float(s) for s in scale.step(classifier.image.channels)], "source": scale.source,
        },
        "assumptions": list(classifier.assumptions),
        "operators": dict(classifier.operators),
        "without_gradient": [
            {
                "node": gap.node.name, "operator": gap.node.op_type, "domain": gap.node.domain, "version": gap.version,
                "input": gap.input_name, "reason": gap.reason,
            }
            for gap in find_gaps(classifier)
        ],
        "without_slope": [{"node": node.name, "operator": node.op_type} for node in find_flat_nodes(classifier)],
        "random": list(random_operators(classifier)),
    }  # fmt: skip


def placement(classifier: Classifier, device: str) -> dict[str, Any]:
    """The operators of the gradient graph that CUDA leaves to the CPU: from the runtime if it has CUDA, else a table.

    Raises:
        OnnxgainError: the device is not CUDA.
    """
    from onnxgain.engine.cuda_placement import kernels_of, left_to_cpu
    from onnxgain.engine.device import parse_device
    from onnxgain.engine.session import Session
    from onnxgain.errors import DeviceError, OnnxgainError, RuntimeUnavailableError
    from onnxgain.model.differentiate import differentiate

    wanted = parse_device(device)
    if wanted is None or not wanted.has_cuda:
        raise OnnxgainError("nodes are listed for CUDA only", where=f"--device {device}", remedy="write cuda")
    graph = differentiate(classifier, target=wanted.target, scaled=False)
    try:
        placed = Session(graph, threads=1, device=wanted, traced=True, custom_ops=classifier.custom_ops).placement()
    except (DeviceError, RuntimeUnavailableError):
        placed = None
    if placed is not None:
        source, total = "the runtime", len(placed)
        left = [(node.name, node.operator, "") for node in placed if node.provider not in wanted.providers]
    else:
        source, total = f"the kernels of onnxruntime {kernels_of()}", len(list(graph.graph))
        left = [(node.name or "", node.op_type, reason) for node, reason in left_to_cpu(graph)]
    return {
        "device": wanted.name,
        "source": source,
        "nodes": total,
        "on_cpu": [{"node": name, "operator": operator, "reason": reason} for name, operator, reason in left],
    }
