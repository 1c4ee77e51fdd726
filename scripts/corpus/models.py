"""The classifiers in the corpus: all of torchvision, and the smallest one of each timm family.

A torchvision model keeps its name; a timm model is called `timm_<name>`, because both libraries have, for example, a
`densenet121`. Nothing is downloaded: the weights are initialized randomly.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import torch

from scripts.corpus.torchvision_without_operators import declare_operators

declare_operators()

import timm  # noqa: E402
import torchvision  # noqa: E402

TIMM_PREFIX = "timm_"

# For families that timm publishes only as feature extractors; this is also torchvision's number of classes.
CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Listed:
    """One model of the corpus, before it is built."""

    name: str
    source: str
    parameters: int


def torchvision_models() -> list[Listed]:
    """The classification models of torchvision, by name. Their image sizes are those of the published weights."""
    listed = []
    for name in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(name)
        listed.append(Listed(name, "torchvision", int(weights.DEFAULT.meta["num_params"])))
    return listed


def timm_models(cache: pathlib.Path) -> list[Listed]:
    """One model per timm family (a module of `timm.models`), by name; see `smallest_of_family`.

    Args:
        cache: a JSON file that stores the choice for one version of timm: choosing builds some 1,350 models (without
            storage), which takes minutes.
    """
    if cache.exists():
        cached = json.loads(cache.read_text(encoding="utf-8"))
        if cached["timm"] == timm.__version__:
            return [Listed(**fields) for fields in cached["models"]]
    chosen = sorted((smallest_of_family(family) for family in timm.list_modules()), key=lambda listed: listed.name)
    content = {"timm": timm.__version__, "models": [dataclasses.asdict(listed) for listed in chosen]}
    cache.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return chosen


def smallest_of_family(family: str) -> Listed:
    """The model of a timm module with the fewest parameters, with timm's own number of classes.

    Models with a classifier head are preferred, ties go to the alphabetically first name, and timm's miniature `test_*`
    models, which are for its own unit tests, are ignored.
    """
    candidates = []
    for name in timm.list_models(module=family):
        if not name.startswith("test_"):
            with torch.device("meta"):
                model = timm.create_model(name)
            size = sum(parameter.numel() for parameter in model.parameters())
            candidates.append((model.num_classes == 0, size, name))
    _, size, name = min(candidates)
    return Listed(TIMM_PREFIX + name, "timm", size)


def build(name: str, *, exportable: bool, side: int | None = None) -> tuple[torch.nn.Module, tuple[int, int, int]]:
    """Build a classifier with randomly initialized weights, in evaluation mode.

    Args:
        name: as listed by `torchvision_models` or `timm_models`; any other model of the two libraries works, too.
        exportable: timm's flag of that name, which expresses attention in elementary operators.
        side: maximum height and width of the image, for models that accept several sizes; None for no limit.

    Returns:
        The model, and the shape (channels, height, width) of its image.
    """
    if name.startswith(TIMM_PREFIX):
        model, shape = _build_timm(name.removeprefix(TIMM_PREFIX), exportable)
    else:
        model, shape = _build_torchvision(name, side)
    return model.eval(), shape


def _build_timm(name: str, exportable: bool) -> tuple[torch.nn.Module, tuple[int, int, int]]:
    model = timm.create_model(name, exportable=exportable)
    if model.num_classes == 0:
        model = timm.create_model(name, exportable=exportable, num_classes=CLASSES)
    channels, height, width = model.pretrained_cfg["input_size"]
    return model, (channels, height, width)


def _build_torchvision(name: str, largest: int | None) -> tuple[torch.nn.Module, tuple[int, int, int]]:
    weights = torchvision.models.get_model_weights(name)
    # A few models have published weights for several resolutions; the corpus uses the lowest.
    side = min(entry.transforms().crop_size[0] for entry in weights)
    if largest is not None and not name.startswith("maxvit"):
        patch = int(name.rsplit("_", 1)[-1]) if name.startswith("vit_") else 1
        side = min(side, largest // patch * patch)
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = side
    if name in {"googlenet", "inception_v3"}:
        # Skip their initialization: it is slow, and `condition` replaces it.
        options["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, **options), (3, side, side)
