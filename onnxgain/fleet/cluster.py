"""Measures models on a Ray cluster. Each model is a Ray task, which measures it in a child process on its node.

    with Cluster("auto") as cluster:
        for result in score_batch(sources, request, cluster=cluster): ...

The cache stays on this machine. A node gets a path, a request and limits, and returns the JSON of a child's reply. If
the node has the same file (same path, size and modification time), it reads it there; otherwise the file is sent, and
then the external data that it turns out to need. If a task's node or process is lost, Ray runs the task again on
another node.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxgain.engine.device import Device
from onnxgain.errors import ModelError, OnnxgainError, UnreadableModelError, WorkerError, first_line
from onnxgain.fleet.cache import software
from onnxgain.fleet.pool import Limits, Plan, Slot, require_no_limit
from onnxgain.fleet.protocol import Message, error_from_json, error_to_json
from onnxgain.fleet.result import Result, result_from_json, result_to_json
from onnxgain.fleet.sources import Source
from onnxgain.measure.request import Request
from onnxgain.model.companions import read_companions
from onnxgain.model.screening import check_file, inside

RETRIES = 4
"""How often Ray repeats a task whose node or process was lost."""

_LOST = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
_SAME = "install the same onnxgain, onnx and onnxruntime on all nodes and here"


# -- on this machine ---------------------------------------------------------------------------------------------------


class Cluster:
    """A connection to a running Ray cluster; a context manager.

    Args:
        address: "auto" for the cluster that this machine belongs to (RAY_ADDRESS, or one started here), or "host:port"
            of the cluster's head node.
        gpus: number of GPUs per model, possibly a fraction, if the device is a GPU.
        notice: called with messages for the user.

    Raises:
        OnnxgainError: Ray is not installed, or the address does not answer.
    """

    def __init__(
        self, address: str = "auto", *, gpus: float = 1.0, notice: Callable[[str], object] = lambda text: None
    ) -> None:
        self.ray = _import_ray()
        self.gpus = gpus
        self._notice = notice
        self._photos: dict[Path, Any] = {}
        _check_address(address)
        self._connect(address)

    def _connect(self, address: str) -> None:
        level = logging.WARNING if os.environ.get("ONNXGAIN_DEBUG") else logging.CRITICAL
        try:
            # Ray's processes import modules from the current folder, which may be untrusted.
            with contextlib.chdir(Path(__file__).parents[2]), _own_handler():
                self.ray.init(address=address, log_to_driver=False, logging_level=level)
        except (OSError, RuntimeError, ValueError, self.ray.exceptions.RayError) as error:
            raise OnnxgainError(
                f"cannot be joined: {first_line(error)}", where=f"--ray {address}", remedy=_start_remedy(address)
            ) from error

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()

    def plan(self, limits: Limits, device: Device) -> Plan:
        """How to share the cluster, see `onnxgain.fleet.pool.Limits`; by default with one thread per model.

        Twice as many tasks are submitted as fit, so that no node waits for its next model.

        Raises:
            OnnxgainError: the device is not the CPU and there is a memory limit, or it is a GPU chosen by number.
        """
        memory_limit = limits.memory_limit
        require_no_limit(device, memory_limit)
        if device.index:
            raise OnnxgainError("Ray chooses the GPU", where=f"--device {device.name}", remedy="write --device cuda")
        threads = limits.threads or 1
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        capacities = [(self._capacity(node, threads, device), node.get("memory")) for node in nodes]
        if memory_limit is None and device.is_cpu:
            shares = [int(memory / count) for count, memory in capacities if count and memory]
            memory_limit = min(shares, default=None)
        fitting = sum(count for count, _ in capacities)
        if not fitting:  # not an error: some clusters add nodes on demand
            needed = f"{threads} CPU" + ("s" if threads > 1 else "") + ("" if device.is_cpu else f", {self.gpus:g} GPU")
            self._notice(f"no node of the cluster has {needed}: waiting for one")
        return Plan(limits.jobs or max(2 * fitting, 1), threads, memory_limit, limits.timeout)

    def _capacity(self, node: Mapping[str, float], threads: int, device: Device) -> int:
        """The number of models that a node can measure at a time."""
        fitting = node.get("CPU", 0.0) / threads
        if not device.is_cpu:
            fitting = min(fitting, node.get("GPU", 0.0) / self.gpus)
        return int(fitting + 1e-9)

    def slot(self, plan: Plan, device: Device, limits: Limits) -> RemoteSlot:
        """A slot for one model at a time on the cluster.

        Args:
            plan: from `plan`.
            device: the device to measure on.
            limits: the requested limits; Ray reserves memory only for an explicit memory limit.
        """
        resources: dict[str, Any] = {"num_cpus": plan.threads}
        if not device.is_cpu:
            resources["num_gpus"] = self.gpus
        if limits.memory_limit is not None:
            resources["memory"] = limits.memory_limit
        return RemoteSlot(self, plan, resources)

    def photos(self, paths: Sequence[Path]) -> list[tuple[str, Any]]:
        """The names of photographs with Ray references to their contents; each is put into Ray's store once."""
        for path in paths:
            if path not in self._photos:
                self._photos[path] = self.ray.put(path.read_bytes())
        return [(path.name, self._photos[path]) for path in paths]


class RemoteSlot:
    """A slot for one model at a time on any free node; the counterpart of `onnxgain.fleet.pool.Slot`."""

    def __init__(self, cluster: Cluster, plan: Plan, resources: Mapping[str, Any]) -> None:
        self._cluster, self._ray = cluster, cluster.ray
        self.timeout = plan.timeout
        self._order = {"plan": dataclasses.asdict(plan), "software": software()}
        # max_calls=0: reuse GPU processes, too, because starting a child on a GPU takes seconds.
        self._task = self._ray.remote(max_retries=RETRIES, max_calls=0, **resources)(serve)
        self._closed = False

    def measure(self, path: Path, request: Request) -> Result:
        """Measure a model, see `onnxgain.fleet.pool.Slot.measure`.

        Raises:
            OnnxgainError: a node cannot measure any model, or the slot is closed.
        """
        source = Source(0, path)
        try:
            check_file(path)
            stamp = _stamp(path)
        except ModelError as refused:
            return Result(source, error=type(refused)(refused.what, remedy=refused.remedy))
        except OSError as problem:
            return Result(
                source, error=UnreadableModelError(f"cannot be read: {problem.strerror}", remedy="check the file")
            )
        order = self._order | {
            "path": os.path.abspath(path),  # noqa: PTH100
            "stamp": stamp,
            "request": request.to_json(),
            "photos": self._cluster.photos(request.photos),
        }
        sent: dict[str, Any] = {}
        while True:
            try:
                reply = self._ask(order | {"files": sent})
            except WorkerError as lost:
                return Result(source, error=lost)
            if "wanted" not in reply:
                break
            sent = sent | {name: self._send(path, name) for name in reply["wanted"]}
            if path.name in reply["wanted"]:
                try:
                    beside = read_companions(path)
                except ModelError as problem:
                    return Result(source, error=problem)
                sent |= {name: self._ray.put(json.dumps(content).encode()) for name, content in beside.items()}
        if "unusable" in reply:
            raise error_from_json(reply["unusable"])
        external = reply.get("external")
        if external is not None:
            reply["external"] = [str(path.parent / name) for name in external]
        return result_from_json(reply, source)

    def _ask(self, order: Message) -> Message:
        reference = self._task.remote(order)
        ray = self._ray
        while True:
            if self._closed:
                raise OnnxgainError("interrupted")
            try:
                reply: Message = json.loads(ray.get(reference, timeout=1.0))
                return reply
            except ray.exceptions.GetTimeoutError:
                continue
            except ray.exceptions.RayError as error:
                if type(error).__name__ in _LOST:
                    raise WorkerError(
                        f"the Ray process measuring it was lost {RETRIES + 1} times ({first_line(error)})",
                        remedy="see the logs of Ray; if a node's memory ran out, set --memory-limit",
                    ) from error
                raise OnnxgainError(
                    f"a node cannot measure anything: {_essence(error)}", where="--ray", remedy=_SAME
                ) from error

    def _send(self, model: Path, name: str) -> Any:
        """Put a file into Ray's store; None if it does not exist or if the model must not refer to it."""
        try:
            file = inside(name, model) if name != model.name else model
            check_file(file) if file == model else None
            return self._ray.put(file.read_bytes()) if file.is_file() else None
        except (OSError, OnnxgainError):
            return None

    def __enter__(self) -> RemoteSlot:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        """Stop waiting for the current task; Ray cancels it at disconnection."""
        self._closed = True


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise OnnxgainError("Ray is not installed", where="--ray", remedy="pip install ray") from error
    module: ModuleType = ray
    return module


def _check_address(address: str) -> None:
    """Raise OnnxgainError at once if the address is invalid or does not answer: Ray would retry for a minute."""
    if address == "auto":
        return
    match = re.fullmatch(r"([\w.-]+|\[[\w:.]+\]):(\d{1,5})", address)
    if match is None:
        raise OnnxgainError(
            "not the address of a Ray cluster", where=f"--ray {address}", remedy="write --ray=auto or --ray=HOST:PORT"
        )
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise OnnxgainError(
            f"does not answer: {first_line(error)}", where=f"--ray {address}", remedy=_start_remedy(address)
        ) from error


def _start_remedy(address: str) -> str:
    if address == "auto":
        return "start a cluster here (ray start --head), join one (ray start --address=HOST:PORT), or set RAY_ADDRESS"
    return "check that the cluster runs (`ray status --address=...`), and that this machine belongs to it"


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Restore our SIGTERM handler after the block: Ray installs one that exits the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _essence(error: BaseException) -> str:
    """The last line of a remote traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:300]


# -- on a node ---------------------------------------------------------------------------------------------------------


def serve(order: Message) -> str:
    """Measure a model on this node. Runs as a Ray task.

    Args:
        order: path, stamp, request, photos, files (references to the contents of sent files, by name), plan, software.

    Returns:
        JSON: the values of `onnxgain.fleet.result.result_to_json`, with external files relative to the model's folder;
        or {"wanted": names of files to send}; or {"unusable": an error that every model would get on this node}.
    """
    try:
        _check_software(order["software"])
        return json.dumps(_serve(order))
    except OnnxgainError as error:
        located = OnnxgainError(error.what, where=f"--ray: node {socket.gethostname()}", remedy=error.remedy)
        return json.dumps({"unusable": error_to_json(located)})


def _check_software(wanted: Mapping[str, str]) -> None:
    """Raise OnnxgainError if this node has other software than the command, whose versions are in the cache's keys."""
    here = software()
    differing = [name for name in sorted({*wanted, *here}) if wanted.get(name) != here.get(name)]
    if differing:
        listed = ", ".join(f"{name} {here.get(name, 'none')[:12]}" for name in differing)
        there = ", ".join(f"{name} {wanted.get(name, 'none')[:12]}" for name in differing)
        raise OnnxgainError(f"has {listed} where the command has {there}", remedy=_SAME)


def _serve(order: Message) -> Message:
    path = Path(order["path"])
    request = Request.from_json(order["request"] | {"photos": _unpacked_photos(order["photos"])})
    slot = _slot(Plan(**order["plan"]))
    if not order["files"] and _is_same(path, order["stamp"]):
        return _measured(slot, path, request)
    if path.name not in order["files"]:
        return {"wanted": [path.name]}
    with tempfile.TemporaryDirectory(prefix="onnxgain-") as folder:
        copy = Path(folder, path.name)
        for name, reference in order["files"].items():
            if reference is not None:
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_import_ray().get(reference))
        reply = _measured(slot, copy, request)
        missing = [n for n in reply.get("external") or () if n not in order["files"] and not Path(folder, n).exists()]
        return {"wanted": missing} if missing else reply


def _is_same(path: Path, stamp: Sequence[int]) -> bool:
    try:
        return _stamp(path) == list(stamp)
    except OSError:
        return False


def _stamp(path: Path) -> list[int]:
    """Size and modification time, which identify a file on machines that share it."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _measured(slot: Slot, path: Path, request: Request) -> Message:
    result = slot.measure(path, request)
    names = None
    if result.external is not None:
        names = tuple(os.path.relpath(file, path.parent) for file in result.external)
    return result_to_json(dataclasses.replace(result, external=names))


_slots: dict[str, Slot] = {}
"""The slot of this process, by its plan. It keeps its child for the next task with the same plan."""


def _slot(plan: Plan) -> Slot:
    key = json.dumps([dataclasses.asdict(plan), os.environ.get("CUDA_VISIBLE_DEVICES")])
    if key not in _slots:
        for slot in _slots.values():
            slot.__exit__()
        _slots.clear()
        _slots[key] = Slot(plan)
    return _slots[key]


_unpacked: dict[Any, Path] = {}
_folders: list[tempfile.TemporaryDirectory[str]] = []


def _unpacked_photos(photos: Sequence[tuple[str, Any]]) -> list[str]:
    """The paths of local copies of the photographs, with their original names."""
    for name, reference in photos:
        if reference not in _unpacked:
            folder = tempfile.TemporaryDirectory(prefix="onnxgain-")
            _folders.append(folder)
            _unpacked[reference] = Path(folder.name, name)
            _unpacked[reference].write_bytes(_import_ray().get(reference))
    return [str(_unpacked[reference]) for _, reference in photos]
