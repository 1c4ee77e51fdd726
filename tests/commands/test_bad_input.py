"""Every wrong input gives one message that says what, where and what to do, and exit code 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxgain.commands.cli import main
from tests.support import models

ROOT = Path(__file__).parents[2]
LENET = ROOT / "models" / "lenet_small_mnist_torch.onnx"


class Box:
    """A folder to put wrong things into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, content: bytes | str = b"") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def model(self, model: onnx.ModelProto, **options: Any) -> Path:
        return models.save(model, self.folder / "net.onnx", **options)

    def external(self) -> Path:
        options = {"save_as_external_data": True, "size_threshold": 0, "location": "net.data"}
        return self.model(models.conv_net(), **options)

    def contents(self) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(self.folder.rglob("*"))
        }


Arguments = Callable[[Box], list[Any]]


def case(name: str, arguments: Arguments, *parts: str) -> Any:
    """`parts`: what the message must contain; `{}` in it stands for the folder."""
    return pytest.param(arguments, parts, id=name)


def truncated(box: Box) -> list[Any]:
    content = LENET.read_bytes()
    return ["score", box.file("net.onnx", content[: len(content) // 2])]


def no_output(box: Box) -> list[Any]:
    model = models.conv_net()
    del model.graph.output[:]
    return ["score", box.model(model)]


def cycle(box: Box) -> list[Any]:
    model = models.conv_net()
    model.graph.node[0].input[0] = model.graph.node[3].output[0]
    return ["score", box.model(model)]


def duplicate(box: Box) -> list[Any]:
    model = models.conv_net()
    model.graph.node[1].output[0] = model.graph.node[0].output[0]
    model.graph.node[2].input[0] = model.graph.node[0].output[0]
    return ["score", box.model(model)]


def dangling(box: Box) -> list[Any]:
    model = models.conv_net()
    model.graph.node[2].input[0] = "nowhere"
    return ["score", box.model(model)]


def node_without_output(box: Box) -> list[Any]:
    model = models.conv_net()
    value = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [1.0])
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [], name="left_behind", value=value))
    return ["score", box.model(model)]


def of_opset(version: int) -> Arguments:
    def arguments(box: Box) -> list[Any]:
        model = models.conv_net()
        model.opset_import[0].version = version
        return ["score", box.model(model)]

    return arguments


def untyped(box: Box) -> list[Any]:
    model = models.with_node("Shift", domain="acme")
    del model.graph.value_info[:]
    return ["score", box.model(model)]


def custom(place: str, command: str) -> Arguments:
    """An operator of an unknown domain in the body of a network, or as its last node."""

    def arguments(box: Box) -> list[Any]:
        net = models.Net()
        x = net.input("image", ["N", 3, 12, 10])
        if place == "body":
            x = net("Shift", net("Conv", x, net.weights(3, 3, 3, 3)), domain="acme", out="shifted")
        logits = models.add_linear(net, models.add_features(net, x, 3), 8, 5)
        if place == "body":
            models.add_head(net, logits, 5, "softmax")
        else:
            net.output(net("Shift", logits, domain="acme"), ["N", 5])
        model = net.model()
        if place == "body":
            model.graph.value_info.append(onnx.helper.make_tensor_value_info("shifted", 1, ["N", 3, 10, 8]))
        return [command, box.model(model)]

    return arguments


def texts(box: Box) -> list[Any]:
    net = models.Net()
    net.inputs.append(onnx.helper.make_tensor_value_info("image", onnx.TensorProto.STRING, [1, 3, 12, 10]))
    features = models.add_features(net, net("Cast", "image", to=1), 3)
    models.add_head(net, models.add_linear(net, features, 8, 5), 5, "softmax", 1)
    return ["inspect", box.model(net.model())]


def einsum(rows: int) -> Arguments:
    def arguments(box: Box) -> list[Any]:
        net = models.Net()
        features = models.add_features(net, net.input("image", ["N", 3, 12, 10]), 3)
        net.output(net("Einsum", features, net.weights(rows, 5), equation="...j, jk -> ...k"), ["N", 5])
        return ["score", box.model(net.model())]

    return arguments


def size_baked_in(box: Box) -> list[Any]:
    net = models.Net()
    flat = net("Flatten", net.input("image", ["N", 3, "H", "W"]), axis=1)
    models.add_head(net, models.add_linear(net, flat, 192, 4), 4, "logits")
    return ["score", box.model(net.model()), "--image-shape", "3x9x9"]


def missing_data(box: Box) -> list[Any]:
    path = box.external()
    (box.folder / "net.data").unlink()
    return ["score", path]


def short_data(box: Box) -> list[Any]:
    path = box.external()
    box.file("net.data", (box.folder / "net.data").read_bytes()[:500])
    return ["score", path]


def data_outside(box: Box) -> list[Any]:
    path = box.external()
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../secret.bin"
    path.write_bytes(model.SerializeToString())
    return ["score", path]


def damaged_png(box: Box) -> list[Any]:
    from PIL import Image

    path = box.folder / "cat.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    return ["score", LENET, "--image", path]


def empty_folder(box: Box) -> list[Any]:
    (box.folder / "photos").mkdir()
    box.file("photos/notes.txt", "no image")
    return ["score", LENET, "--image", box.folder / "photos"]


def wrong_npy(box: Box) -> list[Any]:
    return ["score", LENET, "--input", f"x={box.file('x.npy', 'not an array')}"]


def net(*options: str, **kind: Any) -> Arguments:
    return lambda box: ["score", box.model(models.conv_net(**kind)), *options]


def of(build: Callable[..., onnx.ModelProto], *options: str) -> Arguments:
    return lambda box: ["score", box.model(build()), *options]


def lenet(*options: str) -> Arguments:
    return lambda box: ["score", LENET, *(option.replace("{}", str(box.folder)) for option in options)]


INPUTS = {"factor": ([2], np.float32)}

CASES = [
    # files
    case("missing", lambda box: ["score", box.folder / "net.onnx"], "{}/net.onnx: no such file", "check the path"),
    case(
        "missing, inspect", lambda box: ["inspect", box.folder / "a.onnx"], "{}/a.onnx: no such file", "check the path"
    ),
    case("missing, verify", lambda box: ["verify", box.folder / "a.onnx"], "{}/a.onnx: no such file", "check the path"),
    case(
        "missing, gradient",
        lambda box: ["gradient", box.folder / "a.onnx", "-o", box.folder / "g.onnx"],
        "{}/a.onnx: no such file",
    ),
    case("empty", lambda box: ["score", box.file("net.onnx")], "{}/net.onnx: the file is empty", "download it again"),
    case("truncated", truncated, "{}/net.onnx: not an ONNX model, or a damaged one", "download it again"),
    case("text", lambda box: ["score", box.file("net.onnx", "# notes\n" * 99)], "{}/net.onnx: not an ONNX model"),
    case("bytes", lambda box: ["score", box.file("net.onnx", os.urandom(5000))], "{}/net.onnx: not an ONNX model"),
    case("an image", lambda box: ["score", box.file("n.onnx", b"\x89PNG\r\n\x1a\n" + bytes(99))], "not an ONNX model"),
    case("folder", lambda box: ["score", box.folder], "is a folder", "name the .onnx file in it"),
    case("no graph", lambda box: ["score", box.file("net.onnx", b"\x08\x08")], "{}/net.onnx: ", "has no graph"),
    case("below a file", lambda box: ["score", box.file("a") / "net.onnx"], "{}/a/net.onnx: no such file"),
    case("external data missing", missing_data, "'net.data' is missing", "keep the model and its data files in one"),
    case("external data short", short_data, "'net.data' is too short", "'constant_0'", "copy or export it again"),
    case("external data elsewhere", data_outside, "'../secret.bin'", "outside the model's folder"),
    # not an image classifier
    case("segmentation", of(models.segmentation), "not a classifier", "'map' float[1, 5, 8, 8]", "--output"),
    case("integer output", of(models.integer_output), "not a classifier", "'counts' int64[1, 4]"),
    case("no output", no_output, "{}/net.onnx: not a classifier", "no output", "export the model again"),
    case(
        "no image",
        of(models.text_model),
        "no input looks like an image",
        "'tokens' int64",
        "measures image classifiers",
    ),
    case("two images", of(models.two_images), "several inputs could be the image", "--image-input"),
    case("flattened", of(models.mlp), "flattened in 'X' float[?, 49]", "--image-shape 1x7x7"),
    case("flattened, wrong shape", of(models.mlp, "--image-shape", "1x28x28"), "784 values", "float[?, 49]"),
    case("node without output", node_without_output, "node 'left_behind'", "Constant has no output", "graph.cleanup()"),
    # how it is to be read
    case("wrong shape", net("--image-shape", "3x9x9"), "--image-shape 3x9x9 does not fit", "[?, 3, 12, 10]", "leave"),
    case("size baked in", size_baked_in, "{}/net.onnx: ", "Gemm", "the image shape in use"),
    case("shape text", lenet("--image-shape", "28by28"), "--image-shape", "'28by28' is not a shape such as 3x224x224"),
    case("shape of one", lenet("--image-shape", "28"), "--image-shape", "is not a shape such as"),
    case("shape with zero", lenet("--image-shape", "1x0x28"), "--image-shape", "'1x0x28' has a side of zero"),
    case("shape too large", lenet("--image-shape", "99999x99999"), "--image-shape", "too large: no side", "65,536"),
    case("negative shape", lenet("--image-shape", "1x-1x28"), "--image-shape", "is not a shape such as"),
    case("too many threads", lenet("--threads", "100000"), "--threads", "100000 is not in the range 1<=x<=1024"),
    case("shape channels last", lenet("--image-shape", "28x28x3"), "--image-shape 3x28x28 does not fit"),
    case("unknown output", lenet("--output", "x"), f"{LENET}: the model has no output 'x'", "its outputs are 'logits'"),
    case(
        "unknown image", lenet("--image-input", "x"), f"{LENET}: the model has no input 'x'", "its inputs are 'image'"
    ),
    case("unknown input", lenet("--input", "x=1"), f"{LENET}: the model has no input 'x'", "its inputs are 'image'"),
    case("input text", lenet("--input", "training"), "--input training: is not NAME=VALUE", "write e.g."),
    case("input value", lenet("--input", "x=[yes"), "--input x=[yes", "not a number or a list", "write 0.5"),
    case("input strings", lenet("--input", 'x=["a"]'), "not a number or a list of numbers", "write 0.5"),
    case("input ragged", lenet("--input", "x=[[1],[2,3]]"), "--input x=", "not a number or a list", "write 0.5"),
    case("input not an array", wrong_npy, "x.npy: is not an array of numbers", "numpy.save"),
    case(
        "input array missing",
        lenet("--input", "x={}/x.npy"),
        "{}/x.npy: no such file",
        "check the path",
    ),
    case("input not given", of(lambda: models.with_inputs(**INPUTS)), "no value: 'factor'", "--input factor=0"),
    case(
        "input misshapen",
        of(lambda: models.with_inputs(**INPUTS), "--input", "factor=[1,2,3]"),
        "'factor'",
        "shape [2]",
    ),
    case("input of another type", of(lambda: models.with_inputs(n=([], np.int64)), "--input", "n=0.5"), "'n' is int64"),
    case("class too large", lenet("--class", "10"), f"{LENET}: there is no class 10: the model has 10", "from 0 to 9"),
    case("class negative", lenet("--class", "-1"), "--class", "-1 is not in the range", "score --help"),
    case("mean too long", lenet("--mean", "1,2"), "mean has 2 values, the image 1 channel", "--mean"),
    case("mean text", lenet("--mean", "dark"), "--mean", "'dark' is not a number or a list", "score --help"),
    case("mean infinite", lenet("--mean", "inf"), "--mean: mean is inf", "give finite numbers"),
    case("std zero", lenet("--std", "0"), "--std: std is 0", "give finite non-zero numbers"),
    case("scale zero", lenet("--scale", "0"), "--scale: scale is 0", "give finite non-zero numbers"),
    case("preprocess of 3", lenet("--preprocess", "imagenet"), "'imagenet'", "3 values, the image 1 channel"),
    case("preprocess", lenet("--preprocess", "imagnet"), "--preprocess", "'imagenet'", "score --help"),
    case(
        "metadata",
        net(metadata={"onnxgain.preprocess": "imagnet"}),
        "{}/net.onnx: metadata 'onnxgain.preprocess' is not an input scale",
        "override it with --preprocess",
    ),
    case(
        "metadata twice",
        net(metadata={"onnxgain.preprocess": '{"mean": 1, "std": 1, "mean": 2}'}),
        "{}/net.onnx: metadata 'onnxgain.preprocess' is not an input scale: an object has the key 'mean' twice",
        "override it with --preprocess",
    ),
    # what it is measured at
    case("stimulus", lenet("--stimulus", "dot"), "--stimulus dot: unknown stimulus 'dot'", "choose one of impulse"),
    case("parameter", lenet("--stimulus", "noise:size=3"), "'size' is not a parameter", "write noise"),
    case("parameter text", lenet("--stimulus", "noise:seed=x"), "seed='x' is not a whole number", "write noise"),
    case("parameter missing", lenet("--stimulus", "grating"), "frequency is missing", "write grating:frequency="),
    case("impulse outside", lenet("--stimulus", "impulse:y=28,x=0"), "y=28, x=0 is outside the 28x28", "move it"),
    case("frequency", lenet("--stimulus", "grating:frequency=0.6"), "frequency", "0.5"),
    case("image missing", lenet("--image", "{}/cat.jpg"), "{}/cat.jpg: no such image or folder", "correct the path"),
    case("no image in it", empty_folder, "{}/photos: no image in this folder", "it needs files named"),
    case(
        "not an image",
        lambda box: ["score", LENET, "--image", box.file("cat.jpg", "meow")],
        "{}/cat.jpg: not an image that Pillow can read",
        "give a PNG, JPEG",
    ),
    case("damaged image", damaged_png, "{}/cat.png: cannot read the image", "whole"),
    # operators
    case(
        "custom operator",
        of(lambda: models.with_node("Shift", domain="acme")),
        "{}/net.onnx: node",
        "acme.Shift",
        "'/shift_0'",
        "inspect",
    ),
    case("untyped operator", untyped, "{}/net.onnx: ", "acme.Shift is unknown", "standard operators"),
    case("unknown operator", of(lambda: models.with_node("Shift")), "Shift does not exist in opset 17", "'/shift_0'"),
    case("attribute", of(lambda: models.with_node("LeakyRelu", beta=0.1)), "LeakyRelu", "'/leakyrelu_0'"),
    case("cycle", cycle, "{}/net.onnx: the graph has a cycle", "export the model again"),
    case("duplicate names", duplicate, "{}/net.onnx: ", "conv_0", "export"),
    case("dangling name", dangling, "'nowhere', which nothing computes", "export the model again"),
    case("future opset", of_opset(999), "{}/net.onnx: ", "opset 999", "onnx"),
    case("no opset", of_opset(0), "{}/net.onnx: ", "opset 0"),
    # numbers
    case("dead relu", of(models.dead_relu), "exactly zero", "Relu '/dead' are off (dead)", "--stimulus or --class"),
    case("image not used", of(models.image_not_used), "exactly zero", "the image input is not used", "--stimulus"),
    case("steps", of(models.step_function), "exactly zero", "ends at Sign", "--stimulus"),
    case(
        "nan weights",
        of(lambda: models.with_weights(np.nan)),
        "not finite",
        "'constant_4' hold NaN",
        "sound checkpoint",
    ),
    case("inf weights", of(lambda: models.with_weights(np.inf)), "not finite", "'constant_4' hold NaN or infinity"),
    case("overflow", of(models.overflowing), "not finite", "overflows on this image", "--preprocess"),
    case("float64", net(dtype=np.float64), "{}/net.onnx: onnxruntime cannot load", "Conv", "in float32"),
    # where it goes
    case("out folder missing", lenet("-o", "{}/no/gains.txt"), "{}/no/gains.txt: cannot write", "create the folder"),
    case("out is a picture", lenet("-o", "{}/a.PNG"), "{}/a.PNG: would hold text of --format table", "--plot writes"),
    case("out is a page", lenet("-o", "{}/a.html"), "{}/a.html: would hold text", "add --format html"),
    case(
        "out is a model", lambda box: ["inspect", LENET, "-o", box.folder / "a.onnx"], "would hold text", "another name"
    ),
    case("out, before a model", lambda box: ["verify", "a.onnx", "-o", box.folder / "no" / "a"], "no/a: cannot write"),
    case("out is a folder", lenet("-o", "{}"), "cannot write: is a folder", "give the name of a file inside"),
    case(
        "out below a file", lenet("-o", f"{LENET}/gains.txt"), "gains.txt: cannot write", "a part of the path is a file"
    ),
    case("plot suffix", lenet("--plot", "{}/plot.jpg"), "{}/plot.jpg: cannot draw a 'jpg' file", ".png, .svg, .pdf"),
    case("plot folder", lenet("--plot", "{}/no/plot.png", "-o", "{}/gains.txt"), "{}/no/plot.png: cannot write"),
    case(
        "spectrum suffix", lenet("--save-spectrum", "{}/s.npy", "-o", "{}/g.txt"), "s.npy", "must end in .npz", "rename"
    ),
    case("spectrum folder", lenet("--save-spectrum", "{}/no/s.npz", "-o", "{}/g.txt"), "{}/no/s.npz: cannot write"),
    case("gradient suffix", lambda box: ["gradient", LENET, "-o", box.folder / "g.pb"], "g.pb", "must end in .onnx"),
    case(
        "gradient folder",
        lambda box: ["gradient", LENET, "-o", box.folder / "no" / "g.onnx"],
        "no/g.onnx: cannot write",
    ),
    case(
        "gradient class", lambda box: ["gradient", LENET, "-o", box.folder / "g.onnx", "--class", "99"], "no class 99"
    ),
    case(
        "gradient batch",
        lambda box: ["gradient", box.model(models.conv_net(layout="CHW")), "-o", box.folder / "g.onnx", "--batch", "2"],
        "batch of 2",
        "no batch axis",
    ),
    case(
        "gradient fixed batch",
        lambda box: ["gradient", box.model(models.conv_net(batch=4)), "-o", box.folder / "g.onnx", "--batch", "2"],
        "batch of 2",
        "fixed to 4",
    ),
    # the command line itself
    case(
        "operator of an unknown domain",
        custom("body", "score"),
        "operator acme.Shift is not known",
        "or load such operators with --custom-ops, where nothing is differentiated",
    ),
    case("the same for inspect", custom("body", "inspect"), "operator acme.Shift is not known", "--custom-ops"),
    case("operator of an unknown domain at the end", custom("head", "inspect"), "acme.Shift is not known", "--custom"),
    case(
        "value of the image",
        lambda box: ["score", box.model(models.conv_net()), "--input", "image=1"],
        "--input image: 'image' is the image input, which takes the stimulus",
        "--stimulus or --image",
    ),
    case("image of texts", texts, "the input 'image' takes texts, not pixels", "onnx.utils.extract_model"),
    case(
        "labels of an Einsum",
        einsum(7),
        "Einsum does not fit its inputs: the label 'j' of '...j,jk->...k' is 8 long in one and 7 in another",
    ),
    case(
        "no model", lambda box: ["score"], "onnxgain score: Missing argument 'MODELS...'", "see `onnxgain score --help`"
    ),
    case("command", lambda box: ["scroe", LENET], "onnxgain: No such command 'scroe'", "see `onnxgain --help`"),
    case("option", lenet("--gain"), "No such option", "--gain", "see `onnxgain score --help`"),
    case("option without value", lenet("--class"), "Option '--class' requires an argument", "onnxgain --help"),
    case("threads", lenet("--threads", "0"), "--threads", "0 is not in the range", "score --help"),
    case("format", lenet("--format", "xml"), "--format", "'xml' is not one of 'table', 'json', 'csv'", "score --help"),
    case("projection", lenet("--projection", "2"), "--projection", "'2' is not one of '1/score'", "score --help"),
    case("head", lenet("--head", "tanh"), "--head", "'tanh' is not one of 'logits'", "score --help"),
]


def assert_one_message(code: object, out: str, err: str, parts: tuple[str, ...], box: Box) -> None:
    assert code == 2, (code, out, err)
    assert out == ""
    assert "Traceback" not in err
    assert "bug in onnxgain" not in err
    assert err.count("\n") == 1, err
    assert err.startswith("error: "), err
    assert "; " in err, f"no remedy: {err}"
    for part in parts:
        assert part.replace("{}", str(box.folder)) in err, f"{part!r} is not in {err!r}"


@pytest.mark.parametrize(("arguments", "parts"), CASES)
def test_bad_input(
    arguments: Arguments, parts: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    box = Box(tmp_path)
    words = [str(word) for word in arguments(box)]
    before = box.contents()
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert_one_message(raised.value.code, *capfd.readouterr(), parts, box)
    assert box.contents() == before, "something was left behind"


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 40
    assert len({parameter.id for parameter in CASES}) == len(CASES)
