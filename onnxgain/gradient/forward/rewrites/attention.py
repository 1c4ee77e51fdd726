"""Attention and related operators, as matrix products and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.rewrites.control import Step
from onnxgain.gradient.operator_calls import Attribute
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value, padded, partial_shape, rank


class _Attention(NamedTuple):
    """The operator's attributes."""

    is_causal: int = 0
    q_num_heads: int | None = None
    kv_num_heads: int | None = None
    scale: float | None = None
    softcap: float = 0.0
    softmax_precision: int | None = None
    qk_matmul_output_mode: int = 0
    left_window_size: int = -1
    right_window_size: int = -1


@rewrite("Attention", counts_outputs=True, attributes=_Attention)
def attention(
    op: Emitter, Q: Value, K: Value, V: Value, *optional: Value | None, given: _Attention, output_count: int
) -> Sequence[Value]:
    """softmax(softcap(scale Q K^T) + bias) V over (batch, heads, sequence, size); 0 for fully masked rows.

    The bias is the float mask, and minus infinity where the boolean mask, causality, the window or the padding hides a
    key.
    """
    attn_mask, past_key, past_value, nonpad_kv_seqlen = padded(optional, 4)
    packed = rank(Q) == 3
    if packed:
        Q = _unpacked(op, Q, given.q_num_heads)
        K, V = (_unpacked(op, x, given.kv_num_heads) for x in (K, V))
    if past_key is not None:
        K, V = op.Concat(past_key, K, axis=2), op.Concat(past_value, V, axis=2)
    present_key, present_value = K, V
    K, V = _shared(op, K, Q), _shared(op, V, Q)
    scores = op.MatMul(_scaled(op, Q, given.scale), op.Transpose(K, perm=[0, 1, 3, 2]))
    capped = op.Mul(op.Tanh(op.Div(scores, given.softcap)), given.softcap) if given.softcap else scores
    offset = _offset(op, Q, past_key, nonpad_kv_seqlen)
    bias = _attention_bias(op, (Q, K), attn_mask, offset, nonpad_kv_seqlen, given)
    probabilities = _guarded_softmax(op, capped, bias, given.softmax_precision)
    y = op.MatMul(probabilities, V)
    if packed:
        y = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
    if output_count < 4:
        return (y, present_key, present_value)[:output_count]
    biased = capped if bias is None else op.Add(capped, bias)
    return y, present_key, present_value, (scores, capped, biased, probabilities)[given.qk_matmul_output_mode]


def _scaled(op: Emitter, query: Value, scale: float | None) -> Value:
    """The queries times the scale, which is by default 1 / sqrt(length of the last axis)."""
    size = partial_shape(query)[-1]  # type: ignore[index]
    if scale is None and size is not None:
        scale = 1 / math.sqrt(size)
    if scale is not None:
        return op.Mul(query, scale)
    return op.Div(query, op.Sqrt(op.Cast(op.Shape(query, start=-1), to=query.dtype.value)))


def _unpacked(op: Emitter, x: Value, heads: int | None) -> Value:
    """(batch, sequence, heads * size) -> (batch, heads, sequence, size)."""
    assert heads is not None, "the number of heads is missing"
    return op.Transpose(op.Reshape(x, [0, 0, heads, -1]), perm=[0, 2, 1, 3])


def _shared(op: Emitter, x: Value, Q: Value) -> Value:
    """Keys or values, with each head repeated for the group of query heads that shares it."""
    heads, query_heads = op.Shape(x, start=1, end=2), op.Shape(Q, start=1, end=2)
    group = op.Div(query_heads, heads)
    if op.known_ints(group) == [1]:
        return x
    repeated = op.Expand(op.Unsqueeze(x, [2]), op.Concat([1, 1], group, [1, 1], axis=0))
    return op.Reshape(repeated, op.Concat(op.Shape(x, end=1), query_heads, op.Shape(x, start=2), axis=0))


def _offset(op: Emitter, Q: Value, past_key: Value | None, nonpad_kv_seqlen: Value | None) -> Value | None:
    """The number of keys before the first query: one number, or (batch, 1, 1, 1)."""
    if past_key is not None:
        return op.Shape(past_key, start=2, end=3)
    if nonpad_kv_seqlen is not None:
        return op.Sub(op.Reshape(nonpad_kv_seqlen, [-1, 1, 1, 1]), op.Shape(Q, start=2, end=3))
    return None


def _attention_bias(
    op: Emitter,
    queries_and_keys: tuple[Value, Value],
    attn_mask: Value | None,
    offset: Value | None,
    nonpad: Value | None,
    given: _Attention,
) -> Value | None:
    """The bias to add to the scores, broadcastable to them, or None."""
    Q, K = queries_and_keys
    causal, left, right = bool(given.is_causal), given.left_window_size, given.right_window_size
    keys = op.Shape(K, start=2, end=3)
    columns = op.Range(0, op.Reshape(keys, []), 1)
    masks = []
    if causal or left >= 0 or right >= 0:
        rows = op.Unsqueeze(op.Range(0, op.Reshape(op.Shape(Q, start=2, end=3), []), 1), [1])
        ahead = op.Sub(columns, rows if offset is None else op.Add(rows, offset))
        limits = [0] * causal + [right] * (right >= 0)
        if limits:
            masks.append(op.LessOrEqual(ahead, min(limits)))
        if left >= 0:
            masks.append(op.GreaterOrEqual(ahead, -left))
    if nonpad is not None:
        masks.append(op.Less(columns, op.Reshape(nonpad, [-1, 1, 1, 1])))
    bias = None
    if attn_mask is not None:
        boolean = not attn_mask.dtype.is_floating_point()
        attn_mask = _padded_mask(op, attn_mask, keys, False if boolean else -math.inf)
        if boolean:
            masks.append(attn_mask)
        else:
            bias = attn_mask
    if masks:
        visible = masks[0]
        for mask in masks[1:]:
            visible = op.And(visible, mask)
        hidden = op.Where(visible, op.like(0.0, Q), op.like(-math.inf, Q))
        bias = hidden if bias is None else op.Add(bias, hidden)
    return bias


def _padded_mask(op: Emitter, mask: Value, keys: Value, filler: float) -> Value:
    """From version 24 on, a mask may be shorter than the keys: pad it so that further keys are hidden."""
    have, want = partial_shape(mask)[-1], op.known_ints(keys)  # type: ignore[index]
    if op.version("", "Attention") < 24 or (want is not None and have == want[0]):
        return mask
    missing = op.Sub(keys, op.Shape(mask, start=-1))
    return op.Pad(mask, op.Concat([0], missing, axis=0), op.constant(np.array(filler, mask.dtype.numpy())), [-1])


def _guarded_softmax(op: Emitter, scores: Value, bias: Value | None, precision: int | None) -> Value:
    """softmax(scores + bias), with zeros in rows whose bias is minus infinity throughout."""
    hidden = None
    if bias is not None:
        hidden = op.Equal(op.ReduceMax(bias, [-1], keepdims=1), op.like(-math.inf, bias))
        known = op.known(hidden)
        if known is not None and not known.any():
            hidden = None
        # Hidden rows must not have infinities: their derivative would be 0 * NaN.
        scores = op.Add(scores, bias if hidden is None else op.Where(hidden, op.like(0.0, bias), bias))
    dtype = scores.dtype.value
    if precision not in (None, dtype):
        probabilities = op.Cast(op.Softmax(op.Cast(scores, to=precision), axis=-1), to=dtype)
    else:
        probabilities = op.Softmax(scores, axis=-1)
    return probabilities if hidden is None else op.Where(hidden, op.like(0.0, scores), probabilities)


@rewrite("RotaryEmbedding")
def rotary_embedding(
    op: Emitter,
    X: Value,
    cos_cache: Value,
    sin_cache: Value,
    position_ids: Value | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Value:
    """Rotate pairs among the first ``rotary_embedding_dim`` channels: (a, b) -> (a cos - b sin, a sin + b cos).

    A pair is two adjacent channels if interleaved, else a channel from each half.
    """
    packed = rank(X) == 3
    x = op.Reshape(X, [0, 0, num_heads, -1]) if packed else X
    heads_axis = 2 if packed else 1
    if position_ids is not None:
        cos_cache, sin_cache = op.Gather(cos_cache, position_ids), op.Gather(sin_cache, position_ids)
    cos, sin = op.Unsqueeze(cos_cache, [heads_axis]), op.Unsqueeze(sin_cache, [heads_axis])
    unrotated = None
    if rotary_embedding_dim:
        unrotated = op.Slice(x, [rotary_embedding_dim], [2**31 - 1], [3])
        x = op.Slice(x, [0], [rotary_embedding_dim], [3])
    pairs = op.Reshape(x, [0, 0, 0, -1, 2] if interleaved else [0, 0, 0, 2, -1])
    axis = 4 if interleaved else 3
    a, b = op.Gather(pairs, np.array(0), axis=axis), op.Gather(pairs, np.array(1), axis=axis)
    rotated = (op.Sub(op.Mul(a, cos), op.Mul(b, sin)), op.Add(op.Mul(a, sin), op.Mul(b, cos)))
    if interleaved:
        y = op.Reshape(op.Concat(*(op.Unsqueeze(part, [4]) for part in rotated), axis=4), [0, 0, 0, -1])
    else:
        y = op.Concat(*rotated, axis=3)
    if unrotated is not None:
        y = op.Concat(y, unrotated, axis=3)
    return op.Reshape(y, [0, 0, -1]) if packed else y


class _LinearAttention(NamedTuple):
    """The operator's attributes."""

    q_num_heads: int
    kv_num_heads: int
    scale: float = 0.0
    update_rule: str = "gated_delta"
    chunk_size: int = 64


@rewrite("LinearAttention", attributes=_LinearAttention)
def linear_attention(
    op: Emitter, query: Value, key: Value, value: Value, *optional: Value | None, given: _LinearAttention
) -> Sequence[Value | None]:
    """A Scan over time of the state S (batch, heads, key size, value size): o = scale q^T S after each update.

    S <- S + k v^T. A gated rule first multiplies S by exp(decay); a delta rule uses beta (v - S^T k) instead of v.
    """
    past_state, decay, beta = padded(optional, 3)
    kv_num_heads, groups = given.kv_num_heads, given.q_num_heads // given.kv_num_heads
    scanned = [
        _scaled(op, _by_time(op, query, [kv_num_heads, groups, -1]), given.scale or None),
        _by_time(op, key, [kv_num_heads, -1, 1]),
        _by_time(op, value, [kv_num_heads, 1, -1]),
    ]
    if decay is not None:
        scanned.append(_by_time(op, op.Exp(decay), [kv_num_heads, -1, 1]))
    if beta is not None:
        scanned.append(_by_time(op, beta, [-1, 1, 1]))
    if past_state is None:
        sizes = op.Concat(op.Shape(scanned[1], start=1, end=4), op.Shape(scanned[2], start=4), axis=0)
        state = op.Expand(op.like(0.0, query), sizes)
    else:
        state = op.cast_like(past_state, query)

    def step(op: Emitter, S: Value, q: Value, k: Value, v: Value, *gates: Value) -> list[Value]:
        if decay is not None:
            S = op.Mul(S, gates[0])
        if beta is not None:
            v = op.Mul(gates[-1], op.Sub(v, op.ReduceSum(op.Mul(k, S), [-2], keepdims=1)))
        S = op.Add(S, op.Mul(k, v))
        return [S, op.MatMul(q, S)]

    attributes: dict[str, Attribute] = {"body": Step(step, 7), "num_scan_inputs": len(scanned)}
    last, stacked = op.emit("Scan", [state, *scanned], attributes, outputs=2)
    packed = op.Reshape(op.Transpose(stacked, perm=[1, 0, 2, 3, 4]), [0, 0, -1])
    return packed, op.cast_like(last, query if past_state is None else past_state)


def _by_time(op: Emitter, x: Value, sizes: list[int]) -> Value:
    """(batch, time, packed) -> (time, batch, *sizes)."""
    return op.Transpose(op.Reshape(x, [0, 0, *sizes]), perm=[1, 0, 2, 3, 4])
