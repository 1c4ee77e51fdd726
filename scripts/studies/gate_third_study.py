"""Judge variants of other kinds, and of other networks, by `onnxgain gate` with its defaults: the third judgement.

    python -m scripts.studies.gate_third_study run --shared ../shared --cifar cifar10.npz --work DIR [--network NAME]
    python -m scripts.studies.gate_third_study report --work DIR --out DIR

`run` needs what `gate_fresh_networks` has trained in DIR. It saves each variant of each network as a file, runs the
gate on it against a baseline of the original, measures the accuracy of both on the same labelled test images, and saves
what it found in DIR/network/results/variant.json; existing results are not computed again. `report` writes
gate_third.csv and gate_third.md.

    pip install numpy onnx onnxruntime onnxscript onnxsim onnxslim pillow scikit-learn torch
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxgain
from onnxgain.analysis.gate_result import GateResult
from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write
from onnxgain.model.input_scale import PRESETS
from scripts.studies.gate_fresh_networks import FRESH, load_fresh
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
from scripts.studies.gate_study import CHUNK, interface_of, read, settled
from scripts.studies.gate_third_variants import THIRD
from scripts.studies.gate_variants import Bench

OTHERS = (
    "cifar10_resnet32",
    "mlperf_tiny_resnet_large_cifar10",
    "MobileNetV3Small",
    "squeezenet1.1_from_fp16",
    "torchvision_mobilenet_v2",
)
"""Networks of `gate_networks` that the thresholds were not chosen on."""


class Case(NamedTuple):
    """A variant: its kind and name, and the file to judge, made on demand."""

    kind: str
    name: str
    make: Callable[[Path], None]


class Subject(NamedTuple):
    """A network with its original file, its test images and its variants."""

    network: Network
    original: Path
    train: Labelled
    test: Labelled
    states: tuple[Case, ...]


def subject_of(name: str, shared: Path, cifar: Path, work: Path) -> Subject:
    """A network of the study; a fresh one is exported from its trained state first."""
    if name in NETWORKS:
        network, path = NETWORKS[name], find_model(name, shared / "data")
        shape = read(onnx.load(path), network).image.image_shape
        train, test = load_data(network.data, shape[1], shared / "data", cifar)
        return Subject(network, path, train, test, ())
    fresh, path = FRESH[name], work / name / f"{name}.onnx"
    train, test = load_fresh(fresh.data, shared, cifar)
    network = Network(name, fresh.data, PRESETS["unit"], 10000)
    folder = work / name
    if not path.exists():
        export(name, folder / "original.pt", path, train)
    states = [path.stem for path in sorted(folder.glob("*.pt")) if path.stem != "original"]

    def exported(state: str, **options: Any) -> Callable[[Path], None]:
        return lambda target: export(name, folder / f"{state}.pt", target, train, **options)

    cases = [Case("training", state, exported(state)) for state in states]
    cases += [
        Case("other export", "torch's other exporter", exported("original", dynamo=True)),
        Case("other export", "batch normalization folded", exported("original", kept=False)),
        Case("other export", "fixed batch of 1", exported("original", fixed=True)),
        Case("other export", "opset 12", exported("original", opset=12)),
    ]
    return Subject(network, path, train, test, tuple(cases))


def export(
    name: str, state: Path, target: Path, data: Labelled, *, dynamo: bool = False, kept: bool = True,
    fixed: bool = False, opset: int = 17,
) -> None:  # fmt: skip
    import torch

    model = FRESH[name].make(*data.images.shape[1:3])
    model.load_state_dict(torch.load(state))
    example = torch.zeros(1 if fixed else 2, *data.images.shape[1:])
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            model.eval(), (example,), target, dynamo=True, dynamic_shapes=shapes, external_data=True, **names
        )
        return
    axes = {} if fixed else {"image": {0: "batch"}, "logits": {0: "batch"}}
    mode = torch.onnx.TrainingMode.PRESERVE if kept else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        model.eval(), (example,), target, dynamo=False, dynamic_axes=axes, training=mode,
        do_constant_folding=not kept, opset_version=opset, **names,
    )  # fmt: skip


def cases_of(subject: Subject) -> Iterator[tuple[Case, Bench]]:
    original = onnx.load(subject.original)
    constants_to_initializers(original)
    interface = interface_of(read(original, subject.network))
    bench = Bench(original, interface, subject.train, subject.network.offset)

    def saved(name: str) -> Callable[[Path], None]:
        return lambda target: onnx.save(THIRD[name][1](bench), target)

    yield Case("original", "original", lambda target: onnx.save(onnx.load(subject.original), target)), bench
    for case in (*subject.states, *(Case(kind, name, saved(name)) for name, (kind, _) in THIRD.items())):
        bench.rng = np.random.default_rng(zlib.crc32(f"{subject.network.name}/{case.name}".encode()))
        bench.declared = None
        yield case, bench


def judge(subject: Subject, work: Path) -> None:
    network = subject.network
    folder = work / network.name
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "variant").mkdir(exist_ok=True)
    baseline, reference = folder / "baseline.json", None
    reading: dict[str, Any] = {"preprocess": network.scale.name, "image_shape": network.image_shape}
    if not baseline.exists():
        onnxgain.gate(
            subject.original, baseline=str(baseline), update_baseline=True, threads=1, no_cache=True, **reading
        )
    for case, bench in cases_of(subject):
        result = folder / "results" / f"{case.name.replace('/', '-')}.json"
        kept = folder / "predicted.npy"
        if result.exists():
            reference = np.load(kept) if case.name == "original" else reference
            continue
        started = time.perf_counter()
        found: dict[str, Any] = {"network": network.name, "kind": case.kind, "variant": case.name}
        target = folder / "variant" / subject.original.name
        for old in (folder / "variant").iterdir():
            old.unlink()
        try:
            case.make(target)
            options = reading | (
                {"preprocess": bench.declared.name, "allow_scale_change": True} if bench.declared else {}
            )
            outcome = onnxgain.gate(target, baseline=str(baseline), threads=1, no_cache=True, **options)
            found |= said(outcome.value[0], outcome.exit_code)
            predicted = classes(target, network, bench, subject.test, reference)
            if case.name == "original":
                reference = predicted
                np.save(kept, predicted)
            assert reference is not None
            found |= accuracy(predicted, reference, subject.test.labels + network.offset)
        except UnsuitableError as error:
            found["unsuitable"] = str(error)
        except Exception as error:  # tools fail on some networks; the report counts them
            found["failed"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        found["seconds"] = round(time.perf_counter() - started, 1)
        atomic_write(result, json.dumps(found))
        print(json.dumps(found), flush=True)


def said(result: GateResult, code: int) -> dict[str, Any]:
    """What the gate said of a model."""
    function = result.function
    return {
        "verdict": result.verdict,
        "exit_code": code,
        "divergence": None if function is None else function.divergence,
        "why": [f"{check.name}: {check.message}" for check in result.failed],
        "notes": list(result.notes)[:6],
    }


def classes(
    path: Path, network: Network, bench: Bench, test: Labelled, reference: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """The predicted classes for as many test images as the comparison needs."""
    model = onnx.load(path)
    try:
        interface = interface_of(read(model, network, bench))
    except OnnxgainError:  # a model that the gate cannot read can be run all the same
        interface = bench.interface
    runner = session(path)
    names = [output.name for output in runner.get_outputs()]
    output = interface.output if interface.output in names else names[0]
    if "float16" in runner.get_inputs()[0].type:
        interface = Half(**vars(interface))
    found: list[NDArray[np.int64]] = []
    for start in range(0, min(network.images, len(test.labels)), CHUNK):
        stop = min(start + CHUNK, network.images)
        found.append(answers(runner, interface, test.images[start:stop], output).argmax(axis=1))
        if reference is None:
            continue
        mine = np.concatenate(found)
        truth = test.labels[: len(mine)] + network.offset
        differences = 100.0 * ((reference[: len(mine)] == truth).astype(float) - (mine == truth))
        if settled(differences.mean(), differences.std() / np.sqrt(len(mine))):
            break
    return np.concatenate(found)


class Half(Interface):
    """An interface of a float16 input."""

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float16]:  # type: ignore[override]
        return super().feed(pixels).astype(np.float16)


def accuracy(mine: NDArray[np.int64], before: NDArray[np.int64], truth: NDArray[np.int64]) -> dict[str, Any]:
    truth, before = truth[: len(mine)], before[: len(mine)]
    differences = 100.0 * ((before == truth).astype(float) - (mine == truth))
    return {
        "images": len(mine),
        "accuracy": 100.0 * float((before == truth).mean()),
        "loss": float(differences.mean()),
        "deviation": float(differences.std() / np.sqrt(len(mine))),
        "disagreement": 100.0 * float((mine != before).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--shared", type=Path, required=True)
    run.add_argument("--cifar", type=Path, required=True, help="cifar10.npz, as ../shared/data/get_cifar10.py makes it")
    run.add_argument("--network", action="append", choices=[*FRESH, *OTHERS])
    report = commands.add_parser("report")
    report.add_argument("--out", type=Path, required=True)
    for command in (run, report):
        command.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "report":
        from scripts.studies.gate_third_report import write_report

        write_report(arguments.work, arguments.out)
        return
    warnings.filterwarnings("ignore")
    for name in arguments.network or (*FRESH, *OTHERS):
        judge(subject_of(name, arguments.shared, arguments.cifar, arguments.work), arguments.work)


if __name__ == "__main__":
    main()
