"""Compare a score in a cold process with PyTorch computing the same number from the same weights.

    python -m scripts.benchmarks.cold --torch-python PYTHON [--models resnet50 squeezenet1_1] [--rounds 7]
        [--prelude FILE]

PYTHON has torch and torchvision. It writes each model twice, as ONNX and as TorchScript. Then the following run in
turns, each in a new process:

    onnxgain      `onnxgain score MODEL.onnx`
    TorchScript   import torch, load, forward, backward, window, FFT: the shortest program for the same number, without
                  torchvision, and with parameters that do not require gradients
    torchvision   the same with the model built by torchvision, with the same weights
    --help        `onnxgain --help`
    import torch  only the import

The script prints medians of wall time with their range, the ratios to `onnxgain`, and the Maximum Gain of each.
--prelude is a file to run before the import of torchvision, if needed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WRITE = """
import sys, warnings
import torch, torchvision
warnings.simplefilter("ignore")
name, folder = sys.argv[1:]
torch.manual_seed(0)
model = torchvision.models.get_model(name, weights=None).eval()
with torch.no_grad():  # statistics of the batch normalizations as training leaves them, not those of an empty network
    model.train()(torch.randn(8, 3, 224, 224))
model.eval()
x = torch.zeros(1, 3, 224, 224)
torch.onnx.export(model, (x,), f"{folder}/{name}.onnx", opset_version=17, dynamo=False)
torch.save(model.state_dict(), f"{folder}/{name}.pth")
torch.jit.trace(model, x).save(f"{folder}/{name}.pt")
"""

MEASURE = """
for parameter in model.parameters():
    parameter.requires_grad_(False)
step = 1 / (255 * torch.tensor([0.229, 0.224, 0.225])).view(3, 1, 1)
x = torch.zeros(3, 224, 224)
x[:, 112, 112] = 255
x = (x * step).unsqueeze(0).requires_grad_()
log_z = model(x).log_softmax(1)
(slope,) = torch.autograd.grad(log_z.max(), x)
window = torch.hann_window(224, periodic=False)
response = torch.fft.fft2(slope[0] * step * window[:, None] * window).abs()
print(20 * response.amax((1, 2)).log10().mean().item())
"""

SCRIPTED = "import torch\nmodel = torch.jit.load('{folder}/{name}.pt').eval()\n" + MEASURE

BUILT = (
    "import torch, torchvision\nmodel = torchvision.models.get_model('{name}', weights=None).eval()\n"
    "model.load_state_dict(torch.load('{folder}/{name}.pth'))\n" + MEASURE
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--models", nargs="+", default=["resnet50", "squeezenet1_1"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prelude", type=Path)
    arguments = parser.parse_args()
    torch = [arguments.torch_python, "-c"]
    prelude = arguments.prelude.read_text() if arguments.prelude else ""
    onnxgain = [sys.executable, "-m", "onnxgain"]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            subprocess.run([*torch, prelude + WRITE, name, folder], check=True, capture_output=True)
            scored = [*onnxgain, "score", f"{folder}/{name}.onnx", "--preprocess", "imagenet", "--format", "json"]
            compare(
                name,
                {
                    "onnxgain": scored,
                    "TorchScript": [*torch, SCRIPTED.format(name=name, folder=folder)],
                    "torchvision": [*torch, prelude + BUILT.format(name=name, folder=folder)],
                },
                arguments.rounds,
            )
    compare("start", {"--help": [*onnxgain, "--help"], "import torch": [*torch, "import torch"]}, arguments.rounds)


def compare(name: str, commands: dict[str, list[str]], rounds: int) -> None:
    """Run the commands in turns and print a line for each; the first round does not count."""
    seconds: dict[str, list[float]] = {label: [] for label in commands}
    outputs = {}
    # The first round may compile modules, which installing a package would do.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(rounds + 1):
        for label, command in commands.items():
            started = time.perf_counter()
            outputs[label] = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            seconds[label].append(time.perf_counter() - started)
    first = next(iter(commands))
    for label, measured in seconds.items():
        counted = measured[1:]
        ratios = [ours / other for ours, other in zip(seconds[first][1:], counted, strict=True)]
        ratio = "" if label == first else f"  {first} takes {statistics.median(ratios):.2f} of it"
        spread = f"{min(counted):.2f} to {max(counted):.2f} s"
        print(
            f"{name:14} {label:13} {statistics.median(counted):5.2f} s, {spread}{ratio}{gain(outputs[label])}",
            flush=True,
        )


def gain(output: str) -> str:
    """The Maximum Gain in the output of a command, if there is one."""
    if output.startswith("{"):
        return f"  {json.loads(output)['records'][0]['gain']['mean']:.4f} dB"
    try:
        return f"  {float(output):.4f} dB"
    except ValueError:
        return ""


if __name__ == "__main__":
    main()
