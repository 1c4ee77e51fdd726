"""The message about a file that is not an ONNX model: what it is and what to do."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import onnx
import pytest

from onnxgain.errors import ModelError, UnreadableModelError
from onnxgain.model.classifier import load_classifier
from onnxgain.model.file_kind import HEAD, foreign_kind
from tests.support import models

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345678\n"


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


HEADER = json.dumps({"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "data_offsets": [0, 4]}}).encode()

FILES = {
    "lfs": (LFS, "is a Git LFS pointer", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html><head>", "is an HTML page", "download the file itself"),
    "html without doctype": (b"<html lang='en'>", "is an HTML page", "download"),
    "xml": (b"<?xml version='1.0'?><net/>", "is an XML document", "OpenVINO"),
    "json": (b'{"message":"Not Found"}', 'is JSON text ({"message":"Not Found"})', "the server"),
    "text": (b"404: Not Found", "is a text file", "name the .onnx file, or download it again"),
    "gzip": (gzip.compress(b"x"), "is compressed with gzip", "gunzip"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(9), "is compressed with Zstandard", "unzstd"),
    "torch": (zipped("archive/data.pkl", "archive/version"), "is a PyTorch file", "torch.onnx.export"),
    "keras": (zipped("metadata.json", "config.json"), "is a Keras file", "tf2onnx"),
    "zip": (zipped("model.onnx"), "is a zip archive", "unpack it"),
    "pickle": (b"\x80\x02}q\x00", "is a Python pickle", "torch.onnx.export"),
    "ort": (b"\x1c\0\0\0ORTM" + bytes(64), "onnxruntime's own format (.ort)", ".onnx file that it was made from"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "is a TensorFlow Lite model", "tf2onnx"),
    "safetensors": (len(HEADER).to_bytes(8, "little") + HEADER + bytes(4), "is a safetensors file", "export"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "is an HDF5 file", "tf2onnx"),
    "gguf": (b"GGUF\x03\0\0\0", "is a GGUF file", "export"),
    "png": (b"\x89PNG\r\n\x1a\n", "is a PNG image", "--image"),
    "html behind a mark of byte order": (b"\xef\xbb\xbf<!doctype html>", "is an HTML page", "download"),
    "error of a bucket": (b"<?xml version='1.0'?><Error><Code>AccessDenied", "is an error message", "access to it"),
    "pickle 3": (b"\x80\x03}q\x00", "is a Python pickle", "torch.onnx.export"),
    "pickle 5": (b"\x80\x05}\x94", "is a Python pickle", "torch.onnx.export"),
    "engine": (b"ftrt" + bytes(range(200, 256)), "is an engine of TensorRT", ".onnx file that it was made from"),
    "core ml": (zipped("Data/com.apple.CoreML/model.mlmodel"), "is a Core ML model", "export"),
    "program": (b"\x7fELF\x02" + bytes(range(200, 256)), "is a program", "name the model"),
    "webp": (b"RIFF\x24\0\0\0WEBP" + bytes(range(200, 256)), "is a WebP image", "--image"),
    "tar": (bytes(257) + b"ustar\x0000", "is a tar archive", "unpack"),
}


@pytest.mark.parametrize("name", FILES)
def test_message_names_the_file_kind_and_what_to_do(tmp_path: Path, name: str) -> None:
    data, what, remedy = FILES[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(UnreadableModelError) as refused:
        load_classifier(path)
    assert f"not an ONNX model: it {what}" in str(refused.value) or what in refused.value.what
    assert remedy in str(refused.value.remedy)


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("net.engine", "is an engine of TensorRT", "made from"),
        ("net.mlmodel", "is a Core ML model", "export"),
        ("graph.PB", "is a TensorFlow graph", "--graphdef"),
        ("net.caffemodel", "is a file of Caffe weights", "export"),
        ("net.pdmodel", "is a PaddlePaddle model", "paddle2onnx"),
    ],
)
def test_kind_is_read_from_the_name_if_the_bytes_do_not_tell(tmp_path: Path, name: str, what: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(200, 256)) * 20)
    with pytest.raises(UnreadableModelError) as refused:
        load_classifier(tmp_path / name)
    assert what in str(refused.value) and remedy in str(refused.value.remedy)


def test_a_folder_may_be_a_model_of_another_kind(tmp_path: Path) -> None:
    for name in ("plain", "saved", "net.mlpackage"):
        (tmp_path / name).mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"x")
    for name, what in (("plain", "is a folder"), ("saved", "is a TensorFlow SavedModel"), ("net.mlpackage", "Core ML")):
        with pytest.raises(ModelError, match=what):
            load_classifier(tmp_path / name)


def test_external_data_can_be_an_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(models.conv_net(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").write_bytes(LFS)
    with pytest.raises(UnreadableModelError, match=r"external data file 'w.bin' is a Git LFS pointer.*git lfs pull"):
        load_classifier(path)


def test_valid_model_has_no_other_kind() -> None:
    assert foreign_kind(models.conv_net().SerializeToString()) is None
    assert foreign_kind(bytes(range(256)) * 20) is None
    text = ("x" * (HEAD - 1) + "é" * 10).encode()
    assert foreign_kind(text) == foreign_kind(b"xxx")  # truncated inside a character
