"""Models measured as Ray tasks give the same records as locally, even if files must be sent or workers die."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxgain.engine.device import CPU, Device
from onnxgain.errors import OnnxgainError, WorkerError
from onnxgain.fleet import cluster as cluster_module
from onnxgain.fleet.batch import Limits, score_batch
from onnxgain.fleet.cache import Cache
from onnxgain.fleet.cluster import Cluster
from onnxgain.fleet.result import Result, result_from_json, result_to_json
from onnxgain.fleet.sources import Source, collect_models
from onnxgain.measure.record import to_json
from onnxgain.measure.request import Request
from tests.support import fleet, models

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


def timeless(text: str) -> str:
    return re.sub(r'"time": \{[^}]*\}', '"time": {}', text)


# -------------------------------------------------------------------------------------------- without a cluster
def test_errors_round_trip() -> None:
    source = Source(0, Path("m.onnx"))
    died = Result(source, error=WorkerError("it died", remedy="try again"), external=("weights.bin",))
    for result in (died, Result(source, error=OnnxgainError("no"), external=None)):
        again = result_from_json(result_to_json(result), source)
        assert again.error is not None and result.error is not None
        assert (type(again.error), str(again.error)) == (type(result.error), str(result.error))
        assert again.external == result.external


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(run: Run, tmp_path: Path) -> None:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    for command in ("compare", "track"):
        code, out, err = run(command, tmp_path, "--ray", "--no-cache")
        assert (code, out, err) == (2, "", "error: --ray: Ray is not installed; pip install ray\n")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--gpus", "0.5"), "--gpus: only has an effect on a cluster; add --ray"),
        (("--ray=auto", "--device", "auto"), "--device auto: cannot be decided for other machines; write cpu or cuda"),
    ],
)
def test_incompatible_options_are_refused(options: tuple[str, ...], says: str, run: Run, tmp_path: Path) -> None:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    assert run("compare", tmp_path, *options) == (2, "", f"error: {says}\n")


def test_following_does_not_use_the_cluster(run: Run, tmp_path: Path) -> None:
    assert run("track", tmp_path, "--follow", "--ray") == (
        2, "", "error: --ray: snapshots are followed on this machine; leave out --follow\n",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- with a cluster
def answers(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


nodes: list[int] = []
"""The session of the node's processes."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node with two CPUs; its sockets need a short path."""
    pytest.importorskip("ray")
    import tempfile

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--head", f"--port={port}", "--num-cpus=2",
            "--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--temp-dir={folder}",
            "--object-store-memory=100000000", "--disable-usage-stats", "--block",
        ]  # fmt: skip
        with (Path(folder) / "log").open("wb") as log:
            head = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        nodes.append(head.pid)
        try:
            end = time.monotonic() + 120
            while not answers(port):
                assert time.monotonic() < end and head.poll() is None, (Path(folder) / "log").read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            with contextlib.suppress(OSError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()


@pytest.fixture
def here(address: str) -> Iterator[Cluster]:
    with Cluster(address) as joined:
        yield joined


def measured(sources: list[Path], request: Request | None = None, **options: Any) -> list[str]:
    """The records without times, or the error, of each source in order, measured without a cache in one thread each."""
    limits = Limits(
        threads=1, **{name: options.pop(name) for name in ("jobs", "timeout", "memory_limit") if name in options}
    )
    found = score_batch(collect_models(list(map(str, sources))), request or Request(), limits, **options)
    results = sorted(found, key=lambda result: result.source.index)
    return [str(result.error) if result.error is not None else timeless(to_json(result.records)) for result in results]


def test_cluster_gives_the_same_records(here: Cluster, tmp_path: Path) -> None:
    """A hanging model and one that exhausts memory are errors of their own; other errors are the same as locally."""
    files = fleet.write_fleet(tmp_path, 4)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    files += [tmp_path / "broken.onnx", models.save(fleet.huge(), tmp_path / "huge.onnx"), tmp_path / "none.onnx"]
    limits = {"timeout": 60.0, "memory_limit": 1_000_000_000}
    found = measured(files, cluster=here, **limits)
    assert found == measured(files, jobs=1, **limits)
    assert [text.startswith("{") for text in found] == [True] * 4 + [False] * 3
    assert "measuring it needs more memory than the limit of 1000 MB" in found[5]
    endless = models.save(fleet.endless(), tmp_path / "endless.onnx")
    hung, next_one = measured([endless, files[0]], cluster=here, timeout=3.0, jobs=1)
    assert "not measured within 3 s" in hung and next_one == found[0]


def test_files_missing_on_a_node_are_sent(here: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """External data and photographs are sent, but nothing outside the model's folder, whatever the model names."""
    plain = models.save(models.conv_net(), tmp_path / "plain.onnx")
    external = tmp_path / "external.onnx"
    (tmp_path / "sub").mkdir()
    onnx.save(models.conv_net(margin=1.0), external, save_as_external_data=True, location="sub/w.bin", size_threshold=0)
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(external.read_bytes().replace(b"sub/w.bin", b"../../w.b"))
    missing = tmp_path / "missing.onnx"
    missing.write_bytes(external.read_bytes().replace(b"sub/w.bin", b"sub/v.bin"))
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(tmp_path / "photo.png")
    request = Request(photos=(tmp_path / "photo.png",), stimuli=("impulse",))
    files = [plain, external, outside, missing]
    local = measured(files, request, jobs=1)
    sent: list[str] = []
    send = cluster_module.RemoteSlot._send
    monkeypatch.setattr(cluster_module, "_stamp", lambda path: [0, 0])
    monkeypatch.setattr(
        cluster_module.RemoteSlot, "_send", lambda *a: (sent.append(a[2]), send(*a))[1]  # type: ignore[func-returns-value]
    )  # fmt: skip
    cache = Cache(tmp_path / "cache")
    assert measured(files, request, cluster=here, cache=cache) == local
    assert sorted(sent) == sorted(["../../w.b", *[f.name for f in files], "sub/v.bin", "sub/w.bin"])
    assert [text.startswith("{") for text in local] == [True, True, False, False]
    assert "lies outside the model's folder" in local[2] and "is missing" in local[3]
    results = score_batch(collect_models([str(external)]), request, Limits(1, 1), cache=cache)
    assert [result.origin for result in results] == ["cache"]


def test_killed_process_loses_no_result(here: Cluster, tmp_path: Path) -> None:
    files = fleet.write_fleet(tmp_path, 12)
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and len(killed) < 2:
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
                    if session == nodes[0] and (process / "cmdline").read_bytes().startswith(b"ray::serve"):
                        os.kill(int(process.name), signal.SIGKILL)
                        killed.append(int(process.name))
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = measured(files, cluster=here)
    finally:
        over.set()
        killer.join()
    assert killed
    assert found == measured(files, jobs=1)


def test_different_software_on_a_node_is_refused(
    here: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    monkeypatch.setattr(cluster_module, "software", lambda: {"onnxgain": "9", "onnx": onnx.__version__})
    with pytest.raises(OnnxgainError, match=r"--ray: node .*: has .*onnxgain 0.* where the command has .*onnxgain 9"):
        measured([tmp_path / "m.onnx"], cluster=here)


def test_how_a_cluster_is_shared(here: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = here.plan(Limits(), CPU)
    assert (plan.jobs, plan.threads) == (4, 1) and plan.memory_limit is not None
    gpu = Device(("CUDAExecutionProvider",))
    nodes = [
        {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0, "memory": 64e9}},
        {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0, "memory": 8e9}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    monkeypatch.setattr(here.ray, "nodes", lambda: nodes)
    assert here.plan(Limits(), CPU).memory_limit == 4_000_000_000
    assert here.plan(Limits(threads=4), CPU).jobs == 8
    assert (here.plan(Limits(), gpu).jobs, here.plan(Limits(), gpu).memory_limit) == (6, None)
    monkeypatch.setattr(here, "gpus", 0.25)
    assert here.plan(Limits(), gpu).jobs == 2 * (8 + 1)
    said: list[str] = []
    monkeypatch.setattr(here, "_notice", said.append)
    assert here.plan(Limits(threads=20), gpu).jobs == 1
    assert said == ["no node of the cluster has 20 CPUs, 0.25 GPU: waiting for one"]
    with pytest.raises(OnnxgainError, match="Ray chooses the GPU"):
        here.plan(Limits(), Device(("CUDAExecutionProvider",), 1))
    with pytest.raises(OnnxgainError, match="--memory-limit: cannot be enforced with device cuda:0"):
        here.plan(Limits(memory_limit=10**9), gpu)


def test_compare_and_track_print_the_same_as_locally(address: str, run: Run, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 5)
    for command in ("compare", "track"):
        common = (command, tmp_path, "--no-cache", "--threads", "1", "--format", "json")
        code, out, err = run(*common, "--ray", address)
        assert (code, out, err) == run(*common, "--jobs", "1")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("127.0.0.1:1", "--ray 127.0.0.1:1: does not answer: "),
        ("exports/", "--ray exports/: not the address of a Ray cluster; write --ray=auto or --ray=HOST:PORT"),
    ],
)
def test_invalid_addresses(given: str, says: str, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    models.save(models.conv_net(), tmp_path / "m.onnx")
    code, out, err = run("compare", tmp_path, f"--ray={given}", "--no-cache")
    assert (code, out) == (2, "") and err.startswith(f"error: {says}") and err.count("\n") == 1
