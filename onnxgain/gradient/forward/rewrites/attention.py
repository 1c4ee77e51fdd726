"""Attention and what goes with it, in terms of matrix products and softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxgain.gradient.forward.rewrites.control import Step
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import partial_shape, rank


@rewrite("Attention")
def attention(
    op: Any, Q: Any, K: Any, V: Any, attn_mask: Any = None, past_key: Any = None, past_value: Any = None,
    nonpad_kv_seqlen: Any = None, *, is_causal: int = 0, q_num_heads: int | None = None,
    kv_num_heads: int | None = None, scale: float | None = None, softcap: float = 0.0,
    softmax_precision: int | None = None, qk_matmul_output_mode: int = 0, left_window_size: int = -1,
    right_window_size: int = -1,
) -> Any:  # fmt: skip
    """softmax(softcap(scale Q K^T) + bias) V over (batch, heads, sequence, size); a row that may see nothing gives 0.

    The bias is the float mask, and minus infinity where the boolean mask, causality, the window or the padding forbid.
    """
    requested, packed = op.requested_outputs, rank(Q) == 3
    if packed:
        Q = _unpacked(op, Q, q_num_heads)
        K, V = _unpacked(op, K, kv_num_heads), _unpacked(op, V, kv_num_heads)
    if past_key is not None:
        K, V = op.Concat(past_key, K, axis=2), op.Concat(past_value, V, axis=2)
    present_key, present_value = K, V
    K, V = _shared(op, K, Q), _shared(op, V, Q)
    scores = op.MatMul(_scaled(op, Q, scale), op.Transpose(K, perm=[0, 1, 3, 2]))
    capped = op.Mul(op.Tanh(op.Div(scores, softcap)), softcap) if softcap else scores
    bias = _attention_bias(
        op, Q, K, attn_mask, _offset(op, Q, past_key, nonpad_kv_seqlen), nonpad_kv_seqlen,
        causal=bool(is_causal), left=left_window_size, right=right_window_size,
    )  # fmt: skip
    probabilities = _guarded_softmax(op, capped, bias, softmax_precision)
    y = op.MatMul(probabilities, V)
    if packed:
        y = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
    if requested < 4:
        return (y, present_key, present_value)[:requested]
    biased = capped if bias is None else op.Add(capped, bias)
    return y, present_key, present_value, (scores, capped, biased, probabilities)[qk_matmul_output_mode]


def _scaled(op: Any, query: Any, scale: float | None) -> Any:
    """The queries times the scale; by default divided by the root of their size, the last axis."""
    size = partial_shape(query)[-1]  # type: ignore[index]
    if scale is None and size is not None:
        scale = 1 / math.sqrt(size)
    if scale is not None:
        return op.Mul(query, scale)
    return op.Div(query, op.Sqrt(op.Cast(op.Shape(query, start=-1), to=query.dtype.value)))


def _unpacked(op: Any, x: Any, heads: int | None) -> Any:
    """(batch, sequence, heads * size) -> (batch, heads, sequence, size)."""
    return op.Transpose(op.Reshape(x, [0, 0, heads, -1]), perm=[0, 2, 1, 3])


def _shared(op: Any, x: Any, Q: Any) -> Any:
    """Keys or values repeated for the group of query heads that shares each of their heads."""
    heads, wanted = op.Shape(x, start=1, end=2), op.Shape(Q, start=1, end=2)
    group = op.Div(wanted, heads)
    if op.known_ints(group) == [1]:
        return x
    repeated = op.Expand(op.Unsqueeze(x, [2]), op.Concat([1, 1], group, [1, 1], axis=0))
    return op.Reshape(repeated, op.Concat(op.Shape(x, end=1), wanted, op.Shape(x, start=2), axis=0))


def _offset(op: Any, Q: Any, past_key: Any, nonpad_kv_seqlen: Any) -> Any:
    """How many keys precede the first query: one number, or (batch, 1, 1, 1)."""
    if past_key is not None:
        return op.Shape(past_key, start=2, end=3)
    if nonpad_kv_seqlen is not None:
        return op.Sub(op.Reshape(nonpad_kv_seqlen, [-1, 1, 1, 1]), op.Shape(Q, start=2, end=3))
    return None


def _attention_bias(
    op: Any, Q: Any, K: Any, attn_mask: Any, offset: Any, nonpad: Any, *, causal: bool, left: int, right: int
) -> Any:
    """What is added to the scores, broadcastable to them; None for nothing."""
    keys = op.Shape(K, start=2, end=3)
    columns = op.Range(0, op.Reshape(keys, []), 1)
    seen = []
    if causal or left >= 0 or right >= 0:
        rows = op.Unsqueeze(op.Range(0, op.Reshape(op.Shape(Q, start=2, end=3), []), 1), [1])
        ahead = op.Sub(columns, rows if offset is None else op.Add(rows, offset))
        limits = [0] * causal + [right] * (right >= 0)
        if limits:
            seen.append(op.LessOrEqual(ahead, min(limits)))
        if left >= 0:
            seen.append(op.GreaterOrEqual(ahead, -left))
    if nonpad is not None:
        seen.append(op.Less(columns, op.Reshape(nonpad, [-1, 1, 1, 1])))
    boolean = attn_mask is not None and not attn_mask.dtype.is_floating_point()
    if attn_mask is not None:
        attn_mask = _padded_mask(op, attn_mask, keys, False if boolean else -math.inf)
    if boolean:
        seen.append(attn_mask)
    bias = None if boolean else attn_mask
    if seen:
        visible = seen[0]
        for other in seen[1:]:
            visible = op.And(visible, other)
        hidden = op.Where(visible, op.like(0.0, Q), op.like(-math.inf, Q))
        bias = hidden if bias is None else op.Add(bias, hidden)
    return bias


def _padded_mask(op: Any, mask: Any, keys: Any, filler: float) -> Any:
    """From version 24 on, a mask may end before the keys do: what it does not cover is hidden."""
    have, want = partial_shape(mask)[-1], op.known_ints(keys)  # type: ignore[index]
    if op.version("", "Attention") < 24 or (want is not None and have == want[0]):
        return mask
    missing = op.Sub(keys, op.Shape(mask, start=-1))
    return op.Pad(mask, op.Concat([0], missing, axis=0), op.constant(np.array(filler, mask.dtype.numpy())), [-1])


def _guarded_softmax(op: Any, scores: Any, bias: Any, precision: int | None) -> Any:
    """softmax(scores + bias) with zeros in the rows whose bias is minus infinity throughout."""
    hidden = None
    if bias is not None:
        hidden = op.Equal(op.ReduceMax(bias, [-1], keepdims=1), op.like(-math.inf, bias))
        known = op.known(hidden)
        if known is not None and not known.any():
            hidden = None
        # No infinities in hidden rows: their derivative would be 0 * NaN.
        scores = op.Add(scores, bias if hidden is None else op.Where(hidden, op.like(0.0, bias), bias))
    dtype = scores.dtype.value
    if precision not in (None, dtype):
        probabilities = op.Cast(op.Softmax(op.Cast(scores, to=precision), axis=-1), to=dtype)
    else:
        probabilities = op.Softmax(scores, axis=-1)
    return probabilities if hidden is None else op.Where(hidden, op.like(0.0, scores), probabilities)


@rewrite("RotaryEmbedding")
def rotary_embedding(
    op: Any, X: Any, cos_cache: Any, sin_cache: Any, position_ids: Any = None, *, interleaved: int = 0,
    num_heads: int | None = None, rotary_embedding_dim: int = 0,
) -> Any:  # fmt: skip
    """Rotate pairs among the first ``rotary_embedding_dim`` channels: (a, b) -> (a cos - b sin, a sin + b cos).

    A pair is two neighbours where interleaved, else one channel of either half.
    """
    packed = rank(X) == 3
    x = op.Reshape(X, [0, 0, num_heads, -1]) if packed else X
    heads_axis = 2 if packed else 1
    if position_ids is not None:
        cos_cache, sin_cache = op.Gather(cos_cache, position_ids), op.Gather(sin_cache, position_ids)
    cos, sin = op.Unsqueeze(cos_cache, [heads_axis]), op.Unsqueeze(sin_cache, [heads_axis])
    rest = None
    if rotary_embedding_dim:
        rest = op.Slice(x, [rotary_embedding_dim], [2**31 - 1], [3])
        x = op.Slice(x, [0], [rotary_embedding_dim], [3])
    pairs = op.Reshape(x, [0, 0, 0, -1, 2] if interleaved else [0, 0, 0, 2, -1])
    axis = 4 if interleaved else 3
    a, b = op.Gather(pairs, np.array(0), axis=axis), op.Gather(pairs, np.array(1), axis=axis)
    turned = (op.Sub(op.Mul(a, cos), op.Mul(b, sin)), op.Add(op.Mul(a, sin), op.Mul(b, cos)))
    if interleaved:
        y = op.Reshape(op.Concat(*(op.Unsqueeze(part, [4]) for part in turned), axis=4), [0, 0, 0, -1])
    else:
        y = op.Concat(*turned, axis=3)
    if rest is not None:
        y = op.Concat(y, rest, axis=3)
    return op.Reshape(y, [0, 0, -1]) if packed else y


@rewrite("LinearAttention")
def linear_attention(
    op: Any, query: Any, key: Any, value: Any, past_state: Any = None, decay: Any = None, beta: Any = None, *,
    q_num_heads: int, kv_num_heads: int, scale: float = 0.0, update_rule: str = "gated_delta", chunk_size: int = 64,
) -> Any:  # fmt: skip
    """A Scan over time of the state S (batch, heads, key size, value size): o = scale q^T S after each update.

    S <- S + k v^T, with S first multiplied by exp(decay) where the rule is gated, and with beta (v - S^T k) for v where
    it is a delta rule.
    """
    scanned = [
        _scaled(op, _by_time(op, query, [kv_num_heads, q_num_heads // kv_num_heads, -1]), scale or None),
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

    def step(op: Any, S: Any, q: Any, k: Any, v: Any, *gates: Any) -> list[Any]:
        if decay is not None:
            S = op.Mul(S, gates[0])
        if beta is not None:
            v = op.Mul(gates[-1], op.Sub(v, op.ReduceSum(op.Mul(k, S), [-2], keepdims=1)))
        S = op.Add(S, op.Mul(k, v))
        return [S, op.MatMul(q, S)]

    attributes = {"body": Step(step, 7), "num_scan_inputs": len(scanned)}
    last, outputs = op.emit("Scan", [state, *scanned], attributes, outputs=2)
    packed = op.Reshape(op.Transpose(outputs, perm=[1, 0, 2, 3, 4]), [0, 0, -1])
    return packed, op.cast_like(last, query if past_state is None else past_state)


def _by_time(op: Any, x: Any, sizes: list[int]) -> Any:
    """(batch, time, packed) -> (time, batch, *sizes)."""
    return op.Transpose(op.Reshape(x, [0, 0, *sizes]), perm=[1, 0, 2, 3, 4])
