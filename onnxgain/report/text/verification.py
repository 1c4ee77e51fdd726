"""The results of `verify` as text and as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxgain.measure.verify import VERIFY_SCHEMA
from onnxgain.report.reporter import Verifications, VerifiedModels
from onnxgain.report.text.assumptions import assumed
from onnxgain.report.text.documents import finite
from onnxgain.report.text.formatting import UNBROKEN, hanging

if TYPE_CHECKING:
    from onnxgain.measure.ort_training import EngineCheck
    from onnxgain.measure.verify import GradientCheck


def render_table(result: Verifications | VerifiedModels, *, colour: bool = False) -> str:
    """A check begins with its verdict; what was found follows, one line each."""
    models = result.models if isinstance(result, VerifiedModels) else (result,)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBROKEN
    lines = []
    for model in models:
        checks = [(check.agrees, check.text()) for check in model.checks]
        for agrees, text in checks + [(check.agrees, check.text()) for check in model.against]:
            first, *others = text.split("; ")
            lines.append(hanging("VERIFIED " if agrees else "FAILED   ", f"{model.model}: {first}", width))
            lines += [hanging("  ", clause, width) for clause in others]
    pairs = [(model.model, sentence) for model in models for sentence in model.assumptions]
    lines += [hanging("", line, width) for line in assumed(pairs, models=len(models))]
    return "".join(f"{line}\n" for line in lines)


def render_json(result: Verifications | VerifiedModels) -> str:
    """A versioned JSON document; for several models, with a list of what one model has."""
    if isinstance(result, VerifiedModels):
        document = {"schema": VERIFY_SCHEMA, "models": [_model(model) for model in result.models]}
    else:
        document = {"schema": VERIFY_SCHEMA, **_model(result)}
    return json.dumps(finite(document), indent=1, allow_nan=False) + "\n"


def _fields(check: GradientCheck | EngineCheck) -> dict[str, Any]:
    """A check, its verdict, and the name of its class if the model has one."""
    fields = asdict(check)
    name = fields.pop("class_name", None)
    return {**fields, "agrees": check.agrees} | ({} if name is None else {"class_name": name})


def _model(result: Verifications) -> dict[str, Any]:
    return {
        "model": result.model,
        "checks": [_fields(check) for check in result.checks],
        "against": [_fields(check) for check in result.against],
        "assumptions": list(result.assumptions),
    }
