"""Study how the gate's measures relate to the accuracy that variants of trained networks lose.

    python -m scripts.studies.gate_study run --shared ../shared --cifar cifar10.npz --work DIR [--network NAME ...]
    python -m scripts.studies.gate_study report --work DIR --out DIR

`run` creates each variant of each network, runs it on the labelled test images, on the fingerprint's synthetic images
and at an impulse and noise, and saves the results in DIR/network/variant.npz. Existing results are not computed again,
so `run` can be interrupted and resumed. Test images are added until it is clear whether the loss is below 0.2 points,
above 1, or in between, or until there are no more. `report` writes gate_study.csv and gate_study.md from the results.

    pip install numpy onnx onnxruntime pillow
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write
from onnxgain.measure.forward import forward
from onnxgain.measure.measure import score
from onnxgain.measure.synthetic_images import synthetic_images
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.stimulus import impulse, noise
from scripts.studies import gate_interface_variants, gate_tunes  # noqa: F401  they register their variants
from scripts.studies.gate_graphs import UnsuitableError, constants_to_initializers
from scripts.studies.gate_networks import (
    NETWORKS,
    Interface,
    Labelled,
    Network,
    answers,
    find_model,
    load_data,
    session,
)
from scripts.studies.gate_second_variants import SECOND
from scripts.studies.gate_variants import VARIANTS, Bench, Make

CHUNK = 1000
"""Number of test images to run before checking whether more are needed."""
HARMLESS, HARMFUL = 0.2, 1.0
"""Points of accuracy lost."""


def read(model: onnx.ModelProto, network: Network, bench: Bench | None = None) -> Classifier:
    scale = bench.declared if bench is not None and bench.declared is not None else network.scale
    return describe(ir.from_proto(model), Reading(network.image_shape, scale=scale))


def interface_of(classifier: Classifier) -> Interface:
    image = classifier.image
    return Interface(
        image.name, image.layout, classifier.head.output, image.fixed_batch, image.image_shape, classifier.scale
    )


def synthetic_logits(classifier: Classifier) -> NDArray[np.float32]:
    shape = classifier.image.image_shape
    images = (classifier.scale.apply(pixels.astype(np.float64)) for _, pixels in synthetic_images(shape))
    return np.stack(list(forward(classifier, images, threads=1))).astype(np.float32)


def gains(classifier: Classifier) -> dict[str, object]:
    """Gain, score and profile at the impulse and at noise, of log z_i and of the logit; or why there are none."""
    shape, scale = classifier.image.image_shape, classifier.scale
    stimuli = [impulse(shape, scale), noise(shape, scale)]
    found: dict[str, object] = {}
    for projection in ("1/score", "logit"):
        try:
            parts = [score(classifier, stimuli, projection=projection, threads=1)]
        except OnnxgainError:
            parts = []
        for place, stimulus in enumerate(stimuli):
            name = f"{projection} {stimulus.name}"
            try:
                measured = (
                    parts[0][place] if parts else score(classifier, [stimulus], projection=projection, threads=1)[0]
                )
            except OnnxgainError as error:
                found[name] = {"error": str(error)[:200]}
                continue
            record = measured.record
            found[name] = {
                "channels": record.gain.channels,
                "score": record.score,
                "class": record.class_index,
                "margin": record.margin,
                "profile": record.spectrum.profile_db,
            }
    return found


def settled(loss: float, deviation: float) -> bool:
    """Whether a loss, in points with its standard deviation, is clearly on one side of each bound."""
    low, high = loss - 2 * deviation, loss + 2 * deviation
    return high <= HARMLESS or low >= HARMFUL or (low >= HARMLESS and high <= HARMFUL)


def predict(
    model: onnx.ModelProto, interface: Interface, test: Labelled, limit: int, offset: int, reference: NDArray | None
) -> NDArray[np.int64]:
    """The predicted classes for as many test images as the comparison with the original needs."""
    runner = session(model)
    names = [output.name for output in runner.get_outputs()]
    output = interface.output if interface.output in names else names[0]
    found: list[NDArray[np.int64]] = []
    for start in range(0, min(limit, len(test.labels)), CHUNK):
        stop = min(start + CHUNK, limit)
        found.append(answers(runner, interface, test.images[start:stop], output).argmax(axis=1))
        if reference is None:
            continue
        mine, theirs, truth = np.concatenate(found), reference[:stop], test.labels[:stop] + offset
        differences = 100.0 * ((theirs == truth).astype(float) - (mine == truth))
        if settled(differences.mean(), differences.std() / np.sqrt(stop)):
            break
    return np.concatenate(found)


def study(network: Network, shared: Path, cifar: Path, work: Path, variants: Mapping[str, tuple[str, Make]]) -> None:
    path = find_model(network.name, shared)
    original = onnx.load(path)
    constants_to_initializers(original)
    classifier = read(original, network)
    interface = interface_of(classifier)
    train, test = load_data(network.data, interface.shape[1], shared, cifar)
    folder = work / network.name
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(original, interface, train, network.offset)
    reference: NDArray | None = None
    for name, (kind, make) in {"original": ("original", Bench.model), **variants}.items():
        target = folder / f"{name.replace(' ', '_').replace('/', '-')}.npz"
        if target.exists():
            if name == "original":
                reference = np.load(target)["predicted"]
            continue
        started = time.perf_counter()
        bench.rng, bench.declared = np.random.default_rng(zlib.crc32(f"{network.name}/{name}".encode())), None
        document: dict[str, object] = {"network": network.name, "kind": kind, "variant": name}
        arrays: dict[str, NDArray] = {}
        try:
            model = make(bench)
            changed = read(model, network, bench)
            document["head"], document["gains"] = changed.head.kind, gains(changed)
            document["classes"] = changed.head.classes
            arrays["synthetic"] = synthetic_logits(read(model, network, bench))
            arrays["predicted"] = predict(model, interface_of(changed), test, network.images, network.offset, reference)
            if name == "original":
                reference = arrays["predicted"]
            arrays["truth"] = test.labels[: len(arrays["predicted"])] + network.offset
            assert reference is not None
            arrays["reference"] = reference[: len(arrays["predicted"])]
        except UnsuitableError as error:
            document["unsuitable"] = str(error)
        except Exception as error:  # tools fail on some networks; the report says on which
            document["failed"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        document["seconds"] = round(time.perf_counter() - started, 1)
        write(target, document, arrays)
        print(network.name, name, line(document, arrays), flush=True)


def line(document: dict[str, object], arrays: dict[str, NDArray]) -> str:
    if "predicted" not in arrays:
        return str(document.get("failed", document.get("unsuitable")))
    right = [100 * np.mean(arrays[part] == arrays["truth"]) for part in ("reference", "predicted")]
    return f"{len(arrays['truth'])} images, {right[0]:.2f} -> {right[1]:.2f}, {document['seconds']} s"


def write(target: Path, document: dict[str, object], arrays: dict[str, NDArray]) -> None:
    temporary = target.with_name(target.name + ".part.npz")
    np.savez_compressed(temporary, document=np.array(json.dumps(document)), **arrays)
    temporary.replace(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--shared", type=Path, required=True)
    run.add_argument("--cifar", type=Path, required=True, help="cifar10.npz, as ../shared/data/get_cifar10.py makes it")
    run.add_argument("--network", action="append", choices=list(NETWORKS))
    run.add_argument("--second", action="store_true", help="the variants of the second judgement")
    report = commands.add_parser("report")
    report.add_argument("--out", type=Path, required=True)
    for command in (run, report):
        command.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "report":
        from scripts.studies.gate_report import report_study

        table, page = report_study(arguments.work)
        atomic_write(arguments.out / "gate_study.csv", table)
        atomic_write(arguments.out / "gate_study.md", page)
        sys.exit(0)
    warnings.filterwarnings("ignore")
    variants = SECOND if arguments.second else VARIANTS
    work = arguments.work / "second" if arguments.second else arguments.work
    for name in arguments.network or NETWORKS:
        study(NETWORKS[name], arguments.shared / "data", arguments.cifar, work, variants)


if __name__ == "__main__":
    main()
