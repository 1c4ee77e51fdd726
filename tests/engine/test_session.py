"""The runtime: weights shared with it, threads, its errors, and which of its packages is installed."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.engine import environment, runtime
from onnxgain.engine.environment import installed_runtimes, usable_cores
from onnxgain.engine.session import Session, without_weights
from onnxgain.errors import OnnxgainError, RuntimeUnavailableError
from tests.support import models


def wide_model(length: int = 4096) -> ir.Model:
    """One weight matrix above the limit under which they are inlined, and one below."""
    net = models.Net()
    x = net("MatMul", net.input("x", [1, length]), net.weights(length, 2, name="large"))
    net.output(net("Add", x, net.constant(np.array([1.0, 2.0]), "small"), out="y"), [1, 2])
    return ir.from_proto(net.model())


def test_a_graph_runs() -> None:
    model = wide_model()
    x = np.random.default_rng(0).standard_normal((1, 4096)).astype(np.float32)
    result = Session(model, threads=1).run({"x": x})
    expected = x @ model.graph.initializers["large"].const_value.numpy() + [[1, 2]]
    assert list(result) == ["y"]
    np.testing.assert_allclose(result["y"], expected, rtol=1e-4, atol=1e-5)


def test_large_weights_are_not_copied() -> None:
    model = wide_model()
    array = np.random.default_rng(0).standard_normal((4096, 2)).astype(np.float32)
    model.graph.initializers["large"].const_value = ir.tensor(array)
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    proto, weights = without_weights(model)
    assert list(weights) == ["large"]
    assert np.shares_memory(weights["large"], array)
    assert proto.ByteSize() < 2000
    # and the model is as it was
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == tensors


def test_weights_of_a_graph_that_runs_once_are_read_in_place() -> None:
    model = wide_model()
    x = np.random.default_rng(0).standard_normal((1, 4096)).astype(np.float32)
    session = Session(model, threads=1, brief=True)
    assert [item.name for item in session._session.get_inputs()] == ["x", "large"]
    np.testing.assert_allclose(session.run({"x": x})["y"], Session(model, threads=1).run({"x": x})["y"], rtol=1e-5)
    array = session._fed["large"]
    session._fed["large"] = np.zeros_like(array)
    np.testing.assert_array_equal(session.run({"x": x})["y"], [[1, 2]])


def test_the_model_may_be_used_and_dropped_after_loading() -> None:
    model = wide_model()
    x = np.ones((1, 4096), np.float32)
    first, second = Session(model, threads=1), Session(model, threads=1)
    expected = first.run({"x": x})["y"]
    del model, first
    np.testing.assert_array_equal(second.run({"x": x})["y"], expected)


def test_threads_are_those_asked_for_or_all_usable_cores() -> None:
    assert Session(wide_model(), threads=1).engine.threads == 1
    assert Session(wide_model()).engine.threads == usable_cores()
    if hasattr(os, "sched_getaffinity"):
        assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_the_engine_names_what_it_is() -> None:
    import onnxruntime

    engine = Session(wide_model(), threads=1).engine
    assert engine.package in installed_runtimes()
    assert (engine.version, engine.provider) == (onnxruntime.__version__, "CPUExecutionProvider")


def test_outputs_can_be_chosen_and_types_are_known() -> None:
    found = Session(ir.from_proto(models.conv_net(input_dtype=np.uint8)), threads=1)
    assert found.input_type("image") == np.uint8
    assert Session(wide_model(), threads=1).run({"x": np.ones((1, 4096), np.float32)}, ["y"]).keys() == {"y"}


def test_errors_of_the_runtime_are_one_message() -> None:
    with pytest.raises(OnnxgainError, match=r"(?s)net\.onnx: onnxruntime cannot run") as raised:
        Session(wide_model(), threads=1, where="net.onnx").run({"x": np.ones((1, 3), np.float32)})
    assert "\n" not in str(raised.value)
    with pytest.raises(OnnxgainError, match="cannot load the model"):
        Session(ir.from_proto(models.with_node("Shift", domain="acme")), threads=1)


# ------------------------------------------------------------------------------------------- installations
@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What `importlib.metadata` finds, instead of what is installed."""
    found: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    runtime.load.cache_clear()
    environment.installed.cache_clear()
    yield found
    runtime.load.cache_clear()
    environment.installed.cache_clear()


def test_two_runtimes_are_refused_before_either_is_imported(packages: dict[str, str]) -> None:
    packages.update({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"})
    with pytest.raises(RuntimeUnavailableError, match=r"onnxruntime 1\.31\.1 and onnxruntime-gpu 1\.30\.0") as raised:
        runtime.load()
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(raised.value.remedy)


def test_a_runtime_without_metadata_still_runs(packages: dict[str, str]) -> None:
    """Built from source, or vendored."""
    assert Session(wide_model(), threads=1).engine.package == "onnxruntime"


@pytest.mark.parametrize(
    ("installed", "module", "message", "remedy"),
    [
        ({}, None, "onnxruntime is not installed", "pip install onnxruntime"),
        (
            {"onnxruntime-gpu": "1.30.0"},
            "raise ImportError('libcudart.so.12: not found')",
            "does not load: libcudart",
            "--force",
        ),
        ({"onnxruntime": "1.31.1"}, "", "there but empty", "pip install --force-reinstall onnxruntime"),
    ],
)
def test_a_runtime_that_is_not_usable(
    packages: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    installed: dict[str, str],
    module: str | None,
    message: str,
    remedy: str,
) -> None:
    packages.update(installed)
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    if module is None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        (tmp_path / "onnxruntime").mkdir()
        (tmp_path / "onnxruntime" / "__init__.py").write_text(module)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeUnavailableError, match=message) as raised:
        runtime.load()
    assert remedy in str(raised.value.remedy)


def test_importing_the_module_does_not_import_the_runtime() -> None:
    code = "import sys, onnxgain.engine.session; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
