"""Compare our gradient graph on a GPU with PyTorch: time of forward and input gradient, agreement, nodes on the CPU.

    python -m scripts.benchmarks.bench_gpu [--device cuda] [--models NAME ...] [--batch 1 32] [--rounds 30]
        [--table FILE.md]

Needs torch, torchvision, and onnxgain with onnxruntime-gpu. Each torchvision model (random weights) is exported; both
sides compute the gradient of log z_i of the predicted class with respect to the image, from data on the device:

    ours        the graph that `onnxgain score --device` runs, with bound inputs and outputs (--cuda-graph: replayed)
    eager       PyTorch: forward, log_softmax, autograd.grad
    compiled    the same under torch.compile

TF32 is off on both sides. Times are medians over rounds, from CUDA events on a stream that both sides use, after
warm-up; rounds of the three alternate. The table ends with the geometric means of eager/ours and compiled/ours. No
weight requires a gradient, `torch.compile` gets static shapes, and weights are scaled so that signals keep their size
through the network (He initialization, calibrated batch normalization, and a random head instead of a zero one). With
--end-to-end FOLDER, each model also measures photographs with `onnxgain.measure.measure`: images per second, seconds of
a cold `onnxgain score`, and GPU memory of the process. A gain is the mean of the channels' Maximum Gains; differences
are of the largest channel, from the same graph on the CPU and from PyTorch in float64. `--device cpu` is a dry run,
timed by wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxgain.engine.device import CPU, Device, parse_device
from onnxgain.engine.session import Session, require_device
from onnxgain.gradient.reverse.seed import projection_factor
from onnxgain.measure.measure import measure_file
from onnxgain.measure.request import Request
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.differentiate import differentiate
from onnxgain.model.input_scale import input_scale
from onnxgain.model.photo import photographs
from onnxgain.model.reading import Reading

MODELS = (
    "alexnet", "vgg16", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_32",
)  # fmt: skip
SIDES = ("ours", "eager", "compiled")
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--side", type=int, default=224, help="of the image")
    parser.add_argument("--cuda-graph", action="store_true", help="capture our graph and replay it")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--end-to-end", type=Path, metavar="FOLDER", help="of photographs")
    parser.add_argument("--count", type=int, default=512, help="photographs for --end-to-end")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    device = parse_device(options.device) or CPU
    require_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name = torch.cuda.get_device_name(device.index) if device.has_cuda else "CPU (dry run)"
    heading = (
        "| model | batch | ours ms | eager ms | compiled ms | eager/ours | compiled/ours | gain dB | - CPU | - float64 "
    )
    lines = [
        f"{datetime.date.today().isoformat()}, {name}, PyTorch {torch.__version__}, `scripts/benchmarks/bench_gpu.py`",
        "",
        heading + "| nodes left to the CPU |",
        "|---" * 11 + "|",
    ]
    print("\n".join(lines))
    ratios: dict[str, list[float]] = {"eager": [], "compiled": []}
    for model in options.models:
        for line in benchmark(model, device, options, ratios):
            lines.append(line)
            print(line, flush=True)
    for side, found in ratios.items():
        if found:
            lines.append(f"\ngeometric mean of {side}/ours {math.exp(statistics.fmean(map(math.log, found))):.2f}")
            print(lines[-1])
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def benchmark(name: str, device: Device, options: Any, ratios: dict[str, list[float]]) -> Iterator[str]:
    """A line of the table for each batch size."""
    network = build(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        export(network, path, options.side)
        classifier = load_classifier(path)
        for batch in options.batch:
            images = np.random.default_rng(0).normal(size=(batch, 3, options.side, options.side)).astype(np.float32)
            gain, on_cpu, exact = agreement(classifier, network, images, device)
            left = nodes_left(classifier, batch, device)
            times = measure(classifier, network, images, device, options)
            cells = [name, str(batch), *(f"{times[side] * 1e3:.2f}" if side in times else "" for side in SIDES)]
            for side, found in ratios.items():
                if side in times:
                    found.append(times[side] / times["ours"])
                cells.append(f"{found[-1]:.2f}" if side in times else "")
            cells += [f"{gain:.2f}", f"{on_cpu:.4f}", f"{exact:.4f}", left]
            yield f"| {' | '.join(cells)} |"
        if options.end_to_end:
            yield end_to_end(path, device, options)


def end_to_end(path: Path, device: Device, options: Any) -> str:
    """Measure photographs in this process, a cold score, and GPU memory."""
    files = tuple(itertools.islice(itertools.cycle(photographs([options.end_to_end])), options.count))
    request = Request(Reading(scale=input_scale("imagenet")), stimuli=(), photos=files, device=device)
    free = gpu_memory(device)
    start = time.perf_counter()
    done = sum(1 for _ in measure_file(path, request))
    whole = time.perf_counter() - start
    taken = free - gpu_memory(device)
    command = [sys.executable, "-m", "onnxgain", "score", str(path), "--device", options.device, "-o", os.devnull]
    start = time.perf_counter()
    subprocess.run([*command, "--preprocess", "imagenet"], check=True)
    cold = time.perf_counter() - start
    memory = f", {taken / 1e6:.0f} MB of the GPU" if device.has_cuda else ""
    return f"\n{path.stem}: {done / whole:.0f} photographs a second of {done}, cold score {cold:.1f} s{memory}\n"


def gpu_memory(device: Device) -> int:
    """Free bytes of the GPU."""
    return int(torch.cuda.mem_get_info(device.index)[0]) if device.has_cuda else 0


def build(name: str) -> torch.nn.Module:
    """A torchvision classifier with reproducible random weights, in which signals neither vanish nor explode."""
    from scripts.corpus.torchvision_without_operators import declare_operators

    with contextlib.suppress(Exception):
        declare_operators()
    import torchvision

    torch.manual_seed(0)
    arguments = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network: torch.nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
    for module in network.modules():
        rescale(module)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # averages over all batches
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(8, 3, 224, 224))
    return network.eval()


def rescale(module: torch.nn.Module) -> None:
    """Set weights that keep the size of signals, in convolutions and in dense layers that torchvision sets to zero."""
    weight = getattr(module, "weight", None)
    if isinstance(module, torch.nn.Conv2d):
        torch.nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    elif isinstance(module, torch.nn.Linear) and weight is not None and not weight.detach().any():
        torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)


def export(network: torch.nn.Module, path: Path, side: int) -> None:
    torch.backends.mha.set_fastpath_enabled(False)  # used when nothing requires gradients; it cannot be exported
    torch.onnx.export(
        network, (torch.zeros(1, 3, side, side),), str(path), dynamo=False, opset_version=18, input_names=["image"],
        output_names=["logits"], dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip


def agreement(
    classifier: Classifier, network: torch.nn.Module, images: np.ndarray, device: Device
) -> tuple[float, float, float]:
    """Our gain of the first image in dB, and its differences from the CPU and from PyTorch in float64."""
    image = images[:1]
    here, there = (ours(classifier, image, where) for where in (device, CPU))
    wide = torch.from_numpy(image).double().requires_grad_()
    logits = network.double()(wide)
    torch.log_softmax(logits, 1)[0, int(logits.argmax())].backward()
    network.float()
    assert wide.grad is not None
    exact = frequency_response(wide.grad[0].numpy(), window=False)
    found, cpu = (frequency_response(derivative, window=False) for derivative in (here, there))
    assert found.mean_gain is not None
    return found.mean_gain, apart(found, cpu), apart(found, exact)


def apart(one: Any, other: Any) -> float:
    return max(abs(a - b) for a, b in zip(one.maximum_gain, other.maximum_gain, strict=True))


def ours(classifier: Classifier, image: np.ndarray, device: Device) -> np.ndarray:
    """The derivative of log z_i with respect to the first image, in model units."""
    graph = differentiate(classifier, target=device.target, scaled=False)
    found = Session(graph, threads=1, device=device).run({"image": image})
    factor = projection_factor(found["logits"][0], int(found["class"][0]), "1/score", independent=False)
    derivative: np.ndarray = found["derivative"][0].astype(np.float64) * 10.0**factor
    return derivative


def nodes_left(classifier: Classifier, batch: int, device: Device) -> str:
    """The number of nodes that the device leaves to the CPU, by the runtime's own count."""
    if device.is_cpu:
        return "-"
    graph = differentiate(classifier, batch=batch, target=device.target)
    placed = Session(graph, threads=1, device=device, traced=True).placement()
    return "not said" if placed is None else str(sum(node.provider not in device.providers for node in placed))


@dataclass(frozen=True)
class Tuned(Device):
    """A device with additional options for its first provider."""

    tuning: Mapping[str, str] = field(default_factory=dict)

    def provider_options(self) -> list[tuple[str, dict[str, str]]]:
        """The providers with their options, as the runtime's argument ``providers``."""
        (first, given), *others = super().provider_options()
        return [(first, {**given, **self.tuning}), *others]


def measure(
    classifier: Classifier, network: torch.nn.Module, images: np.ndarray, device: Device, options: Any
) -> dict[str, float]:
    """Median seconds of each side; their rounds alternate."""
    place = f"cuda:{device.index}" if device.has_cuda else "cpu"
    stream = torch.cuda.Stream(place) if device.has_cuda else None
    with torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext():
        network = network.to(place)
        data = torch.from_numpy(images).to(place)
        tuning = {}
        if stream is not None:
            tuning = {"user_compute_stream": str(stream.cuda_stream), "cudnn_conv_algo_search": "EXHAUSTIVE"}
            tuning["enable_cuda_graph"] = str(int(options.cuda_graph))
        graph = differentiate(classifier, batch=len(images), target=device.target)
        session = Session(graph, threads=1, device=Tuned(device.providers, device.index, device.tf32, tuning))
        sides: dict[str, Callable[[], Any]] = {
            "ours": session.bind({"image": images}).run,
            "eager": lambda: gradient(network, data),
        }
        if not options.no_compile:
            compiled = torch.compile(network, dynamic=False)
            sides["compiled"] = lambda: gradient(compiled, data)
        times: dict[str, list[float]] = {side: [] for side in sides}
        for run in sides.values():
            for _ in range(WARM_UP):
                run()
        for _ in range(options.rounds):
            for side, run in sides.items():
                times[side].append(seconds(run, stream))
        network.to("cpu")
    return {side: statistics.median(found) for side, found in times.items()}


def gradient(network: Any, data: torch.Tensor) -> torch.Tensor:
    """The forward pass, and the derivative of log z_i of the predicted classes with respect to the images."""
    images = data.detach().requires_grad_()
    scores = torch.log_softmax(network(images), 1)
    (found,) = torch.autograd.grad(scores.max(1).values.sum(), images)
    return found


def seconds(run: Callable[[], Any], stream: Any) -> float:
    """The time of one call: between events on the stream, or wall time on the CPU."""
    if stream is None:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record(stream)
    run()
    end.record(stream)
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


if __name__ == "__main__":
    sys.exit(main())
