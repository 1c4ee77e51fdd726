"""Reads photographs into 8-bit pixels with the size and channels that a classifier takes. Needs Pillow."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.files import read_bytes

LARGEST_PHOTO = 1 << 29
"""Larger files are refused, in bytes."""

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Extensions of the files in a folder that count as images."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def photographs(paths: Iterable[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """The image files in `paths`, each once; a folder stands for the images directly inside it, sorted by name.

    Raises:
        OnnxgainError: a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += _images_in(path)
        elif path.exists():
            found.append(path)
        else:
            raise OnnxgainError("no such image or folder", where=str(path), remedy="correct the path")
    if not found:
        raise OnnxgainError("no image given", where="--image", remedy="give image files or a folder of images")
    return tuple(dict.fromkeys(found))


def _images_in(folder: Path) -> list[Path]:
    try:
        images = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    except OSError as error:
        raise OnnxgainError(
            f"cannot list the folder: {error.strerror}", where=str(folder), remedy="check its permissions"
        ) from error
    if not images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise OnnxgainError("no image in this folder", where=str(folder), remedy=f"it needs files named {suffixes}")
    return sorted(images)


@dataclass(frozen=True, eq=False)
class Photo:
    """Pixels (C, H, W) float64 on 0..255 (grey, RGB or RGBA), the file's name, and the SHA-256 of its bytes."""

    pixels: NDArray[np.float64]
    name: str
    sha256: str


def read_photo(source: str | os.PathLike[str] | Image, shape: tuple[int, int, int], *, crop: float) -> Photo:
    """Read a photograph and fit it to (C, H, W): resize, then cut out the centre.

    The shorter side becomes round(side / crop) with antialiased bilinear resampling on 8 bits, then the centre is cut
    out, both rounded as torchvision's evaluation transforms do. EXIF orientation is applied, 16-bit grey is scaled to
    8 bits, transparent pixels are put on white (kept for 4 channels), and only the first frame of an animation is read.

    Args:
        source: a file, or a PIL image (whose SHA-256 covers its mode, size and pixels).
        crop: in (0, 1].

    Raises:
        OnnxgainError: the file cannot be read completely as an image, has more pixels than Pillow's limit against
            decompression bombs, or is extremely elongated; its pixels have no 8-bit scale (float, 32 bits); C is not
            1, 3 or 4; or Pillow is missing.
    """
    channels, height, width = shape
    if channels not in _MODES:
        raise OnnxgainError(
            f"the model takes {channels} channels, a photograph has 1, 3 or 4",
            where="--image",
            remedy="measure with --stimulus instead",
        )
    image, name, digest = _read_image(source)
    image = _resized(_to_mode(image, _MODES[channels], name), height, width, crop, name)
    pixels = np.atleast_3d(np.asarray(image, dtype=np.float64))
    return Photo(np.moveaxis(pixels, -1, 0), name, digest)


def _read_image(source: str | os.PathLike[str] | Image) -> tuple[Image, str, str]:
    """The decoded, upright image, its file name, and the SHA-256 of its file (of its pixels, for a PIL image)."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise OnnxgainError("Pillow is not installed", where="--image", remedy="pip install pillow") from error
    if isinstance(source, PIL.Image.Image):
        digest = hashlib.sha256(f"{source.mode} {source.size}".encode() + source.tobytes()).hexdigest()
        return PIL.ImageOps.exif_transpose(source), Path(getattr(source, "filename", "")).name or "image", digest
    path = Path(source)
    try:
        data = read_bytes(path, LARGEST_PHOTO)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(data)) as image:
                upright = PIL.ImageOps.exif_transpose(image)
                upright.load()
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise OnnxgainError(
            f"the image has more than {PIL.Image.MAX_IMAGE_PIXELS} pixels",
            where=str(path),
            remedy="scale it down first",
        ) from error
    except OnnxgainError as error:
        raise OnnxgainError(
            f"cannot read the image: {error.what.removeprefix('cannot be read: ')}",
            where=str(path),
            remedy="check that the file is whole and readable",
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise OnnxgainError(
            "not an image that Pillow can read", where=str(path), remedy="give a PNG, JPEG or another image file"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files: SyntaxError, struct.error...
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise OnnxgainError(
            f"cannot read the image: {reason}", where=str(path), remedy="check that the file is whole and readable"
        ) from error
    return upright, path.name, hashlib.sha256(data).hexdigest()


def _to_mode(image: Image, mode: str, name: str) -> Image:
    """`image` converted to 8 bits as L, RGB or RGBA."""
    import PIL.Image

    if image.mode.startswith(("I", "F")):
        image = PIL.Image.fromarray(_eight_bits(np.asarray(image), name))
    if mode != "RGBA" and (image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info):
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """16-bit grey values scaled to 0..255. Pillow defines no scale for 32-bit and float files, so those are refused."""
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
        raise OnnxgainError(
            f"{values.dtype.name} grey values have no 8-bit scale",
            where=name,
            remedy="convert the image to 8 or 16 bits",
        )
    return np.rint(values / 257.0).astype(np.uint8)


def _resized(image: Image, height: int, width: int, crop: float, name: str) -> Image:
    """Resize to cover (round(height / crop), round(width / crop)), then cut out the centre."""
    import PIL.Image

    covered_height, covered_width = round(height / crop), round(width / crop)
    if image.width * covered_height <= image.height * covered_width:
        size = (covered_width, covered_width * image.height // image.width)
    else:
        size = (covered_height * image.width // image.height, covered_height)
    if size[0] * size[1] > (PIL.Image.MAX_IMAGE_PIXELS or math.inf):
        raise OnnxgainError(
            f"the image, {image.width}x{image.height}, is too elongated: resized it has {size[0]}x{size[1]} pixels",
            where=name,
            remedy="cut it to the part that matters first",
        )
    # One resize with a box would do both, but up to 2 % of the pixels would round to another level than in two steps.
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.resize(size, PIL.Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
