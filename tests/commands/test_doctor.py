"""The doctor's messages about runtimes that load but do not work. `test_session.py` has those that do not load;
`scripts/robustness/environments.py` tries every combination in its own environment.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from onnxgain.commands import doctor
from onnxgain.engine import environment, gpu, runtime, session
from onnxgain.engine.gpu import Cuda, Gpu
from onnxgain.errors import DeviceError


@pytest.mark.parametrize(
    ("runtimes", "problem"),
    [
        ({"onnxruntime": "1.20.0"}, None),
        ({"onnxruntime-gpu": "1.31.1"}, None),
        ({"onnxruntime": "2.0"}, None),
        ({"onnxruntime": "1.19.2"}, "onnxruntime 1.19.2 is too old, 1.20 is needed; pip install --upgrade onnxruntime"),
        ({"onnxruntime-gpu": "1.9.0"}, "onnxruntime-gpu 1.9.0 is too old"),
        (
            {"onnxruntime-training-cpu": "1.19.2"},
            "onnxruntime-training-cpu 1.19.2 is too old, 1.20 is needed; pip uninstall -y onnxruntime-training-cpu, "
            "then pip install onnxruntime; for `verify --against` keep it elsewhere",
        ),
        ({}, "no installed package owns it"),
    ],
)
def test_versions(runtimes: dict[str, str], problem: str | None) -> None:
    found = doctor.runtime_problems(runtimes)
    assert found == [] if problem is None else problem in found[0]


def test_a_package_for_cuda_without_cuda_is_a_problem(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = runtime.load()
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(real, "get_available_providers", lambda: providers)
    monkeypatch.setattr(environment, "installed_runtimes", lambda: {"onnxruntime-gpu": "1.31.1"})

    def refuse(device: Any) -> None:
        if not device.is_cpu:
            raise DeviceError("CUDA's libraries do not load: libcublasLt.so.13", remedy="install CUDA 13.0")

    monkeypatch.setattr(session, "require_device", refuse)
    code, out, err = run("doctor")
    assert code == 2
    assert "CUDAExecutionProvider (not usable)" in out
    assert "problem: CUDA cannot be used: CUDA's libraries do not load: libcublasLt.so.13; install CUDA 13.0" in err
    document = json.loads(run("doctor", "--format", "json")[1])
    assert list(document["unusable"]) == ["CUDAExecutionProvider"]


def test_only_the_package_is_a_problem_where_it_is_to_be_replaced(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA that an old package needs is not the one that its successor needs."""
    monkeypatch.setattr(runtime.load(), "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(environment, "installed_runtimes", lambda: {"onnxruntime-training": "1.19.2"})

    def refuse(device: Any) -> None:
        if not device.is_cpu:
            raise DeviceError("CUDA's libraries do not load: libcublasLt.so.11", remedy="install CUDA")

    monkeypatch.setattr(session, "require_device", refuse)
    code, out, err = run("doctor")
    assert code == 2
    assert "CUDAExecutionProvider (not usable)" in out
    assert err.count("problem: ") == 1 and "onnxruntime-training 1.19.2 is too old" in err


def test_gpus_and_versions_are_named_for_a_package_with_cuda(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.load(), "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(environment, "installed_runtimes", lambda: {"onnxruntime-gpu": "1.31.1"})
    found = Cuda("580.65.06", "13.2", None, "13.0", "9.13.0", "9", (Gpu(0, "NVIDIA H200", 139 * 10**9, 141 * 10**9),))
    monkeypatch.setattr(gpu, "survey", lambda needed: found)

    def refuse(device: Any) -> None:
        raise DeviceError("cannot be used: CUDA failure 999: unknown", remedy="see `onnxgain doctor`")

    monkeypatch.setattr(session, "require_device", refuse)
    _, out, err = run("doctor")
    assert "GPU          0: NVIDIA H200, 139.0 of 141.0 GB free\n" in out
    assert "driver       580.65.06 (runs CUDA up to 13.2)\n" in out
    assert "CUDA         not found, needed 13.0\n" in out
    assert "cuDNN        9.13.0, needed 9\n" in out
    assert "problem: CUDA cannot be used: CUDA failure 999: unknown\n" in err
    document = json.loads(run("doctor", "--format", "json")[1])
    assert document["cuda"]["gpus"] == [{"index": 0, "name": "NVIDIA H200", "free": 139 * 10**9, "total": 141 * 10**9}]


def test_package_without_cuda_has_no_cuda_message(run: Any) -> None:
    if "CUDAExecutionProvider" in runtime.load().get_available_providers():
        pytest.skip("the installed package has CUDA")
    assert "cuDNN" not in run("doctor")[1]
    assert json.loads(run("doctor", "--format", "json")[1])["cuda"] is None
