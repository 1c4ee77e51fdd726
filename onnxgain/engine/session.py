"""Runs models in onnxruntime."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine import runtime
from onnxgain.engine.device import CPU, CUDA_PROVIDER, Device
from onnxgain.engine.environment import installed_runtimes, usable_cores
from onnxgain.errors import DeviceError, OnnxgainError
from onnxgain.gradient.values import static_shape

if TYPE_CHECKING:
    from onnxgain.engine.work import Work

_INLINE_LIMIT = 1024
"""Bytes. Larger initializers are passed to the runtime as arrays instead of in the protobuf, which copies them."""


class Engine(NamedTuple):
    """The runtime that evaluated a graph: package, version, number of threads, device."""

    package: str
    version: str
    threads: int
    device: Device = CPU

    @property
    def provider(self) -> str:
        """The execution provider; the first one if several were requested."""
        return self.device.providers[0]


class PlacedNode(NamedTuple):
    """A node after the runtime's optimizations, and the execution provider that runs it."""

    name: str
    operator: str
    provider: str


class Session:
    """A model loaded into onnxruntime.

    Args:
        model: the model; it may be dropped afterwards.
        threads: intra-op threads; None for the number of usable cores.
        where: the name of the model in errors.
        brief: the model will run only a few times: do not optimize the graph or pack weights, which would take more
            time than it saves (ResNet-50: 0.5 s of loading for 0.04 s per run), and more memory.
        device: the device that evaluates it.
        traced: record which provider runs each node, see `placement`.
        variable: names of floating-point initializers that `with_weights` may replace, if `brief` and on the CPU.
        custom_ops: libraries of operators to load. Their code runs in this process.

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
        variable: Collection[str] = (),
        custom_ops: Sequence[Path] = (),
    ) -> None:
        onnxruntime = runtime.load()
        runtime.require_providers(device)
        self.threads = threads or usable_cores()
        self.where = where
        self.device = device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if self.threads < usable_cores():
            # Spinning idle threads would take CPU time from other processes that share these cores.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Keep products of dequantized values in floating point, where they are exact, and keep other integer kernels
        # from saturating, see `onnxgain.engine.integer_products`.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.x64quantprecision", "1")
        brief = brief and device.is_cpu
        if brief:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if brief or (device.is_cpu and not _packing_pays(model)):
            options.add_session_config_entry("session.disable_prepacking", "1")
        for library in custom_ops:
            runtime.register_library(library, options)
        if traced:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # GPU kernels that add in arbitrary order would give slightly different results at each run.
        options.use_deterministic_compute = not device.is_cpu
        # The runtime copies initializers, but reads inputs in place.
        proto, weights = without_weights(model, variable if brief else ())
        self._fed = feed_weights(proto, weights) if brief else {}
        external = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        if external:
            options.add_external_initializers(list(external), list(external.values()))
        try:
            self._session = runtime.create_session(proto.SerializeToString(), options, device)
        except Exception as error:  # the runtime's exceptions share no base class
            raise runtime.as_error("onnxruntime cannot load the model", error, where, device) from error
        runtime.require_started(self._session, device)
        package = next(iter(installed_runtimes()), "onnxruntime")
        self.engine = Engine(package, onnxruntime.__version__, self.threads, device)

    def with_weights(self, weights: Mapping[str, NDArray[Any]]) -> Session | None:
        """This session with other values of some weights; None if one of them was not `variable`."""
        if not self._fed.keys() >= weights.keys():
            return None
        changed = copy.copy(self)
        changed._fed = {**self._fed, **weights}
        return changed

    def input_type(self, name: str) -> np.dtype[Any]:
        """The NumPy type of a graph input."""
        declared = next(item.type for item in self._session.get_inputs() if item.name == name)
        return np.dtype(_NUMPY_TYPES[declared])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs that are to be fed."""
        return tuple(item.name for item in self._session.get_inputs() if item.name not in self._fed)

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Evaluate the model.

        Args:
            feeds: an array for each input.
            outputs: names of the outputs to return; None for all.

        Raises:
            OnnxgainError: the runtime fails on these inputs.
        """
        names = list(outputs) if outputs is not None else [output.name for output in self._session.get_outputs()]
        try:
            results = self._session.run(names, {**self._fed, **feeds})
        except Exception as error:
            raise runtime.as_error("onnxruntime cannot run the model", error, self.where, self.device) from error
        return dict(zip(names, results, strict=True))

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Binding:
        """Put the inputs and buffers for the outputs into the device's memory, to evaluate the model many times.

        Runs then transfer no data. CUDA graphs need this, because they replay the same addresses.
        """
        return Binding(self._session, self.device, {**self._fed, **feeds})

    def placement(self) -> list[PlacedNode] | None:
        """The provider of each node, for a `traced` session; None if this version of the runtime does not tell."""
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return None
        return [
            PlacedNode(node.name, node.op_type, part.ep_name)
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]


class Binding:
    """Inputs and outputs of a session that stay in the device's memory; made by `Session.bind`."""

    def __init__(self, session: Any, device: Device, feeds: Mapping[str, NDArray[Any]]) -> None:
        place = ("cuda", device.index) if device.has_cuda else ("cpu", 0)
        make = runtime.load().OrtValue
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
        """The outputs, copied from the device."""
        return {name: value.numpy() for name, value in self._outputs.items()}


def require_device(device: Device) -> None:
    """Test a device with a minimal model.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
        DeviceError: the device cannot be used, for the reason given.
    """
    if device.is_cpu:
        return
    try:
        Session(runtime.smallest_model(), threads=1, device=device)
    except OnnxgainError as error:
        if error.where is not None:
            raise
        raise runtime.why_not_started(error.__cause__ or error, device) from error


def choose_device(work: Work | None = None, *, tf32: bool = False) -> tuple[Device, str]:
    """Choose CUDA if it works and is expected to be faster, else the CPU.

    Args:
        work: the work to do, if known.
        tf32: as in `Device`.

    Returns:
        The device, and the reason in parentheses with a leading space, or "".

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
    """
    cuda = Device((CUDA_PROVIDER,), tf32=tf32)
    if CUDA_PROVIDER in runtime.load().get_available_providers() and work is not None:
        here, there = work.cpu_seconds(), work.cuda_seconds()
        if here <= there:
            # Decide before testing CUDA: the test alone would take longer than CUDA saves.
            return CPU, f" (about {here:.1f} s of work; CUDA would need about {there:.1f} s, most of it to start)"
    try:
        require_device(cuda)
    except DeviceError as error:
        return CPU, f" ({error.what})"
    return cuda, "" if work is None else f" (about {work.cpu_seconds():.0f} s of work for the CPU)"


def _packing_pays(model: ir.Model) -> bool:
    """Whether most weight matrices are multiplied by more than a few rows: only then do packed weights save time.

    Packing the weights of VGG-16, which are multiplied by one row per image, takes 4 s and a copy of them, and saves
    nothing; a vision transformer becomes 1.6 times as fast.
    """
    few = many = 0
    for node in model.graph:
        if node.op_type in ("MatMul", "Gemm"):
            left, right = (static_shape(value) if value is not None else None for value in node.inputs[:2])
            if left and right:
                size = math.prod(right)
                if math.prod(left[:-1]) > _FEW_ROWS:
                    many += size
                else:
                    few += size
    return many >= few


_FEW_ROWS = 16


def without_weights(model: ir.Model, variable: Collection[str] = ()) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The model with placeholders for its larger and ``variable`` initializers, and these initializers as arrays."""
    weights: dict[str, NDArray[Any]] = {}
    kept: dict[ir.Value, ir.TensorProtocol] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not value.uses():
            continue
        assert value.name is not None
        if (tensor.nbytes > _INLINE_LIMIT or value.name in variable) and tensor.dtype in _SHARED_TYPES:
            weights[value.name] = np.ascontiguousarray(tensor.numpy())
            # The runtime replaces an "external" initializer by the array that is passed under the same name.
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
    """Turn a model's placeholders for floating-point weights into inputs; move these from ``weights`` to the result.

    Integer weights stay initializers, because kernels may need constants there.
    """
    fed = {name: weights.pop(name) for name, array in list(weights.items()) if array.dtype.kind == "f"}
    remaining = [tensor for tensor in proto.graph.initializer if tensor.name not in fed]
    for tensor in proto.graph.initializer:
        if tensor.name in fed:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            proto.graph.input.append(info)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(remaining)
    return fed


_NUMPY_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(uint16)": np.uint16, "tensor(int16)": np.int16,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}  # fmt: skip
_SHARED_TYPES = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8, ir.DataType.UINT8,
}  # fmt: skip
