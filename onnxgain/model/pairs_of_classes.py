"""Refuses outputs with one number for each pair of classes, as support vector classifiers compute them."""

from __future__ import annotations

import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.model.sums import through

_PASSED = {"Cast", "Flatten", "Identity", "Reshape", "Sigmoid", "Softmax", "Squeeze", "ZipMap"}


def refuse_values_of_pairs(graph: ir.Graph, output: str) -> None:
    """Raise an error if a file's output holds the decision values of pairs of more than two classes.

    Three classes have three pairs, so the number of values does not show it.

    Raises:
        ModelError: it does.
    """
    value = next((value for value in graph.outputs if value.name == output), None)
    node = through(value, _PASSED).producer() if value is not None else None
    if node is None or node.op_type != "SVMClassifier" or "prob_a" in node.attributes:
        return
    attributes = node.attributes
    labels = next((attributes[n].value for n in ("classlabels_strings", "classlabels_ints") if n in attributes), ())
    if "vectors_per_class" in attributes and len(labels) > 2:
        raise ModelError(
            f"not a classifier: its output holds one decision value for each pair of {len(labels)} classes, and none "
            "for a class",
            where=f"output {output!r}",
            remedy="export the classifier with probabilities (scikit-learn: SVC(probability=True)) or with its "
            "decision function",
        )
