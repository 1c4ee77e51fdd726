"""com.microsoft.Attention and MultiHeadAttention, as matrix products and Softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite, unsupported
from onnxgain.gradient.values import Value, padded, partial_shape, rank, require_static

DOMAIN = "com.microsoft"
_HIDDEN = float(np.finfo(np.float32).min)


def _heads(op: Emitter, x: Value, count: int) -> Value:
    """(batch, sequence, count * size) -> (batch, count, sequence, size)."""
    return x if rank(x) == 4 else op.Transpose(op.Reshape(x, [0, 0, count, -1]), perm=[0, 2, 1, 3])


@dataclass(frozen=True)
class _MultiHeadAttention:
    """The attributes of MultiHeadAttention."""

    num_heads: int
    scale: float = 0.0
    mask_filter_value: float = -10000.0
    unidirectional: int = 0


@dataclass(frozen=True)
class Attention(_MultiHeadAttention):
    """The attributes of Attention."""

    qkv_hidden_sizes: Sequence[int] = ()
    do_rotary: int = 0
    rotary_embedding_dim: int = 0
    past_present_share_buffer: int = 0


def _attend(
    op: Emitter,
    q: Value,
    k: Value,
    v: Value,
    *,
    mask: Value | None,
    attention_bias: Value | None,
    given: Attention | _MultiHeadAttention,
) -> Value:
    """softmax(scale Q K^T + masks) V for (batch, heads, sequence, size), as (batch, sequence, heads * size)."""
    scores = op.MatMul(op.Mul(q, given.scale or 1 / math.sqrt(_size(q))), op.Transpose(k, perm=[0, 1, 3, 2]))
    for bias in (
        _mask_bias(op, mask, q, k, given.mask_filter_value),
        attention_bias,
        _causal_bias(op, q, k) if given.unidirectional else None,
    ):
        scores = scores if bias is None else op.Add(scores, bias)
    y = op.MatMul(op.Softmax(scores, axis=-1), v)
    return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])


def _size(q: Value) -> int:
    shape = partial_shape(q)
    assert shape is not None and shape[3] is not None, "the size of attention heads is part of the model"
    return shape[3]


def _mask_bias(op: Emitter, mask: Value | None, q: Value, k: Value, filter_value: float) -> Value | None:
    """The bias for a mask of ones (visible) and zeros, or for a 1-D mask with the number of visible keys."""
    if mask is None:
        return None
    if rank(mask) == 1:
        keys = op.Range(0, op.Reshape(op.Shape(k, start=2, end=3), []), 1)
        mask = op.Less(keys, op.Unsqueeze(op.Cast(mask, to=7), [1]))
    axes = {2: [1, 2], 3: [1], 4: []}[rank(mask)]
    visible = op.Cast(op.Unsqueeze(mask, axes) if axes else mask, to=9)
    return op.Where(visible, op.like(0.0, q), op.like(filter_value, q))


def _causal_bias(op: Emitter, q: Value, k: Value) -> Value:
    """The bias that hides keys after i + (keys - n) from query i of n."""
    queries, keys = op.Shape(q, start=2, end=3), op.Shape(k, start=2, end=3)
    rows = op.Add(op.Range(0, op.Reshape(queries, []), 1), op.Sub(keys, queries))
    columns = op.Range(0, op.Reshape(keys, []), 1)
    ahead = op.Greater(columns, op.Unsqueeze(rows, [1]))
    return op.Where(ahead, op.like(_HIDDEN, q), op.like(0.0, q))


def _plain_mask(mask: Value | None, batch: int | None) -> bool:
    """Whether `_mask_bias` supports the mask: other masks index into packed sequences."""
    if mask is None or rank(mask) > 1:
        return True
    return batch is not None and partial_shape(mask) == (batch,)


@rewrite("Attention", domain=DOMAIN, may_decline=True, counts_outputs=True, attributes=Attention)
def attention(
    op: Emitter,
    x: Value,
    weights: Value,
    bias: Value | None = None,
    *optional: Value | None,
    given: Attention,
    output_count: int,
) -> Sequence[Value] | Declined:
    """Self-attention with a single matrix product for queries, keys and values."""
    mask, past, attention_bias, _ = padded(optional, 4)
    shape = partial_shape(x) or (None,)
    if given.past_present_share_buffer or given.do_rotary or not _plain_mask(mask, shape[0]):
        return Declined()
    packed = op.MatMul(x, weights)
    packed = packed if bias is None else op.Add(packed, bias)
    sizes = list(given.qkv_hidden_sizes or [require_static(weights, "Attention")[1] // 3] * 3)
    q, k, v = (_heads(op, part, given.num_heads) for part in op.emit("Split", [packed, sizes], {"axis": -1}, outputs=3))
    if past is not None:
        before = [op.Gather(past, np.array(i), axis=0) for i in range(2)]
        k, v = (op.Concat(old, new, axis=2) for old, new in zip(before, (k, v), strict=True))
    y = _attend(op, q, k, v, mask=mask, attention_bias=attention_bias, given=given)
    if output_count < 2:
        return [y]
    return y, op.Concat(op.Unsqueeze(k, [0]), op.Unsqueeze(v, [0]), axis=0)


@rewrite("MultiHeadAttention", domain=DOMAIN, may_decline=True, counts_outputs=True, attributes=_MultiHeadAttention)
def multi_head_attention(
    op: Emitter,
    query: Value,
    key: Value | None = None,
    value: Value | None = None,
    *optional: Value | None,
    given: _MultiHeadAttention,
    output_count: int,
) -> Sequence[Value] | Declined:
    """Attention of queries, keys and values.

    All three may be packed as (batch, sequence, heads, 3, size), or keys and values as (batch, sequence, heads, 2,
    size).
    """
    bias, mask, attention_bias, past_key, past_value, past_sequence_length, cache_indirection = padded(optional, 7)
    shape = partial_shape(query) or (None,)
    if past_sequence_length is not None or cache_indirection is not None or not _plain_mask(mask, shape[0]):
        return Declined()
    if key is None:
        parts = _unpacked(op, query, 3)
    elif value is None:
        parts = [query, *_unpacked(op, key, 2)]
    else:
        parts = [query, key, value]
    if bias is not None:
        widths = [require_static(part, "MultiHeadAttention")[2] for part in parts if rank(part) == 3]
        biases = op.emit("Split", [bias, widths], {"axis": 0}, outputs=3) if len(widths) == 3 else [bias, None, None]
        parts = [part if b is None else op.Add(part, b) for part, b in zip(parts, biases, strict=True)]
    q, k, v = (_heads(op, part, given.num_heads) for part in parts)
    if past_key is not None:
        k, v = op.Concat(past_key, k, axis=2), op.Concat(past_value, v, axis=2)
    y = _attend(op, q, k, v, mask=mask, attention_bias=attention_bias, given=given)
    return (y, k, v)[:output_count]


def _unpacked(op: Emitter, x: Value, count: int) -> list[Value]:
    """(batch, sequence, heads, count, size) -> ``count`` values (batch, sequence, heads * size)."""
    return [op.Reshape(op.Gather(x, np.array(i), axis=3), [0, 0, -1]) for i in range(count)]


for _op_type in ("Attention", "MultiHeadAttention"):
    unsupported(
        _op_type,
        domain=DOMAIN,
        reason="it has a buffer shared with its past, rotary embedding, or a mask of packed sequences, as language "
        "models have; save the model without attention fusion",
    )
