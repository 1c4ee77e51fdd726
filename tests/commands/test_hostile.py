"""Malicious models give one clear message and exit code 2, in little time and memory.

The models are in `hostile_cases.py`. Most are tried in this process, those that end a process in others.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxgain.commands.cli import main
from onnxgain.gradient import op
from onnxgain.measure.request import Request
from tests.commands.hostile_cases import CASES
from tests.support import fleet, hostile, hostile_data, hostile_graphs, hostile_parts, models
from tests.support.hostile_data import external
from tests.support.hostile_parts import changed, through

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and limits of POSIX")
ROOT = Path(__file__).parents[2]


def make(name: str, folder: Path) -> Path:
    """The file of a case."""
    made = CASES[name][0](folder)
    if isinstance(made, Path):
        return made
    path = folder / "net.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


@pytest.fixture
def short_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit on nodes, which would take seconds to reach."""
    monkeypatch.setattr(op, "_NODE_LIMIT", 1 << 12)


@pytest.mark.usefixtures("short_of_nodes")
@pytest.mark.parametrize("name", CASES)
def test_hostile_model_gives_one_message(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = make(name, tmp_path)
    before = peak_memory()
    with pytest.raises(SystemExit) as raised:
        main(["score", str(path)])
    out, err = capfd.readouterr()
    assert (raised.value.code, out) == (2, "")
    assert err.startswith(f"error: {path}: "), err
    assert err.count("\n") == 1 and err[:-1].isprintable(), err
    assert "; " in err, f"no remedy: {err}"
    assert "bug" not in err
    assert len(err) < 10_000
    for part in CASES[name][1]:
        assert part in err
    assert peak_memory() - before < 1 << 29, "it was allocated all the same"


def peak_memory() -> int:
    """The peak memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_size_of_minus_one_is_unknown(tmp_path: Path) -> None:
    """Some exporters write it so."""
    from onnxgain.model.classifier import load_classifier

    model = changed(hostile.image_of(-1, 3, 8, 8))
    assert load_classifier(models.save(model, tmp_path / "net.onnx")).image.fixed_batch is None


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


def test_node_limit_is_reached_in_seconds() -> None:
    """With the real limit."""
    from onnxgain.errors import ModelError
    from onnxgain.model.classifier import describe

    start = time.process_time()
    with pytest.raises(ModelError, match="131072 nodes"):
        describe(onnx_ir(hostile_graphs.laughs(40)))
    assert time.process_time() - start < 60


def onnx_ir(model: onnx.ModelProto) -> Any:
    import onnx_ir as ir

    return ir.from_proto(model)


@pytest.mark.parametrize("build", [hostile_graphs.chain, hostile_graphs.scattered])
def test_long_models_are_accepted(build: Callable[[int], onnx.ModelProto], tmp_path: Path) -> None:
    """Deeper than Python's recursion limit."""
    from onnxgain.measure.measure import score

    assert score(models.save(build(sys.getrecursionlimit() + 200), tmp_path / "net.onnx"))


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    from onnxgain.measure.measure import score

    path = external(tmp_path, location="link.data")
    (tmp_path / "link.data").symlink_to("net.data")
    assert score(path)


def test_an_external_tensor_in_a_function_lies_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not read from the current folder, where onnx_ir would look."""
    from onnx import helper

    from onnxgain.model.model_file import CONTENT, read_model

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "net.data").write_bytes(np.float32(2).tobytes())
    value = hostile_parts.raw("c", [1], b"")
    hostile_data.place(value, location="net.data")
    nodes = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Mul", ["x", "c"], ["y"])]
    path = hostile_parts.written(tmp_path / "model", hostile_parts.with_functions(hostile_parts.function("f", nodes)))
    monkeypatch.chdir(tmp_path)
    model = read_model(path)
    assert model.meta[CONTENT].external == (tmp_path / "model" / "net.data",)
    (function,) = model.functions.values()
    assert function[0].attributes["value"].as_tensor().numpy() == 2


def test_weights_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxgain.errors import ModelError
    from onnxgain.model import screening
    from onnxgain.model.classifier import load_classifier

    monkeypatch.setattr(screening, "usable_memory", lambda: 1000)
    with pytest.raises(ModelError, match=r"its weights take 0\.0 GB"):
        load_classifier(models.save(models.conv_net(), tmp_path / "net.onnx"))


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse file"])
def test_endless_model_files(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    with pytest.raises(SystemExit) as raised:
        main(["score", str(path)])
    assert raised.value.code == 2
    expected = "the file has 1099511627776 bytes" if kind == "sparse file" else "is not a regular file"
    assert f"error: {path}: {expected}" in capfd.readouterr().err


# --------------------------------------------------------------------------------------------- in processes
def onnxgain(*arguments: Any, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxgain", *map(str, arguments)], env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["absolute", "2^60 elements", "ConstantOfShape", "dangerous names"])
def test_the_program(name: str, tmp_path: Path) -> None:
    result = onnxgain("score", make(name, tmp_path))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert all(part in result.stderr for part in CASES[name][1])


@pytest.mark.parametrize("command", ["inspect", "score"])
def test_endless_loop_is_refused(command: str, tmp_path: Path) -> None:
    path = models.save(hostile_graphs.endless(condition=True), tmp_path / "net.onnx")
    result = onnxgain(command, path)
    assert result.returncode == 2
    assert "its body runs more than 100000 times for every image" in result.stderr


def test_data_dependent_long_loop_is_ended(tmp_path: Path) -> None:
    path = models.save(fleet.endless(), tmp_path / "net.onnx")
    result = onnxgain("score", path, "--timeout", "4")
    assert result.returncode == 2
    assert "not measured within 4 s" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_memory_bomb_hits_the_limit(tmp_path: Path) -> None:
    path = models.save(hostile.memory_bomb(), tmp_path / "net.onnx")
    result = onnxgain("score", path, "--memory-limit", "800M")
    assert result.returncode == 2
    what = f"{path}: measuring it needs more memory than the limit of 800 MB"
    assert result.stderr == f"error: {what}; raise --memory-limit, or lower --jobs\n"


def test_limits_do_not_change_results(tmp_path: Path) -> None:
    """Records, derivatives and spectra equal those of this process."""
    path = ROOT / "models" / "lenet_mnist_torch.onnx"
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for file, more in zip(files, ([], ["--timeout", "100", "--memory-limit", "4G"]), strict=True):
        with pytest.raises(SystemExit) as raised:
            main(["score", str(path), "--threads", "1", "--save-spectrum", str(file), "-o", f"{file}.txt", *more])
        assert raised.value.code == 0
    with np.load(files[0]) as here, np.load(files[1]) as there:
        for name in ("derivative_0", "spectrum_db_0"):
            np.testing.assert_array_equal(here[name], there[name])
    assert Path(f"{files[0]}.txt").read_text() == Path(f"{files[1]}.txt").read_text()


def test_one_child_measures_all_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxgain.fleet.child import Child

    started = []
    real = Child.__init__

    def start(self: Child, *arguments: Any, **options: Any) -> None:
        started.append(self)
        real(self, *arguments, **options)

    monkeypatch.setattr(Child, "__init__", start)
    files = [str(path) for path in fleet.write_fleet(tmp_path, 3)]
    with pytest.raises(SystemExit) as raised:
        main(["score", *files, "--timeout", "100", "-o", str(tmp_path / "out.txt")])
    assert raised.value.code == 0
    assert len(started) == 1


def test_killed_child_is_an_error_of_its_model(tmp_path: Path) -> None:
    """A child that dies in native code, between two that are measured."""
    with pool_of(tmp_path) as slot:
        for name, dies in (("a", False), ("segfault", True), ("b", False)):
            path = models.save(models.conv_net(), tmp_path / f"{name}.onnx")
            answer = slot.measure(path, Request(arrays=True))
            assert (answer.error is not None) == dies
            assert [m.derivative.shape for m in answer.measurements] == ([] if dies else [(3, 12, 10)])


def pool_of(folder: Path) -> Any:
    return fleet.slot(command=fleet.faulty_command(folder))


OBJECT = {"dtype": "|O", "shape": [1], "data": "AAAAAAAAAAA="}


@pytest.mark.parametrize(
    "arrays",
    [
        3, [3], [{}], [{"logits": 1, "derivative": 2, "magnitude": 3, "offset_db": 4}],
        [{"logits": OBJECT, "derivative": OBJECT, "magnitude": OBJECT, "offset_db": 4}],
    ],
)  # fmt: skip
def test_invalid_arrays_are_refused(arrays: Any, tmp_path: Path) -> None:
    """A child may be under the control of the model that it measures."""
    from onnxgain.fleet.result import result_from_json
    from onnxgain.fleet.sources import Source
    from onnxgain.measure.measure import score
    from onnxgain.measure.record import to_json

    path = models.save(models.conv_net(), tmp_path / "net.onnx")
    records = to_json([measurement.record for measurement in score(path)])
    values = {"records": records, "previews": [], "arrays": arrays, "external": []}
    with pytest.raises(ValueError, match="not a result"):
        result_from_json(values, Source(0, path))


def test_types_of_all_kinds_are_measured_by_what_the_file_holds(tmp_path: Path) -> None:
    """Valid tensors in every encoding are accepted."""
    from onnxgain.model.screening import screen

    values = {TensorProto.COMPLEX64: [1 + 2j] * 3, TensorProto.STRING: [b"a", b"b", b"c"], TensorProto.INT4: [1, 2, 3]}
    for kind in TensorProto.DataType.values():
        if kind in (TensorProto.UNDEFINED,):
            continue
        tensor = onnx.helper.make_tensor("t", kind, [3], values.get(kind, [1, 0, 1]))
        screen(through(lambda net, x, tensor=tensor: hostile_parts.used(net, x, tensor)), tmp_path / "net.onnx")
