"""The Python functions give the same results as the command line."""

from __future__ import annotations

import html
import inspect
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import PIL.Image
import pytest

import onnxgain
from onnxgain import OnnxgainError
from onnxgain.commands import python_api
from onnxgain.commands.cli import cli
from tests.support import models

ROOT = Path(__file__).parents[2]
LENET = ROOT / "models" / "lenet_mnist_torch.onnx"
SMALL = ROOT / "models" / "lenet_small_mnist_torch.onnx"
SMALL = ROOT / "models" / "lenet_small_mnist_torch.onnx"
MLP = ROOT / "models" / "mlp_mnist_sklearn.onnx"

pytestmark = pytest.mark.usefixtures("own_cache")


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    for record in document["records"]:
        del record["time"]
        record["model"]["path"] = record["model"]["name"] = ""
    return document


@pytest.mark.parametrize("name", python_api.FUNCTIONS)
def test_every_option_is_an_argument(name: str) -> None:
    options = {
        option.lstrip("-").replace("-", "_")
        for parameter in cli.commands[name].params
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False)
        for option in [max(parameter.opts, key=len)]
    }
    found = set(inspect.signature(getattr(onnxgain, name)).parameters) - {"models"}
    assert {argument.removesuffix("_") for argument in found} == options
    assert name in dir(onnxgain)
    assert getattr(onnxgain, name).__doc__


def test_command_names_match_the_command_line() -> None:
    assert onnxgain._COMMANDS == python_api.FUNCTIONS
    assert set(onnxgain._HOMES) | set(onnxgain._COMMANDS) | {"__version__"} == set(onnxgain.__all__)


def test_results_equal_the_json_output(run: Any) -> None:
    code, text, _ = run("score", LENET, "--stimulus", "noise:seed=1", "--stimulus", "impulse", "--format", "json")
    outcome = onnxgain.score(LENET, stimulus=["noise:seed=1", "impulse"])
    assert code == outcome.exit_code == 0
    assert without_times(outcome.to_dict()) == without_times(json.loads(text))
    assert [m.record.stimulus.name for m in outcome] == ["noise", "impulse"]
    assert "gain" in str(outcome)


@pytest.mark.parametrize("kind", ["bytes", "proto", "ir", "path"])
def test_models_in_memory(kind: str) -> None:
    model: Any = {
        "bytes": LENET.read_bytes, "proto": lambda: onnx.load(LENET), "ir": lambda: ir.load(LENET),
        "path": lambda: LENET,
    }[kind]()  # fmt: skip
    (measured,) = onnxgain.score(model, preprocess="unit", stimuli="noise")
    (expected,) = onnxgain.score(str(LENET), stimuli="noise")
    assert measured.record.gain == expected.record.gain
    assert measured.record.scale.source == "option"
    assert measured.derivative.shape == (1, 28, 28)


def test_inference_sessions_are_refused() -> None:
    import onnxruntime

    with pytest.raises(OnnxgainError, match="pass the file it was made from"):
        onnxgain.score(onnxruntime.InferenceSession(str(LENET)))
    with pytest.raises(OnnxgainError, match=r"an int is not an ONNX model"):
        onnxgain.score(3)


def test_errors_name_arguments() -> None:
    with pytest.raises(OnnxgainError) as raised:
        onnxgain.score(LENET, preprocess="nothing")
    assert "--" not in str(raised.value)
    assert "preprocess" in str(raised.value)
    with pytest.raises(OnnxgainError, match="there is no argument nonsense"):
        onnxgain.score(LENET, nonsense=1)
    with pytest.raises(OnnxgainError, match=r"nowhere\.onnx"):
        onnxgain.score("nowhere.onnx")


def test_gate_result_has_a_verdict(tmp_path: Path) -> None:
    baseline = tmp_path / "base.json"
    onnxgain.gate(LENET, baseline=baseline, update_baseline=True)
    assert onnxgain.gate(LENET, baseline=baseline).passed
    failed = onnxgain.gate(LENET, max_gain=-60.0)
    assert failed.exit_code == 1
    assert not failed.passed
    assert failed.to_dict()["schema"].startswith("onnxgain.gate/")


def test_pictures_and_pages(tmp_path: Path) -> None:
    outcome = onnxgain.score(LENET)
    picture = outcome.plot()
    assert picture.png.startswith(b"\x89PNG")
    assert picture._repr_png_() == picture.png
    picture.save(str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes() == picture.png
    page = outcome._repr_html_()
    assert page.startswith('<pre style="font-family:monospace;')
    assert "data:image/png" in page
    with pytest.raises(OnnxgainError, match="draws nothing"):
        onnxgain.inspect(LENET).plot()


def test_long_lines_are_wrapped_in_a_notebook(tmp_path: Path) -> None:
    """Sentences and commands wrap beside their labels; tables do not wrap, and no character is lost."""
    baseline = tmp_path / "base.json"
    onnxgain.gate(LENET, baseline=baseline, update_baseline=True)
    outcome = onnxgain.gate(SMALL, baseline=baseline)
    page = re.sub(r'<span style="white-space:nowrap">(.*?)</span>', r"\1", outcome._repr_html_())
    wrapped = re.findall(
        r'<span style="display:block;white-space:pre-wrap;[^"]*padding-left:(\d+)ch;[^"]*">(.*?)</span>', page
    )
    rows = [line for line in str(outcome).splitlines() if line.startswith(("stimulus", "impulse"))]
    assert [(int(indent), html.unescape(text)) for indent, text in wrapped] == [
        (20 if line.startswith("  ") else 6 if line.startswith("FAIL") else 2, line)
        for line in str(outcome).splitlines()
        if line not in rows
    ]
    assert len(wrapped) >= 4 and len(rows) == 2
    plain = html.unescape(re.sub(r"<[^>]*>", "", re.sub("</span>", "\n", page)))
    assert plain == str(outcome)
    assert '<span style="white-space:nowrap">--layers</span>' in outcome._repr_html_()
    assert "word-break:normal" in outcome._repr_html_(), "Jupyter breaks inside words otherwise"


def test_a_table_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich writes to the notebook's display if there is one, instead of returning the text."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    shown = str(onnxgain.diff(LENET, SMALL))
    assert "answers    fail: its answers differ by " in shown
    assert "(top class differs on 9 of 48 synthetic images)" in shown


def test_a_saliency_map_is_drawn(tmp_path: Path) -> None:
    PIL.Image.new("L", (28, 28), 128).save(tmp_path / "grey.png")
    outcome = onnxgain.saliency(LENET, tmp_path / "grey.png")
    assert outcome.plot().png.startswith(b"\x89PNG")
    assert "data:image/png" in outcome._repr_html_()


def test_frames() -> None:
    pytest.importorskip("pandas", reason="needs pandas")
    assert len(onnxgain.compare(LENET, SMALL).to_frame()) == 2


def test_calls_from_threads() -> None:
    def measure(seed: int) -> float:
        (measured,) = onnxgain.score(SMALL, stimulus=f"noise:seed={seed}", threads=1)
        return float(measured.record.gain.mean)

    alone = [measure(seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(measure, [seed % 4 for seed in range(24)])) == [alone[i % 4] for i in range(24)]


def test_nothing_is_printed() -> None:
    code = f"import onnxgain; onnxgain.score({str(LENET)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_input_scale_is_declared(tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    onnxgain.declare_preprocess(LENET, mean=(127.0,), std=(128.0,), scale=1.0, out=copy)
    (measured,) = onnxgain.score(copy)
    assert (measured.record.scale.mean, measured.record.scale.std) == ((127.0,), (128.0,))
    onnxgain.declare_preprocess(copy, "mnist")
    (measured,) = onnxgain.score(copy)
    assert measured.record.scale.name == "mnist"
    assert len(onnx.load(copy).metadata_props) == len(onnx.load(LENET).metadata_props)
    onnxgain.declare_preprocess(models.save(models.conv_net(), copy), "caffe", std=58.0)
    (measured,) = onnxgain.score(copy)
    assert (measured.record.scale.bgr, measured.record.scale.std) == (True, (58.0,))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: onnxgain.score(MLP), "say its shape with image_shape=, e.g. image_shape=1x28x28"),
        (lambda: onnxgain.gate(LENET), "give baseline=FILE, or a bound such as max_gain=, as options"),
        (lambda: onnxgain.compare(LENET, SMALL).plot(), "nothing to draw: .*; give accuracy= a table"),
        (lambda: onnxgain.track("nowhere"), "no snapshot could be measured; nowhere: no such file"),
        (lambda: onnxgain.declare_preprocess(LENET, "nothing"), "^unknown preprocessing 'nothing'; choose one of raw"),
        (lambda: onnxgain.differentiate(b"no model"), "the bytes are no ONNX model"),
        (lambda: onnxgain.differentiate(3), "an int is not an ONNX model"),
    ],
)
def test_every_error_speaks_python(call: Any, says: str) -> None:
    with pytest.raises(OnnxgainError, match=says) as raised:
        call()
    assert "--" not in str(raised.value)


def test_images_in_memory() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    (map_of_array,) = onnxgain.saliency(LENET, pixels).value.maps
    (map_of_picture,) = onnxgain.saliency(LENET, PIL.Image.fromarray(pixels)).value.maps
    assert np.array_equal(map_of_array.attribution, map_of_picture.attribution)
    (measured,) = onnxgain.score(LENET, image=pixels)
    assert measured.record.stimulus.name == "photograph"
    assert [m.record.stimulus.name for m in onnxgain.score(LENET, image=[pixels, pixels])] == ["photograph"] * 2


def test_numbers_may_be_arrays() -> None:
    (one,) = onnxgain.score(LENET, mean=np.array([0.5]), std=np.float32(0.5), scale=1 / 255)
    (other,) = onnxgain.score(LENET, mean="0.5", std=0.5, scale=1 / 255)
    assert one.record.gain == other.record.gain


def test_an_outcome_is_true_where_it_passed() -> None:
    assert onnxgain.compare(LENET, SMALL)
    assert onnxgain.gate(LENET, max_gain=0.0)
    assert not onnxgain.gate(LENET, max_gain=-60.0)


def test_gradient_graphs_of_models_in_memory() -> None:
    wanted = ir.to_proto(onnxgain.differentiate(LENET)).SerializeToString()
    for model in (LENET.read_bytes(), onnx.load(LENET), ir.load(LENET), SimpleNamespace(model_proto=onnx.load(LENET))):
        assert ir.to_proto(onnxgain.differentiate(model)).SerializeToString() == wanted


@pytest.mark.parametrize(
    "image", [np.zeros((28, 28)), np.zeros((1, 28, 28, 1), np.uint8), np.zeros((28, 28, 3), np.float32)]
)
def test_arrays_that_are_not_images_are_refused(image: Any) -> None:
    for call in (lambda: onnxgain.score(LENET, image=image), lambda: onnxgain.saliency(LENET, image)):
        with pytest.raises(OnnxgainError, match=r"an array of .* is not an image.*uint8"):
            call()


@pytest.mark.parametrize("shape", [(28, 28, 2), (28, 28, 5), (0, 28), (28, 0, 3), (28, 0)])
def test_pixels_that_make_no_picture_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OnnxgainError, match=r"an array of uint8, shape .* is not an image.*\(H, W, 3\)"):
        onnxgain.score(LENET, image=np.zeros(shape, np.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_with_channels_first_are_told_to_be_turned(channels: int) -> None:
    image = np.zeros((channels, 28, 28), np.uint8)
    calls = (
        lambda: onnxgain.score(LENET, image=image),
        lambda: onnxgain.diff(LENET, LENET, image=image),
        lambda: onnxgain.gate(LENET, image=image, max_gain=0),
        lambda: onnxgain.saliency(LENET, image),
    )
    for call in calls:
        with pytest.raises(OnnxgainError, match=r"\(C, H, W\): np.moveaxis\(image, 0, -1\) makes it \(H, W, C\)"):
            call()


def test_a_grey_image_may_have_an_axis_of_channels() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    assert repr(onnxgain.score(LENET, image=grey[..., None])) == repr(onnxgain.score(LENET, image=grey))


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "HSV", "LA"])
def test_pillow_images_of_every_mode_are_read_as_colours(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    image = PIL.Image.fromarray(pixels).convert(mode)
    assert repr(onnxgain.score(LENET, image=image)) == repr(onnxgain.score(LENET, image=image.convert("RGB")))


@pytest.mark.parametrize("name", ["score", "compare", "diff", "track", "verify", "inspect"])
def test_missing_models_are_told_of_by_the_name_of_the_argument(name: str) -> None:
    with pytest.raises(OnnxgainError, match=rf"onnxgain.{name}: the argument \w+ is missing; call onnxgain.{name}\("):
        getattr(onnxgain, name)([])


def test_objects_that_are_no_models_are_named_plainly() -> None:
    for thing, words in ((None, "None"), (3, "an int"), (np.float32(3), "a numpy.float32"), (object(), "an object")):
        with pytest.raises(OnnxgainError, match=f"^{words} is not an ONNX model"):
            onnxgain.score(thing)


def test_representations_begin_with_the_result() -> None:
    failed = onnxgain.gate(LENET, max_gain=-50)
    assert repr(failed).startswith("<onnxgain gate, exit code 1: FAIL ")
    assert repr(onnxgain.score(LENET).plot()).startswith("<picture: PNG of ")


# ------------------------------------------------------------------------------------------------ models in memory
def of_kinds() -> list[tuple[Any, str]]:
    return [
        (SMALL.read_bytes(), "<bytes>"), (onnx.load(SMALL), "<ModelProto>"), (ir.load(SMALL), "<Model>"),
    ]  # fmt: skip


@pytest.mark.parametrize(("model", "label"), of_kinds(), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("name", ["score", "compare", "inspect", "verify", "gate"])
def test_a_model_in_memory_is_called_by_its_kind(name: str, model: Any, label: str) -> None:
    options = {"max_gain": -100.0} if name == "gate" else {}
    outcome = getattr(onnxgain, name)(model, **options)
    text = "".join((str(outcome), repr(outcome), outcome.to_json(), outcome._repr_html_()))
    assert label in str(outcome)
    assert "/onnxgain-" not in text and "model.onnx" not in text


def test_several_models_in_memory_are_counted() -> None:
    outcome = onnxgain.diff(onnx.load(LENET), SMALL.read_bytes())
    assert str(outcome).startswith("<ModelProto 1> -> <bytes 2>\n")
    assert "/onnxgain-" not in outcome.to_json() + outcome._repr_html_()


def test_no_command_names_a_file_that_is_gone(tmp_path: Path) -> None:
    baseline = tmp_path / "gain.json"
    onnxgain.gate(onnx.load(LENET), baseline=baseline, update_baseline=True)
    assert "/onnxgain-" not in baseline.read_text()
    outcome = onnxgain.gate(onnx.load(SMALL), baseline=baseline)
    (model,) = outcome.to_dict()["models"]
    assert (model["model"], model["verdict"], model["compared_with"]) == ("<ModelProto>", "fail", "<ModelProto>")
    assert not any(value for name, value in model["commands"].items() if name != "with_old_file")
    assert "onnxgain gate <" not in str(outcome) and "onnxgain diff" not in str(outcome)
    # A file compared with it can be looked at.
    assert "::<ModelProto>" in str(onnxgain.gate(SMALL, baseline=baseline))


def test_writing_a_baseline_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = onnxgain.gate(LENET, baseline=tmp_path / "gain.json", update_baseline=True, out=tmp_path / "out.txt")
    assert [result.renewal for result in outcome] == ["recorded"]
    onnxgain.score(LENET, plot=tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


def test_only_commands_that_judge_have_passed(tmp_path: Path) -> None:
    for name in ("score", "compare", "inspect"):
        outcome = getattr(onnxgain, name)(LENET)
        assert outcome.passed is None and outcome
    assert onnxgain.diff(LENET, SMALL).passed is None
    assert onnxgain.gate(LENET, max_gain=0.0).passed is True
    assert onnxgain.gate(LENET, max_gain=-100.0).passed is False


def test_results_say_shortly_what_they_are() -> None:
    pixels = np.zeros((28, 28), np.uint8)
    assert repr(onnxgain.score(LENET)) == (
        "<onnxgain score: 'lenet_mnist_torch.onnx': impulse, class 1, score 0.4577, -26.39 dB, scale unit>"
    )
    compared = onnxgain.compare(LENET, SMALL)
    assert "lenet_mnist_torch.onnx -26.39 dB" in repr(compared)
    assert repr(compared.value).startswith("<Comparison of 2 measurements")
    assert "answers fail: " in repr(onnxgain.diff(LENET, SMALL))
    gated = onnxgain.gate(LENET, max_gain=0.0)
    assert repr(gated).startswith("<onnxgain gate, exit code 0: PASS ")
    assert repr(gated[0]) == f"<GateResult {str(LENET)!r}: pass, impulse -26.39 dB>"
    assert "28>" in repr(onnxgain.saliency(LENET, pixels).value.maps[0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: onnxgain.score("nowhere.onnx"), lambda: onnxgain.score(b"no model"), lambda: onnxgain.saliency(LENET),
        lambda: onnxgain.diff(LENET), lambda: onnxgain.score(LENET, stimulus="nothing"),
        lambda: onnxgain.score(LENET, nonsense=1), lambda: onnxgain.score(1.5),
    ],
)  # fmt: skip
def test_a_traceback_is_short(call: Any) -> None:
    import traceback

    with pytest.raises(OnnxgainError) as raised:
        call()
    text = "".join(traceback.format_exception(raised.value))
    assert "The above exception" not in text and "During handling" not in text
    assert "/onnxgain-" not in str(raised.value)
    assert text.count("  File ") <= 7
