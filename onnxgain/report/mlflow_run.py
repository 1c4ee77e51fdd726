"""Logs a gate's results as a run on an MLflow server: metrics, the verdict as a tag, the reports."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxgain.engine.environment import VERSION
from onnxgain.errors import OnnxgainError, first_line
from onnxgain.fleet.mlflow_files import require_mlflow
from onnxgain.fleet.remote_files import within
from onnxgain.fleet.secrets import without_secrets_of
from onnxgain.report import reporter

if TYPE_CHECKING:
    from onnxgain.analysis.gate_result import GateResult

EXPERIMENT = "onnxgain"
"""The experiment of new runs, unless the environment names one."""

SECONDS = 300.0
"""Time limit for sending the results to the server."""

FILES = {"json": "gate.json", "markdown": "gate.md", "junit": "gate.xml"}


def log_gate(results: Sequence[GateResult], *, page: bool = False) -> str:
    """Log results to the run that MLFLOW_RUN_ID names, or to a new run in MLFLOW_EXPERIMENT_NAME.

    Args:
        page: whether to add the HTML report, which needs the chart library.

    Returns:
        The run and experiment in words.

    Raises:
        OnnxgainError: mlflow is not installed, or the server does not accept the results.
    """
    require_mlflow("--log mlflow")
    texts = {name: reporter.render("gate", form, results) for form, name in FILES.items()}
    if page:
        texts["gate.html"] = reporter.render("gate", "html", results)
    metrics = _metrics(reporter.render("gate", "metrics", results))
    try:
        return within(SECONDS, lambda: _log(results, metrics, texts))
    except Exception as error:
        reason = (
            error.what if isinstance(error, OnnxgainError) else without_secrets_of(_short(first_line(error, 2000)), "")
        )
        raise OnnxgainError(
            f"the results could not be written: {reason}",
            where="--log mlflow",
            remedy="check MLFLOW_TRACKING_URI and your access",
        ) from error


def _short(text: str) -> str:
    """MLflow's message; where it only wraps those of the libraries below, the server and what they say at the end."""
    server = re.match(r"API request to (?:endpoint )?(\w+://[^/\s]+)\S* failed with exception ", text)
    if server is None:
        return text[:300]
    cause = re.search(r"\[Errno -?\d+\] ([^'\")]+)|(timed out)", text)
    return f"{server[1]} cannot be reached" + (f": {cause[1] or cause[2]}" if cause is not None else "")


def _log(results: Sequence[GateResult], metrics: dict[str, float], texts: dict[str, str]) -> str:
    import mlflow

    from onnxgain.analysis.gate_result import overall

    if not os.environ.keys() & {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"}:
        mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="onnxgain gate") as run, tempfile.TemporaryDirectory() as folder:
        mlflow.log_metrics(metrics)
        mlflow.set_tags(
            {
                "onnxgain.verdict": overall(results),
                "onnxgain.version": VERSION,
                # MLflow shows this as the run's description.
                "mlflow.note.content": texts["gate.md"],
            }
        )
        for name, text in texts.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        mlflow.log_artifacts(folder, "onnxgain")
        return f"run {run.info.run_id} of experiment {run.info.experiment_id}"


def _metrics(document: str) -> dict[str, float]:
    """The metrics under names that MLflow allows; names that become equal get a number appended."""
    metrics: dict[str, float] = {}
    for name, value in json.loads(document).items():
        if value is None:
            continue
        plain = re.sub(r"[^\w\-. :/]", "_", name)
        number = 2
        while plain in metrics:
            plain, number = f"{re.sub(r' [0-9]+$', '', plain)} {number}", number + 1
        metrics[plain] = float(value)
    return metrics
