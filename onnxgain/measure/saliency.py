"""Attribution maps: how much each pixel of an image contributes to the logit of a class.

- gradient: d l_i / dx (Simonyan et al. 2014)
- input-x-gradient: x * d l_i / dx (Shrikumar et al. 2016)
- smoothgrad: the mean of d l_i / dx over copies of the image with Gaussian noise (Smilkov et al. 2017)
- integrated: (x - b) times the mean of d l_i / dx between a black image b and x, by Gauss-Legendre quadrature
  (Sundararajan et al. 2017)

The first and third are in logits per unit of model input, the others in logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.measure.gradient_graph import GradientGraph, Output
from onnxgain.measure.request import Request
from onnxgain.model.classifier import Classifier
from onnxgain.model.stimulus import Stimulus

Method = Literal["gradient", "input-x-gradient", "smoothgrad", "integrated"]
Image = NDArray[np.float32]

TOP = 5
"""Number of most probable classes to report."""


@dataclass(frozen=True)
class SaliencySettings:
    """How a map is made.

    Attributes:
        method: which map.
        class_index: the class; None: the winning class of each image.
        samples: noisy copies of smoothgrad, or quadrature points of integrated.
        noise: standard deviation of smoothgrad's noise, as a fraction of the image's range of values.
        seed: seed of smoothgrad's noise.
    """

    method: Method = "gradient"
    class_index: int | None = None
    samples: int = 50
    noise: float = 0.15
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Saliency:
    """An attribution map.

    Attributes:
        image: the image that the map explains.
        attribution: (C, H, W) float64.
        class_index: the class that the map is for.
        probability: the probability of that class.
        top: (class, probability) of the classes with the highest probabilities.
        names: what the model calls these classes, by their numbers.
    """

    image: Stimulus
    attribution: NDArray[np.float64]
    class_index: int
    probability: float
    top: tuple[tuple[int, float], ...]
    names: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The class and the shape of the map."""
        shape = "x".join(map(str, self.attribution.shape))
        return f"<Saliency of class {self.class_index}, probability {self.probability:.4f}: {shape}>"


def saliency(
    classifier: Classifier, request: Request, settings: SaliencySettings, threads: int | None = None
) -> Iterator[Saliency]:
    """Yield the map of each of a request's stimuli.

    Args:
        request: gives the stimuli, photographs and device; its projection and class are ignored.
        threads: threads of the runtime; None: all usable cores.

    Raises:
        OnnxgainError: as `onnxgain.measure.measure.score`, or the class does not exist.
    """
    graphs: dict[int | None, GradientGraph] = {}

    def graph_of(class_index: int | None, count: int) -> GradientGraph:
        if class_index not in graphs:
            stimuli = ("impulse",) * count
            wanted = Request(stimuli=stimuli, projection="logit", class_index=class_index, device=request.device)
            graphs[class_index] = GradientGraph(classifier, wanted, threads)
        return graphs[class_index]

    first = graph_of(settings.class_index, request.count)
    black = classifier.scale.apply(np.zeros(classifier.image.image_shape))
    for stimulus in request.stimuli_for(classifier):
        (output,) = first.run([stimulus.image])
        _check(output, classifier, stimulus)
        index = output.class_index

        def gradients(images: Sequence[Image], index: int = index) -> Iterator[NDArray[np.float64]]:
            for result in graph_of(index, len(images)).run(images):
                yield result.derivative.astype(np.float64)

        attribution = _METHODS[settings.method](stimulus.image, output, gradients, settings, black)
        probability, top = _probabilities(classifier, output)
        called = {one: classifier.class_name(one) for one in (index, *(number for number, _ in top))}
        names = {one: name for one, name in called.items() if name is not None}
        yield Saliency(stimulus, attribution, index, probability, top, names)


Gradients = Callable[[Sequence[Image]], Iterable[NDArray[np.float64]]]


def _gradient(image: Image, output: Output, *_: object) -> NDArray[np.float64]:
    return output.derivative.astype(np.float64)


def _input_x_gradient(image: Image, output: Output, *_: object) -> NDArray[np.float64]:
    return image.astype(np.float64) * output.derivative


def _smoothgrad(
    image: Image, output: Output, gradients: Gradients, settings: SaliencySettings, black: Image
) -> NDArray[np.float64]:
    random = np.random.Generator(np.random.PCG64(settings.seed))
    spread = settings.noise * float(np.ptp(image))
    noisy = [(image + spread * random.standard_normal(image.shape)).astype(np.float32) for _ in range(settings.samples)]
    mean: NDArray[np.float64] = np.mean(list(gradients(noisy)), axis=0)
    return mean


def _integrated(
    image: Image, output: Output, gradients: Gradients, settings: SaliencySettings, black: Image
) -> NDArray[np.float64]:
    points, weights = np.polynomial.legendre.leggauss(settings.samples)
    path = image.astype(np.float64) - black
    between = [(black + (point + 1) / 2 * path).astype(np.float32) for point in points]
    mean = sum(weight / 2 * gradient for weight, gradient in zip(weights, gradients(between), strict=True))
    result: NDArray[np.float64] = path * mean
    return result


_METHODS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "gradient": _gradient,
    "input-x-gradient": _input_x_gradient,
    "smoothgrad": _smoothgrad,
    "integrated": _integrated,
}
METHODS = tuple(_METHODS)


def _check(output: Output, classifier: Classifier, stimulus: Stimulus) -> None:
    if not (np.isfinite(output.logits).all() and np.isfinite(output.derivative).all()):
        where = str(classifier.path) if classifier.path else None
        raise OnnxgainError(
            f"the derivative is not finite for {stimulus.parameters.get('file', stimulus.name)}",
            where=where,
            remedy="check --preprocess; `onnxgain verify` says where it comes from",
        )


def _probabilities(classifier: Classifier, output: Output) -> tuple[float, tuple[tuple[int, float], ...]]:
    logits = output.logits.astype(np.float64)
    if classifier.head.kind == "sigmoid" and classifier.head.columns > 1:
        probabilities = np.exp(-np.logaddexp(0.0, -logits))
    else:
        probabilities = np.exp(logits - np.logaddexp.reduce(logits))
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return float(probabilities[output.class_index]), tuple((int(i), float(probabilities[i])) for i in order)
