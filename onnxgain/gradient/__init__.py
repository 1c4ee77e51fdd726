"""Reverse-mode differentiation of ONNX graphs: graph in, graph out, no runtime in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from onnxgain.classifier import Classifier, Reading
    from onnxgain.gradient.seed import Projection

__all__ = ["differentiate"]


def differentiate(
    model: str | os.PathLike[str] | ir.Model | onnx.ModelProto | Classifier,
    *,
    reading: Reading | None = None,
    projection: Projection = "1/score",
    class_index: int | None = None,
    batch: int = 1,
    target: str = "cpu",
    scaled: bool = True,
) -> ir.Model:
    """The gradient graph of a classifier: image in; logits, class, score and derivative out.

    Only standard ONNX operators are emitted; each node is named after the forward node it differentiates.

    Args:
        model: a file, a model in memory, or a classifier already read.
        reading: what the model leaves open (image shape, output, ...).
        projection: what is differentiated: "1/score" (d log z_i), "one" (d z_i), "score" (score * d z_i) or "logit".
        class_index: the class i; the winner where None.
        batch: number of images evaluated together.
        target: "cpu", or "portable" for graphs of plain ConvTranspose and the like.
        scaled: False leaves out the factor `onnxgain.gradient.seed.projection_factor`, which may underflow float32.

    Returns:
        A model with outputs "logits" (N, classes), "class" (N) int64, "score" (N) and "derivative" (shape of the
        image input, in model-input units), in this order; one gets another name where an input has its name already.

    Raises:
        ModelError: the model cannot be read, or is not an image classifier.
        UnsupportedOperatorError: an operator on the way from image to logits has no derivative.
    """
    import onnx_ir as ir

    from onnxgain.classifier import Classifier, describe, load_classifier
    from onnxgain.gradient.graphs import class_gradient

    if isinstance(model, Classifier):
        classifier = model
    elif isinstance(model, ir.Model):
        classifier = describe(model, reading)
    elif isinstance(model, (str, os.PathLike)):
        classifier = load_classifier(model, reading)
    else:
        classifier = describe(ir.from_proto(model), reading)
    if class_index is not None and not 0 <= class_index < classifier.head.classes:
        from onnxgain.errors import OnnxgainError

        raise OnnxgainError(
            f"there is no class {class_index}: the model has {classifier.head.classes} classes",
            remedy=f"choose one from 0 to {classifier.head.classes - 1}",
        )
    if classifier.gaps:
        raise classifier.gaps[0].error()
    return class_gradient(
        classifier.transcript(batch, target=target),
        image=classifier.image.name,
        head=classifier.head.logits,
        batch=batch,
        kind=classifier.head.kind,
        columns=classifier.head.columns,
        projection=projection,
        class_index=class_index,
        scaled=scaled,
    )
