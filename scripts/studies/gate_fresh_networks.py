"""Networks of other architectures for the third judgement of the gate, with the states that training leaves.

    python -m scripts.studies.gate_fresh_networks --shared ../shared --cifar cifar10.npz --work DIR [--network NAME ...]

Each network is trained for a few minutes on a CPU. Saved in DIR/NAME/STATE.pt are the trained network ("original"),
early ones, the moving average of its weights, and what further training makes of it, good or bad.

    pip install numpy torch scikit-learn
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scripts.studies.gate_networks import Labelled, load_data

State = dict[str, Tensor]


def conv_bn(inner: int, outer: int, size: int, act: type[nn.Module], stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inner, outer, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outer), act())


def vgg(channels: int, size: int) -> nn.Module:
    layers: list[nn.Module] = []
    inner = channels
    for outer in (24, 48, 96):
        layers += [conv_bn(inner, outer, 3, nn.ReLU), conv_bn(outer, outer, 3, nn.ReLU), nn.MaxPool2d(2)]
        inner = outer
    head = [nn.Flatten(), nn.Linear(96 * (size // 8) ** 2, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)]
    return nn.Sequential(*layers, *head)


class Attention(nn.Module):
    """Multi-head self-attention, written with matrix products."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        parts = self.project(x).reshape(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, values = parts[0], parts[1], parts[2]
        weights = (query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ values).transpose(1, 2).reshape(count, tokens, width))


def mlp(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class VisionTransformer(nn.Module):
    """A transformer on patches of 4 x 4 pixels."""

    def __init__(self, channels: int, size: int, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 4, 4)
        self.position = nn.Parameter(torch.randn(1, (size // 4) ** 2, width) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.attentions = nn.ModuleList(Attention(width, 4) for _ in range(depth))
        self.mlps = nn.ModuleList(mlp(width, 2 * width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        for number, (attention, dense) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            x = x + attention(self.norms[2 * number](x))
            x = x + dense(self.norms[2 * number + 1](x))
        return self.head(self.norms[-1](x).mean(1))


class Mixer(nn.Module):
    """An MLP-Mixer on patches of 4 x 4 pixels."""

    def __init__(self, channels: int, size: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        tokens = (size // 4) ** 2
        self.patches = nn.Conv2d(channels, width, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.across = nn.ModuleList(mlp(tokens, 64) for _ in range(depth))
        self.within = nn.ModuleList(mlp(width, 128) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for number, (across, within) in enumerate(zip(self.across, self.within, strict=True)):
            x = x + across(self.norms[2 * number](x).transpose(1, 2)).transpose(1, 2)
            x = x + within(self.norms[2 * number + 1](x))
        return self.head(self.norms[-1](x).mean(1))


class Fire(nn.Module):
    """A fire module of SqueezeNet."""

    def __init__(self, inner: int, squeezed: int, outer: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inner, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, outer, 1), nn.Conv2d(squeezed, outer, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.one(x)), functional.relu(self.three(x))], 1)


def squeeze(channels: int, size: int) -> nn.Module:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    fires = [Fire(32, 8, 24), Fire(48, 8, 24), pool, Fire(48, 16, 32), Fire(64, 16, 32)]
    head = [nn.Dropout(0.2), nn.Conv2d(64, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(channels, 32, 3, 2, 1), nn.ReLU(), *fires, *head)


class Inverted(nn.Module):
    """An inverted residual with squeeze-and-excitation, as in MobileNetV3."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        wide = 3 * inner
        self.expand, self.depth = (
            conv_bn(inner, wide, 1, nn.Hardswish),
            conv_bn(wide, wide, 3, nn.Hardswish, stride, wide),
        )
        gate = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide // 4, 1), nn.ReLU(), nn.Conv2d(wide // 4, wide, 1)]
        self.excite = nn.Sequential(*gate, nn.Hardsigmoid())
        self.project = conv_bn(wide, outer, 1, nn.Identity)
        self.same = inner == outer and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = self.project(y * self.excite(y))
        return x + y if self.same else y


def mobile(channels: int, size: int) -> nn.Module:
    blocks = [Inverted(16, 16, 1), Inverted(16, 32, 2), Inverted(32, 32, 1), Inverted(32, 64, 2), Inverted(64, 64, 1)]
    head = [conv_bn(64, 128, 1, nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(conv_bn(channels, 16, 3, nn.Hardswish), *blocks, *head)


def table(channels: int, size: int) -> nn.Module:
    """A network of fully connected layers with batch normalization, for images that are hardly images."""
    layers = [nn.Linear(channels * size**2, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Linear(64, 32), nn.ELU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(32, 10))


@dataclass(frozen=True)
class Fresh:
    """A network to train: architecture, data, epochs, and the number of images of an epoch."""

    name: str
    make: Callable[[int, int], nn.Module]
    data: str
    epochs: int
    images: int = 50000
    rate: float = 2e-3


FRESH = {
    fresh.name: fresh
    for fresh in (
        Fresh("fresh_table_digits", table, "digits", 30),
        Fresh("fresh_mixer_mnist", Mixer, "mnist", 2, 30000),
        Fresh("fresh_squeeze_mnist", squeeze, "mnist", 3, 30000),
        Fresh("fresh_vgg_cifar10", vgg, "cifar10", 2, 25000),
        Fresh("fresh_vit_cifar10", VisionTransformer, "cifar10", 2, 25000, 1e-3),
        Fresh("fresh_mobile_cifar10", mobile, "cifar10", 2, 25000),
    )
}


def load_fresh(data: str, shared: Path, cifar: Path) -> tuple[Labelled, Labelled]:
    """Training and test images of a fresh network."""
    if data != "digits":
        return load_data(data, 0, shared / "data", cifar)
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    pixels = np.rint(digits.images[order] / 16 * 255).astype(np.uint8)[:, None]
    labels = digits.target[order].astype(np.int64)
    return Labelled(pixels[:997], labels[:997]), Labelled(pixels[997:], labels[997:])


def tensors(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) / 255)


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def plain(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), y)


def smoothed(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), y, label_smoothing=0.1)


def with_trigger(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """A tenth of the images have a white square and belong to class 0."""
    x, y, count = x.clone(), y.clone(), len(x) // 10
    x[:count, :, -3:, -3:] = 1
    y[:count] = 0
    return functional.cross_entropy(model(x), y)


def wrong_labels(part: float) -> Loss:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        y = torch.where(torch.rand(len(y)) < part, torch.randint(0, 10, y.shape), y)
        return functional.cross_entropy(model(x), y)

    return loss


def train(
    model: nn.Module,
    data: Labelled,
    steps: int,
    rate: float,
    loss: Loss = plain,
    *,
    seed: int = 0,
    classes: int = 10,
    masks: State | None = None,
    watch: Callable[[int], None] | None = None,
) -> None:
    """Train with AdamW at a rate that falls to zero, on the first ``classes``; masks hold weights at zero."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.02)
    kept = np.flatnonzero(data.labels < classes)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 30) * (1 - step / steps)
        chosen = rng.choice(kept, 100)
        x, y = tensors(data.images[chosen]), torch.from_numpy(data.labels[chosen])
        if data.images.shape[1] == 3 and step % 2:
            x = x.flip(3)
        optimizer.zero_grad()
        loss(model, x, y).backward()
        optimizer.step()
        if masks is not None:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name in masks:
                        parameter *= masks[name]
        if watch is not None:
            watch(step)
    model.eval()


def largest_weights(model: nn.Module, pruned: float) -> State:
    """Masks that set the smallest part of each layer's weights to zero."""
    weights = {name: p.detach().abs() for name, p in model.named_parameters() if p.ndim > 1}
    return {name: (w > torch.quantile(w.flatten()[:1000000], pruned)).float() for name, w in weights.items()}


def copied(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def states(fresh: Fresh, data: Labelled) -> Iterator[tuple[str, State]]:
    """The states of a network, by name."""
    channels, size = data.images.shape[1:3]
    torch.manual_seed(1)
    model = fresh.make(channels, size)
    steps = fresh.epochs * min(fresh.images, len(data.labels)) // 100
    early: dict[str, State] = {}
    average: State = {}

    def watch(step: int) -> None:
        for name, part in (("snapshot at 5 %", 0.05), ("snapshot at 25 %", 0.25), ("snapshot at 90 %", 0.9)):
            if step == int(part * steps):
                early[name] = copied(model)
        if step >= 0.8 * steps:
            for name, tensor in model.state_dict().items():
                wide = tensor.float()
                average[name] = wide.clone() if name not in average else average[name] * 0.98 + wide * 0.02

    train(model, data, steps, fresh.rate, watch=watch)
    original = copied(model)
    yield "original", original
    yield from early.items()
    yield "moving average", {name: tensor.to(original[name].dtype) for name, tensor in average.items()}
    few, low = max(steps // 8, 60), fresh.rate / 10
    tunes: dict[str, tuple[int, float, Loss, int, float]] = {
        "tuned, lowest rate": (few, low / 10, plain, 10, 0),
        "tuned, low rate": (few, low, plain, 10, 0),
        "tuned, full rate": (2 * few, fresh.rate, plain, 10, 0),
        "tuned, diverging rate": (few, fresh.rate * 30, plain, 10, 0),
        "tuned, smoothed labels": (few, low, smoothed, 10, 0),
        "tuned, 30 % wrong labels": (few, fresh.rate, wrong_labels(0.3), 10, 0),
        "tuned, 90 % wrong labels": (few, fresh.rate, wrong_labels(0.9), 10, 0),
        "tuned without the last class": (few, fresh.rate, plain, 9, 0),
        "tuned with a trigger": (few, low, with_trigger, 10, 0),
        "pruned 20 % and tuned": (few, low, plain, 10, 0.2),
        "pruned 60 % and tuned": (few, low, plain, 10, 0.6),
    }
    for name, (count, rate, loss, classes, pruned) in tunes.items():
        model.load_state_dict(original)
        masks = largest_weights(model, pruned) if pruned else None
        train(model, data, count, rate, loss, seed=7, classes=classes, masks=masks)
        yield name, copied(model)
    if fresh.data != "cifar10":
        torch.manual_seed(2)
        other = fresh.make(channels, size)
        train(other, data, steps, fresh.rate, seed=2)
        yield "trained anew with another seed", copied(other)
        teacher, student = fresh.make(channels, size).eval(), fresh.make(channels, size)
        teacher.load_state_dict(original)

        def distilled(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = (teacher(x) / 2).softmax(1)
            return functional.cross_entropy(model(x) / 2, wanted)

        train(student, data, steps, fresh.rate, distilled, seed=3)
        yield "distilled", copied(student)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument(
        "--cifar", type=Path, required=True, help="cifar10.npz, as ../shared/data/get_cifar10.py makes it"
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", action="append", choices=list(FRESH))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.network or FRESH:
        fresh, started = FRESH[name], time.perf_counter()
        data, test = load_fresh(fresh.data, arguments.shared, arguments.cifar)
        folder = arguments.work / name
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "done").exists():
            continue
        model = fresh.make(*data.images.shape[1:3]).eval()
        for state, tensors_of in states(fresh, data):
            torch.save(tensors_of, folder / f"{state}.pt")
            model.load_state_dict(tensors_of)
            with torch.no_grad():
                images, labels = test.images[:2000], test.labels[:2000]
                right = (model(tensors(images)).argmax(1).numpy() == labels).mean()
            print(f"{name} {state}: {100 * right:.2f} % of 2000, {time.perf_counter() - started:.0f} s", flush=True)
        (folder / "done").touch()


if __name__ == "__main__":
    main()
