"""Runs models in onnxruntime. The only file that imports it."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import io
import os
import re
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.device import CPU, CUDA_PROVIDER, Device
from onnxgain.environment import installed_runtimes, usable_cores
from onnxgain.errors import DeviceError, OnnxgainError, RuntimeUnavailableError

_WRONG_OPTIMIZERS = ["Pad_Fusion"]
"""Moves a zero Pad into MaxPool, which pads with -inf: other numbers (onnxruntime 1.31.1, issue 24737)."""

_INLINE_LIMIT = 1024
"""Larger initializers are handed to the runtime as arrays, not copied through a protobuf."""


@functools.cache
def runtime() -> ModuleType:
    """The onnxruntime module.

    Raises:
        RuntimeUnavailableError: none is installed, several are, or the one installed does not load.
    """
    found = installed_runtimes()
    if len(found) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in found.items())
        raise RuntimeUnavailableError(
            f"{listed} are both installed; they share one folder and overwrite each other",
            remedy=f"pip uninstall -y {' '.join(found)}, then pip install 'onnxgain[cpu]' or 'onnxgain[gpu]'",
        )
    try:
        import onnxruntime
    except ImportError as error:
        if not found:
            raise RuntimeUnavailableError(
                "onnxruntime is not installed", remedy="pip install 'onnxgain[cpu]' (or 'onnxgain[gpu]' for CUDA)"
            ) from error
        (name,) = found
        raise RuntimeUnavailableError(
            f"{name} {found[name]} is installed but does not load: {error}",
            remedy=f"pip install --force-reinstall {name}",
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeUnavailableError(
            "the folder 'onnxruntime' is there but empty: another runtime package was removed after this one was "
            "installed",
            remedy=f"pip install --force-reinstall {next(iter(found), 'onnxruntime')}",
        )
    onnxruntime.set_default_logger_severity(4)
    module: ModuleType = onnxruntime
    return module


@dataclass(frozen=True)
class Engine:
    """What evaluated a graph: package, version, number of threads, device."""

    package: str
    version: str
    threads: int
    device: Device = CPU

    @property
    def provider(self) -> str:
        """The execution provider; the first where several were asked for."""
        return self.device.providers[0]


@dataclass(frozen=True)
class PlacedNode:
    """A node as the runtime runs it, after its optimizations, and the execution provider that it went to."""

    name: str
    operator: str
    provider: str


class Session:
    """A model loaded into onnxruntime.

    Args:
        model: the model; it may be dropped afterwards.
        threads: intra-op threads; the number of usable cores where None.
        where: what to call the model in errors.
        brief: it will run once or twice, so that optimizing the graph and packing weights would cost more than it saves
            (ResNet-50: 0.5 s of loading for 0.15 s a run), and memory besides.
        device: what is to evaluate it.
        traced: remember which provider each node went to, see `placement`.
        tuning: further options of the device's first provider, by the runtime's names.
        variable: floating-point initializers, by name, that `with_weights` may exchange, if `brief` and on the CPU.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
        DeviceError: the device cannot be used, or its memory is too small.
        OnnxgainError: the runtime refuses the model.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        threads: int | None = None,
        where: str | None = None,
        brief: bool = False,
        device: Device = CPU,
        traced: bool = False,
        tuning: Mapping[str, str] | None = None,
        variable: Collection[str] = (),
    ) -> None:
        onnxruntime = runtime()
        _require_providers(device)
        self.threads = threads or usable_cores()
        self.where = where
        self.device = device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if self.threads < usable_cores():
            # Idle threads that spin take the cores from whoever else was given a share of them.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if brief and device.is_cpu:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")
        if traced:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # GPU kernels that add in any order would give other digits every time.
        options.use_deterministic_compute = not device.is_cpu
        # The runtime copies initializers that it is given, but reads inputs in place.
        fed = brief and device.is_cpu
        proto, weights = without_weights(model, variable if fed else ())
        self._fed = feed_weights(proto, weights) if fed else {}
        held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        if held:
            options.add_external_initializers(list(held), list(held.values()))
        try:
            self._session = _create(proto.SerializeToString(), options, device, tuning)
        except Exception as error:  # the runtime's exceptions share no base class
            raise _runtime_error("onnxruntime cannot load the model", error, where, device) from error
        _require_part(self._session, device)
        package = next(iter(installed_runtimes()), "onnxruntime")
        self.engine = Engine(package, onnxruntime.__version__, self.threads, device)

    def with_weights(self, weights: Mapping[str, NDArray[Any]]) -> Session | None:
        """This session with other values of some weights; None where they are part of what was loaded."""
        if not self._fed.keys() >= weights.keys():
            return None
        other = copy.copy(self)
        other._fed = {**self._fed, **weights}
        return other

    def input_type(self, name: str) -> np.dtype[Any]:
        """The NumPy type that an input of the graph takes."""
        declared = next(item.type for item in self._session.get_inputs() if item.name == name)
        return np.dtype(_NUMPY_TYPES[declared])

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Evaluate the model.

        Args:
            feeds: an array for each input.
            outputs: names of the outputs wanted; all where None.

        Raises:
            OnnxgainError: the runtime fails on these inputs.
        """
        names = list(outputs) if outputs is not None else [output.name for output in self._session.get_outputs()]
        try:
            results = self._session.run(names, {**self._fed, **feeds})
        except Exception as error:
            raise _runtime_error("onnxruntime cannot run the model", error, self.where, self.device) from error
        return dict(zip(names, results, strict=True))

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Binding:
        """Put inputs, and room for outputs, where the device computes, for evaluating the model many times.

        Nothing crosses the bus while it runs. Needed for CUDA graphs, which replay the same addresses.
        """
        return Binding(self._session, self.device, {**self._fed, **feeds})

    def placement(self) -> list[PlacedNode] | None:
        """Where each node runs, for a session that is `traced`; None where this version of the runtime does not say."""
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return None
        return [
            PlacedNode(node.name, node.op_type, part.ep_name)
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]


class Binding:
    """Inputs and outputs of a session that stay on its device; made by `Session.bind`."""

    def __init__(self, session: Any, device: Device, feeds: Mapping[str, NDArray[Any]]) -> None:
        place = ("cuda", device.index) if device.has_cuda else ("cpu", 0)
        make = runtime().OrtValue
        self._session = session
        self._bound = session.io_binding()
        self._inputs = {name: make.ortvalue_from_numpy(np.ascontiguousarray(x), *place) for name, x in feeds.items()}
        for name, value in self._inputs.items():
            self._bound.bind_ortvalue_input(name, value)
        self._outputs = {}
        for output in session.get_outputs():
            value = make.ortvalue_from_shape_and_type(output.shape, np.dtype(_NUMPY_TYPES[output.type]), *place)
            self._outputs[output.name] = value
            self._bound.bind_ortvalue_output(output.name, value)

    def run(self) -> None:
        """Evaluate the model once."""
        self._session.run_with_iobinding(self._bound)

    def results(self) -> dict[str, NDArray[Any]]:
        """The outputs, fetched from the device."""
        return {name: value.numpy() for name, value in self._outputs.items()}


# ------------------------------------------------------------------------------------------------- devices
def require_device(device: Device) -> None:
    """Try a device with the smallest of models.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
        DeviceError: the device cannot be used; says why.
    """
    if device.is_cpu:
        return
    try:
        Session(_smallest(), threads=1, device=device)
    except OnnxgainError as error:
        if error.where is not None:
            raise
        what = f"cannot be used: {_essence(error.__cause__ or error)}"
        raise DeviceError(what, where=f"device {device.name}", remedy="see `onnxgain doctor`") from error


def choose_device(*, tf32: bool = False) -> tuple[Device, str]:
    """CUDA where it works; else the CPU, and in words why, in parentheses.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
    """
    cuda = Device((CUDA_PROVIDER,), tf32=tf32)
    try:
        require_device(cuda)
    except DeviceError as error:
        return CPU, f" ({error.what})"
    return cuda, ""


def _smallest() -> ir.Model:
    x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Neg", [x])
    node.outputs[0].shape, node.outputs[0].type = x.shape, x.type
    return ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 18}, name="smallest"), ir_version=8)


def _create(serialized: bytes, options: Any, device: Device, tuning: Mapping[str, str] | None = None) -> Any:
    """A session that the runtime has not moved to other providers."""
    (first, given), *others = device.provider_options()
    return runtime().InferenceSession(
        serialized,
        options,
        providers=[(first, {**given, **(tuning or {})}), *others],
        disabled_optimizers=_WRONG_OPTIMIZERS,
        enable_fallback=0,
    )


def _require_providers(device: Device) -> None:
    """Refuse what the installed package was not built with, or whose libraries are not there."""
    there = runtime().get_available_providers()
    package = next(iter(installed_runtimes()), "onnxruntime")
    for provider in device.providers:
        if provider in there:
            continue
        remedy = f"this package has {', '.join(name.removesuffix('ExecutionProvider') for name in there)}"
        if provider == CUDA_PROVIDER:
            remedy = f"pip uninstall -y {package}, then pip install 'onnxgain[gpu]'"
        raise DeviceError(f"the installed {package} has no {provider}", where=f"device {device.name}", remedy=remedy)
    if device.has_cuda and (missing := missing_cuda_library()) is not None:
        raise _cuda_error(missing, device)


@functools.cache
def missing_cuda_library() -> str | None:
    """Why the runtime's CUDA libraries do not load, None where they do. For a package that is built for CUDA."""
    onnxruntime = runtime()
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
    version = getattr(runtime(), "cuda_version", "") or "its"
    remedy = (
        f"install CUDA {version} and cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]', or put theirs on the library "
        "path"
    )
    if "libcuda.so" in reason or "nvcuda" in reason:
        remedy = "install NVIDIA's driver; without such a GPU use --device cpu"
    return DeviceError(f"CUDA's libraries do not load: {reason}", where=f"device {device.name}", remedy=remedy)


def _require_part(session: Any, device: Device) -> None:
    """Refuse a session that lacks a provider: the runtime drops those it cannot start, and goes on without."""
    dropped = [provider for provider in device.providers if provider not in session.get_providers()]
    if dropped:
        raise DeviceError(
            f"onnxruntime cannot start {', '.join(dropped)}: {_complaint(device)}",
            where=f"device {device.name}",
            remedy="see `onnxgain doctor`, or use --device cpu",
        )


def _complaint(device: Device) -> str:
    """What the runtime says when it drops a provider: to standard error only, so that is read for a moment."""
    options = runtime().SessionOptions()
    options.log_severity_level = 3
    runtime().set_default_logger_severity(3)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            with contextlib.suppress(Exception):
                _create(ir.to_proto(_smallest()).SerializeToString(), options, device)
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").splitlines()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        runtime().set_default_logger_severity(4)
    messages = [_LOG_HEADING.sub("", line).strip() for line in lines if "onnxruntime" in line]
    return messages[0][:300] if messages else "it does not say why"


# "\x1b[1;31m2026-01-31 12:00:00.0 [E:onnxruntime:Default, file.cc:22 function] /file.cc:43 type Get() The message."
_LOG_HEADING = re.compile(r"^\S*\d{4}-\S+ \S+ \[\w:onnxruntime:[^\]]*\] (?:/\S+:\d+ .+?\)(?: const)? )?")
_NO_DEVICE_MEMORY = re.compile(
    r"out of memory|failed to allocate memory|CUDA failure 2:|CU\w+_STATUS_ALLOC_FAILED|bad_alloc", re.IGNORECASE
)


# -------------------------------------------------------------------------------------------------- errors
# "[ONNXRuntimeError] : 1 : FAIL : /path/to/file.h:46 void function(types, bool) The message.": where in its source.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |(?<!\S)/\S+:\d+ .+?\)(?: const)? (?=[A-Z[])|(?<!\S)\w+\.(?:cc|h):\d+ \S+ "
)
_CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;]+?(?= ?;)")


def _essence(error: BaseException) -> str:
    """The first line of what the runtime says, without where in its source it does."""
    failure = _CUDA_FAILURE.search(str(error))
    lines = _NOISE.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    return failure[0] if failure is not None else lines[0][:300]


def _runtime_error(what: str, error: Exception, where: str | None, device: Device) -> OnnxgainError:
    remedy = "check the model with onnx.checker and the installed runtime with `onnxgain doctor`"
    if "NOT_IMPLEMENTED" in str(error):
        remedy = "its kernels take float32 always and float64 seldom: export the model in float32"
    if device.is_cpu and any(phrase in str(error) for phrase in ("bad_alloc", "Failed to allocate memory")):
        return OnnxgainError(f"{what}: out of memory", where=where, remedy="it needs more than there is, or is allowed")
    if device.is_cpu:
        return OnnxgainError(f"{what}: {_essence(error)}", where=where, remedy=remedy)
    if _NO_DEVICE_MEMORY.search(str(error)):
        return DeviceError(
            f"the memory of {device.name} is too small for the model: {_essence(error)}",
            where=where,
            remedy="end what else uses the device, measure one model at a time (--jobs 1), or use --device cpu",
        )
    return DeviceError(f"{what} on {device.name}: {_essence(error)}", where=where, remedy="try --device cpu")


def without_weights(model: ir.Model, variable: Collection[str] = ()) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The model with placeholders for its larger initializers and those named, and these initializers as arrays."""
    weights: dict[str, NDArray[Any]] = {}
    kept: dict[ir.Value, ir.TensorProtocol] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not value.uses():
            continue
        assert value.name is not None
        if (tensor.nbytes > _INLINE_LIMIT or value.name in variable) and tensor.dtype in _SHARED_TYPES:
            weights[value.name] = np.ascontiguousarray(tensor.numpy())
            # A placeholder that says "external"; the runtime takes the array given under the same name instead.
            placeholder: ir.TensorProtocol = ir.ExternalTensor(
                "shared", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=value.name
            )
        elif isinstance(tensor, ir.ExternalTensor):
            placeholder = ir.tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)
        else:
            continue
        kept[value] = tensor
        value.const_value = placeholder
    try:
        return ir.to_proto(model), weights
    finally:
        for value, tensor in kept.items():
            value.const_value = tensor


def feed_weights(proto: onnx.ModelProto, weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Make inputs of a model's placeholders for floating weights, and take these out of ``weights``.

    Integers stay: kernels may ask for constants there.
    """
    fed = {name: weights.pop(name) for name, array in list(weights.items()) if array.dtype.kind == "f"}
    left = [tensor for tensor in proto.graph.initializer if tensor.name not in fed]
    for tensor in proto.graph.initializer:
        if tensor.name in fed:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            proto.graph.input.append(info)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(left)
    return fed


_NUMPY_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(uint16)": np.uint16, "tensor(int16)": np.int16,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}  # fmt: skip
_SHARED_TYPES = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8, ir.DataType.UINT8,
}  # fmt: skip
