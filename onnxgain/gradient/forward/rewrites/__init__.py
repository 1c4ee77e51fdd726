"""Rewrites: operators expressed in other operators.

In: an emitter, and a node's inputs and attributes. Out: its outputs, computed by other operators; or `Declined`.
Importing a module registers its rewrites.
"""

OTHER_DOMAINS = frozenset(
    {
        "microsoft", "microsoft_attention", "microsoft_normalization", "microsoft_quantized", "ml", "qonnx",
        "support_vectors",
    }
)  # fmt: skip
"""Modules for operators outside of ONNX's default domain; they are imported only for models with such operators."""
