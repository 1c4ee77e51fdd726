"""Reads the numbers of an input scale and says which of them are doubtful. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

DOUBT = "doubtful input scale: "
"""How every sentence that doubts a scale begins. People read these as cautions, not as assumptions."""


def is_doubt(sentence: str) -> bool:
    """Whether a sentence among the assumptions about a model doubts its input scale."""
    return sentence.startswith(DOUBT)


def number(text: str) -> float:
    """A number, or a fraction such as "1/255".

    Raises:
        ValueError: the text is neither.
    """
    above, slash, below = text.partition("/")
    if not slash:
        return float(text)
    divisor = float(below)
    if divisor == 0.0:
        raise ValueError("a fraction with the denominator 0")
    return float(above) / divisor


def are_of_unit_range(mean: Sequence[float], std: Sequence[float], scale: float) -> bool:
    """Whether mean and std are those of pixels on 0..1, as torchvision's Normalize takes them, but pixels are not."""
    small = all(abs(value) <= 1.0 for value in mean) and all(abs(value) <= 1.0 for value in std)
    plain = all(value == 0.0 for value in mean) and all(abs(value) == 1.0 for value in std)
    return abs(scale) >= 1.0 and small and not plain


def doubts_of_range(mean: Sequence[float], std: Sequence[float], scale: float) -> tuple[str, ...]:
    """A sentence if `are_of_unit_range`."""
    if not are_of_unit_range(mean, std, scale):
        return ()
    times = "" if scale == 1.0 else f", times {scale:g}"
    given = f"--mean {listed(mean)} --std {listed(std)}"
    return (
        f"{DOUBT}mean {listed(mean)} and std {listed(std)} are those of pixels on 0..1, but pixels on 0..255 are taken"
        f"{times} (if they are those of torchvision's Normalize, measure with {given} --scale 1/255)",
    )


LEAST_SPAN, LARGEST_SPAN = 1e-6, 1e6
"""Model inputs lie between these: 255 levels span 1 to 255 in nearly all models, and 65,535 in a few."""


def doubts_of_span(std: Sequence[float], scale: float) -> tuple[str, ...]:
    """A sentence if the 255 levels span less or more of model input than any known model takes."""
    spans = [abs(255.0 * scale / value) for value in std if value]
    odd = next((span for span in spans if not LEAST_SPAN <= span <= LARGEST_SPAN), None)
    if odd is None:
        return ()
    bound = f"less than {LEAST_SPAN:g}" if odd < LEAST_SPAN else f"more than {LARGEST_SPAN:g}"
    return (f"{DOUBT}black to white is {odd:.2g} of model input, {bound} (check --scale and --std)",)


def listed(values: Sequence[float]) -> str:
    """The values as an option takes them: "0.485,0.456,0.406"."""
    return ",".join(f"{value:g}" for value in values)
