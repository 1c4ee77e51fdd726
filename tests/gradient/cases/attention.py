"""Rows for `onnxgain/gradient/forward/rewrites/attention.py`. Head sizes have exact square roots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.gradient.arrays import ints, normal, uniform
from tests.gradient.checker import Case

POSITIONS = np.array([[0, 3], [1, 1]])
HIDDEN_ROW = np.array([[True, False, True], [False, False, False]])
FLOAT_MASK = np.array([[0.5, -np.inf, 0.25], [-np.inf, -np.inf, -np.inf]])


def _sdpa(**options: Any) -> Any:
    def function(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        import torch.nn.functional

        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)

    return function


def _qkv(heads: int = 2, kv_heads: int = 2, queries: int = 2, keys: int = 3) -> list[np.ndarray]:
    return [normal(2, heads, queries, 4), normal(2, kv_heads, keys, 4), normal(2, kv_heads, keys, 5)]


def _attention(inputs: Sequence[Any], versions: Sequence[int] = (23,), note: str = "", **options: Any) -> Case:
    fields = {
        name: options.pop(name) for name in ("outputs", "torch", "constants", "wrt", "forward") if name in options
    }
    return Case("Attention", inputs, options, versions=versions, note=note, **fields)


def _packed(heads: int, kv_heads: int) -> list[np.ndarray]:
    return [normal(2, 2, 4 * heads), normal(2, 3, 4 * kv_heads), normal(2, 3, 5 * kv_heads)]


def _past() -> list[np.ndarray]:
    return [normal(2, 2, 2, 4), normal(2, 2, 2, 5)]


def _capped(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    scores = q @ k.swapaxes(2, 3) / 2
    weights = np.exp(2 * np.tanh(scores / 2))
    return weights / weights.sum(-1, keepdims=True) @ v, k, v, scores


ATTENTION = [
    _attention(_qkv(), (23, 24, 25), torch=_sdpa()),
    _attention(_qkv(), scale=0.25, torch=_sdpa(scale=0.25)),
    _attention(_qkv(4), torch=_sdpa(enable_gqa=True), note="grouped queries"),
    _attention(_qkv(4, 1), note="one key head"),
    _attention(_packed(2, 2), (23, 25), q_num_heads=2, kv_num_heads=2),
    _attention(_packed(4, 2), q_num_heads=4, kv_num_heads=2, note="grouped queries"),
    # masks
    _attention([*_qkv(), normal(2, 3)], torch=_sdpa(), note="float mask"),
    _attention([*_qkv(), normal(2, 1, 2, 3)], (24,), note="float mask"),
    _attention([*_qkv(), np.array([[True, False, True], [False, True, True]])], torch=_sdpa(), note="boolean mask"),
    _attention([*_qkv(), HIDDEN_ROW], note="hidden row"),
    _attention([*_qkv(), HIDDEN_ROW], constants=(), note="hidden row, computed mask"),
    _attention([*_qkv(), FLOAT_MASK], (23, 25), wrt=(0, 1, 2), constants=(3,), note="float mask, hidden row"),
    _attention([*_qkv(), FLOAT_MASK], wrt=(0, 1, 2), constants=(), note="computed float mask, hidden row"),
    _attention([*_qkv(), normal(2, 2)], (24,), note="short float mask"),
    _attention([*_qkv(), HIDDEN_ROW[:, :2]], (25,), note="short boolean mask"),
    # causality, windows, padding
    _attention(_qkv(queries=3), (23, 24, 25), is_causal=1, torch=_sdpa(is_causal=True)),
    _attention(_qkv(queries=4), is_causal=1, note="more queries than keys"),
    _attention([*_qkv(), normal(2, 3)], is_causal=1, note="float mask"),
    _attention([*_qkv(), HIDDEN_ROW], is_causal=1, note="boolean mask"),
    _attention(_qkv(queries=4, keys=4), (25,), left_window_size=1),
    _attention(_qkv(queries=4, keys=4), (25,), left_window_size=1, right_window_size=2),
    _attention(_qkv(queries=4, keys=4), (25,), is_causal=1, left_window_size=0, right_window_size=2),
    _attention([*_qkv(), None, None, None, ints(2, 3)], (24, 25), note="padding"),
    _attention([*_qkv(), None, None, None, ints(1, 3)], (24,), is_causal=1, note="padding, hidden row"),
    _attention([*_qkv(), None, None, None, ints(2, 3)], (25,), left_window_size=1, note="padding"),
    # past and present, other outputs
    _attention([*_qkv(), None, *_past()], outputs=3),
    _attention([*_qkv(), None, *_past()], (24, 25), is_causal=1, outputs=3),
    _attention([*_qkv(), normal(2, 5), *_past()], softcap=2.0, qk_matmul_output_mode=2, outputs=4),
    _attention([*_qkv(), None, *_past()], (25,), left_window_size=2, outputs=4),
    _attention(_qkv(), softcap=2.0),
    # onnx.reference returns the capped scores in mode 0.
    _attention(_qkv(), softcap=2.0, qk_matmul_output_mode=0, outputs=4, forward=_capped),
    _attention([*_qkv(), normal(2, 3)], softcap=2.0, qk_matmul_output_mode=1, outputs=4),
    _attention(_qkv(), qk_matmul_output_mode=2, outputs=4, note="nothing added"),
    _attention([*_qkv(), HIDDEN_ROW], qk_matmul_output_mode=3, outputs=4),
    _attention(_qkv(), softmax_precision=11),
    _attention(_qkv(), softmax_precision=1),
]

ROTARY = [
    Case("RotaryEmbedding", [normal(2, 3, 2, 4), normal(5, 2), normal(5, 2), POSITIONS], versions=(23,)),
    Case("RotaryEmbedding", [normal(2, 3, 2, 4), normal(2, 2, 2), normal(2, 2, 2)], {"interleaved": 1}, versions=(23,)),
    Case("RotaryEmbedding", [normal(2, 2, 12), normal(2, 2, 2), normal(2, 2, 2)], {"num_heads": 3}, versions=(23,)),
    Case(
        "RotaryEmbedding", [normal(2, 3, 2, 6), normal(5, 2), normal(5, 2), POSITIONS],
        {"rotary_embedding_dim": 4}, constants=(), versions=(23,), note="computed positions",
    ),
    Case(
        "RotaryEmbedding", [normal(2, 2, 18), normal(2, 2, 2), normal(2, 2, 2)],
        {"num_heads": 3, "rotary_embedding_dim": 4, "interleaved": 1}, versions=(23,),
    ),
]  # fmt: skip


def _linear(q_heads: int, kv_heads: int, rule: str) -> Any:
    """The recurrence as in the operator's documentation, one token and one head at a time."""

    def forward(query: Any, key: Any, value: Any, past: Any = None, decay: Any = None, beta: Any = None) -> Any:
        batch, time, _ = query.shape
        q = query.reshape(batch, time, q_heads, -1)
        k, v = (x.reshape(batch, time, kv_heads, -1) for x in (key, value))
        state = np.zeros((batch, kv_heads, k.shape[3], v.shape[3])) if past is None else past.copy()
        y = np.zeros((batch, time, q_heads, v.shape[3]))
        for b, t, h in np.ndindex(batch, time, kv_heads):
            s = state[b, h]
            if "gated" in rule:
                s = s * np.exp(decay.reshape(batch, time, kv_heads, -1)[b, t, h])[:, None]
            update = v[b, t, h]
            if "delta" in rule:
                update = np.broadcast_to(beta, (batch, time, kv_heads))[b, t, h] * (update - s.T @ k[b, t, h])
            state[b, h] = s = s + np.outer(k[b, t, h], update)
            for i in range(h * q_heads // kv_heads, (h + 1) * q_heads // kv_heads):
                y[b, t, i] = q[b, t, i] @ s / np.sqrt(q.shape[3])
        return y.reshape(batch, time, -1), state

    return forward


def _linear_row(
    rule: str,
    rest: Sequence[Any] = (),
    q_heads: int = 2,
    kv_heads: int = 2,
    time: int = 3,
    size: int = 4,
    **options: Any,
) -> Case:
    inputs = [normal(1, time, q_heads * size), normal(1, time, kv_heads * size), normal(1, time, kv_heads * 3), *rest]
    attributes = {"q_num_heads": q_heads, "kv_num_heads": kv_heads, "update_rule": rule}
    forward = _linear(q_heads, kv_heads, rule)
    return Case("LinearAttention", inputs, attributes, versions=(27,), outputs=2, forward=forward, **options)


LINEAR = [
    _linear_row("linear"),
    _linear_row("linear", q_heads=4, note="grouped queries"),
    _linear_row("linear", [normal(1, 2, 4, 3)], time=1, note="past state"),
    _linear_row("gated", [None, uniform(-1, 0, 1, 3, 8)], note="decay of each channel"),
    _linear_row("gated", [None, uniform(-1, 0, 1, 3, 2)], note="decay of each head"),
    _linear_row("delta", [None, None, uniform(0, 1, 1, 3, 2)]),
    _linear_row("gated_delta", [normal(1, 2, 4, 3), uniform(-1, 0, 1, 3, 8), uniform(0, 1, 1, 3, 1)], note="one beta"),
    _linear_row("linear", kv_heads=1, q_heads=1, time=70, size=1, note="not unrolled"),
    _linear_row(
        "gated_delta", [None, uniform(-1, 0, 1, 70, 1), uniform(0, 1, 1, 70, 1)], kv_heads=1, q_heads=1, time=70,
        size=1, note="not unrolled",
    ),
    Case(
        "LinearAttention", [normal(1, 3, 4), normal(1, 3, 4), normal(1, 3, 4)],
        {"q_num_heads": 1, "kv_num_heads": 1, "update_rule": "linear", "scale": 0.5}, versions=(27,), outputs=2,
        forward=_linear(1, 1, "linear"),
    ),
]  # fmt: skip

CASES = [*ATTENTION, *ROTARY, *LINEAR]
