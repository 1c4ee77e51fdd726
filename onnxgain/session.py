"""Runs models in onnxruntime. The only file that imports it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.environment import installed_runtimes, usable_cores
from onnxgain.errors import OnnxgainError, RuntimeUnavailableError

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
    """What evaluated a graph: package, version, execution provider, number of threads."""

    package: str
    version: str
    provider: str
    threads: int


class Session:
    """A model loaded into onnxruntime.

    Args:
        model: the model; its weights are shared with the runtime, not copied.
        threads: intra-op threads; the number of usable cores where None.
        where: what to call the model in errors.
        brief: it will run once or twice, so that optimizing the graph and packing weights would cost more than it saves
            (ResNet-50: 0.5 s of loading for 0.15 s a run), and memory besides.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
        OnnxgainError: the runtime refuses the model.
    """

    def __init__(
        self, model: ir.Model, *, threads: int | None = None, where: str | None = None, brief: bool = False
    ) -> None:
        onnxruntime = runtime()
        self.threads = threads or usable_cores()
        self.where = where
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if self.threads < usable_cores():
            # Idle threads that spin take the cores from whoever else was given a share of them.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if brief:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")
        serialized, weights = serialize(model)
        # The runtime reads these arrays in place, so they must live as long as the session.
        self._weights = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        if self._weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        try:
            self._session = onnxruntime.InferenceSession(
                serialized, options, providers=["CPUExecutionProvider"], disabled_optimizers=_WRONG_OPTIMIZERS
            )
        except Exception as error:  # the runtime's exceptions share no base class
            raise _runtime_error("onnxruntime cannot load the model", error, where) from error
        self.engine = Engine(
            next(iter(installed_runtimes()), "onnxruntime"),
            onnxruntime.__version__,
            "CPUExecutionProvider",
            self.threads,
        )

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
            results = self._session.run(names, dict(feeds))
        except Exception as error:
            raise _runtime_error("onnxruntime cannot run the model", error, self.where) from error
        return dict(zip(names, results, strict=True))


# "[ONNXRuntimeError] : 1 : FAIL : /path/to/file.h:46 void function(types, bool) The message."
_NOISE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:/\S+:\d+ .+?\)(?: const)? (?=[A-Z]))?")


def _runtime_error(what: str, error: Exception, where: str | None) -> OnnxgainError:
    lines = _NOISE.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    if any(phrase in str(error) for phrase in ("bad_alloc", "Failed to allocate memory")):
        return OnnxgainError(f"{what}: out of memory", where=where, remedy="it needs more than there is, or is allowed")
    remedy = "check the model with onnx.checker and the installed runtime with `onnxgain doctor`"
    if "NOT_IMPLEMENTED" in str(error):
        remedy = "its kernels take float32 always and float64 seldom: export the model in float32"
    return OnnxgainError(f"{what}: {lines[0][:300]}", where=where, remedy=remedy)


def serialize(model: ir.Model) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """The model without its larger initializers as protobuf bytes, and those initializers as arrays."""
    weights: dict[str, NDArray[Any]] = {}
    kept: dict[ir.Value, ir.TensorProtocol] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not value.uses():
            continue
        assert value.name is not None
        if tensor.nbytes > _INLINE_LIMIT and tensor.dtype in _SHARED_TYPES:
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
        return ir.to_proto(model).SerializeToString(), weights
    finally:
        for value, tensor in kept.items():
            value.const_value = tensor


_NUMPY_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(uint16)": np.uint16, "tensor(int16)": np.int16,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}  # fmt: skip
_SHARED_TYPES = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8, ir.DataType.UINT8,
}  # fmt: skip
