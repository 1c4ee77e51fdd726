"""Loads onnxruntime and speaks with it: what is installed, its devices, its errors. The only file that imports it."""

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
"""Moves a zero Pad into MaxPool, which pads with -inf: other numbers (onnxruntime 1.31.1, issue 24737)."""


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
    # From 1.29 on it tells its makers about models (file names, hashes of weights), unless it is told not to before.
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
        onnxruntime.disable_telemetry_events()  # on Windows, where it does not read the environment
    module: ModuleType = onnxruntime
    return module


def create_session(serialized: bytes, options: Any, device: Device) -> Any:
    """A session that the runtime has not moved to other providers."""
    if not device.is_cpu:
        from onnxgain.engine import plugins

        if plugins.is_plugged(device.providers[0]):
            plugins.add_to(options, load(), device.providers)
            kept = {"disabled_optimizers": _WRONG_OPTIMIZERS, "enable_fallback": 0}
            return load().InferenceSession(serialized, options, **kept)
    return load().InferenceSession(
        serialized,
        options,
        providers=device.provider_options(),
        disabled_optimizers=_WRONG_OPTIMIZERS,
        enable_fallback=0,
    )


def register_library(library: Path, options: Any) -> None:
    """Load a library of operators; by its whole path, or the system would look for it elsewhere too."""
    try:
        options.register_custom_ops_library(str(library.absolute()))
    except Exception as error:
        raise OnnxgainError(
            f"cannot be loaded: {essence(error).partition('with error: ')[2] or essence(error)}",
            where=f"--custom-ops {library}",
            remedy="name a library for onnxruntime, built for this system",
        ) from error


def require_providers(device: Device) -> None:
    """Refuse what the installed package was not built with, or whose libraries are not there; load plug-ins."""
    if device.is_cpu:
        return
    from onnxgain.engine import plugins

    there = [name for name in load().get_available_providers() if not plugins.is_plugged(name)]
    plugged = [provider for provider in device.providers if provider not in there and _load_plugin(provider, device)]
    package = next(iter(installed_runtimes()), "onnxruntime")
    for provider in device.providers:
        if provider in plugged or provider in there:
            continue
        remedy = f"this package has {', '.join(name.removesuffix(PROVIDER_SUFFIX) for name in there)}"
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
    """Whether a package of its own adds a provider, which is then loaded."""
    from onnxgain.engine import plugins

    try:
        return plugins.load_for(load(), provider) is not None
    except DeviceError as error:
        raise DeviceError(error.what, where=f"device {device.name}", remedy=error.remedy) from error


@functools.cache
def missing_cuda_library() -> str | None:
    """Why the runtime's CUDA libraries do not load, None where they do. For a package that is built for CUDA."""
    onnxruntime = load()
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()
    name = "onnxruntime_providers_cuda.dll" if sys.platform == "win32" else "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(Path(onnxruntime.__path__[0]) / "capi" / name))
    except OSError as error:
        return str(error)
    return None


def _cuda_error(reason: str, device: Device) -> DeviceError:
    version = cuda_version() or "its"
    remedy = (
        f"install CUDA {version} and cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]', or put theirs on the library "
        "path"
    )
    if "libcuda.so" in reason or "nvcuda" in reason:
        remedy = "install NVIDIA's driver; without such a GPU use --device cpu"
    return DeviceError(f"CUDA's libraries do not load: {reason}", where=f"device {device.name}", remedy=remedy)


def cuda_version() -> str | None:
    """The version of CUDA that the installed package is built for; None for one that is not."""
    return getattr(load(), "cuda_version", "") or None


def why_not_started(error: BaseException, device: Device) -> DeviceError:
    """An exception of the runtime while it starts a provider, in our words."""
    from onnxgain.engine.cuda_messages import start_error

    if device.has_cuda and (known := start_error(str(error), device, cuda_version())) is not None:
        return known
    return DeviceError(
        f"cannot be used: {essence(error)}", where=f"device {device.name}", remedy="see `onnxgain doctor`"
    )


def require_started(session: Any, device: Device) -> None:
    """Refuse a session that lacks a provider: the runtime drops those it cannot start, and goes on without."""
    dropped = [provider for provider in device.providers if provider not in session.get_providers()]
    if dropped:
        from onnxgain.engine.cuda_messages import start_error

        said = _complaint(device)
        if CUDA_PROVIDER in dropped and (known := start_error(said, device, cuda_version())) is not None:
            raise known
        raise DeviceError(
            f"onnxruntime cannot start {', '.join(dropped)}: {said[:300]}",
            where=f"device {device.name}",
            remedy="see `onnxgain doctor`, or use --device cpu",
        )


def _complaint(device: Device) -> str:
    """What the runtime says when it drops a provider: to standard error only, so that is read for a moment."""
    options = load().SessionOptions()
    options.log_severity_level = 3
    load().set_default_logger_severity(3)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            with contextlib.suppress(Exception):
                create_session(ir.to_proto(smallest_model()).SerializeToString(), options, device)
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").splitlines()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        load().set_default_logger_severity(4)
    messages = [_LOG_HEADING.sub("", line).strip() for line in lines if "onnxruntime" in line]
    return messages[0] if messages else "it does not say why"


def smallest_model() -> ir.Model:
    """One Neg of one number, for trying whether anything runs."""
    x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Neg", [x])
    node.outputs[0].shape, node.outputs[0].type = x.shape, x.type
    return ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 18}, name="smallest"), ir_version=8)


# "\x1b[1;31m2026-01-31 12:00:00.0 [E:onnxruntime:Default, file.cc:22 function] /file.cc:43 type Get() The message."
_LOG_HEADING = re.compile(r"^\S*\d{4}-\S+ \S+ \[\w:onnxruntime:[^\]]*\] (?:/\S+:\d+ .+?\)(?: const)? )?")


# "[ONNXRuntimeError] : 1 : FAIL : /path/to/file.h:46 void function(types, bool) The message.": where in its source.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |(?<!\S)/\S+:\d+ .+?\)(?: const)? (?=[A-Z[])|(?<!\S)\w+\.(?:cc|h):\d+ \S+ "
)


def essence(error: BaseException) -> str:
    """The first line of what the runtime says, without where in its source it does."""
    from onnxgain.engine.cuda_messages import failure_of

    failure = failure_of(str(error))
    lines = _NOISE.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    return failure if failure is not None else lines[0][:300]


def as_error(what: str, error: Exception, where: str | None, device: Device) -> OnnxgainError:
    """An exception of the runtime in our words, with what to do about it."""
    remedy = "check the model with onnx.checker and the installed runtime with `onnxgain doctor`"
    if "NOT_IMPLEMENTED" in str(error):
        remedy = "its kernels take float32 always and float64 seldom: export the model in float32"
    if "is not a registered function/op" in str(error):
        remedy = "if a library has this operator, name it with --custom-ops"
    if device.is_cpu and is_about_memory(str(error)):
        return OnnxgainError(f"{what}: out of memory", where=where, remedy="it needs more than there is, or is allowed")
    if device.is_cpu:
        return OnnxgainError(f"{what}: {essence(error)}", where=where, remedy=remedy)
    from onnxgain.engine.cuda_messages import is_about_gpu_memory

    if is_about_memory(str(error)) or is_about_gpu_memory(str(error)):
        return DeviceError(
            f"the memory of {device.name} is too small for the model: {essence(error)}",
            where=where,
            remedy="end what else uses the device, measure one model at a time (--jobs 1), or use --device cpu",
        )
    return DeviceError(f"{what} on {device.name}: {essence(error)}", where=where, remedy="try --device cpu")
