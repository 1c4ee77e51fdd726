"""The part of a record that describes the answers to the synthetic images."""

from __future__ import annotations

from onnxgain.model.quick_dataclass import dataclass


@dataclass(frozen=True)
class OutputRecord:
    """What an output of the file holds for each of the images that the file itself was run at.

    Attributes:
        kind: "numbers" or "answers".
        sketch: base85 of, by image, eight projections of its numbers (float32), or a class or CRC-32 of a label.
        labels: base85 of what it says of each class (uint32), where that is not the class itself.
    """

    name: str
    kind: str
    sketch: str
    labels: str = ""


@dataclass(frozen=True)
class OwnRecord:
    """What the file answers as it stands, see `onnxgain.measure.own_answers`.

    Attributes:
        images: at how many images it was run.
        disagreement: the largest difference between its head's probabilities and those of its logits; None without any.
        outputs: all that it has; `head` names the one with the class scores. `remarks` are a sentence each.
    """

    images: int
    disagreement: float | None
    outputs: tuple[OutputRecord, ...]
    remarks: tuple[str, ...]
    head: str = ""


@dataclass(frozen=True)
class FingerprintRecord:
    """The classifier's answers to the synthetic images; `onnxgain.measure.fingerprint` packs and unpacks them.

    Attributes:
        images: the version of the set of images.
        count: the number of images.
        classes: the number of classes of the model.
        head: the kind of head, as in `onnxgain.model.head.Head`; "independent" where classes do not exclude each other.
        answers: base85 of the winner (uint32) and the largest stored magnitude (float32) of each image, and a level of
            12 bits of each stored class. All little-endian.
        own: what the file answers as it stands; None in older records.
        names: base85 of the hashes of the class names (`onnxgain.measure.class_names_record`); None without names.
        packing: how the levels are packed: "compressed", or "plain" in older records.

    Raises:
        ValueError: the packing is another one.
    """

    images: str
    count: int
    classes: int
    head: str
    answers: str
    own: OwnRecord | None = None
    names: str | None = None
    packing: str = "plain"

    def __post_init__(self) -> None:
        if self.packing not in ("plain", "compressed"):
            raise ValueError(f"fingerprint packed as {self.packing!r}, by another version of onnxgain")
