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
"""Larger initializers are handed to the runtime as arrays, not copied through a protobuf."""


class Engine(NamedTuple):
    """What evaluated a graph: package, version, number of threads, device."""

    package: str
    version: str
    threads: int
    device: Device = CPU

    @property
    def provider(self) -> str:
        """The execution provider; the first where several were asked for."""
        return self.device.providers[0]


class PlacedNode(NamedTuple):
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
        brief: it will run a few times, so that optimizing the graph and packing weights would cost more than it saves
            (ResNet-50: 0.5 s of loading for 0.04 s a run), and memory besides.
        device: what is to evaluate it.
        traced: remember which provider each node went to, see `placement`.
        variable: floating-point initializers, by name, that `with_weights` may exchange, if `brief` and on the CPU.
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
            # Idle threads that spin take the cores from whoever else was given a share of them.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Products between DequantizeLinear nodes stay in floating point, where they are exact, and leftover integer
        # kernels do not saturate, see `onnxgain.engine.integer_products`.
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
        # GPU kernels that add in any order would give other digits every time.
        options.use_deterministic_compute = not device.is_cpu
        # The runtime copies initializers that it is given, but reads inputs in place.
        proto, weights = without_weights(model, variable if brief else ())
        self._fed = feed_weights(proto, weights) if brief else {}
        held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        if held:
            options.add_external_initializers(list(held), list(held.values()))
        try:
            self._session = runtime.create_session(proto.SerializeToString(), options, device)
        except Exception as error:  # the runtime's exceptions share no base class
            raise runtime.as_error("onnxruntime cannot load the model", error, where, device) from error
        runtime.require_started(self._session, device)
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
            raise runtime.as_error("onnxruntime cannot run the model", error, self.where, self.device) from error
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
        Session(runtime.smallest_model(), threads=1, device=device)
    except OnnxgainError as error:
        if error.where is not None:
            raise
        raise runtime.why_not_started(error.__cause__ or error, device) from error


def choose_device(work: Work | None = None, *, tf32: bool = False) -> tuple[Device, str]:
    """CUDA where it works and is sooner done with the work; else the CPU. And in words why, in parentheses.

    Args:
        work: what is to be measured, where that is known.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
    """
    cuda = Device((CUDA_PROVIDER,), tf32=tf32)
    if CUDA_PROVIDER in runtime.load().get_available_providers() and work is not None:
        here, there = work.cpu_seconds(), work.cuda_seconds()
        if here <= there:
            # Before CUDA is tried, which takes as long as it would save.
            return CPU, f" (about {here:.1f} s of work; CUDA would need about {there:.1f} s, most of it to start)"
    try:
        require_device(cuda)
    except DeviceError as error:
        return CPU, f" ({error.what})"
    return cuda, "" if work is None else f" (about {work.cpu_seconds():.0f} s of work for the CPU)"


def _packing_pays(model: ir.Model) -> bool:
    """Whether most matrices meet more than a few rows: only then does another order of the weights speed products up.

    Packing those of VGG-16, which meet one row an image, takes 4 s and another copy of them, and gains nothing; a
    vision transformer runs 1.6 times as fast for it.
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
