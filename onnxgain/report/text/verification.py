"""What `verify` found out, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from onnxgain.measure.verify import VERIFY_SCHEMA
from onnxgain.report.results import Verification, Verifications


def render_table(result: Verifications, *, colour: bool = False) -> str:
    """A line a check."""
    lines = []
    for model in result.models:
        texts = [*(check.text() for check in model.checks), *(check.text() for check in model.against)]
        lines += [f"{model.model}: {text}" for text in texts]
        if model.error is not None:
            lines.append(f"error: {model.error}")
    return "".join(f"{line}\n" for line in lines)


def render_json(result: Verifications) -> str:
    """A versioned JSON document; the models in a list where there are several."""
    if len(result.models) == 1:
        document = {"schema": VERIFY_SCHEMA, **_values(result.models[0])}
    else:
        document = {"schema": VERIFY_SCHEMA, "models": [_values(model) for model in result.models]}
    return json.dumps(document, indent=1) + "\n"


def _values(model: Verification) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": model.model,
        "checks": [{**asdict(check), "agrees": check.agrees} for check in model.checks],
        "against": [{**asdict(check), "agrees": check.agrees} for check in model.against],
    }
    return values if model.error is None else values | {"error": model.error}
