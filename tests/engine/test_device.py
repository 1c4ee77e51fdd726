"""Devices: which are named, what is said of those that cannot be used, and that nothing falls back silently."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.commands import options
from onnxgain.engine import gpu, runtime, session
from onnxgain.engine.device import CPU, Device, parse_device, parse_providers
from onnxgain.engine.gpu import Cuda, Gpu
from onnxgain.engine.session import Session, choose_device, require_device
from onnxgain.engine.work import Work
from onnxgain.errors import DeviceError, OnnxgainError
from onnxgain.fleet import worker
from onnxgain.fleet.batch import Cache, Limits, collect_models, score_batch
from onnxgain.measure.measure import score
from onnxgain.measure.record import from_json, to_json
from onnxgain.measure.request import Request
from tests.support import models

MODEL = Path(__file__).parents[2] / "models" / "lenet_mnist_torch.onnx"
CUDA = Device(("CUDAExecutionProvider",))
ELSEWHERE = parse_providers("azure")
"""Of the CPU package; it has no kernels, so everything is left to those of the CPU."""


def works(device: Device) -> bool:
    try:
        require_device(device)
    except DeviceError:
        return False
    return True


needs_azure = pytest.mark.skipif(not works(ELSEWHERE), reason="the runtime's package has no second provider")
needs_gpu = pytest.mark.skipif(not works(CUDA), reason="needs CUDA")


# ---------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", None), ("cpu", CPU), ("CUDA", CUDA), ("cuda:0", CUDA),
        ("cuda:12", Device(("CUDAExecutionProvider",), 12)),
    ],
)  # fmt: skip
def test_devices_are_named(text: str, device: Device | None) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:1234", "mps"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(OnnxgainError, match="unknown device") as raised:
        parse_device(text)
    assert "--providers" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "providers"),
    [
        ("openvino", ["OpenVINO"]), ("OpenVINOExecutionProvider", ["OpenVINO"]),
        ("tensorrt, cuda", ["Tensorrt", "CUDA"]), ("DirectML", ["Dml"]), ("cuda,cuda", ["CUDA"]),
        ("Future", ["Future"]),
    ],
)  # fmt: skip
def test_providers_are_named(text: str, providers: list[str]) -> None:
    assert parse_providers(text).providers == tuple(f"{name}ExecutionProvider" for name in providers)


def test_names_and_targets() -> None:
    assert (CPU.name, CPU.target, CPU.is_cpu) == ("cpu", "cpu", True)
    assert (CUDA.name, CUDA.target, CUDA.is_cpu) == ("cuda:0", "portable", False)
    assert parse_providers("tensorrt,cuda").name == "tensorrt,cuda"
    assert Device.from_json(json.loads(json.dumps(dataclasses.asdict(CUDA)))) == CUDA
    with pytest.raises(OnnxgainError, match="a name is empty"):
        parse_providers("openvino,,cpu")


def test_tensor_float_32_is_off_unless_asked_for() -> None:
    def asked(device: Device) -> str:
        return dict(device.provider_options())["CUDAExecutionProvider"]["use_tf32"]

    assert asked(CUDA) == "0"
    assert asked(dataclasses.replace(CUDA, tf32=True)) == "1"
    assert dict(dataclasses.replace(CUDA, index=3).provider_options())["CUDAExecutionProvider"]["device_id"] == "3"


# ---------------------------------------------------------------------------------- what cannot be used, and why
class FakeRuntime(SimpleNamespace):
    """An onnxruntime as packages and machines without a GPU show it."""

    def __init__(self, folder: Path, providers: list[str], make: Any) -> None:
        import onnxruntime

        super().__init__(**{name: getattr(onnxruntime, name) for name in ("SessionOptions", "OrtValue", "__version__")})
        self.__path__ = [str(folder)]
        self.cuda_version = "13.0"
        self.InferenceSession = make
        self.get_available_providers = lambda: [f"{name}ExecutionProvider" for name in providers]
        self.set_default_logger_severity = lambda level: None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    def install(providers: list[str], make: Any = None, *, libraries: bool = True) -> None:
        module = FakeRuntime(tmp_path, providers, make)
        monkeypatch.setattr(runtime, "load", lambda: module)
        if libraries:
            monkeypatch.setattr(runtime, "missing_cuda_library", lambda: None)

    clear = (runtime.missing_cuda_library.cache_clear, options._device.cache_clear)
    for forget in clear:
        forget()
    yield install
    for forget in clear:
        forget()


def test_a_package_without_cuda_is_named(fake: Any) -> None:
    fake(["Azure", "CPU"])
    with pytest.raises(DeviceError) as raised:
        require_device(CUDA)
    text = str(raised.value)
    assert "has no CUDAExecutionProvider" in text
    assert "pip install onnxruntime-gpu" in text
    assert "device cuda:0" in text
    with pytest.raises(DeviceError, match="this package has Azure, CPU"):
        require_device(parse_providers("openvino"))


def test_missing_libraries_are_named(fake: Any) -> None:
    fake(["CUDA", "CPU"], libraries=False)
    with pytest.raises(DeviceError, match=r"CUDA's libraries do not load: .*onnxruntime_providers_cuda") as raised:
        require_device(CUDA)
    assert "CUDA 13.0 and cuDNN 9" in str(raised.value)


def test_missing_libraries_of_a_package_that_states_no_version(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(["CUDA", "CPU"], libraries=False)
    monkeypatch.setattr(runtime, "cuda_version", lambda: None)
    with pytest.raises(DeviceError, match="install CUDA and cuDNN 9: pip install"):
        require_device(CUDA)


def test_a_missing_driver_is_named(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(["CUDA", "CPU"])
    missing = "libcuda.so.1: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(runtime, "missing_cuda_library", lambda: missing)
    with pytest.raises(DeviceError, match=r"libcuda.so.1: cannot open shared object file.*install NVIDIA's driver"):
        require_device(CUDA)


NO_DEVICE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static onnxruntime::"
    "CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const onnxruntime::"
    "ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse "
    'provider option "device_id": {}\n'
)
"""As onnxruntime-gpu 1.31.1 says it."""


NO_HANDLE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:123 std::conditional_t<THRW, void, onnxruntime::"
    "common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const char*, int) "
    "[with ERRTYPE = cudnnStatus_t; bool THRW = true; SUCCTYPE = cudnnStatus_t; std::conditional_t<THRW, void, common::"
    "Status> = void] CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED ; GPU=0 ; hostname=vm ; file=/a/b.cc ; line=183 ;"
)
"""What it says where too little memory is free."""
TWO_GPUS = (Gpu(0, "NVIDIA H200", 200_000_000, 141_000_000_000), Gpu(1, "NVIDIA L4", 20_000_000_000, 24_000_000_000))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Cuda("580.65.06", "13.2", "13.0", "13.0", "9.13.0", "9", TWO_GPUS)
    monkeypatch.setattr(gpu, "survey", lambda needed: found)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            NO_DEVICE.format("CUDA failure 100: no CUDA-capable device is detected ; GPU=0 ; hostname=vm ; file=/a ; "),
            "device cuda:0: NVIDIA's driver 580.65.06 is installed, but CUDA finds no GPU; in a container, pass the "
            "GPU through",
        ),
        (
            NO_DEVICE.format("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=0 ;"),
            "NVIDIA's driver 580.65.06 (CUDA 13.2) is too old for CUDA 13.0; update the driver",
        ),
        (
            NO_DEVICE.format("cuda_execution_provider_info.cc:71 operator() Invalid device ID: 3, must be between 0 "
            "(inclusive) and 2 (exclusive)."),
            "there is no GPU 3; CUDA shows 2 here, numbered 0 to 1 (0: NVIDIA H200, 0.2 of 141.0 GB free; 1: NVIDIA "
            "L4, 20.0 of 24.0 GB free); choose one of them",
        ),
        (
            NO_HANDLE,
            "too little memory is free on the GPU to start CUDA (0: NVIDIA H200, 0.2 of 141.0 GB free); stop other",
        ),
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=vm ; ", "too little memory is free on the GPU"),
        ("CUDNN failure 7: CUDNN_STATUS_MAPPING_ERROR ; GPU=0 ; ", "too little memory is free on the GPU"),
        ("No such luck", "cannot be used: No such luck; see `onnxgain doctor`"),
    ],
    ids=["no GPU", "old driver", "no such GPU", "no memory for cuDNN", "no memory", "hardly any memory", "unknown"],
)  # fmt: skip
def test_what_the_runtime_says_is_told_in_our_words(fake: Any, said: str, shown: str) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError(said)

    fake(["CUDA", "CPU"], refuse)
    with pytest.raises(DeviceError) as raised:
        require_device(CUDA)
    text = str(raised.value)
    assert shown in text
    assert text.startswith("device cuda:0: ")
    for noise in ("/onnxruntime_src", "ERRTYPE", "hostname"):
        assert noise not in text
    device, reason = choose_device()
    assert device == CPU
    assert "ERRTYPE" not in reason


def test_a_failure_with_much_free_memory_is_passed_on_without_its_source(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("[with ERRTYPE = cudnnStatus_t] CUDNN failure 3: CUDNN_STATUS_BAD_PARAM ; GPU=0 ; ")

    roomy = Cuda(None, None, None, None, None, "9", (Gpu(0, "NVIDIA H200", 140_000_000_000, 141_000_000_000),))
    monkeypatch.setattr(gpu, "survey", lambda needed: roomy)
    fake(["CUDA", "CPU"], refuse)
    with pytest.raises(DeviceError, match="cannot be used: cuDNN failure 3: CUDNN_STATUS_BAD_PARAM; see"):
        require_device(CUDA)


def test_a_provider_that_the_runtime_drops_is_an_error(fake: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """It says why on standard error only; that is what the error quotes, and nothing of it is printed."""

    def without(*arguments: Any, **keywords: Any) -> Any:
        import os

        assert keywords["enable_fallback"] == 0
        text = "\x1b[1;31m2026-01-31 12:00:00.1 [E:onnxruntime:Default, a.cc:22 f] /b.cc:43 T& Get() No such luck\n"
        if arguments[1].log_severity_level <= 3:
            os.write(2, text.encode())
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    fake(["CUDA", "CPU"], without)
    with pytest.raises(DeviceError, match="onnxruntime cannot start CUDAExecutionProvider: No such luck; see"):
        require_device(CUDA)
    assert capfd.readouterr().err == ""
    device, reason = choose_device()
    assert device == CPU
    assert "No such luck" in reason


def test_memory_that_runs_out_names_model_and_remedy(fake: Any) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /onnxruntime_src/core/"
            "framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to "
            "allocate memory for requested buffer of size 2359296"
        )

    fake(["CUDA", "CPU"], refuse)
    net = ir.from_proto(models.conv_net())
    with pytest.raises(DeviceError) as raised:
        Session(net, threads=1, where="big.onnx", device=CUDA)
    text = str(raised.value)
    assert text.startswith("big.onnx: the memory of cuda:0 is too small for the model: ")
    assert "requested buffer of size 2359296" in text
    assert "--jobs 1" in text
    assert "--device cpu" in text


# --------------------------------------------------------------------------------------------- command line
@pytest.mark.parametrize("command", ["score", "verify", "compare", "gate", "diff"])
def test_no_command_falls_back(run: Any, fake: Any, command: str) -> None:
    fake(["CPU"])
    extra = {"gate": ["--max-gain", "0"], "diff": [MODEL], "compare": ["--no-cache"]}.get(command, [])
    code, out, err = run(command, MODEL, *extra, "--device", "cuda")
    assert (code, out) == (2, "")
    assert "has no CUDAExecutionProvider" in err
    assert len(err.splitlines()) == 1


def test_a_limit_of_memory_is_refused_for_a_gpu(run: Any, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It limits addresses, of which CUDA reserves more than any machine has memory."""
    monkeypatch.setattr(options, "_device", lambda chosen, remote, work: CUDA)
    code, _, err = run("score", MODEL, "--device", "cuda", "--memory-limit", "2G")
    assert code == 2
    assert err == "error: --memory-limit: cannot be enforced with device cuda:0; leave it out\n"


SMALL, LARGE = Work((1_700_000,), 1), Work((100_000_000,), 512)


def test_auto_takes_what_is_sooner_and_says_why(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting CUDA takes seconds: too long for one image of a LeNet, little for 512 of a ResNet-50."""
    tried = []
    fake(["CUDA", "CPU"])
    monkeypatch.setattr(session, "require_device", tried.append)
    assert choose_device(SMALL) == (CPU, " (about 0.0 s of work; CUDA would need about 1.7 s, most of it to start)")
    assert tried == []
    assert choose_device(LARGE) == (CUDA, " (about 51 s of work for the CPU)")
    assert choose_device() == (CUDA, "")
    assert choose_device(Work((14_000_000,) * 12, 1))[0] == CPU
    assert tried == [CUDA, CUDA]


def test_auto_without_cuda_says_that(fake: Any) -> None:
    fake(["CPU"])
    for work in (None, SMALL, LARGE):
        device, reason = choose_device(work)
        assert device == CPU
        assert "has no CUDAExecutionProvider" in reason


def test_work_is_known_of_files_only(tmp_path: Path) -> None:
    assert Work.of_files([MODEL, MODEL], 3) == Work((MODEL.stat().st_size,) * 2, 3)
    for path in ("https://example.org/model.onnx", tmp_path, tmp_path / "missing.onnx"):
        assert Work.of_files([MODEL, path], 3) is None


def test_auto_says_what_it_took(run: Any) -> None:
    options._device.cache_clear()
    device, _ = choose_device()
    code, out, err = run("score", MODEL, "--device", "auto", "--format", "json")
    assert code == 0
    assert err.startswith(f"device {device.name}")
    assert from_json(out)[0].engine.device == device.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "--device gpu: unknown device"),
        (["--device", "cuda", "--providers", "openvino"], "--device and --providers: cannot be given together"),
        (["--tf32"], "--tf32: has no effect on cpu"),
    ],
)
def test_options_that_make_no_sense(run: Any, arguments: list[str], message: str) -> None:
    code, _, err = run("score", MODEL, *arguments)
    assert code == 2
    assert message in err


# ------------------------------------------------------------------------------------- records, cache, children
@needs_azure
def test_another_provider_measures_the_same_and_says_so(tmp_path: Path) -> None:
    (here,), (there,) = score(MODEL), score(MODEL, device=ELSEWHERE)
    assert (here.record.engine.device, there.record.engine.device) == ("cpu", "azure")
    assert there.record.engine.provider == "AzureExecutionProvider"
    np.testing.assert_allclose(there.derivative, here.derivative, atol=1e-5 * np.abs(here.derivative).max())
    assert there.record.gain.mean == pytest.approx(here.record.gain.mean, abs=1e-3)

    cache = Cache(tmp_path)
    sources = collect_models([str(MODEL)])
    for device, name in ((CPU, "cpu"), (ELSEWHERE, "azure"), (CPU, "cpu"), (ELSEWHERE, "azure")):
        (result,) = score_batch(sources, Request(device=device), Limits(threads=1), cache=cache)
        assert result.error is None
        assert result.records[0].engine.device == name
    assert result.origin == "cache"


def test_a_request_carries_its_device() -> None:
    request = Request(device=dataclasses.replace(CUDA, index=1, tf32=True))
    assert Request.from_json(json.loads(json.dumps(request.to_json()))).device == request.device
    assert request.to_json() != Request(device=CUDA).to_json()


def test_a_child_passes_the_reason_on(fake: Any) -> None:
    fake(["CPU"])
    reply = worker._reply({"path": str(MODEL), "request": Request(device=CUDA).to_json(), "threads": 1})
    assert reply["error"]["type"] == "DeviceError"
    assert "onnxruntime-gpu" in reply["error"]["remedy"]


def test_records_of_before_there_were_devices_are_read() -> None:
    (measurement,) = score(MODEL)
    document = json.loads(to_json([measurement.record]))
    assert document["records"][0]["engine"]["device"] == "cpu"
    del document["records"][0]["engine"]["device"], document["records"][0]["engine"]["tf32"]
    assert from_json(json.dumps(document)) == [measurement.record]


def test_one_process_has_the_gpu_and_no_limit_of_addresses() -> None:
    shared = Limits().plan(20, CUDA)
    assert (shared.jobs, shared.memory_limit) == (1, None)
    assert Limits(jobs=3).plan(20, CUDA).jobs == 3
    with pytest.raises(OnnxgainError, match="cannot be enforced with device cuda:0"):
        Limits(memory_limit=1 << 30).plan(20, CUDA)


# ------------------------------------------------------------------------------------------------- with a GPU
@needs_gpu
@pytest.mark.parametrize("name", ["lenet_mnist_torch", "lenet_mnist_keras"])
def test_cuda_measures_what_the_cpu_does(name: str) -> None:
    model = MODEL.with_name(f"{name}.onnx")
    (here,), (there,) = score(model), score(model, device=CUDA)
    assert there.record.engine.device == "cuda:0"
    assert there.record.gain.mean == pytest.approx(here.record.gain.mean, abs=0.01)
