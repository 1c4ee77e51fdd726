"""Writes into a model's metadata how 8-bit pixels become its input."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from onnxgain.errors import ModelError, OnnxgainError
from onnxgain.files import atomic_write
from onnxgain.model.declared_scale import PREPROCESS_KEY
from onnxgain.model.input_scale import input_scale


def declare_preprocess(
    model: str | os.PathLike[str],
    preprocess: str | None = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    scale: float | None = None,
    out: str | os.PathLike[str] | None = None,
) -> None:
    """Write the metadata `onnxgain.preprocess` into an ONNX file. External data stays where it is.

    Args:
        model: the file.
        preprocess: a name such as "imagenet".
        mean, std, scale: input = (pixel * scale - mean) / std.
        out: the file to write; in the model's folder if the model has external data. None overwrites the model.

    Raises:
        OnnxgainError: there is no such scale.
        ModelError: the file cannot be read as an ONNX model.
    """
    import google.protobuf.message
    import onnx

    try:
        wanted = input_scale(preprocess, mean=mean, std=std, scale=scale)
    except OnnxgainError as error:
        raise type(error)(error.what, remedy=error.remedy) from error
    path = Path(model)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except (OSError, google.protobuf.message.DecodeError) as error:
        raise ModelError("cannot be read as an ONNX model", where=str(path), remedy="check the path") from error
    # The preset says that blue comes first, which mean, std and scale do not.
    preset = {"name": preprocess} if wanted.bgr else {}
    values = {**preset, "mean": list(wanted.mean), "std": list(wanted.std), "scale": wanted.scale}
    text = wanted.name if wanted.name != "custom" else json.dumps(values)
    kept = [entry for entry in proto.metadata_props if entry.key.lower() != PREPROCESS_KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    proto.metadata_props.add(key=PREPROCESS_KEY, value=text)
    atomic_write(Path(out) if out is not None else path, proto.SerializeToString())
