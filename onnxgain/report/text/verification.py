"""What `verify` found out, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from onnxgain.measure.verify import VERIFY_SCHEMA
from onnxgain.report.reporter import Verifications


def render_table(result: Verifications, *, colour: bool = False) -> str:
    """A line a check."""
    texts = [check.text() for check in result.checks] + [check.text() for check in result.against]
    return "".join(f"{result.model}: {text}\n" for text in texts)


def render_json(result: Verifications) -> str:
    """A versioned JSON document."""
    document = {
        "schema": VERIFY_SCHEMA,
        "model": result.model,
        "checks": [{**asdict(check), "agrees": check.agrees} for check in result.checks],
        "against": [{**asdict(check), "agrees": check.agrees} for check in result.against],
    }
    return json.dumps(document, indent=1) + "\n"
