"""The callbacks of `scripts/callbacks`: snapshots of three epochs can be tracked. Skipped without the frameworks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgain.measure.request import Request
from onnxgain.measure.snapshots import Snapshots

FOLDER = Path(__file__).parents[2] / "scripts" / "callbacks"
EPOCHS = 3

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks' own


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def assert_series(folder: Path, *, alike: bool = True) -> None:
    """`alike`: whether the exporter gives the same names every time, so that weights can be swapped."""
    assert sorted(path.name for path in folder.iterdir()) == [f"epoch{n}.onnx" for n in range(1, EPOCHS + 1)]
    snapshots = Snapshots(Request(), threads=1)
    gains = {
        snapshots.measure(folder / f"epoch{n}.onnx")[1][0].record.gain.mean for n in range(1, EPOCHS + 1)
    }  # fmt: skip
    assert len(gains) == EPOCHS
    assert not alike or snapshots.swapped == EPOCHS - 1


def test_pytorch(load: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    images, labels = torch.randn(8, 3, 12, 12), torch.arange(8) % 5
    for epoch in range(1, EPOCHS + 1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        load("snapshot_pytorch").save_snapshot(model, images, tmp_path, epoch)
        assert model.training
    assert_series(tmp_path)


def test_lightning(load: Any, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    nn = torch.nn

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
            )

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, _: int) -> Any:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    images, labels = torch.randn(8, 3, 12, 12), torch.arange(8) % 5
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 4)
    callback = load("snapshot_lightning").Snapshots(str(tmp_path / "run"), images)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), loader)
    assert_series(tmp_path / "run")


def test_keras(load: Any, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((8, 12, 12, 3)).astype(np.float32), np.arange(8) % 5
    callback = load("snapshot_keras").Snapshots(str(tmp_path / "run"))
    model.fit(images, labels, epochs=EPOCHS, callbacks=[callback], verbose=0)
    assert_series(tmp_path / "run", alike=False)
