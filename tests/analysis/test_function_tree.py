"""The tree of functions: families, with each model below its nearest one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onnxgain.analysis.function_change import function_change
from onnxgain.analysis.function_tree import Link, branches, function_tree
from onnxgain.measure.fingerprint import packed

LOGITS = np.random.default_rng(5).normal(size=(48, 10)) * 3
NOISE = np.random.default_rng(6).normal(size=LOGITS.shape)


def test_families_and_nearest_models() -> None:
    prints = {
        "a": packed(LOGITS, "logits"),
        "other": packed(-LOGITS, "logits"),
        "again": packed(LOGITS * 1.5, "logits"),
        "near": packed(LOGITS + 0.2 * NOISE, "logits"),
        "nearer": packed(LOGITS + 0.1 * NOISE, "logits"),
        "fewer": packed(LOGITS[:, :9], "logits"),
    }
    tree = function_tree(prints)
    assert tree is not None
    assert [(link.model, link.parent) for link in tree.links] == [
        ("a", None), ("again", "a"), ("nearer", "a"), ("near", "nearer"), ("other", None), ("fewer", None),
    ]  # fmt: skip
    assert [link.depth for link in tree.links] == [0, 1, 1, 2, 0, 0]
    assert tree.links[1].verdict == "same function" and tree.links[2].verdict == "pass"
    assert tree.matrix[0][5] is None and tree.matrix[0][3] == pytest.approx(0.005, abs=0.005)
    for one, other in ((0, 3), (3, 0)):
        change = function_change(prints[tree.labels[one]], prints[tree.labels[other]])
        assert tree.matrix[one][other] == change.divergence  # what `diff` of the two says
    assert json.loads(json.dumps(tree.to_json(), allow_nan=False))["tree"][3]["parent"] == "nearer"


def test_single_model_has_no_tree() -> None:
    assert function_tree({"a": packed(LOGITS, "logits")}) is None


def test_branches_are_drawn_depth_first() -> None:
    prints = {
        "a": packed(LOGITS, "logits"),
        "far": packed(LOGITS + 0.30 * NOISE, "logits"),
        "near": packed(LOGITS + 0.05 * NOISE, "logits"),
        "mirror": packed(LOGITS - 0.1 * NOISE, "logits"),
    }
    tree = function_tree(prints)
    assert tree is not None
    assert [(link.model, link.parent) for link in tree.links] == [
        ("a", None), ("near", "a"), ("far", "near"), ("mirror", "a"),
    ]  # fmt: skip
    assert branches(tree.links) == ["", "├─ ", "│  └─ ", "└─ "]
    two = [Link("x"), Link("y", "x", depth=1), Link("z", "y", depth=2), Link("w", "y", depth=2), Link("v")]
    assert branches(two) == ["", "└─ ", "   ├─ ", "   └─ ", ""]
