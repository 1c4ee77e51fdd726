"""Operators that make numbers from nothing, from chance, or from text."""

from __future__ import annotations

from onnxgain.gradient.registry import zero

# Random draws: only the shape of the input matters, or a draw from its probabilities, which is a step function of them.
for _op_type in ("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"):
    zero(_op_type)

# Bytes and text.
for _op_type in (
    "ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
):  # fmt: skip
    zero(_op_type)
