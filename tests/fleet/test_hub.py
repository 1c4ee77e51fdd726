"""Repositories of the Hugging Face Hub, read from a local server with the Hub's own library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxgain.fleet.cache import Cache
from onnxgain.fleet.measurer import Measurer
from onnxgain.fleet.remote_files import is_hub, listed, repository_folders
from onnxgain.fleet.secrets import without_secrets_of
from onnxgain.fleet.sources import Source
from onnxgain.measure.request import Request
from tests.support import models
from tests.support.hub import Hub

ROOT = Path(__file__).parents[2]
TOKEN = "hf_secretsecretsecret"
Run = Callable[..., tuple[int, str, str]]

PREPROCESSOR = {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
needs_hub = pytest.mark.usefixtures("hub")


@pytest.fixture
def hub() -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    served = Hub()
    model, declared = models.conv_net().SerializeToString(), json.dumps(PREPROCESSOR).encode()
    served.files["org/net", "main"] = {
        "README.md": b"# A net", "onnx/model.onnx": model, "preprocessor_config.json": declared,
        "onnx/model_other.onnx": models.conv_net(margin=1.0).SerializeToString(),
    }  # fmt: skip
    served.files["org/net", "v1"] = {"model.onnx": model}
    yield served
    served.close()


@pytest.fixture
def call(hub: Hub, tmp_path: Path, own_cache: Path) -> Run:
    """Run the command line in its own process, as the Hub's library reads its settings when it is imported."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))} | own

    def run(*arguments: str, **extra: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "onnxgain", *arguments]
        done = subprocess.run(command, env=environment | extra, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def records(out: str) -> list[Any]:
    return [(r["model"]["path"], r["scale"]["name"], r["scale"]["source"]) for r in json.loads(out)["records"]]


def test_repository_gives_its_models_with_declared_preprocessing(call: Run, hub: Hub) -> None:
    code, out, error = call("score", "hf://org/net", "--format", "json")
    assert code == 0, error
    names = ["hf://org/net/onnx/model.onnx", "hf://org/net/onnx/model_other.onnx"]
    assert records(out) == [(name, "inception", "preprocessor_config.json") for name in names]
    hub.asked.clear()
    assert call("score", "hf://org/net", "--format", "json")[0] == 0
    assert [asked for asked in hub.asked if "/resolve/" in asked] == [], "nothing is fetched twice"
    code, out, _ = call("compare", "hf://org/net", "--format", "csv")
    assert code == 0 and out.count("inception") == 2


def test_a_revision(call: Run) -> None:
    code, out, _ = call("score", "hf://org/net@v1", "--format", "json")
    assert code == 0
    assert records(out) == [("hf://org/net@v1/model.onnx", "imagenet", "default")]


NAMES = {str(index): name for index, name in enumerate(("tench", "goldfish", "shark", "ray", "cock"))}
DECLARED = {
    "preprocessor_config.json": json.dumps(PREPROCESSOR).encode(),
    "config.json": json.dumps({"id2label": NAMES}).encode(),
}


@pytest.mark.parametrize(
    ("model", "preprocessing", "names"),
    [
        ("onnx/model.onnx", "", ""), ("onnx/fp16/model.onnx", "", ""), ("exports/v2/model.onnx", "", ""),
        ("model.onnx", "onnx/", "onnx/"), ("onnx/model.onnx", "", "onnx/"), ("onnx/int8/model.onnx", "onnx/", ""),
    ],
)  # fmt: skip
def test_declarations_apply_wherever_the_repository_keeps_them(
    model: str, preprocessing: str, names: str, call: Run, hub: Hub
) -> None:
    hub.files["org/named", "main"] = {
        model: models.conv_net().SerializeToString(),
        f"{preprocessing}preprocessor_config.json": DECLARED["preprocessor_config.json"],
        f"{names}config.json": DECLARED["config.json"],
    }
    code, out, error = call("score", "hf://org/named", "--format", "json")
    assert code == 0, error
    (record,) = json.loads(out)["records"]
    assert (record["scale"]["name"], record["scale"]["source"]) == ("inception", "preprocessor_config.json")
    assert record["class_name"] == NAMES[str(record["class_index"])]


@pytest.mark.parametrize(
    ("url", "folders"),
    [
        ("hf://org/net/m.onnx", ["hf://org/net", "hf://org/net/onnx"]),
        ("hf://org/net@v1/a/b/m.onnx", ["hf://org/net@v1/a/b", "hf://org/net@v1/a", "hf://org/net@v1", "hf://org/net@v1/a/b/onnx"]),
        ("hf://org/net@refs/pr/1/a/m.onnx", ["hf://org/net@refs/pr/1/a", "hf://org/net@refs/pr/1", "hf://org/net@refs/pr/1/a/onnx"]),
        ("hf://org/net@refs%2Fpr%2F1/m.onnx", ["hf://org/net@refs%2Fpr%2F1", "hf://org/net@refs%2Fpr%2F1/onnx"]),
    ],
)  # fmt: skip
def test_search_for_declarations_ends_at_the_root(url: str, folders: list[str]) -> None:
    assert repository_folders(url) == folders


def test_changed_or_removed_declaration_takes_effect_at_once(call: Run, hub: Hub) -> None:
    files = hub.files["org/net", "main"]

    def scales() -> set[str]:
        code, out, error = call("compare", "hf://org/net/onnx/", "--format", "csv")
        assert code == 0, error
        return {name for name in ("inception", "unit", "imagenet") if f",{name}," in out}

    assert scales() == {"inception"}
    files["preprocessor_config.json"] = json.dumps(PREPROCESSOR | {"do_normalize": False}).encode()
    assert scales() == {"unit"}
    del files["preprocessor_config.json"]
    assert scales() == {"imagenet"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "compare hf://org/none",
            "hf://org/none: no such repository or revision, or no access to it (HTTP status 404)",
        ),
        ("compare hf://org/net@v9", "hf://org/net@v9: no such repository or revision, or no access to it"),
        ("score hf://org/net/none.onnx", "hf://org/net/none.onnx: no such file; check the URL"),
        ("compare hf://org/net/empty/", "hf://org/net/empty/: no .onnx file there"),
        (
            "inspect hf://org/net",
            "is a folder, not a model file; name hf://org/net/onnx/model.onnx or 1 more, or on",
        ),
    ],
)
def test_what_is_not_there(arguments: str, says: str, call: Run) -> None:
    code, out, error = call(*arguments.split())
    assert code == 2
    assert says in " ".join((out + error).split())


def test_private_repository_needs_a_token_that_is_not_shown(call: Run, hub: Hub, own_cache: Path) -> None:
    hub.token = TOKEN
    code, out, error = call("score", "hf://org/net")
    assert (code, out) == (2, "")
    assert "a private or gated repository needs a token, in HF_TOKEN" in error
    code, out, error = call("score", "hf://org/net", "--format", "json", HF_TOKEN=TOKEN)
    assert code == 0, error
    shown = out + error + call("compare", "hf://org/none", HF_TOKEN=TOKEN)[2]
    assert TOKEN not in shown
    kept = [path for path in own_cache.rglob("*") if path.is_file()]
    assert kept and [path for path in kept if TOKEN.encode() in path.read_bytes()] == []


def test_a_token_from_a_file_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.setattr(library, "get_token", lambda: TOKEN)
    assert without_secrets_of(f"refused: {TOKEN}", "hf://org/net") == "refused: ..."


@pytest.mark.parametrize(
    ("url", "hub", "single"),
    [
        ("hf://org/net", True, False), ("hf://org/net@v1", True, False), ("hf://org/net/a/M.ONNX", True, True),
        ("s3://bucket/net", False, True),
    ],
)  # fmt: skip
def test_repository_detection(url: str, hub: bool, single: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hub(url) is hub
    monkeypatch.setattr("onnxgain.fleet.remote_files.within", lambda seconds, work: ["listed"])
    assert (listed(url) == [url]) is single


def test_declaration_next_to_a_file_is_part_of_the_cache_key(tmp_path: Path) -> None:
    """The same model with another preprocessor_config.json is measured again."""

    class Place:
        timeout = None
        calls = 0

        def measure(self, path: Path, request: Request) -> Any:
            from onnxgain.fleet.result import Result, from_records
            from onnxgain.measure.measure import measure_file

            self.calls += 1
            return Result(Source(0, path), from_records([m.record for m in measure_file(path, request)]), external=())

    path = models.save(models.conv_net(), tmp_path / "m.onnx")
    place, measurer = Place(), Measurer(Request(), Cache(tmp_path / "cache"), None)
    for content, calls in ((None, 1), (None, 1), (PREPROCESSOR, 2), (PREPROCESSOR, 2), ({"do_rescale": False}, 3)):
        if content is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
        measurer.result(Source(0, path), place)  # type: ignore[arg-type]
        assert place.calls == calls, content
