"""Figures 8 and 9: LeNet on MNIST at a learning rate of 0.001 times 1, 2, 3, 4 and times 1, 1/3, 1/10.

    python scripts/reproduce/figures_8_9.py train --mnist DIR --out DIR [--images 60000] [--epochs 20] [--width 1]
    python scripts/reproduce/figures_8_9.py draw --out DIR

`train` needs torch and onnx and writes a snapshot an epoch and a log of losses; `draw` is `onnxgain track` on them and
writes figure_8.svg, figure_9.svg and the numbers. The paper trains on 60,000 images; with fewer (say which), an epoch
has fewer steps, so the curves are those of a shorter training, and as many are validated on (10,000 at most). As in
MatConvNet: batches of 100, momentum 0.9, weight decay 0.0005. The paper's initialization is not published: PyTorch's.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

RATE = 0.001
FIGURES = {"figure_8": ("1", "2", "3", "4"), "figure_9": ("1", "1over3", "1over10")}
FACTORS = {"1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0, "1over3": 1 / 3, "1over10": 0.1}
SEED = 0


def train(mnist: Path, out: Path, images: int, epochs: int, width: float) -> None:
    import data
    import nets
    import torch
    from torch import nn

    torch.set_num_threads(1)
    chosen = data.load("mnist", mnist).subset(images, min(images, 10000), SEED)
    inputs, labels = chosen.train
    for name, factor in FACTORS.items():
        folder = out / f"rate_x{name}"
        if (folder / f"epoch{epochs}.onnx").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(SEED)
        model = nets.build("lenet", "mnist", width)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE * factor, momentum=0.9, weight_decay=5e-4)
        with (folder / "history.csv").open("w", newline="") as file:
            log = csv.writer(file)
            log.writerow(["epoch", "loss", "val_loss", "val_error"])
            for epoch in range(1, epochs + 1):
                model.train()
                total = 0.0
                for picked in torch.randperm(len(labels)).split(100):
                    loss = nn.functional.cross_entropy(model(inputs[picked]), labels[picked])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += float(loss.detach()) * len(picked)
                model.eval()
                with torch.no_grad():
                    logits = torch.cat([model(part) for part in chosen.validation[0].split(500)])
                validation = float(nn.functional.cross_entropy(logits, chosen.validation[1]))
                error = float((logits.argmax(dim=1) != chosen.validation[1]).double().mean())
                log.writerow([epoch, total / len(labels), validation, error])
                torch.onnx.export(model, (inputs[:1],), folder / f"epoch{epoch}.onnx", dynamo=False)
        print(f"{folder}: validation loss {validation:.4f}, error {error:.4f}", flush=True)


def draw(out: Path) -> None:
    for figure, names in FIGURES.items():
        folders = [out / f"rate_x{name}" for name in names]
        logs = [part for folder in folders for part in ("--log", str(folder / "history.csv"))]
        command = [sys.executable, "-m", "onnxgain", "track", *map(str, folders), *logs, "--preprocess", "mnist"]
        command += ["--plot", str(out / f"{figure}.svg"), "--format", "markdown", "-o", str(out / f"{figure}.md")]
        subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "draw"])
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=float, default=1.0, help="factor on the number of filters")
    arguments = parser.parse_args()
    if arguments.step == "train":
        train(arguments.mnist, arguments.out, arguments.images, arguments.epochs, arguments.width)
    else:
        draw(arguments.out)


if __name__ == "__main__":
    main()
