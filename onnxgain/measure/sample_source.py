"""Labelled images in the forms users have them: folders, tables, arrays."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.files import natural_key, read_bytes
from onnxgain.model.photo import IMAGE_SUFFIXES, LARGEST_PHOTO

FEWEST, MOST = 64, 1000
DRAWN = 128
"""Training images drawn from more than `MOST`, the same ones each time. Of held-out images, which have no copies to
evaluate, `MOST` are drawn."""

LARGEST_TABLE = 1 << 24
"""The largest table of labels that is read, bytes."""

LARGEST_ARCHIVE = 1 << 31
"""The largest .npz that is read, bytes."""

_ARRAYS = (("images", "labels"), ("x", "y"), ("x_train", "y_train"))
"""Accepted names of the two arrays in an .npz."""

Item = tuple[Path | NDArray[np.uint8], int]


@dataclass(frozen=True)
class SampleSource:
    """Where labelled images are.

    Attributes:
        images: a folder with one folder per class; a folder of images, labelled by the table `labels`; an .npz with
            `images` (N, H, W), (N, H, W, C) or (N, C, H, W) uint8 and `labels` (N) integers; or a .csv of paths and
            labels.
        labels: a .csv that maps file names in `images` to labels.
        held_out: whether the network is not trained on them.
    """

    images: Path
    labels: Path | None = None
    held_out: bool = False

    @functools.cached_property
    def items(self) -> tuple[Item, ...]:
        """(file or pixels, label) of each image.

        Raises:
            OnnxgainError: the images are missing, too few, or not all labelled.
        """
        items = self._read()
        if len(items) < FEWEST:
            raise OnnxgainError(
                f"{len(items)} labelled images",
                where=f"--images {self.images}",
                remedy=f"give {FEWEST} to {MOST} of the images that the network is {'not ' * self.held_out}trained on",
            )
        if len(items) > MOST:
            order = np.random.Generator(np.random.PCG64(0)).permutation(len(items))
            items = [items[i] for i in sorted(order[: MOST if self.held_out else DRAWN])]
        return tuple(items)

    def _read(self) -> list[Item]:
        if self.images.is_dir():
            return _by_table(self.images, self.labels) if self.labels is not None else _by_folder(self.images)
        if not self.images.is_file():
            raise OnnxgainError("no such file or folder", where=f"--images {self.images}", remedy="correct the path")
        if self.labels is not None:
            raise OnnxgainError(
                "the images are no folder, so they need no table of labels",
                where=f"--labels {self.labels}",
                remedy="leave it out: an .npz and a .csv hold the labels themselves",
            )
        if self.images.suffix.lower() == ".npz":
            return _by_archive(self.images)
        if self.images.suffix.lower() == ".csv":
            return _by_table(self.images.parent, self.images)
        raise OnnxgainError(
            "neither a folder, an .npz nor a .csv",
            where=f"--images {self.images}",
            remedy="see `onnxgain docs track` for what it may be",
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-able values; the inverse of `from_json`."""
        labels = str(self.labels) if self.labels is not None else None
        return {"images": str(self.images), "labels": labels, "held_out": self.held_out}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SampleSource:
        """The inverse of `to_json`."""
        labels = Path(values["labels"]) if values["labels"] is not None else None
        return cls(Path(values["images"]), labels, bool(values["held_out"]))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the images and labels, and of whether they are held out."""
        digest = hashlib.sha256(b"held out" if self.held_out else b"")
        for image, label in self.items:
            if isinstance(image, np.ndarray):
                data = image.tobytes() + repr(image.shape).encode()
            else:
                data = read_bytes(image, LARGEST_PHOTO)
            digest.update(hashlib.sha256(data).digest() + label.to_bytes(8, "little"))
        return digest.hexdigest()


def _by_folder(folder: Path) -> list[Item]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise OnnxgainError(
            "holds no folder for each class, and there is no table of labels",
            where=f"--images {folder}",
            remedy="sort the images into a folder for each class, or give --labels FILE.csv; images without labels say "
            "too little about training",
        )
    numbers = _class_numbers(names)
    return [
        (file, numbers[name])
        for name in sorted(names, key=natural_key)
        for file in sorted((folder / name).iterdir(), key=lambda path: natural_key(path.name))
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]


def _class_numbers(names: Sequence[str]) -> dict[str, int]:
    """Class numbers by name: the names themselves if all are numbers, else in sorted order, as frameworks do."""
    if all(name.isascii() and name.isdigit() and len(name) < 10 for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(sorted(set(names)))}


def _by_table(folder: Path, table: Path) -> list[Item]:
    where = f"--labels {table}"
    text = read_bytes(table, LARGEST_TABLE).decode("utf-8-sig", "replace")
    rows = [row[:2] for row in csv.reader(io.StringIO(text)) if len(row) >= 2]
    if rows and Path(rows[0][0]).suffix.lower() not in IMAGE_SUFFIXES:
        rows = rows[1:]  # a header line
    if not rows:
        raise OnnxgainError("holds no lines of a file name and a label", where=where, remedy="write one an image")
    root = folder.resolve()
    numbers = _class_numbers([label.strip() for _, label in rows])
    items: list[Item] = []
    for name, label in rows:
        path = (folder / name.strip()).resolve()
        if not path.is_relative_to(root):
            raise OnnxgainError(f"names {name!r}, outside {folder}", where=where, remedy="name files inside")
        if not path.is_file():
            raise OnnxgainError(f"names {name!r}, which is not there", where=where, remedy="correct the names")
        items.append((path, numbers[label.strip()]))
    return items


def _by_archive(path: Path) -> list[Item]:
    where = f"--images {path}"
    if path.stat().st_size > LARGEST_ARCHIVE:
        raise OnnxgainError("too large", where=where, remedy=f"give {FEWEST} to {MOST} images")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = next((pair for pair in _ARRAYS if set(pair) <= set(file.files)), None)
            if names is None:
                raise OnnxgainError(
                    f"holds {', '.join(file.files[:8]) or 'nothing'}",
                    where=where,
                    remedy="name its arrays images, labels",
                )
            images, labels = (np.asarray(file[name]) for name in names)
    except OnnxgainError:
        raise
    except Exception as error:  # zipfile and numpy raise nearly anything on damaged files
        raise OnnxgainError("is damaged, or no .npz", where=where, remedy="write it with numpy.savez") from error
    labels = labels.reshape(len(labels), -1)[:, 0] if labels.ndim else labels
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or labels.dtype.kind not in "iu":
        raise OnnxgainError(
            f"images are {images.dtype.name} of shape {list(images.shape)}, labels {labels.dtype.name}",
            where=where,
            remedy="give 8-bit images (N, H, W), (N, H, W, C) or (N, C, H, W), and whole numbers as labels",
        )
    if len(images) != len(labels):
        raise OnnxgainError(
            f"{len(images)} images and {len(labels)} labels", where=where, remedy="give as many of each"
        )
    return [(image, int(label)) for image, label in zip(_channels_first(images), labels, strict=True)]


def _channels_first(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] not in (1, 3, 4) and images.shape[3] in (1, 3, 4):
        images = np.moveaxis(images, -1, 1)
    return iter(np.ascontiguousarray(images))
