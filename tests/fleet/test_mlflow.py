"""Models on an MLflow server, and a gate's results logged as a run, with a real server started by the tests."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onnxgain.files import is_url
from onnxgain.fleet.mlflow_files import is_mlflow
from onnxgain.report.mlflow_run import _metrics
from tests.support import models

needs_mlflow = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlflow", "fsspec")), reason="mlflow is not installed"
)

START = 300.0
"""Time limit for the start of the server, seconds."""

FILL = """
import json, sys
import mlflow
from mlflow import MlflowClient

mlflow.set_experiment("models")
with mlflow.start_run() as run:
    mlflow.log_artifacts(sys.argv[1], "model")
client = MlflowClient()
client.create_registered_model("net")
client.create_model_version("net", f"runs:/{run.info.run_id}/model", run.info.run_id)
client.set_registered_model_alias("net", "prod", "1")
print(json.dumps({"run": run.info.run_id, "artifacts": run.info.artifact_uri}))
"""


@dataclass(frozen=True)
class Server:
    """A running server with the model "net".

    Attributes:
        run: the run that logged it.
        artifacts: the URI of that run's artifacts.
    """

    url: str
    run: str
    artifacts: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        _wait(url, process, folder / "log")
        (folder / "net" / "sub").mkdir(parents=True)
        models.save(models.conv_net(), folder / "net" / "a.onnx")
        models.save(models.conv_net(margin=1.0), folder / "net" / "sub" / "b.onnx")
        environment = os.environ | {"MLFLOW_TRACKING_URI": url}
        filled = subprocess.run(
            [sys.executable, "-c", FILL, str(folder / "net")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        yield Server(url, **json.loads(filled.stdout.splitlines()[-1]))
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the server does not start: {log.read_text()[-2000:]}")


def call(server: Server, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command line in its own process, as mlflow reads its settings when it is imported."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    own |= {"MLFLOW_TRACKING_URI": server.url} | environment
    command = [sys.executable, "-m", "onnxgain", *arguments]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/net/1", True), ("runs:/0a/model/a.onnx", True), ("mlflow-artifacts:/1/0a", True),
        ("models/net.onnx", False), ("models:net", False), ("c:/models", False), ("https://h/models:/x", False),
    ],
)  # fmt: skip
def test_mlflow_uri_detection(text: str, expected: bool) -> None:
    assert is_mlflow(text) is expected
    assert is_url(text) is (expected or "://" in text)


@needs_mlflow
@pytest.mark.parametrize("kind", ["models:/net/1", "models:/net@prod", "runs:/{run}", "{artifacts}/model"])
def test_mlflow_folder_is_expanded_to_its_models(kind: str, server: Server, own_cache: Path) -> None:
    uri = kind.format(run=server.run, artifacts=server.artifacts)
    code, out, error = call(server, "score", uri, "--format", "json")
    assert (code, error) == (0, "")
    root = f"{uri}/model" if uri.startswith("runs:/") else uri
    assert [r["model"]["path"] for r in json.loads(out)["records"]] == [f"{root}/a.onnx", f"{root}/sub/b.onnx"]


@needs_mlflow
@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/none/1", "error: models:/none/1: no such file; check the URL\n"),
        ("models:/net/1/none.onnx", "error: models:/net/1/none.onnx: no such file; check the URL\n"),
        ("runs:/0a0a/a.onnx", "error: runs:/0a0a/a.onnx: no such file; check the URL\n"),
    ],
)
def test_what_is_not_there(uri: str, says: str, server: Server, own_cache: Path) -> None:
    assert call(server, "score", uri) == (2, "", says)


@needs_mlflow
def test_unreachable_server_without_showing_its_password(server: Server, own_cache: Path) -> None:
    away = {"MLFLOW_TRACKING_URI": "http://me:secretsecret@127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    code, out, error = call(server, "score", "models:/net/1/a.onnx", **away)
    assert (code, out) == (2, "")
    assert error.startswith("error: models:/net/1/a.onnx: cannot be fetched: API request to http://127.0.0.1:1/")
    assert "secretsecret" not in error


@needs_mlflow
def test_gate_is_logged_as_a_run(server: Server, own_cache: Path, tmp_path: Path) -> None:
    path = models.save(models.conv_net(), tmp_path / "a.onnx")
    code, out, error = call(server, "gate", str(path), "--max-gain", "-90", "--format", "json", "--log", "mlflow")
    assert code == 1
    assert json.loads(out)["verdict"] == "fail"
    run = error.partition("logged to run ")[2].split()[0]
    with urllib.request.urlopen(f"{server.url}/api/2.0/mlflow/runs/get?run_id={run}", timeout=60) as reply:
        found = json.load(reply)["run"]
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert tags["onnxgain.verdict"] == "fail"
    assert "onnxgain gate: FAIL" in tags["mlflow.note.content"]
    metrics = {metric["key"]: metric["value"] for metric in found["data"]["metrics"]}
    (measured,) = json.loads(out)["models"][0]["measurements"]
    assert metrics["failed_checks"] == 1
    assert metrics["a.onnx.impulse.gain_mean_db"] == pytest.approx(measured["gain_db"]["mean"])
    with urllib.request.urlopen(
        f"{server.url}/api/2.0/mlflow/artifacts/list?run_id={run}&path=onnxgain", timeout=60
    ) as reply:
        files = {Path(one["path"]).name for one in json.load(reply)["files"]}
    assert files >= {"gate.json", "gate.md", "gate.xml"}
    assert found["info"]["status"] == "FINISHED"
    # A second gate goes into a run that is named.
    code, _, error = call(server, "gate", str(path), "--max-gain", "90", "--log", "mlflow", MLFLOW_RUN_ID=run)
    assert code == 0 and f"logged to run {run} " in error


@needs_mlflow
def test_logging_failure_is_an_error_and_the_result_is_shown(server: Server, own_cache: Path, tmp_path: Path) -> None:
    path = models.save(models.conv_net(), tmp_path / "a.onnx")
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    code, out, error = call(server, "gate", str(path), "--max-gain", "90", "--log", "mlflow", **away)
    assert code == 2
    assert out.startswith("PASS")
    assert "error: --log mlflow: the results could not be written: http://127.0.0.1:1 cannot be reached" in error


@pytest.mark.parametrize(
    ("said", "short"),
    [
        (
            "API request to http://h:5/api/2.0/mlflow/experiments/get-by-name failed with exception HTTPConnectionPool("
            "host='h', port=5): Max retries exceeded with url: /api/2.0/mlflow/experiments/get-by-name?name=x "
            "(Caused by NewConnectionError('<HTTPConnection object at 0x7f>: Failed to establish a new "
            "connection: [Errno 111] Connection refused'))",
            "http://h:5 cannot be reached: Connection refused",
        ),
        (
            "API request to http://h:5/api failed with exception Read timed out",
            "http://h:5 cannot be reached: timed out",
        ),
        ("RESOURCE_DOES_NOT_EXIST: no such run", "RESOURCE_DOES_NOT_EXIST: no such run"),
    ],
)
def test_a_server_that_is_down_is_told_shortly(said: str, short: str) -> None:
    from onnxgain.report.mlflow_run import _short

    assert _short(said) == short


def test_without_mlflow(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert run("score", "models:/net/1/a.onnx")[2] == (
        "error: models:/net/1/a.onnx: needs mlflow, which is not installed; pip install mlflow\n"
    )
    path = models.save(models.conv_net(), tmp_path / "a.onnx")
    assert run("gate", path, "--max-gain", "90", "--log", "mlflow") == (
        2, "", "error: --log mlflow: needs mlflow, which is not installed; pip install mlflow\n",
    )  # fmt: skip


def test_metric_names_are_valid_in_mlflow() -> None:
    document = json.dumps({"a.noise:seed=1.score": 0.5, "a.noise:seed_1.score": 0.25, "b(1)": None, "ü/c d-e": 3})
    assert _metrics(document) == {"a.noise:seed_1.score": 0.5, "a.noise:seed_1.score 2": 0.25, "ü/c d-e": 3.0}
