"""The gradient graph of a classifier, given as a file, as a model in memory, or as a `Classifier`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from onnxgain.errors import ModelError, OnnxgainError, kind_in_words, located

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from onnxgain.gradient.emitter import Target
    from onnxgain.gradient.reverse.backpropagate import Gap
    from onnxgain.gradient.reverse.seed import Projection
    from onnxgain.model.classifier import Classifier, Reading

__all__ = ["differentiate"]


def differentiate(
    model: str | os.PathLike[str] | bytes | ir.Model | onnx.ModelProto | Classifier,
    *,
    reading: Reading | None = None,
    projection: Projection = "1/score",
    class_index: int | None = None,
    batch: int | None = None,
    target: Target = "cpu",
    scaled: bool = True,
) -> ir.Model:
    """The gradient graph of a classifier: image in; logits, class, score and derivative out.

    Only standard ONNX operators are emitted; each node is named after the forward node it differentiates.

    Args:
        model: a file; a model in memory, also as `bytes` or a `torch.onnx.ONNXProgram`; or a classifier already read.
        reading: settles what the model leaves open (image shape, output, ...).
        projection: what is differentiated: "1/score" (d log z_i), "one" (d z_i), "score" (score * d z_i) or "logit".
        class_index: the class i; None for the winner.
        batch: number of images evaluated together; None for the number that the model prescribes, else 1.
        target: "cpu"; "brief", for running it there once or twice without optimizing it first; or "portable", which
            uses only widely supported forms of operators, such as a plain ConvTranspose.
        scaled: False leaves out the factor `onnxgain.gradient.reverse.seed.projection_factor`, which may underflow
            in float32.

    Returns:
        A model with outputs "logits" (N, classes), "class" (N) int64, "score" (N) and "derivative" (shape of the
        image input, in model-input units), in this order. An output is renamed if an input already has its name.

    Raises:
        ModelError: the model cannot be read, or is not an image classifier.
        UnsupportedOperatorError: an operator on the way from image to logits has no derivative.
        OnnxgainError: there is no such class, or the model does not take such a batch.
    """
    import onnx_ir as ir

    from onnxgain.model.classifier import Classifier, describe, load_classifier
    from onnxgain.model.model_file import from_proto

    if isinstance(model, Classifier):
        classifier = model
    elif isinstance(model, ir.Model):
        classifier = describe(model, reading)
    elif isinstance(model, (str, os.PathLike)):
        classifier = load_classifier(model, reading)
    else:
        classifier = describe(from_proto(_proto(model)), reading)
    try:
        return _differentiate(classifier, projection, class_index, _checked_batch(classifier, batch), target, scaled)
    except OnnxgainError as error:
        raise located(error, classifier.path) from error


def _proto(model: Any) -> onnx.ModelProto:
    """A model in memory.

    Raises:
        ModelError: it is none.
    """
    import google.protobuf.message
    import onnx

    if isinstance(model, (bytes, bytearray)):
        try:
            model = onnx.ModelProto.FromString(bytes(model))
        except google.protobuf.message.DecodeError as error:
            raise ModelError("the bytes are no ONNX model", remedy="pass those of an .onnx file") from error
    found = getattr(model, "model_proto", model)
    if not isinstance(found, onnx.ModelProto):
        remedy = "pass a path, bytes, an onnx.ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram"
        raise ModelError(f"{kind_in_words(model)} is not an ONNX model", remedy=remedy)
    proto: onnx.ModelProto = found
    return proto


def find_flat_nodes(classifier: Classifier) -> list[ir.Node]:
    """The nodes between image and logits whose slope is zero everywhere, such as Round and ArgMax, in graph order."""
    from onnxgain.gradient.reverse.flat import find_flat
    from onnxgain.model.classifier import value_named

    transcript = classifier.transcript(classifier.image.fixed_batch or 1)
    image, logits = (value_named(transcript, name) for name in (classifier.image.name, classifier.head.logits))
    return find_flat(list(transcript.graph), logits, image, transcript.emitter)


def find_gaps(classifier: Classifier) -> tuple[Gap, ...]:
    """What `differentiate` would refuse in a classifier.

    The ``gaps`` of a classifier are operators without a derivative. Some formulas also need static shapes or constants,
    which only shows when they are tried.
    """
    from onnxgain.errors import UnsupportedOperatorError

    if classifier.gaps:
        return classifier.gaps
    try:
        _differentiate(classifier, "1/score", None, _checked_batch(classifier, None), "brief", False)
    except UnsupportedOperatorError as error:
        if error.gap is None:
            raise
        return (error.gap,)
    return ()


def _differentiate(
    classifier: Classifier,
    projection: Projection,
    class_index: int | None,
    batch: int,
    target: Target,
    scaled: bool,
) -> ir.Model:
    from onnxgain.gradient.graphs import class_gradient
    from onnxgain.gradient.reverse.seed import Quantity

    if class_index is not None and not 0 <= class_index < classifier.head.classes:
        raise OnnxgainError(
            f"there is no class {class_index}: the model has {classifier.head.classes} classes",
            remedy=f"choose one from 0 to {classifier.head.classes - 1}",
        )
    if classifier.gaps:
        raise classifier.gaps[0].error()
    return class_gradient(
        classifier.transcript(batch),
        image=classifier.image.name,
        head=classifier.head.logits,
        batch=batch,
        independent=classifier.head.independent,
        columns=classifier.head.columns,
        quantity=Quantity(projection, class_index, scaled),
        target=target,
    )


def require_batch(classifier: Classifier, batch: int) -> None:
    """Try a batch of this size: the graph may work for one image only although the input declares an open batch size.

    Raises:
        OnnxgainError: the model does not take such a batch, or gives other results for it.
    """
    if _checked_batch(classifier, batch) == 1 or classifier.image.fixed_batch is not None:
        return
    from onnxgain.model.batch_answers import batch_problem

    problem = batch_problem(classifier, batch)
    if problem is not None:
        raise OnnxgainError(
            f"a batch of {batch} images is asked for, but {problem}",
            where=str(classifier.path) if classifier.path else None,
            remedy="leave the batch size out, or export the model with an open one",
        )


def _checked_batch(classifier: Classifier, batch: int | None) -> int:
    """The batch size to differentiate at: the one asked for, else the model's own."""
    image = classifier.image
    if batch is None:
        return image.fixed_batch or 1
    if "N" not in image.layout and batch != 1:
        raise OnnxgainError(
            f"a batch of {batch} images is asked for, but the input {image.name!r} has no batch axis",
            remedy="leave the batch size out",
        )
    if image.fixed_batch not in (None, batch):
        raise OnnxgainError(
            f"a batch of {batch} images is asked for, but the model's batch size is fixed to {image.fixed_batch}",
            remedy="leave the batch size out, or export the model with an open one",
        )
    return batch
