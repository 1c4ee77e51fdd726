"""A model file as it stands, loaded into the runtime, with all its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.integer_products import integer_operators
from onnxgain.engine.session import Session
from onnxgain.errors import OnnxgainError
from onnxgain.measure.gradient_graph import as_declared
from onnxgain.model.classifier import Classifier
from onnxgain.model.file_tail import of_image

Rows = list[dict[str, Any]]
"""For each image, what each output holds."""


class OwnFile:
    """A model file, loaded.

    Args:
        brief: load it without optimizing it, for a few runs.

    Attributes:
        batch: the batch size that it fixes; None where it leaves that open.
        open: whether it takes batches of any size.

    Raises:
        OnnxgainError: the runtime refuses it.
    """

    def __init__(
        self, classifier: Classifier, threads: int | None = None, device: Device = CPU, *, brief: bool = False
    ) -> None:
        self.classifier = classifier
        where = str(classifier.path) if classifier.path else None
        options: dict[str, Any] = {"threads": threads, "device": device, "custom_ops": classifier.custom_ops}
        try:
            self._session = Session(classifier.model, where=where, brief=brief, **options)
        except OnnxgainError:
            if not brief:
                raise
            # Optimization computes the constants that a kernel may ask for.
            self._session = Session(classifier.model, where=where, **options)
        self.batch = classifier.image.fixed_batch
        self.open = "N" in classifier.image.layout and self.batch is None

    def run(self, images: Sequence[NDArray[np.float32]]) -> Rows:
        """What the outputs hold for each image of a batch.

        Raises:
            OnnxgainError: the file does not take such a batch.
        """
        image, size = self.classifier.image, self.batch or len(images)
        padded = [*images, *[images[-1]] * (size - len(images))]
        known = {image.name: image.to_input(padded), **self.classifier.inputs, **self.classifier.initializers}
        feeds = {name: known[name] for name in self._session.inputs if name in known}
        for name, array in feeds.items():
            if array.dtype.kind != "U":
                feeds[name] = as_declared(array, self._session.input_type(name))
        found = self._session.run(feeds)
        return [{name: of_image(value, i, size) for name, value in found.items()} for i in range(len(images))]

    def one_by_one(self, images: Sequence[NDArray[np.float32]]) -> Rows:
        """What the outputs hold for each image, run alone."""
        return [row for image in images for row in self.run([image])]


def output_of_logits(classifier: Classifier) -> str | None:
    """The output of the file that holds the logits in float32, exactly as they are analysed; None where there is none.

    Files of narrower numbers or with integer products are analysed in float32 instead, those of a fixed batch as one.
    """
    head, batch = classifier.head, classifier.image.fixed_batch
    if classifier.scores_in_file is None or head.form != "value" or head.kind != "logits" or batch not in (None, 1):
        return None
    name, _ = classifier.scores_in_file
    graph = classifier.model.graph
    if classifier.widened or name not in {y.name for y in graph.outputs} or integer_operators(graph.all_nodes()):
        return None
    return name
