"""Operators that draw random numbers or read text or encoded images: their derivative is zero."""

from __future__ import annotations

from onnxgain.gradient.registry import zero

# These use only the shape of the input, or draw from its probabilities, which is a step function.
for _op_type in ("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"):
    zero(_op_type)

for _op_type in (
    "ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
):  # fmt: skip
    zero(_op_type)
