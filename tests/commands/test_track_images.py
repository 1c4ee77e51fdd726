"""`onnxgain track --images`: a verdict from labelled training images."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from onnxgain.measure.geometric_copies import geometric_copies, neighbour_distance
from tests.support import models

pytestmark = pytest.mark.usefixtures("own_cache")

SIDE, CLASSES, COUNT = 12, 4, 64


@pytest.fixture
def run(run: Any) -> Any:
    """Run `onnxgain track` in this process: (exit code, standard output, standard error)."""
    return functools.partial(run, "track")


def patterns() -> np.ndarray:
    """(classes, H, W) smooth patterns."""
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.standard_normal((CLASSES, SIDE, SIDE)), (0, 2.5, 2.5))
    return smooth / smooth.std(axis=(1, 2), keepdims=True)


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """The pattern of the class with noise."""
    labels = np.arange(COUNT) % CLASSES
    noise = np.random.default_rng(0).standard_normal((COUNT, SIDE, SIDE))
    return np.clip(127.5 + 25 * patterns()[labels] + 40 * noise, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def archive(images: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.npz"
    np.savez(path, images=images[0], labels=images[1])
    return path


def weights_at(epoch: int, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Linear weights that learn the patterns until epoch 5 and then memorize the noise of these images."""
    pixels = images.reshape(COUNT, -1) / 255 - 0.5
    targets = np.eye(CLASSES)[labels] - 1 / CLASSES
    memorized = np.linalg.pinv(pixels, rcond=1e-3) @ targets
    learned = 0.05 * min(epoch, 5) * patterns().reshape(CLASSES, -1)
    return (learned + 4.0 * max(epoch - 5, 0) * memorized.T).reshape(CLASSES, 1, SIDE, SIDE)


@pytest.fixture(scope="module")
def overfitted(images: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    for epoch in range(15):
        model = models.linear(weights_at(epoch, *images), np.zeros(CLASSES) + 1e-3 * np.arange(CLASSES))
        models.save(model, folder / f"epoch{epoch}.onnx")
    return folder


ARGUMENTS = ("--mean", "127.5", "--std", "255", "--scale", "1")


def test_memorized_images_are_overfitting(
    run: Any, overfitted: Path, archive: Path, images: tuple[np.ndarray, np.ndarray]
) -> None:
    code, out, err = run(overfitted, "--images", archive, *ARGUMENTS, "--format", "json")
    assert code == 0
    assert err.count("\n") == err.count("epoch0.onnx") == 1, "all weights are zero there, which is no divergence"
    (found,) = json.loads(out)["runs"]
    assert found["basis"] == "images"
    assert found["verdict"] == "overfitting", found["evidence"]
    assert found["confidence"] >= found["agreed"]
    untrained = found["snapshots"][0]
    assert (untrained["epoch"], untrained["gain_mean_db"]) == (0, None), "the losses do not need a gain"
    assert untrained["images_loss"] == pytest.approx(np.log(CLASSES), abs=1e-3)
    # The losses follow their definition.
    inputs = ((images[0] - 127.5) / 255).astype(np.float32)[:, None]
    row = found["snapshots"][9]
    weights = weights_at(9, *images).reshape(CLASSES, -1)
    bias = 1e-3 * np.arange(CLASSES)

    def loss(some: np.ndarray) -> float:
        logits = some.reshape(COUNT, -1).astype(float) @ weights.T + bias
        return float(np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(COUNT), images[1]]))

    moved = geometric_copies(inputs)
    plain, copies = loss(inputs), float(np.mean([loss(some) for some in moved]))
    weight = 0.8 * neighbour_distance(inputs, moved, images[1])
    assert row["images_loss"] == pytest.approx(plain, abs=1e-5)
    assert row["copies_loss"] == pytest.approx(copies, abs=1e-5)
    assert row["surrogate"] == pytest.approx(plain + weight * max(copies - plain, 0), abs=1e-5)
    assert found["doubtful_images"] == []


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other images of the same patterns."""
    labels = np.arange(4 * COUNT) % CLASSES
    noise = np.random.default_rng(5).standard_normal((4 * COUNT, SIDE, SIDE))
    path = tmp_path_factory.mktemp("held-out") / "held-out.npz"
    pixels = np.clip(127.5 + 25 * patterns()[labels] + 40 * noise, 0, 255).astype(np.uint8)
    np.savez(path, images=pixels, labels=labels)
    return path


def test_the_loss_on_held_out_images_is_read_directly(
    run: Any, overfitted: Path, held_out: Path, images: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    lines = tmp_path / "records.jsonl"
    watched = (overfitted, "--images", held_out, "--held-out", *ARGUMENTS)
    (found,) = json.loads(run(*watched, "--format", "json", "--records", lines)[1])["runs"]
    assert (found["basis"], found["verdict"], found["doubtful_images"]) == ("held-out", "overfitting", [])
    assert any(one.startswith("the loss on the held-out images is least at epoch ") for one in found["evidence"])
    row = found["snapshots"][9]
    assert (row["copies_loss"], row["surrogate"]) == (None, None)
    with np.load(held_out) as file:
        inputs, labels = (file["images"] - 127.5) / 255, file["labels"]
    logits = inputs.reshape(len(inputs), -1) @ weights_at(9, *images).reshape(CLASSES, -1).T + 1e-3 * np.arange(CLASSES)
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(inputs)), labels]
    assert row["images_loss"] == pytest.approx(losses.mean(), abs=1e-5)
    records = [json.loads(line)["records"][0] for line in lines.read_text().splitlines()]
    assert {(len(one["sample"]["plain"]), len(one["sample"]["copies"])) for one in records} == {(4 * COUNT, 0)}
    for again in (watched, (*watched, "--no-cache")):  # from the file of records, whose models are not measured again
        assert json.loads(run(*again, "--format", "json", "--records", lines)[1])["runs"] == [found]
    assert len(lines.read_text().splitlines()) == len(records)
    for form in ("table", "markdown", "csv", "html"):
        out = run(*watched, "--format", form)[1]
        assert "images loss" in out or "images_loss" in out
        assert form == "csv" or "copies loss" not in out
    assert "(from held-out images: " in run(*watched)[1]


def test_held_out_needs_images(run: Any, overfitted: Path) -> None:
    code, _, err = run(overfitted, "--held-out")
    assert (code, err) == (2, "error: --held-out: no images are given; give them with --images\n")


def test_every_format_shows_the_losses(run: Any, overfitted: Path, archive: Path) -> None:
    for form in ("table", "markdown", "csv"):
        out = run(overfitted, "--images", archive, *ARGUMENTS, "--format", form)[1]
        assert "surrogate" in out
    assert "hint" not in run(overfitted, "--images", archive, *ARGUMENTS)[1]
    assert "hint" in run(overfitted, *ARGUMENTS)[1]


def test_of_several_runs_one_is_advised(
    run: Any, overfitted: Path, archive: Path, held_out: Path, images: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """The same run at half its rate has not memorized its images yet."""
    for name, pace in (("fast", 1.0), ("slow", 0.5)):
        (tmp_path / name).mkdir()
        for epoch in range(1, 15):
            model = models.linear(weights_at(int(epoch * pace), *images), 1e-3 * np.arange(CLASSES))
            models.save(model, tmp_path / name / f"epoch{epoch}.onnx")
    folders = tmp_path / "fast", tmp_path / "slow"
    watched = (*folders, "--images", archive, *ARGUMENTS)
    document = json.loads(run(*watched, "--format", "json")[1])
    assert list(document) == ["schema", "runs", "advice"]
    advice = document["advice"]
    assert (advice["run"], advice["basis"], advice["epoch"]) == ("slow", "images", 14)
    for found, loss in zip(document["runs"], advice["losses"], strict=True):
        assert found["doubtful_images"] == []
        assert loss == pytest.approx(np.mean([one["surrogate"] for one in found["snapshots"][-3:]]), abs=1e-9)
    text = run(*watched)[1]
    assert text.startswith("take slow: of 2 runs it has the least surrogate of the validation loss")
    assert text.splitlines()[1].startswith("(a hint: half-way through ")
    lines = {line.split()[0]: line for line in text.splitlines()[3:6]}
    assert lines["slow"].endswith("take this")
    assert "take this" not in lines["fast"]
    assert "**take slow: of 2 runs" in run(*watched, "--format", "markdown")[1]
    unseen = json.loads(run(*folders, "--images", held_out, "--held-out", *ARGUMENTS, "--format", "json")[1])
    assert (unseen["advice"]["run"], unseen["advice"]["basis"]) == ("slow", "held-out")
    for found, loss in zip(unseen["runs"], unseen["advice"]["losses"], strict=True):
        assert loss == pytest.approx(np.mean([one["images_loss"] for one in found["snapshots"][-3:]]), abs=1e-9)
    assert "it has the least loss on the held-out images, " in unseen["advice"]["sentence"]
    page = run(*watched, "--format", "html")[1]
    assert "Take slow: of 2 runs" in page
    assert page.count("take this") == 1
    assert run(*folders, *ARGUMENTS)[1].startswith("no advice: gains do not say which run to take: give --images")
    assert json.loads(run(overfitted, *ARGUMENTS, "--format", "json")[1])["advice"] is None


def test_a_verdict_from_images_can_fail(run: Any, overfitted: Path, archive: Path) -> None:
    assert run(overfitted, "--images", archive, *ARGUMENTS, "--fail-on", "overfitting")[0] == 1


def test_recorded_snapshots_are_measured_again_for_other_images(
    run: Any, overfitted: Path, archive: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "run.jsonl"
    run(overfitted, *ARGUMENTS, "--records", lines)
    first = lines.read_text().count("\n")
    with_images = run(overfitted, "--images", archive, *ARGUMENTS, "--records", lines, "--format", "json")[1]
    assert lines.read_text().count("\n") == 2 * first + 1, "epoch 0 has no gain, but losses"
    again = run(overfitted, "--images", archive, *ARGUMENTS, "--records", lines, "--format", "json")[1]
    assert lines.read_text().count("\n") == 2 * first + 1, "epoch 0 has no gain, but losses"
    assert json.loads(again)["runs"][0]["verdict"] == json.loads(with_images)["runs"][0]["verdict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "labels.csv"), "labels of no images"),
        (("--images", "nowhere"), "no such file or folder"),
        (("--images", "."), "holds no folder for each class"),
    ],
)
def test_unusable_images_are_refused(
    run: Any,
    overfitted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(overfitted, *arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_the_page_shows_the_losses(run: Any, overfitted: Path, archive: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs vl-convert-python")
    out = run(overfitted, "--images", archive, *ARGUMENTS, "--format", "html")[1]
    assert "From training images" in out and "copies loss" in out
