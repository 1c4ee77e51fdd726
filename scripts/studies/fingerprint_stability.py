"""Compare a model's fingerprints across threads, batch sizes, optimization levels, forms of the graph, and runtimes.

    python -m scripts.studies.fingerprint_stability MODEL... [--save FILE] [--against FILE]

For each model and condition, the script prints the flips, the divergence and 1 - cosine relative to the fingerprint
with one thread and one image at a time. --save saves the latter; --against compares with a file saved in another
environment.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from onnxgain.analysis.function_change import function_change
from onnxgain.engine.session import Session
from onnxgain.measure.fingerprint import packed
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.forward import fingerprint
from onnxgain.measure.synthetic_images import synthetic_images
from onnxgain.measure.typed_json import build
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.differentiate import differentiate


def gradient_graph(classifier: Classifier, target: str, *, brief: bool) -> FingerprintRecord:
    """The fingerprint from the logits of a gradient graph."""
    size = classifier.image.fixed_batch or 1
    session = Session(differentiate(classifier, target=target, batch=size), threads=1, brief=brief)
    found = []
    for _, pixels in synthetic_images(classifier.image.image_shape):
        image = classifier.image.to_input([classifier.scale.apply(pixels.astype(np.float64))] * size)
        found.append(session.run({classifier.image.name: image, **classifier.inputs}, ["logits"])["logits"][0])
    return packed(np.stack(found), classifier.head.kind)


def conditions(classifier: Classifier) -> Iterator[tuple[str, FingerprintRecord]]:
    yield "2 threads", fingerprint(classifier, threads=2)
    for batch in (4, 16) if classifier.image.fixed_batch is None else ():
        yield f"batches of {batch}", fingerprint(classifier, threads=1, batch=batch)
    for target, brief in (("portable", False), ("cpu", False), ("brief", True)):
        name = f"{target} gradient graph, {'not optimized' if brief else 'optimized'}"
        yield name, gradient_graph(classifier, target, brief=brief)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    others = json.loads(arguments.against.read_text()) if arguments.against is not None else {}
    saved = {}
    for path in arguments.models:
        classifier = load_classifier(path)
        base = fingerprint(classifier, threads=1)
        saved[path.name] = dataclasses.asdict(base)
        found = [] if others else list(conditions(classifier))
        if path.name in others:
            found.append(
                (
                    f"another runtime than {onnxruntime.__version__}",
                    build(FingerprintRecord, others[path.name], path.name),
                )
            )
        for name, other in found:
            change = function_change(base, other)
            numbers = f"divergence {change.divergence:.1e}, 1 - cosine {change.cosine_distance:.1e}"
            print(f"{path.stem:38} {name:42} flips {len(change.flips)}, {numbers}", flush=True)
    if arguments.save is not None:
        arguments.save.write_text(json.dumps(saved))


if __name__ == "__main__":
    main()
