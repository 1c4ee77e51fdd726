"""Files and models in memory as classifiers: what is detected, assumed and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError, OnnxgainError, UnsupportedOperatorError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Classifier, Reading, describe, load_classifier, with_scale
from onnxgain.model.differentiate import differentiate
from onnxgain.model.input_scale import input_scale
from tests.support import models

ROOT = Path(__file__).parents[2]


def read(model: onnx.ModelProto, reading: Reading | None = None) -> Classifier:
    return describe(ir.from_proto(model), reading)


@pytest.mark.parametrize(
    ("name", "shape", "layout", "kind", "scale"),
    [
        ("lenet_mnist_torch.onnx", None, "NCHW", "logits", "unit"),
        ("lenet_small_mnist_torch.onnx", None, "NCHW", "logits", "unit"),
        ("lenet_mnist_keras.onnx", None, "NHWC", "softmax", "raw"),
        ("mlp_mnist_sklearn.onnx", (1, 28, 28), "NF", "softmax", "unit"),
    ],
)
def test_the_trained_models(name: str, shape: tuple[int, ...] | None, layout: str, kind: str, scale: str) -> None:
    path = ROOT / "models" / name
    found = load_classifier(path, Reading(image_shape=shape))
    assert found.path == path
    assert (found.image.layout, found.image.image_shape, found.image.fixed_batch) == (layout, (1, 28, 28), None)
    assert (found.head.kind, found.head.classes) == (kind, 10)
    assert (found.scale.name, found.gaps) == (scale, ())
    assert [s for s in found.assumptions if "flattened" not in s] == []


def test_what_the_file_says_about_itself() -> None:
    model = models.conv_net(opset=13, head="softmax")
    model.producer_version = "2.1"
    found = read(model)
    assert (found.path, found.opset, found.producer) == (None, 13, "tests 2.1")
    expected = {"Conv": 2, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 2, "Softmax": 1}
    assert found.operators == expected
    assert found.parameters == 6 * 3 * 9 + 6 + 8 * 6 * 9 + 8 + 8 * 5 + 5


@pytest.mark.parametrize("domains", [("", ""), ("", "ai.onnx")])
def test_a_domain_may_be_imported_twice_in_one_version(tmp_path: Path, domains: tuple[str, ...]) -> None:
    """skl2onnx writes such files for linear classifiers."""
    model = models.conv_net(opset=17)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, 17) for domain in domains)
    assert load_classifier(models.save(model, tmp_path / "twice.onnx")).opset == 17


@pytest.mark.parametrize("domains", [("", ""), ("", "ai.onnx")])
def test_a_domain_imported_in_two_versions_is_refused(tmp_path: Path, domains: tuple[str, ...]) -> None:
    model = models.conv_net(opset=17)
    del model.opset_import[:]
    model.opset_import.extend(map(onnx.helper.make_opsetid, domains, (11, 17)))
    with pytest.raises(ModelError, match="domain '' is imported twice, as versions 11 and 17"):
        load_classifier(models.save(model, tmp_path / "twice.onnx"))


def test_a_newer_ir_version_is_said(tmp_path: Path) -> None:
    model = models.conv_net()
    assert not any(
        "IR version" in said for said in load_classifier(models.save(model, tmp_path / "net.onnx")).assumptions
    )
    model.ir_version = 99
    found = load_classifier(models.save(model, tmp_path / "newer.onnx"))
    assert any("IR version 99, newer" in said for said in found.assumptions)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18, 20, 21, 22])
def test_opsets_from_7_on(opset: int) -> None:
    found = read(models.conv_net(opset=opset, head="softmax", pool="MaxPool"))
    assert (found.opset, found.head.kind, found.gaps) == (opset, "softmax", ())


def test_narrow_floats_are_widened_and_noted() -> None:
    found = read(models.conv_net(dtype=np.float16))
    assert found.widened == ("FLOAT16",)
    assert "float16 model analysed in float32" in found.assumptions
    assert read(models.conv_net(dtype=np.float64)).widened == ()


def test_fixed_batch_other_than_1_is_an_assumption() -> None:
    assert any("fixed to 4" in sentence for sentence in read(models.conv_net(batch=4)).assumptions)
    assert not any("fixed" in sentence for sentence in read(models.conv_net(batch=1)).assumptions)


def test_dynamic_sizes_are_given_or_assumed() -> None:
    model = models.conv_net(size=("H", "W"))
    assert read(model).image.image_shape == (3, 224, 224)
    assert any("224x224" in sentence for sentence in read(model).assumptions)
    given = read(model, Reading(image_shape=(3, 20, 16)))
    assert given.image.image_shape == (3, 20, 16)
    assert not any("size" in sentence for sentence in given.assumptions)


def test_other_inputs_are_given_by_value() -> None:
    model = models.with_inputs(factor=([2], np.float32), flag=([], np.bool_))
    given = {"factor": np.array([1, 2], np.float32), "flag": np.array(True)}
    found = read(model, Reading(inputs=given))
    assert found.image.name == "image"
    assert set(found.inputs) == {"factor", "flag"}
    with pytest.raises(ModelError, match="'flag'"):
        read(model, Reading(inputs={"factor": given["factor"]}))
    with pytest.raises(ModelError, match="no input 'other'"):
        read(model, Reading(inputs={**given, "other": given["flag"]}))


def test_reading_is_deterministic(tmp_path: Path) -> None:
    path = models.save(models.conv_net(), tmp_path / "net.onnx")
    found = load_classifier(path)
    first, second = found.transcript(), found.transcript()
    assert first is not second
    assert [node.op_type for node in first.graph] == [node.op_type for node in second.graph]
    scaled = with_scale(found, input_scale("unit"))
    assert (scaled.scale.name, found.scale.name) == ("unit", "imagenet")


def test_model_in_memory_is_not_modified() -> None:
    model = ir.from_proto(models.conv_net(normalize=(1 / 255, 0.5, 0.2), pool="MaxPool", head="softmax"))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    differentiate(model)
    score(describe(model))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_gaps_are_listed_not_raised_and_differentiate_raises_them() -> None:
    found = read(models.with_node("Shift", domain="acme"))
    (gap,) = found.gaps
    assert (gap.node.op_type, gap.node.domain, found.head.classes) == ("Shift", "acme", 3)
    with pytest.raises(UnsupportedOperatorError, match=r"node '/shift_0': operator acme\.Shift"):
        differentiate(found)


def test_an_unknown_operator_that_hides_the_shapes_is_named() -> None:
    model = models.with_node("Shift", domain="acme")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UnsupportedOperatorError, match=r"acme\.Shift is not known"):
        read(model)


def test_class_index_out_of_range() -> None:
    with pytest.raises(OnnxgainError, match="no class 5: the model has 5 classes"):
        differentiate(read(models.conv_net()), class_index=5)
    assert differentiate(read(models.conv_net()), class_index=4)


@pytest.mark.parametrize("name", ["logits", "class", "score", "derivative", "output"])
def test_inputs_may_have_the_names_of_our_outputs(name: str) -> None:
    model = models.conv_net(size=(8, 8))
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    if name == "output":
        model.graph.output[0].name = model.graph.node[-1].output[0] = "logits"
    (measured,) = score(read(model))
    (plain,) = score(read(models.conv_net(size=(8, 8))))
    assert measured.record.interface.input == name
    np.testing.assert_allclose(measured.derivative, plain.derivative, rtol=1e-5, atol=1e-12)


# ----------------------------------------------------------------------------------------------- files
def test_external_data_stays_on_disk_until_it_is_needed(tmp_path: Path) -> None:
    plain = models.save(models.conv_net(), tmp_path / "plain.onnx")
    path = models.save(
        models.conv_net(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data"
    )
    found = load_classifier(path)
    tensors = [value.const_value for value in found.model.graph.initializers.values()]
    assert all(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    (measured,), (expected,) = score(found), score(plain)
    np.testing.assert_array_equal(measured.derivative, expected.derivative)
    assert measured.record.model.bytes == path.stat().st_size + (tmp_path / "net.data").stat().st_size
    assert measured.record.model.sha256 != expected.record.model.sha256


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what is mapped")
def test_a_file_of_external_data_is_mapped_once(tmp_path: Path) -> None:
    """Memory limits count mapped files, so mapping the file once per tensor would exceed them."""
    path = models.save(
        models.conv_net(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data"
    )
    weights = load_classifier(path).model.graph.initializers.values()
    expected = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    read = {value.name: value.const_value.numpy() for value in weights if value.const_value is not None}
    assert len(read) > 1
    assert Path("/proc/self/maps").read_text().count(str(tmp_path / "net.data")) == 1
    for name, array in read.items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("# notes\n" * 50), "not an ONNX model"),
        (lambda path: path.write_bytes(path.read_bytes()[:700]), "not an ONNX model"),
        (lambda path: path.write_bytes(b"\x08\x08"), "no graph"),
    ],
)
def test_invalid_model_files(tmp_path: Path, damage: object, message: str) -> None:
    path = models.save(models.conv_net(), tmp_path / "net.onnx")
    damage(path)  # type: ignore[operator]
    with pytest.raises(ModelError, match=message) as raised:
        load_classifier(path)
    assert str(path) in str(raised.value)
    assert raised.value.remedy


@pytest.mark.parametrize(("keep", "message"), [(None, "is missing"), (100, "is too short")])
def test_missing_external_data(tmp_path: Path, keep: int | None, message: str) -> None:
    path = models.save(
        models.conv_net(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data"
    )
    data = tmp_path / "net.data"
    if keep is None:
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:keep])
    with pytest.raises(ModelError, match=rf"'net.data' {message}.*constant_0"):
        load_classifier(path)


def test_external_data_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.save(
        models.conv_net(), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="d.bin"
    )
    shutil.move(tmp_path, tmp_path.with_name("moved"))
    monkeypatch.chdir(tmp_path.with_name("moved"))
    assert score("net.onnx")[0].record.model.path == "net.onnx"
