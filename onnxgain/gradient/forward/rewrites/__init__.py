"""Operators in terms of others.

In: a node's inputs and attributes, through an emitter. Out: the outputs, computed by other operators; or `Declined`.
Importing a module registers its rewrites.
"""

OTHER_DOMAINS = frozenset(
    {"microsoft", "microsoft_attention", "microsoft_normalization", "microsoft_quantized", "ml", "qonnx"}
)
"""Modules about operators of other domains than ONNX's own; they are only imported for models that have some."""
