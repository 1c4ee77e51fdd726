"""Labelled images and the losses on them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.measure.geometric_copies import geometric_copies
from onnxgain.measure.measure import measure, score
from onnxgain.measure.request import Request
from onnxgain.measure.sample import read_sample
from onnxgain.measure.sample_source import DRAWN, SampleSource
from onnxgain.model.classifier import load_classifier
from onnxgain.model.input_scale import PRESETS
from tests.support import models

SHAPE = (1, 8, 8)
CLASSES = 3
COUNT = 66


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(COUNT) % CLASSES


def save_archive(path: Path, images: np.ndarray, labels: np.ndarray) -> SampleSource:
    np.savez(path, images=images, labels=labels)
    return SampleSource(path)


def save_folders(folder: Path, images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> SampleSource:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(folder / names[label] / f"{number}.png")
    return SampleSource(folder)


def read(source: SampleSource) -> tuple[np.ndarray, np.ndarray]:
    sample = read_sample(source, SHAPE, PRESETS["raw"])
    return sample.images[:, 0], sample.labels


def test_an_archive(tmp_path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    images, found = read(save_archive(tmp_path / "a.npz", pixels, labels))
    np.testing.assert_array_equal(images, pixels)
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("axis", [1, 3])
def test_an_archive_with_channels(tmp_path: Path, axis: int) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
    source = save_archive(tmp_path / "a.npz", np.moveaxis(colours, 1, axis), np.zeros(COUNT, int))
    np.testing.assert_array_equal(read_sample(source, (3, 8, 8), PRESETS["raw"]).images, colours)


@pytest.mark.parametrize("names", [("ant", "bee", "cat"), ("0", "1", "2")])
def test_a_folder_for_each_class(
    tmp_path: Path, pixels: np.ndarray, labels: np.ndarray, names: tuple[str, ...]
) -> None:
    images, found = read(save_folders(tmp_path, pixels, labels, names))
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(found, labels[order])
    np.testing.assert_array_equal(images, pixels[order])


def test_numbers_as_names_are_the_classes(tmp_path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    _, found = read(save_folders(tmp_path, pixels, labels, ("2", "10", "7")))
    assert sorted(set(found)) == [2, 7, 10]


@pytest.mark.parametrize("heading", ["", "file,label\n"])
def test_a_table(tmp_path: Path, pixels: np.ndarray, labels: np.ndarray, heading: str) -> None:
    for number, image in enumerate(pixels):
        PIL.Image.fromarray(image).save(tmp_path / f"{number}.png")
    table = tmp_path / "labels.csv"
    table.write_text(heading + "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels)))
    for source in (SampleSource(tmp_path, table), SampleSource(table)):
        images, found = read(source)
        np.testing.assert_array_equal(images, pixels)
        np.testing.assert_array_equal(found, labels)


def test_large_sets_are_sampled(tmp_path: Path) -> None:
    many = np.random.default_rng(0).integers(0, 256, (2000, 8, 8), dtype=np.uint8)
    source = save_archive(tmp_path / "a.npz", many, np.arange(2000))
    images, found = read(source)
    assert len(images) == DRAWN == len(set(found))
    np.testing.assert_array_equal(images, many[found])
    np.testing.assert_array_equal(found, read(SampleSource(source.images))[1])


def test_images_of_another_size_are_resized(tmp_path: Path) -> None:
    large = np.full((COUNT, 32, 24), 77, np.uint8)
    images, _ = read(save_archive(tmp_path / "a.npz", large, np.zeros(COUNT, int)))
    np.testing.assert_array_equal(images, np.full((COUNT, 8, 8), 77))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((10, 8, 8), np.uint8), "labels": np.zeros(10, int)}, "10 labelled images"),
        ({"images": np.zeros((COUNT, 8, 8)), "labels": np.zeros(COUNT, int)}, "8-bit images"),
        ({"images": np.zeros((COUNT, 8, 8), np.uint8), "labels": np.zeros(COUNT - 1, int)}, "65 labels"),
        ({"data": np.zeros(3)}, "holds data"),
        ({"images": np.array([{}], object), "labels": np.zeros(1, int)}, "damaged"),
    ],
)
def test_archives_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(OnnxgainError, match=message):
        read(SampleSource(tmp_path / "a.npz"))


def test_images_without_labels_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    for number, image in enumerate(pixels):
        PIL.Image.fromarray(image).save(tmp_path / f"{number}.png")
    with pytest.raises(OnnxgainError, match="no folder for each class"):
        read(SampleSource(tmp_path))


def test_table_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "labels.csv").write_text("../secret.png,0\n" * COUNT)
    with pytest.raises(OnnxgainError, match="outside"):
        read(SampleSource(tmp_path / "in" / "labels.csv"))


def test_the_digest_is_of_images_and_labels(tmp_path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    source = save_archive(tmp_path / "a.npz", pixels, labels)
    assert source.digest == save_archive(tmp_path / "b.npz", pixels, labels).digest
    assert source.digest != save_archive(tmp_path / "c.npz", pixels, labels[::-1]).digest


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    return Path(
        models.save(models.linear(rng.normal(size=(CLASSES, *SHAPE)), rng.normal(size=CLASSES)), tmp_path / "m.onnx")
    )


@pytest.mark.parametrize("stimuli", [("impulse",), tuple(f"noise:seed={seed}" for seed in range(20))])
def test_first_record_holds_the_losses(
    tmp_path: Path, linear: Path, pixels: np.ndarray, labels: np.ndarray, stimuli: tuple[str, ...]
) -> None:
    source = save_archive(tmp_path / "a.npz", pixels, labels)
    classifier = load_classifier(linear)
    found = list(measure(classifier, Request(stimuli=stimuli, sample=source), threads=1))
    assert [m.record.sample is None for m in found] == [False] + [True] * (len(stimuli) - 1)
    sample = found[0].record.sample
    assert sample is not None
    images = np.stack([classifier.scale.apply(one[None].astype(float)) for one in pixels])

    def expected(one: np.ndarray) -> np.ndarray:
        logits = logits_of(linear, one)
        return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(COUNT), labels]

    np.testing.assert_allclose(sample.plain, expected(images), rtol=1e-5, atol=1e-5)
    copies = np.mean([expected(one) for one in geometric_copies(images)], axis=0)
    np.testing.assert_allclose(sample.copies, copies, rtol=1e-5, atol=1e-5)
    assert found[0].record.gain == score(linear, threads=1)[0].record.gain or stimuli != ("impulse",)


@pytest.mark.parametrize("declared", ["N", 1])
@pytest.mark.parametrize("taken", ["any", "one"])
def test_losses_do_not_depend_on_the_batch_size(
    tmp_path: Path, labels: np.ndarray, declared: int | str, taken: str
) -> None:
    """Exporters may declare a batch of 1 for a graph that takes any batch size, or the opposite."""
    net = models.Net()
    x = models.add_features(net, net.input("image", [declared, 3, 8, 8]), 3)
    if taken == "one":
        x = net("Reshape", x, net.constant(np.array([1, 8], np.int64)))
    models.add_head(net, models.add_linear(net, x, 8, CLASSES), CLASSES, "logits", declared)
    path = Path(models.save(net.model(), tmp_path / "m.onnx"))
    colours = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
    source = save_archive(tmp_path / "a.npz", colours, labels)
    classifier = load_classifier(path)
    (found,) = measure(classifier, Request(sample=source), threads=1)
    assert found.record.sample is not None
    logits = logits_of(path, np.stack([classifier.scale.apply(one.astype(float)) for one in colours]))
    expected = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(COUNT), labels]
    np.testing.assert_allclose(found.record.sample.plain, expected, rtol=1e-5, atol=1e-5)


def logits_of(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: one[None]})[0] for one in images]).astype(np.float64)


def test_labels_beyond_the_classes_are_refused(tmp_path: Path, linear: Path, pixels: np.ndarray) -> None:
    source = save_archive(tmp_path / "a.npz", pixels, np.arange(COUNT) % 5)
    message = re.escape("labels from 0 to 4 for a model of 3 classes")
    with pytest.raises(OnnxgainError, match=message):
        list(measure(load_classifier(linear), Request(sample=source), threads=1))


def test_request_with_a_sample_round_trips_through_json(tmp_path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    request = Request(sample=save_archive(tmp_path / "a.npz", pixels, labels))
    assert Request.from_json(request.to_json()).to_json() == request.to_json()
    assert request.digests()["sample"]


def test_more_held_out_images_are_read(tmp_path: Path) -> None:
    """They have no copies to evaluate. That they are held out is part of what was asked for."""
    images, labels = np.zeros((1200, 4, 4), np.uint8), np.zeros(1200, np.int64)
    trained = save_archive(tmp_path / "a.npz", images, labels)
    unseen = SampleSource(trained.images, held_out=True)
    assert (len(trained.items), len(unseen.items)) == (128, 1000)
    assert trained.digest != unseen.digest
    assert SampleSource.from_json(unseen.to_json()) == unseen
