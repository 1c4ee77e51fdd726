"""Loads onnxruntime, checks its execution providers and translates its errors. No other module imports onnxruntime."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir

from onnxgain.engine.device import CPU_PROVIDER, CUDA_PROVIDER, PROVIDER_SUFFIX, Device
from onnxgain.engine.environment import installed_runtimes
from onnxgain.errors import DeviceError, OnnxgainError, RuntimeUnavailableError, is_about_memory

_WRONG_OPTIMIZERS = ["Pad_Fusion"]
"""It moves a zero Pad into MaxPool, which pads with -inf: wrong results (onnxruntime 1.31.1, its issue 24737)."""


@functools.cache
def load() -> ModuleType:
    """The onnxruntime module.

    Raises:
        RuntimeUnavailableError: none is installed, several are, or the one installed does not load.
    """
    installed = installed_runtimes()
    if len(installed) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in installed.items())
        raise RuntimeUnavailableError(
            f"{listed} are both installed; they share one folder and overwrite each other",
            remedy=f"pip uninstall -y {' '.join(installed)}, then pip install onnxruntime or onnxruntime-gpu",
        )
    # From 1.29 on, it sends telemetry about models (file names, hashes of weights) unless disabled before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        if not installed:
            raise RuntimeUnavailableError(
                "onnxruntime is not installed", remedy="pip install onnxruntime (or onnxruntime-gpu for CUDA)"
            ) from error
        (name,) = installed
        raise RuntimeUnavailableError(
            f"{name} {installed[name]} is installed but does not load: {error}",
            remedy=f"pip install --force-reinstall {name}",
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeUnavailableError(
            "the folder 'onnxruntime' is there but empty: another runtime package was removed after this one was "
            "installed",
            remedy=f"pip install --force-reinstall {next(iter(installed), 'onnxruntime')}",
        )
    onnxruntime.set_default_logger_severity(4)
    if os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        onnxruntime.disable_telemetry_events()  # for Windows, where it ignores the environment variable
    module: ModuleType = onnxruntime
    return module


def create_session(serialized: bytes, options: Any, device: Device) -> Any:
    """Create a session without the runtime's fallback to other providers."""
    if not device.is_cpu:
        from onnxgain.engine import plugins

        if plugins.is_plugged(device.providers[0]):
            plugins.add_to(options, load(), device.providers)
            settings = {"disabled_optimizers": _WRONG_OPTIMIZERS, "enable_fallback": 0}
            return load().InferenceSession(serialized, options, **settings)
    return load().InferenceSession(
        serialized,
        options,
        providers=device.provider_options(),
        disabled_optimizers=_WRONG_OPTIMIZERS,
        enable_fallback=0,
    )


def register_library(library: Path, options: Any) -> None:
    """Load a library of operators, by its absolute path, so that the system does not search for it elsewhere."""
    try:
        options.register_custom_ops_library(str(library.absolute()))
    except Exception as error:
        raise OnnxgainError(
            f"cannot be loaded: {essence(error).partition('with error: ')[2] or essence(error)}",
            where=f"--custom-ops {library}",
            remedy="name a library for onnxruntime, built for this system",
        ) from error


def require_providers(device: Device) -> None:
    """Load plug-ins, and raise DeviceError if a provider of the device is not available or lacks its libraries."""
    if device.is_cpu:
        return
    from onnxgain.engine import plugins

    built_in = [name for name in load().get_available_providers() if not plugins.is_plugged(name)]
    plugged = [provider for provider in device.providers if provider not in built_in and _load_plugin(provider, device)]
    package = next(iter(installed_runtimes()), "onnxruntime")
    for provider in device.providers:
        if provider in plugged or provider in built_in:
            continue
        remedy = f"this package has {', '.join(name.removesuffix(PROVIDER_SUFFIX) for name in built_in)}"
        if provider == CUDA_PROVIDER:
            remedy = f"pip uninstall -y {package}, then pip install onnxruntime-gpu"
        elif (plugin := plugins.package_of(provider)) is not None:
            remedy = f"pip install {plugin}; {remedy}"
        raise DeviceError(f"the installed {package} has no {provider}", where=f"device {device.name}", remedy=remedy)
    others = [name for name in device.providers if name not in plugged and name != CPU_PROVIDER]
    if plugged and others:
        raise DeviceError(
            f"{plugged[0]} comes from a plug-in, which onnxruntime does not combine with {others[0]}",
            where=f"device {device.name}",
            remedy="name one of them",
        )
    if device.has_cuda and (missing := missing_cuda_library()) is not None:
        raise _cuda_error(missing, device)


def _load_plugin(provider: str, device: Device) -> bool:
    """Load the plug-in for a provider; return whether there is one."""
    from onnxgain.engine import plugins

    try:
        return plugins.load_for(load(), provider) is not None
    except DeviceError as error:
        raise DeviceError(error.what, where=f"device {device.name}", remedy=error.remedy) from error


@functools.cache
def missing_cuda_library() -> str | None:
    """Why the runtime's CUDA libraries do not load, or None if they do. Only for a package built for CUDA."""
    onnxruntime = load()
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the libraries that it cannot find
            onnxruntime.preload_dlls()
    name = "onnxruntime_providers_cuda.dll" if sys.platform == "win32" else "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(Path(onnxruntime.__path__[0]) / "capi" / name))
    except OSError as error:
        return str(error)
    return None


def _cuda_error(reason: str, device: Device) -> DeviceError:
    version = f" {cuda_version()}" if cuda_version() else ""
    remedy = (
        f"install CUDA{version} and cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]', or put existing ones on the "
        "library path"
    )
    if "libcuda.so" in reason or "nvcuda" in reason:
        remedy = "install NVIDIA's driver; without an NVIDIA GPU use --device cpu"
    return DeviceError(f"CUDA's libraries do not load: {reason}", where=f"device {device.name}", remedy=remedy)


def cuda_version() -> str | None:
    """The version of CUDA that the installed package is built for; None if it is not built for CUDA."""
    return getattr(load(), "cuda_version", "") or None


def why_not_started(error: BaseException, device: Device) -> DeviceError:
    """Translate an exception that the runtime raised while starting a provider."""
    from onnxgain.engine.cuda_messages import start_error

    if device.has_cuda and (known := start_error(str(error), device, cuda_version())) is not None:
        return known
    return DeviceError(
        f"cannot be used: {essence(error)}", where=f"device {device.name}", remedy="see `onnxgain doctor`"
    )


def require_started(session: Any, device: Device) -> None:
    """Raise DeviceError if a session lacks a provider: the runtime silently drops those it cannot start."""
    dropped = [provider for provider in device.providers if provider not in session.get_providers()]
    if dropped:
        from onnxgain.engine.cuda_messages import start_error

        message = _start_message(device)
        if CUDA_PROVIDER in dropped and (known := start_error(message, device, cuda_version())) is not None:
            raise known
        raise DeviceError(
            f"onnxruntime cannot start {', '.join(dropped)}: {message[:300]}",
            where=f"device {device.name}",
            remedy="see `onnxgain doctor`, or use --device cpu",
        )


def _start_message(device: Device) -> str:
    """Why the runtime drops a provider. It says so only on standard error, so this captures it temporarily."""
    options = load().SessionOptions()
    options.log_severity_level = 3
    load().set_default_logger_severity(3)
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with tempfile.TemporaryFile() as captured:
            os.dup2(captured.fileno(), 2)
            with contextlib.suppress(Exception):
                create_session(ir.to_proto(smallest_model()).SerializeToString(), options, device)
            captured.seek(0)
            lines = captured.read().decode("utf-8", "replace").splitlines()
    finally:
        os.dup2(original, 2)
        os.close(original)
        load().set_default_logger_severity(4)
    messages = [_LOG_HEADING.sub("", line).strip() for line in lines if "onnxruntime" in line]
    return messages[0] if messages else "it gives no reason"


def smallest_model() -> ir.Model:
    """A model with a single Neg of one number, to test whether the runtime works."""
    x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Neg", [x])
    node.outputs[0].shape, node.outputs[0].type = x.shape, x.type
    return ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 18}, name="smallest"), ir_version=8)


# "\x1b[1;31m2026-01-31 12:00:00.0 [E:onnxruntime:Default, file.cc:22 function] /file.cc:43 type Get() The message."
_LOG_HEADING = re.compile(r"^\S*\d{4}-\S+ \S+ \[\w:onnxruntime:[^\]]*\] (?:/\S+:\d+ .+?\)(?: const)? )?")


# "[ONNXRuntimeError] : 1 : FAIL : /path/to/file.h:46 void function(types, bool) The message."
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |(?<!\S)/\S+:\d+ .+?\)(?: const)? (?=[A-Z[])|(?<!\S)\w+\.(?:cc|h):\d+ \S+ "
)


def essence(error: BaseException) -> str:
    """The first line of an exception of the runtime, without its source location."""
    from onnxgain.engine.cuda_messages import failure_of

    failure = failure_of(str(error))
    lines = _NOISE.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    return failure if failure is not None else lines[0][:300]


def as_error(what: str, error: Exception, where: str | None, device: Device) -> OnnxgainError:
    """Translate an exception of the runtime into an error that says what to do."""
    remedy = "check the model with onnx.checker and the installed runtime with `onnxgain doctor`"
    if "NOT_IMPLEMENTED" in str(error):
        remedy = "onnxruntime has few kernels for other types than float32: export the model in float32"
    if "is not a registered function/op" in str(error):
        remedy = "if a library has this operator, name it with --custom-ops"
    if device.is_cpu and is_about_memory(str(error)):
        return OnnxgainError(
            f"{what}: out of memory", where=where, remedy="the model needs more memory than is available or allowed"
        )
    if device.is_cpu:
        return OnnxgainError(f"{what}: {essence(error)}", where=where, remedy=remedy)
    from onnxgain.engine.cuda_messages import is_about_gpu_memory

    if is_about_memory(str(error)) or is_about_gpu_memory(str(error)):
        return DeviceError(
            f"the memory of {device.name} is too small for the model: {essence(error)}",
            where=where,
            remedy="stop other processes that use the device, measure one model at a time (--jobs 1), or use --device "
            "cpu",
        )
    return DeviceError(f"{what} on {device.name}: {essence(error)}", where=where, remedy="try --device cpu")
