"""Recognizes files that are not ONNX models by their first bytes, and says what to do about them."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = 4096
"""Number of bytes that are looked at."""

_EXPORT = "export the model to ONNX"
_PYTORCH = "load it in PyTorch and export it with torch.onnx.export"

_ORIGIN = "name the .onnx file that it was made from"

_SUFFIXES = {
    ".engine": ("is an engine of TensorRT", _ORIGIN),
    ".plan": ("is an engine of TensorRT", _ORIGIN),
    ".trt": ("is an engine of TensorRT", _ORIGIN),
    ".mlmodel": ("is a Core ML model", "export the model that it was made from to ONNX"),
    ".pb": ("is a TensorFlow graph", "convert it with tf2onnx (python -m tf2onnx.convert --graphdef ...)"),
    ".caffemodel": ("is a file of Caffe weights", _EXPORT),
    ".params": ("is a file of MXNet weights", _EXPORT),
    ".pdmodel": ("is a PaddlePaddle model", "convert it with paddle2onnx"),
    ".pdiparams": ("is a file of PaddlePaddle weights", "convert the model with paddle2onnx"),
    ".blob": ("is a compiled model", _ORIGIN),
    ".hef": ("is a compiled model", _ORIGIN),
    ".rknn": ("is a compiled model", _ORIGIN),
}
"""File name extensions, for kinds of files that the first bytes do not reveal."""

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", "is a Git LFS pointer, not the file itself",
     "run `git lfs install` and `git lfs pull`; in CI check out with LFS (actions/checkout: `lfs: true`)"),
    (0, b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip"),
    (0, b"BZh", "is compressed with bzip2", "unpack it with bunzip2"),
    (0, b"\xfd7zXZ\x00", "is compressed with xz", "unpack it with unxz"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed with Zstandard", "unpack it with unzstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it"),
    (4, b"ORTM", "is a model in onnxruntime's own format (.ort)", "name the .onnx file that it was made from"),
    (4, b"TFL3", "is a TensorFlow Lite model", "convert it with tf2onnx (python -m tf2onnx.convert --tflite ...)"),
    (0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes them", "convert it with tf2onnx or keras.Model.export"),
    (0, b"\x80\x02", "is a Python pickle, as older versions of torch.save write them", _PYTORCH),
    (0, b"\x80\x03", "is a Python pickle", _PYTORCH),
    (0, b"\x80\x04", "is a Python pickle", _PYTORCH),
    (0, b"\x80\x05", "is a Python pickle", _PYTORCH),
    (0, b"ftrt", "is an engine of TensorRT", _ORIGIN),
    (0, b"ptrt", "is an engine of TensorRT", _ORIGIN),
    (0, b"\x12\x01\0\0\0\0\0\0", "is a file of MXNet weights", _EXPORT),
    (0, b"\x7fELF", "is a program or library", "name the model"),
    (0, b"Rar!", "is a RAR archive", "unpack it"),
    (0, b"\x04\x22\x4d\x18", "is compressed with LZ4", "unpack it"),
    (0, b"Salted__", "is encrypted with openssl", "decrypt it"),
    (0, b"GGUF", "is a GGUF file of weights", _EXPORT),
    (0, b"\x93NUMPY", "is a NumPy array", _EXPORT),
    (0, b"%PDF", "is a PDF document", "download the model itself"),
    (0, b"\x89PNG", "is a PNG image", "give it with --image, and name the model"),
    (0, b"\xff\xd8\xff", "is a JPEG image", "give it with --image, and name the model"),
    (0, b"GIF8", "is a GIF image", "give it with --image, and name the model"),
    (8, b"WEBP", "is a WebP image", "give it with --image, and name the model"),
    (257, b"ustar", "is a tar archive", "unpack it"),
)  # fmt: skip


def foreign_kind(data: bytes) -> tuple[str, str] | None:
    """What a file is, as a clause, and what to do about it; None if the kind is not known.

    Args:
        data: its first `HEAD` bytes or more.
    """
    for offset, magic, what, remedy in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return what, remedy
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_kind(data)
    text = _text(data)
    if text is None:
        return None
    if re.match(r"(?is)\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", text):
        return "is an HTML page", "the address gave a page (a login, a licence, an error): download the file itself"
    if re.match(r"\s*<\?xml|\s*<[A-Za-z]", text):
        if "<Error>" in text:
            return "is an error message of a server, as XML", "check the address and the access to it"
        return "is an XML document", "download the model itself (an .xml of OpenVINO is not an ONNX model)"
    if re.match(r"\s*[{\[]", text):
        if '"__metadata__"' in text or '"data_offsets"' in text:
            return "is a safetensors file: weights without a network", _EXPORT
        short = " ".join(text.split())[:80]
        return f"is JSON text ({short})", "the server may have answered with an error: download the file itself"
    return "is a text file", "name the .onnx file, or download it again where this should be one"


def _zip_kind(data: bytes) -> tuple[str, str]:
    if b"/data.pkl" in data or b"/version" in data or b"constants.pkl" in data:
        return "is a PyTorch file (a checkpoint or TorchScript)", _PYTORCH
    if b"com.apple.CoreML" in data:
        return "is a Core ML model", "export the model that it was made from to ONNX"
    if b"config.json" in data and b"metadata.json" in data:
        return "is a Keras file", "convert it with keras.Model.export or tf2onnx"
    return "is a zip archive", "unpack it"


def _text(data: bytes) -> str | None:
    """The beginning of the data as text; None if it is not text."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if len(data) >= 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 1 << 27:
        return data[8:HEAD].decode("utf-8", "replace")  # safetensors: a length, then JSON
    try:
        text = data[:HEAD].decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) < HEAD or error.start < HEAD - 4:
            return None
        text = data[: error.start].decode("utf-8")
    return None if re.search(r"[\x00-\x08\x0e-\x1f]", text) else text


def foreign_kind_of(path: Path) -> tuple[str, str] | None:
    """What a file is, by its first bytes or else its name; also None if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return foreign_kind(stream.read(HEAD)) or _SUFFIXES.get(path.suffix.lower())
    except OSError:
        return None


def folder_kind(path: Path) -> tuple[str, str]:
    """What a folder given instead of a model is, as a clause, and what to do about it."""
    if (path / "saved_model.pb").is_file():
        return "is a TensorFlow SavedModel", "convert it with tf2onnx (python -m tf2onnx.convert --saved-model ...)"
    if path.suffix.lower() in (".mlpackage", ".mlmodelc"):
        return "is a Core ML model", "export the model that it was made from to ONNX"
    return "is a folder, not a model file", "name the .onnx file in it"
