"""A short training with each framework: every epoch reaches the framework's logger, and training is not affected.

Skipped where a framework is missing.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxgain
from onnxgain import OnnxgainError
from onnxgain.files import natural_key

pytestmark = [
    pytest.mark.usefixtures("own_cache", "_hurried"),
    pytest.mark.filterwarnings("ignore"),
]  # the frameworks' own

EPOCHS = 7
FILES = [f"epoch{number}.onnx" for number in range(1, EPOCHS + 1)]
NAMES = ("gain_db", "images_loss", "copies_loss", "surrogate", "agreement")


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("onnxscript")
    return pytest.importorskip("torch")


@pytest.fixture
def expected(colour_archive: Path) -> Callable[[Path], dict[int, tuple[float, float]]]:
    """(gain, surrogate) of the epochs of a run, as `onnxgain track` finds them."""

    def track(folder: Path) -> dict[int, tuple[float, float]]:
        files = sorted(folder.glob("*.onnx"), key=lambda path: natural_key(path.name))
        # The doubtful images that are left out are determined anew with every snapshot.
        found = {}
        for count in range(1, len(files) + 1):
            (run,) = onnxgain.track(files[:count], images=colour_archive, preprocess="unit").to_dict()["runs"]
            last = run["snapshots"][-1]
            found[last["epoch"]] = (last["gain_mean_db"], last["surrogate"])
        return found

    return track


def network(torch: Any) -> Any:
    """A network with layers that behave differently in training: batch normalization (one frozen) and dropout."""
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 4),
    )  # fmt: skip
    model[4].requires_grad_(False)
    return model


def batch(torch: Any, sample: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    images = np.repeat(sample[0][:, None], 3, axis=1).astype(np.float32) / 255
    return torch.from_numpy(images), torch.from_numpy(sample[1])


def assert_alike(found: dict[int, tuple[float, float]], expected: dict[int, tuple[float, float]]) -> None:
    """Compare with float32 precision, which loggers keep."""
    assert list(found) == list(expected) == list(range(1, EPOCHS + 1))
    assert np.allclose(list(found.values()), list(expected.values()), rtol=1e-6, atol=0)


class Slow:
    """Mixed into a callback of any framework: makes each epoch take long enough to measure a snapshot."""

    def on_train_epoch_start(self, *_: Any) -> None:
        time.sleep(0.3)

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        time.sleep(0.3)


# --------------------------------------------------------------------------------------------------- PyTorch
def train(torch: Any, sample: Any, monitor: Any = None) -> Any:
    model, (images, labels) = network(torch), batch(torch, sample)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        model[4].eval()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if monitor is not None:
            monitor.snapshot(model, images, epoch, step=100 * epoch)
            assert [part.training for part in (model, model[1], model[4])] == [True, True, False]
    return model


def test_pytorch(torch: Any, sample: Any, colour_archive: Path, tmp_path: Path, expected: Any) -> None:
    from onnxgain.callbacks import PyTorchMonitor

    found = {}

    def log(metrics: dict[str, float], step: int) -> None:
        assert list(metrics)[1:] == [f"onnxgain/{name}" for name in NAMES][: len(metrics) - 1]
        found[step // 100] = metrics["onnxgain/gain_db"], metrics["onnxgain/surrogate"]

    with PyTorchMonitor(tmp_path, images=colour_archive, preprocess="unit", log=log) as monitor:
        model = train(torch, sample, monitor)
    assert sorted(os.listdir(tmp_path)) == FILES
    assert_alike(found, expected(tmp_path))
    assert monitor.last is not None
    assert not monitor.should_stop
    plain = train(torch, sample)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))


def test_pytorch_with_tensorboard(torch: Any, sample: Any, colour_archive: Path, tmp_path: Path, expected: Any) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    from onnxgain.callbacks import PyTorchMonitor

    log = tmp_path / "log"
    with (
        SummaryWriter(log) as writer,
        PyTorchMonitor(tmp_path / "run", images=colour_archive, preprocess="unit", log=writer) as monitor,
    ):
        train(torch, sample, monitor)
    assert_alike({step // 100: values for step, values in events(log).items()}, expected(tmp_path / "run"))


def events(folder: Path) -> dict[int, tuple[float, float]]:
    """(gain, surrogate) by step from TensorBoard's files; checks that each step also has its verdict as text."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder)).Reload()
    gains, losses = (log.Scalars(f"onnxgain/{name}") for name in ("gain_db", "surrogate"))
    assert [one.step for one in log.Tensors("onnxgain/verdict/text_summary")] == [one.step for one in gains]
    return {gain.step: (gain.value, loss.value) for gain, loss in zip(gains, losses, strict=True)}


def test_pytorch_refuses_loggers_without_metrics(torch: Any, tmp_path: Path) -> None:
    from onnxgain.callbacks import PyTorchMonitor

    with pytest.raises(OnnxgainError, match="log=: a str takes no metrics; pass a SummaryWriter, or a function"):
        PyTorchMonitor(tmp_path, log="tensorboard")


@pytest.mark.parametrize(
    ("shape", "kind"), [((4, 10), "float32"), ((4, 12), "int64"), ((4, 2, 20), "float32"), ((2, 1, 8, 8, 8), "float32")]
)
def test_pytorch_says_once_that_inputs_are_no_images(
    torch: Any, shape: tuple[int, ...], kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from onnxgain.callbacks import PyTorchMonitor

    caplog.set_level(logging.INFO, "onnxgain")
    with PyTorchMonitor(tmp_path) as monitor:
        for epoch in (1, 2):
            monitor.snapshot(torch.nn.Flatten(), torch.zeros(shape, dtype=getattr(torch, kind)), epoch)
    assert [record.getMessage() for record in caplog.records if record.name == "onnxgain"] == [
        f"training is not watched: example: a tensor of shape {shape} is not a batch of images (N, C, H, W); pass "
        "image_shape= (as 1x28x28) if the network takes flattened images; others than classifiers of images cannot be "
        "measured"
    ]
    assert os.listdir(tmp_path) == []


def test_pytorch_takes_flattened_images(torch: Any, tmp_path: Path) -> None:
    from onnxgain.callbacks import PyTorchMonitor

    with PyTorchMonitor(tmp_path, image_shape="1x6x6") as monitor:
        monitor.snapshot(torch.nn.Linear(36, 3), torch.zeros(4, 36), 1)
    assert monitor.last is not None
    assert monitor.last.gain_db is not None


DISTRIBUTED = """
import json, os, sys, time, torch
from torch import distributed
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
from onnxgain.callbacks import PyTorchMonitor
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(
    torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(32, 3))
)
optimizer, images = torch.optim.SGD(model.parameters(), 0.1), torch.randn(4, 1, 6, 6)
with PyTorchMonitor(os.path.join(folder, "run"), stop_on="undecided", patience=2) as monitor:
    for epoch in range(1, 400):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        if epoch <= 5:
            monitor.snapshot(model, images, epoch)
        monitor.poll()
        if monitor.should_stop:
            break
        torch.distributed.barrier()
        time.sleep(0.1)
print(json.dumps([epoch, None if monitor.last is None else monitor.last.epoch]))
"""


def test_pytorch_in_two_processes(torch: Any, tmp_path: Path) -> None:
    """The first watches, and both stop at the same epoch."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("PyTorch was built without gloo")
    both = [
        subprocess.Popen([sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path)], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        (first, seen), (second, unseen) = (json.loads(one.communicate(timeout=300)[0]) for one in both)
    finally:
        for one in both:
            one.kill()
    assert first == second < 399
    assert seen >= 2
    assert unseen is None
    assert sorted(os.listdir(tmp_path / "run")) == [f"epoch{epoch}.onnx" for epoch in range(1, 6)][: min(first, 5)]


def test_batch_axis_is_dynamic_if_the_network_allows_it(torch: Any, tmp_path: Path) -> None:
    import onnx

    from onnxgain.commands.callbacks.pytorch import exporter

    def first_axis(model: Any) -> Any:
        exporter(model, torch.zeros(8, 3, 12, 12))(tmp_path / "model.onnx")
        return onnx.load(tmp_path / "model.onnx").graph.input[0].type.tensor_type.shape.dim[0]

    class OneByOne(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = network(torch)

        def forward(self, x: Any) -> Any:
            return self.net(x.reshape(1, 3, 12, 12))

    assert first_axis(network(torch)).dim_param
    assert first_axis(OneByOne()).dim_value == 1


def test_weights_without_numpy_are_left_out(torch: Any) -> None:
    from onnxgain.commands.callbacks.pytorch import weights_of

    model = network(torch)
    assert len(weights_of(model) or ()) == 14
    model[9].weight = model[9].bias = None
    assert len(weights_of(model) or ()) == 12
    assert weights_of(model.to(torch.bfloat16)) is None


# ------------------------------------------------------------------------------------------------- Lightning
def fit(torch: Any, sample: Any, folder: Path, *callbacks: Any, epochs: int = EPOCHS) -> tuple[Any, Any]:
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = network(torch)

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, given: Any, _: int) -> Any:
            return torch.nn.functional.cross_entropy(self(given["images"]), given["labels"])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    images, labels = batch(torch, sample)
    data = [{"labels": label, "images": image} for image, label in zip(images, labels, strict=True)]
    loggers = [CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="board", version="")] if callbacks else []
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", logger=loggers, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(data, 32))
    return trainer, module


def test_lightning(torch: Any, sample: Any, colour_archive: Path, tmp_path: Path, expected: Any) -> None:
    pytest.importorskip("lightning")
    pytest.importorskip("tensorboard")
    from onnxgain.callbacks import LightningCallback

    callback = LightningCallback(tmp_path / "run", images=colour_archive, preprocess="unit")
    _, module = fit(torch, sample, tmp_path, callback)
    numbers = expected(tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == FILES
    assert_alike({step // 2: values for step, values in events(tmp_path / "board").items()}, numbers)
    (file,) = (tmp_path / "csv").rglob("metrics.csv")
    rows = [row for row in csv.DictReader(file.open()) if row.get("onnxgain/gain_db")]
    found = {
        int(row["step"]) // 2: (float(row["onnxgain/gain_db"]), float(row["onnxgain/surrogate"])) for row in rows
    }  # fmt: skip
    assert_alike(found, numbers)
    _, plain = fit(torch, sample, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), plain.parameters(), strict=True))


def test_lightning_stops(torch: Any, sample: Any, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    pytest.importorskip("tensorboard")
    from onnxgain.callbacks import LightningCallback

    class Callback(Slow, LightningCallback):
        pass

    callback = Callback(tmp_path / "run", preprocess="unit", stop_on="undecided", patience=1)
    trainer, _ = fit(torch, sample, tmp_path, callback, epochs=10_000)
    assert trainer.current_epoch < 10_000
    assert trainer.should_stop


def test_lightning_finds_images_in_a_batch(torch: Any) -> None:
    pytest.importorskip("lightning")
    from onnxgain.commands.callbacks.lightning import _images

    images = torch.zeros(2, 3, 4, 4)
    for given in (
        images,
        (images, 1),
        [torch.zeros(2), {"x": "a", "y": images}],
        ((torch.zeros(2, 1, 4, 4).int(), images),),
    ):
        assert _images(given) is images
    assert _images({"x": torch.zeros(2, 5)}) is None


# ----------------------------------------------------------------------------------------------------- Keras
def fit_keras(sample: Any, *callbacks: Any, epochs: int = EPOCHS) -> tuple[Any, Any]:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)), layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
            layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(4),
        ]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    images = np.repeat(sample[0][..., None], 3, axis=3).astype(np.float32) / 255
    return model, model.fit(images, sample[1], batch_size=32, epochs=epochs, callbacks=list(callbacks), verbose=0)


def test_keras(torch: Any, sample: Any, colour_archive: Path, tmp_path: Path, expected: Any) -> None:
    keras = pytest.importorskip("keras")
    from onnxgain.callbacks import KerasCallback

    callback = KerasCallback(tmp_path / "run", images=colour_archive, preprocess="unit")
    model, history = fit_keras(sample, callback, keras.callbacks.CSVLogger(tmp_path / "log.csv"), epochs=EPOCHS)
    numbers = expected(tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == FILES
    assert callback.monitor.last.epoch == EPOCHS
    assert (callback.monitor.last.gain_db, callback.monitor.last.surrogate) == numbers[EPOCHS]
    for row in csv.DictReader((tmp_path / "log.csv").open()):
        epoch, *values = (float(row[f"onnxgain_{name}"]) for name in ("epoch", "gain_db", "surrogate"))
        assert np.isnan(epoch) or tuple(values) == pytest.approx(numbers[int(epoch)], rel=1e-6)
    assert {f"onnxgain_{name}" for name in NAMES} <= set(history.history)
    plain, _ = fit_keras(sample)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), plain.get_weights(), strict=True))


def test_keras_stops(torch: Any, sample: Any, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    from onnxgain.callbacks import KerasCallback

    class Callback(Slow, KerasCallback):
        pass

    callback = Callback(tmp_path, preprocess="unit", stop_on=["undecided"], patience=1)
    _, history = fit_keras(sample, callback, epochs=10_000)
    assert len(history.epoch) < 10_000


# ---------------------------------------------------------------------------------------------- Hugging Face
def hugging_face(torch: Any, sample: Any, folder: Path, *, epochs: int = EPOCHS) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.ViTConfig(
        image_size=12, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=4,
    )  # fmt: skip
    transformers.set_seed(0)
    images, labels = batch(torch, sample)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=32, report_to=[], use_cpu=True,
        save_strategy="no", logging_strategy="no", disable_tqdm=True, learning_rate=1e-2,
    )  # fmt: skip
    data = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    return transformers.Trainer(transformers.ViTForImageClassification(config), arguments, train_dataset=data)


def test_hugging_face(torch: Any, sample: Any, colour_archive: Path, tmp_path: Path, expected: Any) -> None:
    trainer = hugging_face(torch, sample, tmp_path / "out")
    from onnxgain.callbacks import HuggingFaceCallback

    HuggingFaceCallback(tmp_path / "run", images=colour_archive, preprocess="unit").attach(trainer)
    trainer.train()
    assert sorted(os.listdir(tmp_path / "run")) == FILES
    rows = [row for row in trainer.state.log_history if "onnxgain/gain_db" in row]
    found = {int(row["onnxgain/epoch"]): (row["onnxgain/gain_db"], row["onnxgain/surrogate"]) for row in rows}
    assert_alike(found, expected(tmp_path / "run"))
    assert json.dumps(rows)
    plain = hugging_face(torch, sample, tmp_path / "out")
    plain.train()
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), plain.model.parameters(), strict=True))


def test_hugging_face_stops(torch: Any, sample: Any, tmp_path: Path) -> None:
    trainer = hugging_face(torch, sample, tmp_path / "out", epochs=10_000)
    from onnxgain.callbacks import HuggingFaceCallback

    class Callback(Slow, HuggingFaceCallback):
        pass

    Callback(tmp_path / "run", preprocess="unit", stop_on="undecided", patience=1).attach(trainer)
    trainer.train()
    assert trainer.state.epoch < 10_000
