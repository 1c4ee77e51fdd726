"""Plug-in execution providers: how they are found, loaded and chosen, with stand-ins for packages and runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnxgain.engine import plugins, runtime
from onnxgain.engine.device import Device, parse_providers
from onnxgain.engine.plugins import Plugin, installed_plugins
from onnxgain.errors import DeviceError
from onnxgain.fleet import cache
from tests.support import models

OPENVINO = parse_providers("openvino")
WEBGPU = parse_providers("webgpu")
SUFFIX = {"win32": "dll", "darwin": "dylib"}.get(plugins.sys.platform, "so")


def install(place: Path, package: str, *, version: str = "1.2", files: tuple[str, ...] | None = None) -> Path:
    """A distribution as pip leaves it; importing its Python code would end the test."""
    module = package.replace("-", "_")
    short = package.removeprefix("onnxruntime-ep-").replace("-", "_")
    names = (f"libonnxruntime_providers_{short}.{SUFFIX}", "libother.so.1") if files is None else files
    (place / module).mkdir(parents=True)
    (place / module / "__init__.py").write_text("raise SystemExit('code of a plug-in ran')")
    for name in names:
        (place / module / name).write_bytes(b"library")
    info = place / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    listed = [f"{module}/__init__.py", *(f"{module}/{name}" for name in names), f"{info.name}/METADATA"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in listed))
    return place / module / names[0] if names else place


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder that stands for site-packages."""
    where = tmp_path / "site-packages"
    where.mkdir()
    monkeypatch.setattr(plugins, "_site_packages", lambda: [where])
    monkeypatch.setattr(plugins, "_loaded", {})
    installed_plugins.cache_clear()
    yield where
    installed_plugins.cache_clear()


class FakeRuntime(SimpleNamespace):
    """An onnxruntime that loads plug-ins: `devices` of a library appear once it is registered."""

    def __init__(self, devices: dict[str, list[Any]], *, said: str | None = None) -> None:
        import onnxruntime

        super().__init__(OrtValue=onnxruntime.OrtValue, __version__="1.32.0", registered=[], sessions=[])
        self.SessionOptions = FakeOptions
        self.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel
        self.set_default_logger_severity = lambda level: None
        self.get_available_providers = lambda: [
            "AzureExecutionProvider",
            "CPUExecutionProvider",
            *{device.ep_name for device in self.get_ep_devices()},  # as 1.32 does
        ]
        self._devices, self._said = devices, said

    def register_execution_provider_library(self, name: str, library: str) -> None:
        if self._said is not None:
            raise RuntimeError(self._said)
        assert library not in self.registered
        self.registered.append(library)

    def get_ep_devices(self) -> list[Any]:
        return [device for library in self.registered for device in self._devices.get(Path(library).name, [])]

    def InferenceSession(self, model: bytes, options: FakeOptions, **given: Any) -> Any:  # noqa: N802
        self.sessions.append((options.chosen, given))
        names = [device.ep_name for devices, _ in options.chosen for device in devices]
        return SimpleNamespace(get_providers=lambda: [*names, "CPUExecutionProvider"])


class FakeOptions(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(chosen=[], intra_op_num_threads=3)

    def add_session_config_entry(self, key: str, value: str) -> None:
        pass

    def add_provider_for_devices(self, devices: list[Any], settings: dict[str, str]) -> None:
        self.chosen.append((devices, settings))


def device(provider: str, library: Path | None, kind: str, **metadata: str) -> Any:
    found = {} if library is None else {"library_path": str(library)}
    hardware = SimpleNamespace(type=f"OrtHardwareDeviceType.{kind}", vendor="Maker")
    return SimpleNamespace(ep_name=f"{provider}ExecutionProvider", ep_metadata={**found, **metadata}, device=hardware)


@pytest.fixture
def openvino(place: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    library = install(place, "onnxruntime-ep-openvino", version="1.8.1")
    found = [
        device("OpenVINO", library, "GPU", FULL_DEVICE_NAME="Arc", ov_device="GPU"),
        device("OpenVINO", library, "CPU", FULL_DEVICE_NAME="Xeon", ov_device="CPU"),
        device("OpenVINOExecutionProvider.AUTO", library, "CPU"),
    ]
    found[2].ep_name = "OpenVINOExecutionProvider.AUTO"
    fake = FakeRuntime({library.name: found})
    monkeypatch.setattr(runtime, "load", lambda: fake)
    return fake


# ------------------------------------------------------------------------------------------------------- found
def test_packages_are_found_by_what_is_installed_and_their_code_does_not_run(place: Path) -> None:
    first = install(place, "onnxruntime-ep-webgpu")
    second = install(place, "onnxruntime-ep-openvino", version="3.0.1")
    install(place, "onnxruntime-ep-nv-tensorrt-rtx", files=())  # only requires another package
    install(place, "onnxruntime-extensions")
    assert installed_plugins() == (
        Plugin("onnxruntime-ep-openvino", "3.0.1", second),
        Plugin("onnxruntime-ep-webgpu", "1.2", first),
    )


def test_libraries_of_other_systems_and_versions_are_none(place: Path) -> None:
    names = ("libonnxruntime_providers_x.so.1", "onnxruntime_providers_x.txt", "libx.so", "liba_providers_x.so")
    install(place, "onnxruntime-ep-x", files=names)
    assert installed_plugins() == ()


def test_what_lies_in_the_current_folder_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository under test could bring such a folder, and `python -m` puts the current one on the search path."""
    install(tmp_path, "onnxruntime-ep-planted")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    installed_plugins.cache_clear()
    assert "onnxruntime-ep-planted" not in {plugin.package for plugin in installed_plugins()}
    installed_plugins.cache_clear()


def test_their_versions_are_part_of_what_a_cached_result_depends_on(place: Path) -> None:
    cache.software.cache_clear()
    without = cache.software()
    install(place, "onnxruntime-ep-openvino", version="1.8.1")
    installed_plugins.cache_clear()
    cache.software.cache_clear()
    assert cache.software() == {**without, "onnxruntime-ep-openvino": "1.8.1"}
    cache.software.cache_clear()


# ------------------------------------------------------------------------------------------------------- chosen
def start(chosen: Device) -> None:
    runtime.require_providers(chosen)
    runtime.create_session(b"", FakeOptions(), chosen)


def test_a_session_gets_the_cpu_device_in_single_precision_with_its_threads(openvino: FakeRuntime) -> None:
    start(OPENVINO)
    ((chosen, given),) = openvino.sessions
    (((found,), settings),) = chosen
    assert found.ep_metadata["FULL_DEVICE_NAME"] == "Xeon"
    assert json.loads(settings["load_config"]) == {
        "CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "3"}
    }
    assert "providers" not in given


def test_a_library_is_registered_once(openvino: FakeRuntime) -> None:
    start(OPENVINO)
    start(OPENVINO)
    assert len(openvino.registered) == 1
    assert len(openvino.sessions) == 2


def test_one_that_the_caller_has_registered_is_used(openvino: FakeRuntime, place: Path) -> None:
    openvino.registered.append(str(installed_plugins()[0].library))
    start(OPENVINO)
    assert len(openvino.registered) == 1


def test_a_runtime_that_does_not_say_where_devices_come_from(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = install(place, "onnxruntime-ep-webgpu")
    fake = FakeRuntime({library.name: [device("WebGpu", None, "GPU")]})
    monkeypatch.setattr(runtime, "load", lambda: fake)
    start(WEBGPU)
    (((found,), settings),) = fake.sessions[0][0]
    assert (found.ep_name, settings) == ("WebGpuExecutionProvider", {})


def test_the_cpu_behind_it_is_understood(openvino: FakeRuntime) -> None:
    start(parse_providers("openvino,cpu"))
    assert len(openvino.sessions[0][0]) == 1


# ----------------------------------------------------------------------------------------------- what cannot be used
def refused(chosen: Device) -> str:
    with pytest.raises(DeviceError) as raised:
        runtime.require_providers(chosen)
    return str(raised.value)


def test_a_plug_in_that_is_not_installed_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "load", lambda: FakeRuntime({}))
    text = refused(OPENVINO)
    assert "has no OpenVINOExecutionProvider; pip install onnxruntime-ep-openvino; this package has Azure, CPU" in text
    assert "pip install" not in refused(parse_providers("dnnl"))


def test_it_is_not_combined_with_a_provider_of_the_runtime(openvino: FakeRuntime) -> None:
    expected = "OpenVINOExecutionProvider comes from a plug-in, which onnxruntime does not combine with Azure"
    assert expected in refused(parse_providers("openvino,azure"))


def test_one_without_a_device_says_what_it_needs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, "onnxruntime-ep-webgpu", version="0.4.0")
    monkeypatch.setattr(runtime, "load", lambda: FakeRuntime({}))
    assert refused(WEBGPU) == (
        "device webgpu: onnxruntime-ep-webgpu 0.4.0 finds no device that it can use; it needs a GPU, and on Linux the "
        "Vulkan loader (libvulkan.so.1)"
    )


def test_one_that_does_not_load_says_why(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, "onnxruntime-ep-openvino")
    said = "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /x.so with error: libtbb.so.12: no such file\nmore"
    monkeypatch.setattr(runtime, "load", lambda: FakeRuntime({}, said=said))
    assert refused(OPENVINO) == (
        "device openvino: onnxruntime-ep-openvino 1.2 does not load: libtbb.so.12: no such file; pip install --upgrade "
        "onnxruntime onnxruntime-ep-openvino"
    )


def test_a_runtime_before_plug_ins_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, "onnxruntime-ep-openvino")
    old = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"], __version__="1.20.1")
    monkeypatch.setattr(runtime, "load", lambda: old)
    assert "onnxruntime 1.20.1 does not support plug-ins such as onnxruntime-ep-openvino" in refused(OPENVINO)
    assert "install onnxruntime 1.23 or newer" in refused(OPENVINO)


# ------------------------------------------------------------------------------------------------------ the doctor
def test_the_doctor_lists_them(run: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = install(place, "onnxruntime-ep-openvino", version="1.8.1")
    install(place, "onnxruntime-ep-webgpu", version="0.4.0")
    fake = FakeRuntime({library.name: [device("OpenVINO", library, "CPU", FULL_DEVICE_NAME="Xeon")]})
    real = runtime.load()
    monkeypatch.setattr(real, "register_execution_provider_library", fake.register_execution_provider_library)
    monkeypatch.setattr(real, "get_ep_devices", fake.get_ep_devices)
    code, out, err = run("doctor")
    assert code == 2
    assert "plug-in      onnxruntime-ep-openvino 1.8.1: OpenVINOExecutionProvider (CPU Xeon)\n" in out
    assert "plug-in      onnxruntime-ep-webgpu 0.4.0: not usable\n" in out
    assert "problem: onnxruntime-ep-webgpu 0.4.0 finds no device that it can use; it needs a GPU" in err
    document = json.loads(run("doctor", "--format", "json")[1])
    assert document["plugins"][0] == {
        "package": "onnxruntime-ep-openvino", "version": "1.8.1", "problem": None,
        "providers": [{"name": "OpenVINOExecutionProvider", "devices": ["CPU Xeon"]}],
    }  # fmt: skip
    assert document["plugins"][1]["providers"] == []


def test_without_any_nothing_is_said(run: Any, place: Path) -> None:
    assert "plug-in" not in run("doctor")[1]
    assert json.loads(run("doctor", "--format", "json")[1])["plugins"] == []


@pytest.mark.skipif(not any(p.short == "openvino" for p in installed_plugins()), reason="needs onnxruntime-ep-openvino")
def test_openvino_measures_the_same(tmp_path: Path, run: Any) -> None:
    path = models.save(models.conv_net(), tmp_path / "net.onnx")
    code, out, _ = run("compare", str(path), "--format", "json", "--no-cache", "--providers", "openvino")
    here = json.loads(run("compare", str(path), "--format", "json", "--no-cache")[1])
    assert code == 0
    gains = [document["groups"][0]["models"][0]["gain_db"]["mean"] for document in (json.loads(out), here)]
    assert gains[0] == pytest.approx(gains[1], abs=0.001)
