"""The results of `verify` as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from onnxgain.measure.verify import VERIFY_SCHEMA
from onnxgain.report.reporter import Verifications, VerifiedModels


def render_table(result: Verifications | VerifiedModels, *, colour: bool = False) -> str:
    """One line per check."""
    if isinstance(result, VerifiedModels):
        return "".join(map(render_table, result.models))
    texts = [check.text() for check in result.checks] + [check.text() for check in result.against]
    return "".join(f"{result.model}: {text}\n" for text in texts)


def render_json(result: Verifications | VerifiedModels) -> str:
    """A versioned JSON document; for several models, with a list of what one model has."""
    if isinstance(result, VerifiedModels):
        document = {"schema": VERIFY_SCHEMA, "models": [_model(model) for model in result.models]}
    else:
        document = {"schema": VERIFY_SCHEMA, **_model(result)}
    return json.dumps(document, indent=1) + "\n"


def _model(result: Verifications) -> dict[str, Any]:
    return {
        "model": result.model,
        "checks": [{**asdict(check), "agrees": check.agrees} for check in result.checks],
        "against": [{**asdict(check), "agrees": check.agrees} for check in result.against],
    }
