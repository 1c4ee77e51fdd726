"""Watches a plain PyTorch training loop; also the exporter of the Lightning and Hugging Face callbacks."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxgain.commands.callbacks.monitor import END_LIMIT, Measured, Monitor
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


class PyTorchMonitor:
    """Watches a training loop of your own.

        with PyTorchMonitor("run/", images="train-sample/", log=writer) as monitor:
            for epoch in range(1, 21):
                ...
                monitor.snapshot(model, images, epoch)
                if monitor.should_stop:
                    break

    In distributed training, make it in every process, after `init_process_group`. The first one does everything, and
    `should_stop` is the same in all, which have to ask for it together.

    Args:
        folder: of the run; snapshots are written there.
        log: where metrics go: a `SummaryWriter`, or a function of metrics and step such as `mlflow.log_metrics`. Called
            from `snapshot` and `close` only.
        options: of `onnxgain.commands.callbacks.monitor.Monitor`: every, stop_on, patience, keep, images, labels,
            preprocess, ...

    Raises:
        OnnxgainError: an argument that makes no sense, or PyTorch cannot export networks here.
    """

    def __init__(self, folder: str | os.PathLike[str], *, log: Any = None, **options: Any) -> None:
        require_exporter()
        if log is not None and not callable(log) and not hasattr(log, "add_scalar"):
            raise OnnxgainError(
                f"a {type(log).__name__} takes no metrics",
                where="log=",
                remedy="pass a SummaryWriter, or a function of metrics and step such as mlflow.log_metrics",
            )
        self._monitor = Monitor(folder, **options)
        self._log: Any = (lambda metrics, step: None) if log is None else log
        if _is_first():
            self._monitor.start()

    @property
    def should_stop(self) -> bool:
        """Whether a verdict of stop_on was given often enough. All processes of a distributed training wait here."""
        return agreed(self._monitor.should_stop) if self._monitor.stop_on else False

    @property
    def last(self) -> Measured | None:
        """What is known after the last snapshot that was measured; None before the first."""
        return self._monitor.last

    def snapshot(self, model: torch.nn.Module, example: torch.Tensor, epoch: int, step: int | None = None) -> None:
        """Take a snapshot of a model and log what is known of earlier ones.

        Args:
            example: a batch of images (N, C, H, W) as the model takes them; only shape and type count.
            epoch: counted from 1.
            step: as the logger counts; the epoch where None.
        """
        self.poll()
        flattened = "image_shape" in self._monitor.options
        self._monitor.take(epoch, exporter(model, example, flattened=flattened), lambda: weights_of(model), step)

    def poll(self) -> None:
        """Log what was found since the last snapshot; never waits. For epochs that take long."""
        self._tell(self._monitor.poll())

    def close(self, limit: float = END_LIMIT) -> None:
        """Wait a few seconds at most for snapshots that are still being measured, log them, and end the process."""
        self._tell(self._monitor.finish(limit))

    def __enter__(self) -> PyTorchMonitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(END_LIMIT if kind is None else 0.0)

    def _tell(self, found: Sequence[Measured]) -> None:
        for measured in found:
            with self._monitor.guarded("metrics are not logged"):
                record(self._log, measured)


def record(log: Any, measured: Measured) -> None:
    """Pass metrics to a `SummaryWriter`, with the verdict as text, or to a function of metrics and step."""
    if not hasattr(log, "add_scalar"):
        log(measured.metrics(), measured.step)
        return
    for name, value in measured.metrics().items():
        log.add_scalar(name, value, measured.step)
    log.add_text("onnxgain/verdict", str(measured), measured.step)


def require_exporter() -> None:
    """Check that PyTorch can export.

    Raises:
        OnnxgainError: onnxscript is missing.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise OnnxgainError(
            "PyTorch exports networks with onnxscript, which is missing", remedy="pip install onnxscript"
        )


def _is_first() -> bool:
    """Whether this is the first process of a distributed training, or the only one."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def agreed(stop: bool) -> bool:
    """Whether any process of a distributed training wants to stop: all have to do the same."""
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return stop
    on_gpus = "nccl" in distributed.get_backend()
    wanted = torch.tensor([float(stop)], device=torch.device("cuda") if on_gpus else None)
    distributed.all_reduce(wanted, op=distributed.ReduceOp.MAX)
    return bool(wanted.item())


def unwrapped(model: Any) -> Any:
    """The module without the wrappers of data parallelism and compilation."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if inner is None:
            return model
        model = inner


def exporter(
    model: torch.nn.Module, example: torch.Tensor, keyword: str | None = None, *, flattened: bool = False
) -> Callable[[Path], None]:
    """A function that writes a model to a file, as it is in inference; the model is as before afterwards.

    The function raises `OnnxgainError` where the example is not a batch of images.

    Args:
        example: images; of their number only that it is left open in the file, if the model allows that.
        keyword: the argument that takes them; the first where None.
        flattened: whether the model may take images as vectors.
    """

    def export(path: Path) -> None:
        import torch

        module = unwrapped(model)
        check_images(example, flattened=flattened)
        anchor = next(module.parameters(), example)
        image = example.detach()[:1].to(anchor.device)
        image = image.to(anchor.dtype) if image.is_floating_point() else image
        free = {0: torch.export.Dim.DYNAMIC}
        attempts: list[tuple[Any, Any]] = [(torch.cat([image, image]), free), (image, None)]
        with _in_inference(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for place, (batch, dynamic) in enumerate(attempts):
                given = ((batch,), None) if keyword is None else ((), {keyword: batch})
                shapes: Any = None
                if dynamic is not None:
                    shapes = (dynamic,) if keyword is None else {keyword: dynamic}
                try:
                    # Not optimized: batch normalization must not be folded, so that `weights` finds the weights.
                    torch.onnx.export(
                        module, given[0], str(path), kwargs=given[1], dynamo=True, external_data=False, verbose=False,
                        dynamic_shapes=shapes, optimize=False,
                    )  # fmt: skip
                    return
                except Exception:
                    if place == len(attempts) - 1:
                        raise

    return export


def check_images(example: Any, *, flattened: bool) -> None:
    """Check that an example is a batch of images.

    Raises:
        OnnxgainError: it is none.
    """
    import torch

    if not isinstance(example, torch.Tensor):
        what = f"a {type(example).__name__}"
    elif example.ndim == 4 or (flattened and example.ndim in (2, 3)):
        return
    else:
        what = f"a tensor of shape {tuple(example.shape)}"
    raise OnnxgainError(
        f"{what} is not a batch of images (N, C, H, W)",
        where="example",
        remedy="pass image_shape= (as 1x28x28) if the network takes flattened images; others than classifiers of "
        "images cannot be measured",
    )


@contextmanager
def _in_inference(module: torch.nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, without gradients; restore its own mode afterwards."""
    import torch

    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        for part, training in modes:
            part.training = training


def weights_of(model: torch.nn.Module) -> list[NDArray[Any]] | None:
    """The floating-point weights as numpy arrays, each tensor once; None if numpy lacks their dtype (bfloat16)."""
    import torch

    found: dict[tuple[int, tuple[int, ...]], Any] = {}
    try:
        for tensor in unwrapped(model).state_dict().values():
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
                found.setdefault((tensor.data_ptr(), tuple(tensor.shape)), tensor)
        return [tensor.detach().cpu().numpy() for tensor in found.values()]
    except (TypeError, RuntimeError):
        return None
