"""The command line: its tables, help and examples, what it prints and writes, and that its output is reproducible."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest

import onnxgain
from onnxgain.commands import options
from onnxgain.commands.cli import cli, main
from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.reverse import seed
from onnxgain.measure.record import from_json
from onnxgain.model import head, stimulus
from tests.support import models

ROOT = Path(__file__).parents[2]
LENET = str(ROOT / "models" / "lenet_small_mnist_torch.onnx")
KERAS = str(ROOT / "models" / "lenet_mnist_keras.onnx")
COMMANDS = sorted(cli.commands)


# ------------------------------------------------------------------------------------------- tables and help
def test_lists_in_help_match_the_code() -> None:
    """options.py repeats them so that --help imports neither numpy nor onnx."""
    assert tuple(stimulus.PRESETS) == options.PRESET_NAMES
    assert head.HEAD_KINDS == options.HEAD_KINDS
    assert seed.PROJECTIONS == options.PROJECTIONS


@pytest.mark.parametrize("name", COMMANDS)
def test_all_commands_and_options_have_help(name: str, run: Any) -> None:
    command = cli.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or isinstance(parameter.type, click.Choice), f"{name} {parameter.opts}"
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert "Examples:" in out


def examples(name: str) -> Iterator[str]:
    epilog = cli.commands[name].epilog or ""
    for line in epilog.partition("Examples:")[2].splitlines():
        if line.strip().startswith("onnxgain"):
            yield line.strip()


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in COMMANDS for line in examples(name)])
def test_the_examples_of_the_help_are_valid(name: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    assert words[:2] == ["onnxgain", name]
    command = cli.commands[name]
    with command.make_context(name, words[2:]) as context:
        assert context.params


def test_version(run: Any) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert onnxgain.__version__ in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    if shell == "bash" and subprocess.run(["bash", "-c", "((BASH_VERSINFO[0] >= 5))"], check=False).returncode:
        pytest.skip("this bash is too old for completion")
    environment = {**os.environ, "_ONNXGAIN_COMPLETE": f"{shell}_source"}
    result = subprocess.run(
        [sys.executable, "-c", "from onnxgain.commands.cli import main; main()"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "onnxgain" in result.stdout
    assert "complete" in result.stdout


# --------------------------------------------------------------------------------------------------- score
def test_score_prints_only_a_card(run: Any) -> None:
    code, out, err = run("score", LENET)
    assert (code, err) == (0, "")
    assert out.startswith("lenet_small_mnist_torch.onnx  impulse image 1x28x28, scale unit (read from the model's meta")
    assert "\x1b" not in out


def test_the_formats_agree(run: Any, tmp_path: Path) -> None:
    written = tmp_path / "gains.json"
    assert run("score", LENET, "--format", "json", "-o", written) == (0, "", f"wrote {written}\n")
    (record,) = from_json(written.read_text())
    (printed,) = from_json(run("score", LENET, "--format", "json")[1])
    assert printed.gain == record.gain
    assert repr(record.gain.mean) in run("score", LENET, "--format", "csv")[1]
    assert f"{record.gain.mean:.2f}" in run("score", LENET)[1]


def test_several_models_and_stimuli(run: Any) -> None:
    code, out, _ = run(
        "score", LENET, KERAS, "--stimulus", "impulse", "--stimulus", "noise:seed=3",
        "--stimulus", "grating:frequency=0.1,angle=30", "--format", "json", "--class", "4", "--projection", "logit",
    )  # fmt: skip
    records = from_json(out)
    assert code == 0
    assert [(r.model.name, r.stimulus.name) for r in records] == [
        (name, kind)
        for name in ("lenet_small_mnist_torch.onnx", "lenet_mnist_keras.onnx")
        for kind in ("impulse", "noise", "grating")
    ]
    assert {(r.class_index, r.class_given, r.projection) for r in records} == {(4, True, "logit")}


def test_photographs(run: Any, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("b.png", "a.jpg", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / name)
    code, out, err = run("score", LENET, "--image", tmp_path, "--format", "json")
    assert (code, err) == (0, "")
    assert [record.stimulus.parameters["file"] for record in from_json(out)] == ["a.jpg", "b.png"]


def test_options_for_reading_reach_the_record(run: Any, tmp_path: Path) -> None:
    model = models.with_inputs(factor=([2], np.float32), flag=([], np.bool_))
    path = models.save(model, tmp_path / "net.onnx")
    np.save(tmp_path / "factor.npy", np.array([1, 2], np.float32))
    code, out, _ = run(
        "score", path, "--input", f"factor={tmp_path / 'factor.npy'}", "--input", "flag=true",
        "--image-shape", "3x8x8", "--mean", "0.1,0.2,0.3", "--std", "2", "--scale", "0.5", "--format", "json",
    )  # fmt: skip
    (record,) = from_json(out)
    assert code == 0
    assert (record.scale.mean, record.scale.step, record.scale.source) == ((0.1, 0.2, 0.3), (0.25,) * 3, "option")


def test_failing_model_does_not_stop_the_others(run: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_text("no model")
    code, out, err = run("score", LENET, bad, LENET)
    assert code == 2
    assert out.count("lenet_small_mnist_torch.onnx") == 2
    assert err.count("error: ") == 1
    assert str(bad) in err


def test_plot_and_spectrum_are_written(run: Any, tmp_path: Path) -> None:
    plot, arrays = tmp_path / "plot.png", tmp_path / "spectrum.npz"
    code, out, err = run("score", LENET, "--plot", plot, "--save-spectrum", arrays)
    assert code == 0
    assert "max gain" in out
    assert err == f"wrote {plot}\nwrote {arrays}\n"
    assert plot.read_bytes().startswith(b"\x89PNG")
    with np.load(arrays) as saved:
        (record,) = from_json(str(saved["records"]))
        assert saved["derivative_0"].shape == (1, 28, 28)
        assert saved["spectrum_db_0"].max() == pytest.approx(record.gain.mean, abs=1e-9)


def test_output_is_reproducible_except_for_times(tmp_path: Path) -> None:
    """Two processes, so that a dependence on set order or addresses would show."""
    documents = []
    for name in ("one", "two"):
        file = tmp_path / f"{name}.json"
        arguments = [
            "score",
            LENET,
            KERAS,
            "--format",
            "json",
            "-o",
            str(file),
        ]
        arguments += ["--stimulus", "impulse", "--stimulus", "noise", "--threads", "1"]
        code = f"from onnxgain.commands.cli import main; main({arguments!r})"
        environment = {**os.environ, "PYTHONHASHSEED": "1" if name == "one" else "2"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        documents.append(json.loads(file.read_text()))
    times = [record.pop("time") for document in documents for record in document["records"]]
    assert all(set(time) == {"read", "differentiate", "load", "run"} for time in times)
    assert all(seconds >= 0 for time in times for seconds in time.values())
    assert json.dumps(documents[0]) == json.dumps(documents[1])


# ----------------------------------------------------------------------------------- inspect, gradient, doctor
def test_inspect_does_not_run_the_model(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxgain.engine.session.Session.__init__", None)
    code, out, err = run("inspect", LENET)
    assert (code, err) == (0, "")
    assert "every operator between image and logits has a gradient" in out
    document = json.loads(run("inspect", LENET, "--format", "json")[1])
    assert document["schema"] == "onnxgain.inspect/1"
    assert document["image"] == {"input": "image", "layout": "NCHW", "shape": [1, 28, 28], "dtype": "float"}
    assert document["operators"]["Conv"] >= 2
    assert document["without_gradient"] == []


def test_inspect_lists_operators_without_gradient_and_fails(run: Any, tmp_path: Path) -> None:
    path = models.save(models.with_node("Shift", domain="acme"), tmp_path / "net.onnx")
    code, out, _ = run("inspect", path)
    assert code == 2
    assert "acme.Shift" in out
    code, out, _ = run("inspect", path, "--format", "json")
    assert code == 2
    (gap,) = json.loads(out)["without_gradient"]
    assert (gap["operator"], gap["domain"], gap["node"]) == ("Shift", "acme", "/shift_0")


def test_inspect_finds_errors_that_appear_only_when_differentiating(run: Any, tmp_path: Path) -> None:
    """Resize has a gradient rule, but not for a size that depends on the image; `score` fails in the same way."""
    net = models.Net(opset=13)
    image = net.input("image", [1, 3, 8, 8])
    side = net("Cast", net("ReduceSum", image, keepdims=0), to=onnx.TensorProto.INT64)
    sizes = net("Concat", net.constant([1, 3]), *[net("Reshape", side, net.constant([1]))] * 2, axis=0)
    pooled = net("GlobalAveragePool", net("Resize", image, "", "", sizes))
    net("Gemm", net("Reshape", pooled, net.constant([1, 3])), net.weights(3, 4), out="logits")
    net.output("logits", [1, 4])
    path = models.save(net.model(), tmp_path / "net.onnx")
    code, out, err = run("inspect", path, "--format", "json")
    assert (code, err) == (2, "")
    (gap,) = json.loads(out)["without_gradient"]
    assert (gap["operator"], gap["input"]) == ("Resize", "X")
    assert "--image-shape" in gap["reason"]
    code, out, err = run("score", path)
    assert code == 2
    assert gap["reason"] in err


@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_gradient_file_runs_without_onnxgain(run: Any, tmp_path: Path, target: str) -> None:
    """Run with plain onnxruntime, it gives the result of `score`."""
    import onnxruntime

    path = tmp_path / "lenet.grad.onnx"
    code, out, err = run("gradient", LENET, "-o", path, "--target", target, "--batch", "2")
    assert (code, out) == (0, "")
    assert str(path) in err
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits", "class", "score", "derivative"]
    x = np.zeros((2, 1, 28, 28), np.float32)
    x[:, 0, 14, 14] = 1
    logits, classes, scores, derivative = session.run(None, {"image": x})

    (measured,) = onnxgain.score(LENET)
    assert classes.tolist() == [measured.record.class_index] * 2
    assert scores[0] == pytest.approx(measured.record.score, rel=1e-5)
    np.testing.assert_allclose(logits[0], measured.logits, rtol=1e-4, atol=1e-4)
    error = np.linalg.norm(derivative[1] / 255 - measured.derivative)
    assert error < 1e-5 * np.linalg.norm(measured.derivative)
    wide = Float64Evaluator(onnx_model(path)).run({"image": x.astype(np.float64)})["derivative"]
    assert np.linalg.norm(wide - derivative) < 1e-5 * np.linalg.norm(wide)


def onnx_model(path: Path) -> Any:
    import onnx_ir

    return onnx_ir.load(path)


def test_doctor(run: Any) -> None:
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert "CPUExecutionProvider" in out
    document = json.loads(run("doctor", "--format", "json")[1])
    assert document["onnxgain"] == onnxgain.__version__
    assert document["problems"] == []
    assert set(document["packages"]) >= {"onnx", "onnx-ir", "numpy"}


def test_doctor_reports_problems(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxgain.errors import RuntimeUnavailableError

    def broken() -> None:
        raise RuntimeUnavailableError("onnxruntime is not installed", remedy="pip install onnxruntime")

    monkeypatch.setattr("onnxgain.engine.runtime.load", broken)
    code, out, err = run("doctor")
    assert code == 2
    assert "providers    none" in out
    assert err == "problem: onnxruntime is not installed; pip install onnxruntime\n"


# ------------------------------------------------------------------------------------------------ leaving
def test_internal_error_is_one_line_and_exit_code_2(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxgain.measure.measure.load_classifier", lambda *_: 1 / 0)
    monkeypatch.delenv("ONNXGAIN_DEBUG", raising=False)
    code, out, err = run("score", LENET)
    assert (code, out) == (2, "")
    assert err.startswith("error: a bug in onnxgain: ZeroDivisionError division by zero; please report it")
    assert err.count("\n") == 1
    monkeypatch.setenv("ONNXGAIN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["score", LENET])


def test_memory_and_interruption(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: BaseException) -> Any:
        def load(*_: object) -> None:
            raise error

        return load

    monkeypatch.setattr("onnxgain.measure.measure.load_classifier", fail(MemoryError()))
    assert run("score", LENET)[::2] == (
        2,
        "error: out of memory; measure one model at a time, or fewer images at once\n",
    )
    monkeypatch.setattr("onnxgain.measure.measure.load_classifier", fail(KeyboardInterrupt()))
    code, _, err = run("score", LENET)
    assert (code, err.strip()) == (2, "interrupted")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
@pytest.mark.parametrize(("command", "expected"), [("score", 0), ("verify", 2)])
def test_closed_pipe_is_no_error(command: str, expected: int) -> None:
    """As in `onnxgain score ... | head -1`. A command that judges does not pass what nobody read."""
    code = f"from onnxgain.commands.cli import main; main([{command!r}, {LENET!r}, '--format', 'json'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert err == b""
    assert process.returncode == expected


def test_running_as_a_module() -> None:
    result = subprocess.run([sys.executable, "-m", "onnxgain", "--version"], check=True, capture_output=True, text=True)
    assert result.stdout.startswith("onnxgain")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["score", "m.onnx", "--baseline", "b.json"], "it is an option of `onnxgain gate`"),
        (
            ["saliency", "m.onnx", "--image", "a.png"],
            "name the images behind the model: `onnxgain saliency MODEL IMAGE`",
        ),
        (["score", "m.onnx", "--no-such-option"], "see `onnxgain score --help`"),
    ],
)
def test_an_option_of_another_command(arguments: list[str], hint: str, run: Any) -> None:
    code, out, error = run(*arguments)
    assert (code, out) == (2, "")
    assert hint in error and error.count("\n") == 1


def test_errors_go_to_standard_error(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("score", "compare", "track", "inspect", "verify", "diff", "saliency"):
        more = [] if name not in ("diff", "saliency") else ["zzz*"]
        code, out, error = run(name, "zzz*", *more)
        assert (code, out) == (2, ""), name
        assert "zzz*" in error, name
