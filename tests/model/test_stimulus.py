"""Stimuli in model-input units, the input scale, and photographs as classifiers are evaluated on them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.model.input_scale import PRESETS, InputScale, input_scale
from onnxgain.model.photo import photographs
from onnxgain.model.stimulus import Stimulus, grating, impulse, noise, parse_stimulus, photograph

Image = pytest.importorskip("PIL.Image")

RAW, UNIT, IMAGENET, CAFFE = (PRESETS[name] for name in ("raw", "unit", "imagenet", "caffe"))
ROOT = Path(__file__).parents[2]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


# --------------------------------------------------------------------------------------------- input scale
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("raw", [1, 1, 1]),
        ("unit", [1 / 255] * 3),
        ("imagenet", 1 / (255 * STD)),
        ("inception", [2 / 255] * 3),
        ("caffe", [1, 1, 1]),
        ("clip", 1 / (255 * np.array([0.26862954, 0.26130258, 0.27577711]))),
        ("mnist", [1 / (255 * 0.3081)] * 3),
    ],
)
def test_step_is_one_8_bit_level(name: str, step: list[float]) -> None:
    scale = input_scale(name)
    np.testing.assert_allclose(scale.step(3), step, rtol=1e-12)
    black, one = (scale.apply(np.full((3, 1, 1), level)).ravel() for level in (0.0, 100.0))
    np.testing.assert_allclose((one - black) / 100, step, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [
        ("raw", [0, 0, 0], [255, 255, 255]),
        ("unit", [0, 0, 0], [1, 1, 1]),
        ("imagenet", -MEAN / STD, (1 - MEAN) / STD),
        ("inception", [-1, -1, -1], [1, 1, 1]),
        ("caffe", [-104, -117, -123], [151, 138, 132]),
        ("mnist", [-0.1307 / 0.3081] * 3, [(1 - 0.1307) / 0.3081] * 3),
    ],
)
def test_presets_map_black_and_white(name: str, black: list[float], white: list[float]) -> None:
    for level, expected in ((0.0, black), (255.0, white)):
        image = input_scale(name).apply(np.full((3, 2, 2), level))
        assert image.dtype == np.float32
        np.testing.assert_allclose(image[:, 1, 0], expected, atol=1e-6)


def test_bgr_takes_blue_first_and_keeps_alpha() -> None:
    pixels = np.arange(4.0)[:, None, None]
    assert input_scale("caffe", mean=0).apply(pixels).ravel().tolist() == [2, 1, 0, 3]
    assert input_scale("caffe", mean=0).apply(pixels[:1]).ravel().tolist() == [0]
    assert RAW.apply(pixels).ravel().tolist() == [0, 1, 2, 3]


def test_custom_scale() -> None:
    scale = input_scale(mean=[1, 2, 3], std=2, scale=0.5)
    assert scale == InputScale("custom", (1.0, 2.0, 3.0), (2.0,), 0.5, "option")
    np.testing.assert_allclose(scale.apply(np.full((3, 1, 1), 10.0)).ravel(), [2, 1.5, 1])
    np.testing.assert_allclose(scale.step(3), 0.25)


def test_preset_values_can_be_replaced_and_source_is_kept() -> None:
    scale = input_scale("unit", mean=(0.5,), std=0.25, source="metadata")
    assert (scale.name, scale.source, scale.scale) == ("custom", "metadata", 1 / 255)
    assert input_scale("imagenet", source="default") == InputScale("imagenet", (*MEAN,), (*STD,), 1 / 255, "default")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no input scale"),
        ({"name": "tensorflow"}, "'tensorflow'.*raw, unit, imagenet, inception, caffe, clip, mnist"),
        ({"std": 0.0}, "--std: std is 0; give finite non-zero"),
        ({"std": [1, 0, 1]}, "std is 1, 0, 1"),
        ({"std": float("nan")}, "std is nan"),
        ({"mean": [0, float("inf")]}, "mean is 0, inf"),
        ({"mean": []}, "mean is nothing"),
        ({"scale": 0.0}, "scale is 0"),
        ({"scale": float("inf")}, "scale is inf"),
        ({"mean": [1, 2], "std": [1, 2, 3]}, "mean has 2 values and std 3"),
    ],
)
def test_bad_scales_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(OnnxgainError, match=message):
        input_scale(**arguments)


@pytest.mark.parametrize("channels", [1, 4])
def test_scale_for_other_channels_is_refused(channels: int) -> None:
    with pytest.raises(OnnxgainError, match=f"std has 3 values, the image {channels} channel"):
        IMAGENET.step(channels)
    with pytest.raises(OnnxgainError, match="mean has 3 values"):
        CAFFE.apply(np.zeros((channels, 1, 1)))
    assert PRESETS["mnist"].step(channels).shape == (channels,)


# ------------------------------------------------------------------------------------------------- impulse
@pytest.mark.parametrize(("shape", "centre"), [((3, 224, 224), (112, 112)), ((3, 7, 9), (3, 4)), ((3, 8, 5), (4, 2))])
def test_impulse_is_255_levels_at_the_centre(shape: tuple[int, int, int], centre: tuple[int, int]) -> None:
    stimulus = impulse(shape, IMAGENET)
    assert stimulus.image.shape == shape
    assert stimulus.image.dtype == np.float32
    np.testing.assert_allclose(stimulus.image[:, *centre], 1 / STD, rtol=1e-6)
    assert np.count_nonzero(stimulus.image) == 3  # the mean is not subtracted
    assert stimulus.windowed
    assert stimulus.parameters == {"amplitude": 255.0, "x": centre[1], "y": centre[0]}


def test_impulse_amplitude_and_position() -> None:
    image = impulse((1, 5, 6), UNIT, amplitude=-51, position=(0, 5)).image
    assert image[0, 0, 5] == pytest.approx(-0.2)
    assert np.count_nonzero(image) == 1


@pytest.mark.parametrize("position", [(-1, 0), (0, 6), (5, 0)])
def test_impulse_outside_the_image_is_refused(position: tuple[int, int]) -> None:
    with pytest.raises(OnnxgainError, match="outside the 5x6 image"):
        impulse((1, 5, 6), RAW, position=position)


# ------------------------------------------------------------------------------------------ noise and grating
def test_noise_is_grey_clipped_and_repeatable() -> None:
    stimulus = noise((3, 64, 64), RAW, seed=3)
    pixels = stimulus.image.astype(float)
    assert not stimulus.windowed
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert pixels.mean() == pytest.approx(127.5, abs=2)
    assert pixels.std() == pytest.approx(61.5, abs=1.5)  # 64 before clipping
    assert 0.03 < np.mean((pixels == 0) | (pixels == 255)) < 0.06
    assert abs(np.corrcoef(pixels[0].ravel(), pixels[1].ravel())[0, 1]) < 0.06
    np.testing.assert_array_equal(stimulus.image, noise((3, 64, 64), RAW, seed=3).image)
    assert not np.array_equal(stimulus.image, noise((3, 64, 64), RAW, seed=4).image)


def test_noise_has_these_values_with_every_numpy() -> None:
    values = [162.7721547, 170.8153158, 112.9893735, 125.9988921]  # Box-Muller by hand on the raw stream of PCG64
    np.testing.assert_allclose(noise((1, 1, 4), RAW, seed=0).image.ravel(), values, rtol=1e-6)


def test_noise_sigma_is_in_8_bit_levels() -> None:
    image = noise((1, 64, 64), UNIT, seed=0, sigma=10).image
    assert image.std() == pytest.approx(10 / 255, rel=0.05)


@pytest.mark.parametrize(("angle", "fy", "fx"), [(0, 0, 8), (90, 8, 0), (45, 8 / 2**0.5, 8 / 2**0.5), (-90, -8, 0)])
def test_grating_has_its_frequency_and_direction(angle: float, fy: float, fx: float) -> None:
    image = grating((2, 32, 32), RAW, frequency=0.25, angle=angle).image
    y, x = np.arange(32)[:, None] - 16, np.arange(32)[None, :] - 16
    expected = 127.5 + 127.5 * np.cos(2 * np.pi * (fy * y + fx * x) / 32)
    np.testing.assert_allclose(image, np.broadcast_to(expected, (2, 32, 32)), atol=1e-4)


def test_grating_contrast_phase_and_nyquist() -> None:
    nyquist = grating((1, 4, 4), UNIT, frequency=0.5, contrast=0.5).image
    np.testing.assert_allclose(nyquist[0, 0], [0.75, 0.25, 0.75, 0.25], atol=1e-6)
    np.testing.assert_allclose(grating((1, 4, 4), UNIT, frequency=0.25, phase=90).image[0, :, 2], 0.5, atol=1e-6)
    assert not grating((1, 4, 4), UNIT, frequency=0.25).windowed
    grating((1, 4, 4), UNIT, frequency=0.5**0.5, angle=45)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frequency": 0.0}, "frequency is 0.0; frequency must be above 0"),
        ({"frequency": 0.51}, "up to 0.5 cycles/pixel"),
        ({"frequency": float("nan")}, "frequency is nan"),
        ({"frequency": 0.72, "angle": 45}, "up to 0.5"),
        ({"frequency": 0.1, "contrast": 0}, "contrast is 0"),
        ({"frequency": 0.1, "contrast": 1.5}, "contrast is 1.5"),
        ({"frequency": 0.1, "angle": float("inf")}, "angle is inf"),
    ],
)
def test_bad_gratings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(OnnxgainError, match=message):
        grating((1, 8, 8), RAW, **arguments)


# ------------------------------------------------------------------------------------------------- by text
def same(one: Stimulus, other: Stimulus) -> bool:
    return (one.name, one.parameters, one.windowed) == (other.name, other.parameters, other.windowed) and (
        np.array_equal(one.image, other.image)
    )


@pytest.mark.parametrize(
    ("text", "function", "arguments"),
    [
        ("impulse", impulse, {}),
        ("impulse:amplitude=128,y=3,x=5", impulse, {"amplitude": 128, "position": (3, 5)}),
        ("impulse:y=1", impulse, {"position": (1, 4)}),
        ("noise", noise, {}),
        ("noise:seed=3", noise, {"seed": 3}),
        (" noise: seed = 3 , sigma=10", noise, {"seed": 3, "sigma": 10}),
        ("grating:frequency=0.125,angle=45", grating, {"frequency": 0.125, "angle": 45}),
        ("grating:frequency=.1,phase=90,contrast=0.5", grating, {"frequency": 0.1, "phase": 90, "contrast": 0.5}),
    ],
)
def test_parse_stimulus(text: str, function, arguments: dict) -> None:
    stimulus = parse_stimulus(text, (3, 6, 9), IMAGENET)
    assert same(stimulus, function((3, 6, 9), IMAGENET, **arguments))
    assert list(stimulus.parameters) == sorted(stimulus.parameters)
    listed = ",".join(f"{key}={value}" for key, value in json.loads(json.dumps(stimulus.parameters)).items())
    assert same(stimulus, parse_stimulus(f"{stimulus.name}:{listed}", (3, 6, 9), IMAGENET))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "delta",
            r"unknown stimulus 'delta'.*impulse\[:amplitude=,y=,x=\], noise\[:seed=,sigma=\], grating:frequency=",
        ),
        ("", "unknown stimulus ''"),
        ("noise:sead=3", r"'sead' is not a parameter; write noise\[:seed=,sigma=\]"),
        ("noise:seed", "'seed' has no value"),
        ("noise:seed=1.5", "seed='1.5' is not a whole number"),
        ("noise:seed=-1", "seed is -1"),
        ("noise:sigma=nan", "sigma is nan"),
        ("noise:seed=1,seed=2", "'seed' is given twice"),
        ("impulse:amplitude=big", "amplitude='big' is not a number"),
        ("impulse:amplitude=0", "amplitude is 0"),
        ("impulse:y=6", "outside the 6x9 image"),
        ("grating", r"frequency is missing; write grating:frequency=\[,angle=,phase=,contrast=\]"),
        ("grating:frequency=inf", "frequency is inf"),
    ],
)
def test_bad_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(OnnxgainError, match=message):
        parse_stimulus(text, (3, 6, 9), RAW)


# --------------------------------------------------------------------------------------------- photographs
def colours(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * y / height, 255 * x / width, 127 + 100 * np.sin(x / 9 + y / 7)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("size", [(300, 451), (451, 300), (100, 90), (256, 256), (257, 1000)])
@pytest.mark.parametrize("target", [224, 32])
def test_photograph_is_resized_and_cropped_as_in_evaluation(tmp_path: Path, size: tuple[int, int], target: int) -> None:
    image = Image.fromarray(colours(*size))
    image.save(tmp_path / "photo.png")
    stimulus = photograph(tmp_path / "photo.png", (3, target, target), IMAGENET)
    short = round(target / 0.875)  # resize the shorter side, then crop the centre: two steps, as torchvision does
    width, height = image.size
    resized = image.resize(
        (short, int(short * height / width)) if width <= height else (int(short * width / height), short),
        Image.Resampling.BILINEAR,
    )
    left, top = round((resized.width - target) / 2), round((resized.height - target) / 2)
    pixels = np.asarray(resized)[top : top + target, left : left + target] / 255
    np.testing.assert_allclose(stimulus.image, ((pixels - MEAN) / STD).transpose(2, 0, 1), atol=1e-6)
    assert not stimulus.windowed


def test_photograph_for_a_wide_model_and_without_crop(tmp_path: Path) -> None:
    image = Image.fromarray(colours(20, 40))
    assert photograph(image, (3, 10, 30), RAW).image.shape == (3, 10, 30)
    np.testing.assert_array_equal(photograph(image, (3, 20, 40), RAW, crop=1).image, colours(20, 40).transpose(2, 0, 1))


def test_photograph_records_name_and_hash_but_not_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(colours(40, 40)).save(path)
    stimulus = photograph(path, (3, 32, 32), RAW)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert stimulus.name == "photograph"
    assert stimulus.parameters == {"crop": 0.875, "file": "photo.png", "sha256": digest}
    assert same(stimulus, photograph(path, (3, 32, 32), RAW))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_grey_rgb_or_rgba(tmp_path: Path, mode: str, channels: int) -> None:
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.full((20, 20), 200 * 257, dtype=np.uint16 if mode == "I;16" else np.int32))
    else:
        image = Image.new("L", (20, 20), 200).convert(mode, dither=Image.Dither.NONE)
    path = tmp_path / ("photo.tif" if mode in ("CMYK", "I") else "photo.png")
    image.save(path)
    level = 255 if mode == "1" else 200
    pixels = photograph(path, (channels, 16, 16), RAW).image
    np.testing.assert_allclose(pixels[:3], level, atol=1)
    np.testing.assert_array_equal(pixels[3:], 255)


def test_16_bits_are_scaled_to_255_not_cut_off() -> None:
    values = np.array([[0, 25828], [25829, 65535]], dtype=np.uint16)
    assert photograph(Image.fromarray(values), (1, 2, 2), RAW, crop=1).image.ravel().tolist() == [0, 100, 101, 255]


def test_colours_keep_their_channels() -> None:
    orange = Image.new("RGB", (8, 8), (250, 120, 10))
    assert photograph(orange, (3, 8, 8), RAW).image[:, 4, 4].tolist() == [250, 120, 10]
    assert photograph(orange, (3, 8, 8), CAFFE).image[:, 4, 4].tolist() == [10 - 104, 120 - 117, 250 - 123]
    assert photograph(orange, (1, 8, 8), RAW).image[0, 4, 4] == round(0.299 * 250 + 0.587 * 120 + 0.114 * 10)


def test_transparency_is_laid_on_white_unless_the_model_takes_it(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (250, 120, 10, 0))
    np.testing.assert_array_equal(photograph(clear, (3, 8, 8), RAW).image, 255)
    np.testing.assert_array_equal(photograph(clear, (1, 8, 8), RAW).image, 255)
    np.testing.assert_array_equal(photograph(clear, (4, 8, 8), RAW).image[3], 0)
    palette = Image.new("P", (8, 8), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(photograph(tmp_path / "palette.png", (3, 8, 8), RAW).image, 255)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.arange(16, dtype=np.uint8)[:, None] * 16, 16, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.png", exif=exif)
    turned = photograph(tmp_path / "turned.png", (1, 16, 16), RAW, crop=1).image
    np.testing.assert_array_equal(turned[0, :, 0], np.arange(16)[::-1] * 16)


def test_extremely_elongated_images_are_refused() -> None:
    with pytest.raises(OnnxgainError, match="100000x2, is too elongated: resized it has 12800000x256 pixels"):
        photograph(Image.new("L", (100_000, 2), 7), (1, 224, 224), RAW)
    np.testing.assert_array_equal(photograph(Image.new("L", (2000, 2), 7), (1, 224, 224), RAW).image, 7)


def png_header(width: int, height: int) -> bytes:
    """The header of a grey PNG file that declares its size but has no pixels."""
    ihdr = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    header = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0d" + ihdr + zlib.crc32(ihdr).to_bytes(4, "big")
    return header + b"\x00\x00\x01\x00IDAT"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"this is a text file", "not an image that Pillow can read"),
        ("empty.jpg", b"", "not an image"),
        ("header.png", png_header(10, 10), "cannot read the image"),
        ("bomb.png", png_header(30_000, 30_000), "more than [0-9]+ pixels"),
        ("warned.png", png_header(10_000, 10_000), "more than [0-9]+ pixels"),
        ("folder.png", None, "cannot read the image: it is a folder"),
        ("missing.png", ..., "cannot read the image: no such file"),
    ],
)
def test_unreadable_images_are_refused_by_name(tmp_path: Path, name: str, content: object, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is None:
        path.mkdir()
    with pytest.raises(OnnxgainError, match=message) as error:
        photograph(path, (3, 32, 32), RAW)
    assert error.value.where == str(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp"])
def test_truncated_images_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    photograph(path, (3, 32, 32), RAW)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(OnnxgainError, match=f"photo.{suffix}"):
            photograph(path, (3, 32, 32), RAW)


@pytest.mark.parametrize("value", [0.5, 70_000.0])
def test_images_without_an_8_bit_scale_are_refused(value: float) -> None:
    image = Image.fromarray(np.full((8, 8), value, dtype=np.float32 if value < 1 else np.int32))
    with pytest.raises(OnnxgainError, match="no 8-bit scale; convert the image"):
        photograph(image, (1, 8, 8), RAW)


def test_photographs_for_other_channels_and_crops_are_refused() -> None:
    image = Image.new("L", (8, 8))
    with pytest.raises(OnnxgainError, match="2 channels, a photograph has 1, 3 or 4"):
        photograph(image, (2, 8, 8), RAW)
    for crop in (0.0, 1.1, float("nan")):
        with pytest.raises(OnnxgainError, match="crop must be above 0 up to 1"):
            photograph(image, (1, 8, 8), RAW, crop=crop)


def test_photographs_expands_folders_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    odd = tmp_path / "notes.txt"
    assert photographs([odd, tmp_path]) == (odd, tmp_path / "a.jpg", tmp_path / "b.PNG")


def test_photographs_errors(tmp_path: Path) -> None:
    for paths, message in (
        ([tmp_path], "no image in this folder"),
        ([tmp_path / "x.png"], "no such"),
        ([], "no image"),
    ):
        with pytest.raises(OnnxgainError, match=message):
            photographs(paths)


def test_import_stays_light() -> None:
    heavy = "('PIL', 'matplotlib', 'scipy', 'onnxruntime')"
    ours = "onnxgain.model.stimulus, onnxgain.measure.spectrum, onnxgain.report.charts.response"
    code = f"import sys, {ours}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
