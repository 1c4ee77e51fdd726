"""An ONNX file -> a frozen description of the image classifier in it: image input, class head, input scale."""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.integer_products import integer_operators
from onnxgain.errors import WITH_CUSTOM_OPS, ModelError, OnnxgainError, UnsupportedOperatorError, first_line, located
from onnxgain.gradient import registry
from onnxgain.gradient.forward.transcribe import Transcript
from onnxgain.gradient.reverse.backpropagate import Gap, find_path
from onnxgain.gradient.values import static_shape
from onnxgain.model.classifier_transcript import transcribed, transcribed_for_its_batch, value_named, values_of
from onnxgain.model.companions import companion_size, read_companions
from onnxgain.model.declared_scale import find_scale, ultralytics_size
from onnxgain.model.evaluation import rows_of_batch, run_at_noise, run_images
from onnxgain.model.footprint import Footprint, footprint_of
from onnxgain.model.head import Head, find_head, write_logits
from onnxgain.model.image_input import ImageInput, find_image_input
from onnxgain.model.input_scale import InputScale
from onnxgain.model.model_file import CONTENT, Content, read_model
from onnxgain.model.pairs_of_classes import refuse_values_of_pairs
from onnxgain.model.quick_dataclass import dataclass
from onnxgain.model.reading import Reading
from onnxgain.model.screening import LARGEST_IMAGE

if TYPE_CHECKING:
    from onnxgain.model.class_names import ClassNames

__all__ = ["Classifier", "Reading", "describe", "load_classifier", "value_named", "with_scale"]


@dataclass(frozen=True)
class Classifier:
    """An image classifier read from an ONNX file.

    Attributes:
        path: the file, None for a model given in memory.
        content: identifies the content of the file; None for a model given in memory.
        model: the model as it is in the file (external weights are loaded lazily).
        image: the image input.
        head: the class head.
        scale: how 8-bit pixels become model input.
        inputs: values of the other inputs.
        initializers: values given for inputs that replace their default initializers.
        opset: version of the default operator domain.
        producer: the tool that wrote the file, if the file names it.
        operators: how often each operator occurs, "domain.Type" outside the default domain.
        parameters: number of elements of all initializers.
        widened: narrow float types that are computed in float32 instead.
        assumptions: what was assumed because nothing declares it, one sentence each.
        gaps: operators between image and logits that have no gradient.
        footprint: memory traffic of evaluating it for one image.
        custom_ops: operator libraries that evaluating it needs.
        class_names: class names from the file or one beside it; None if there are none.
        scores_in_file: name and shape of the file's own value that the head's `source` is transcribed from; None if
            the file has none.
    """

    path: Path | None
    model: ir.Model
    image: ImageInput
    head: Head
    scale: InputScale
    inputs: Mapping[str, np.ndarray]
    opset: int
    producer: str
    operators: Mapping[str, int]
    parameters: int
    widened: tuple[str, ...]
    assumptions: tuple[str, ...]
    gaps: tuple[Gap, ...]
    footprint: Footprint
    custom_ops: tuple[Path, ...] = ()
    content: Content | None = None
    initializers: Mapping[str, np.ndarray] = field(default_factory=dict)
    class_names: ClassNames | None = None
    scores_in_file: tuple[str, tuple[int, ...]] | None = None
    _spare: list[Transcript] = field(default_factory=list, repr=False, compare=False)

    @property
    def quantizes(self) -> bool:
        """Whether it has operators outside functions that round activations to integers."""
        return any("Quant" in name or "QLinear" in name or "Integer" in name for name in self.operators)

    def transcript(self, batch: int = 1) -> Transcript:
        """A transcript that the caller may extend. The first call for one image returns the one made while reading.

        Raises:
            ModelError: the graph does not take such a batch.
        """
        if batch == 1 and self._spare:
            return self._spare.pop()
        transcript = transcribed(self.model, self.image, self.inputs, self.initializers, batch)
        if self.head.source not in {value.name for value in values_of(transcript.graph)}:
            raise ModelError(
                f"its graph is another one for a batch of {batch}, without the class scores that one image has",
                remedy="leave the batch size out",
            )
        write_logits(transcript, self.head)
        return transcript

    def class_name(self, index: int) -> str | None:
        """The name of a class, see `ClassNames.shown`; None if there are no names or their number does not match."""
        names = self.class_names
        return None if names is None or names.contradiction(self.head.classes) else names.shown(index)


def load_classifier(path: str | os.PathLike[str], reading: Reading | None = None) -> Classifier:
    """Read an ONNX file and find the classifier in it.

    Args:
        path: the file. External data lies beside it and stays on disk until it is needed.
        reading: settles what the file leaves open.

    Raises:
        ModelError: the file cannot be read, or is not an image classifier.
    """
    path = Path(path)
    try:
        return describe(read_model(path), reading, path=path)
    except OnnxgainError as error:
        raise located(error, path) from error


def describe(model: ir.Model, reading: Reading | None = None, *, path: Path | None = None) -> Classifier:
    """Find the classifier in a model, see `load_classifier`."""
    try:
        return _described(model, reading or Reading(), path)
    except RecursionError:
        raise  # graphs nested too deeply: has its own message
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # onnx and onnx-ir raise all kinds of exceptions on a damaged graph.
        place = "".join(f" {note}" for note in getattr(error, "__notes__", ())[:1])
        raise ModelError(
            f"its graph cannot be evaluated{place}: {first_line(error, 200)}",
            remedy="check the model with onnx.checker",
        ) from error


def _described(model: ir.Model, reading: Reading, path: Path | None) -> Classifier:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    _check_opset(opset)
    companions = read_companions(path) if path is not None else {}
    image, assumptions = _find_image(model, reading, companions)
    content = model.meta.get(CONTENT)
    inputs: dict[str, np.ndarray] = {}
    initializers: dict[str, np.ndarray] = {}
    if len(model.graph.inputs) > 1 or reading.inputs:
        from onnxgain.model.side_inputs import side_inputs

        model, inputs, initializers, said = side_inputs(model, image, reading.inputs)
        assumptions += said
    image, transcript, said = transcribed_for_its_batch(model, image, inputs, initializers)
    assumptions += said
    head, said = _find_head(model, transcript, image, inputs, reading)
    assumptions += said + _about_operators(model, transcript)
    class_names = None
    if "names" in model.metadata_props or "config.json" in companions:
        from onnxgain.model.class_names import find_class_names

        class_names = find_class_names(model.metadata_props, companions)
        contradiction = class_names.contradiction(head.classes)
        assumptions += (contradiction,) if contradiction else ()
    x = next(value for value in transcript.graph.inputs if value.name == image.name)
    logits = value_named(transcript, head.logits)
    path_found = find_path(list(transcript.graph), {logits: None}, [x], transcript.emitter)
    scale, said = find_scale(transcript.graph, x, image, model.metadata_props, companions, reading.scale, path_found)
    assumptions += said
    if image.fixed_batch not in (None, 1):
        assumptions += (f"the model's batch size is fixed to {image.fixed_batch}: the image is repeated",)
    parameters = sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None)
    if scale.source == "default":
        from onnxgain.model.assumed_scale import LARGEST_TESTED, doubts

        def evaluated(images: Sequence[np.ndarray]) -> np.ndarray:
            (rows,) = run_images(transcript.graph, [logits], images, image, inputs, reading.custom_ops)
            return rows

        if parameters <= LARGEST_TESTED:
            assumptions += doubts(scale, image.image_shape, evaluated)
    batch = image.fixed_batch or 1
    return Classifier(
        path=path,
        model=model,
        image=image,
        head=head,
        scale=scale,
        inputs=inputs,
        opset=opset,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        operators=_count_operators(model),
        parameters=parameters,
        widened=tuple(sorted(transcript.widened)),
        assumptions=assumptions,
        gaps=tuple(path_found.gaps),
        custom_ops=reading.custom_ops,
        content=content,
        initializers=initializers,
        class_names=class_names,
        scores_in_file=_scores_in_file(model.graph, transcript, head),
        footprint=footprint_of(transcript.graph, batch),
        _spare=[transcript] if batch == 1 else [],
    )


def _find_image(model: ir.Model, reading: Reading, companions: Mapping[str, Any]) -> tuple[ImageInput, tuple[str, ...]]:
    image, assumptions = find_image_input(
        model.graph,
        image_shape=reading.image_shape,
        name=reading.image_input,
        given=tuple(reading.inputs),
        usual_size=companion_size(companions) or ultralytics_size(model.metadata_props),
    )
    shape = image.shape(image.fixed_batch or 1)
    if math.prod(shape) > LARGEST_IMAGE or min(shape) < 1:
        listed = ", ".join(map(str, shape))
        raise ModelError(
            f"the image input {image.name!r} is of shape [{listed}]",
            remedy=f"images of 1 to {LARGEST_IMAGE} values can be measured",
        )
    return image, assumptions + _about_ir_version(model.ir_version)


def _find_head(
    model: ir.Model,
    transcript: Transcript,
    image: ImageInput,
    inputs: Mapping[str, np.ndarray],
    reading: Reading,
) -> tuple[Head, tuple[str, ...]]:
    batch = image.fixed_batch or 1
    try:
        evaluate = functools.partial(run_at_noise, transcript.graph, image, inputs, reading.custom_ops)
        head, assumed = find_head(transcript, batch, evaluate=evaluate, output=reading.output, kind=reading.head)
    except OnnxgainError as error:
        raise _unknown_operator(transcript) or error from error
    if model.opset_imports.get("ai.onnx.ml"):
        refuse_values_of_pairs(model.graph, head.output)
    if head.columns == batch > 1:
        source = value_named(transcript, head.source)
        _refuse_exchanged_axes(head, rows_of_batch(transcript.graph, image, inputs, reading.custom_ops, source))
    return head, assumed


def _about_operators(model: ir.Model, transcript: Transcript) -> tuple[str, ...]:
    """What is to be said of the types and operators of a model: narrow floats, integer kernels, PRelu slopes."""
    said: tuple[str, ...] = ()
    if transcript.widened:
        narrow = " and ".join(sorted(name.lower() for name in transcript.widened))
        said += (f"{narrow} model analysed in float32",)
    integer = integer_operators(model.graph.all_nodes())
    if integer:
        from onnxgain.engine.processor import on_the_processor

        said += (on_the_processor(integer),)
    if any(node.op_type == "PRelu" for node in transcript.graph):
        from onnxgain.model.prelu_slopes import slopes_of_columns

        said += slopes_of_columns(transcript.graph)
    return said


def _check_opset(opset: int) -> None:
    import onnx.defs

    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(
            f"the model is of opset {opset}, the installed onnx {onnx.__version__} knows them up to {newest}",
            remedy=f"pip install --upgrade onnx onnxruntime, or export at opset {newest} or earlier",
        )


def _about_ir_version(version: int) -> tuple[str, ...]:
    import onnx

    if version <= onnx.IR_VERSION:
        return ()
    return (f"IR version {version}, newer than the installed onnx knows ({onnx.IR_VERSION}): read as that one",)


def _refuse_exchanged_axes(head: Head, rows: NDArray[np.float64]) -> None:
    """Refuses an output (classes, images), which only its numbers tell from (images, classes) if both are as many.

    Args:
        rows: the output for a batch of one image, (classes, classes).
    """
    tolerance = 1e-4 * float(np.abs(rows).max())
    if np.ptp(rows, axis=0).max() > tolerance >= np.ptp(rows, axis=1).max():
        raise ModelError(
            f"output {head.output!r} holds one row for each class, not for each image of its batch of {len(rows)}",
            remedy="export the model without the last Transpose, or with an open batch size",
        )


def with_scale(classifier: Classifier, scale: InputScale) -> Classifier:
    """The same classifier with another input scale."""
    return replace(classifier, scale=scale)


def _scores_in_file(graph: ir.Graph, transcript: Transcript, head: Head) -> tuple[str, tuple[int, ...]] | None:
    """The first value of the file that is transcribed to the one the head's logits are written for."""
    computed = {y for node in graph for y in node.outputs}
    for old, new in transcript.values.items():
        if new.name == head.source and old in computed and old.name:
            shape = static_shape(new)
            return (old.name, shape) if shape is not None else None
    return None


def _unknown_operator(transcript: Transcript) -> UnsupportedOperatorError | None:
    """An error about the first unknown operator, which blocks shape inference; None if there is none."""
    for node in transcript.graph:
        if node.domain and not registry.has_answers(node.domain, node.op_type):
            return UnsupportedOperatorError(
                f"operator {node.domain}.{node.op_type} is not known, nor what its output means",
                where=f"node {node.name!r}",
                remedy=f"export the model with standard ONNX operators only, or {WITH_CUSTOM_OPS}",
            )
    return None


def _count_operators(model: ir.Model) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for graph in model.graphs():
        for node in graph:
            domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
            counts[f"{domain}{node.op_type}"] += 1
    return dict(sorted(counts.items()))
