"""Reads class names from a model's metadata, or from the file that model hubs keep beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PAIR = re.compile(r"""(\d{1,9})\s*:\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")""")
_MOST_CLASSES = 1_000_000
_LONGEST = 1 << 24
SHOWN = 80
"""Maximum length of a name in a record."""


@dataclass(frozen=True)
class ClassNames:
    """What the classes are called.

    Attributes:
        names: by index; empty if nothing declares them.
        source: where they come from: "metadata" or the name of a file.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    source: str = ""

    def contradiction(self, classes: int) -> str:
        """A sentence if the names do not match this number of classes, else ""."""
        if not self.names or (len(self.names) == classes and max(self.names) == classes - 1):
            return ""
        where = "the model's metadata" if self.source == "metadata" else self.source
        return f"{where} names {len(self.names)} classes, the output holds {classes}: other classes may be meant"

    def shown(self, index: int) -> str | None:
        """The name of a class in one printable line of at most `SHOWN` characters; None if it has none."""
        name = " ".join(self.names.get(index, "")[: 8 * SHOWN].split())
        name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
        return (name if len(name) <= SHOWN else f"{name[: SHOWN - 1]}…") or None


def find_class_names(metadata: Mapping[str, str], companions: Mapping[str, Mapping[str, Any]]) -> ClassNames:
    """The names in Ultralytics metadata, else those in config.json: Hugging Face's `id2label`, timm's `label_names`."""
    known = {"task", "names"} <= metadata.keys() and metadata["task"].strip().lower() == "classify"
    names = _from_text(metadata["names"]) if known else {}
    if names:
        return ClassNames(names, "metadata")
    config = companions.get("config.json", {})
    names = _from_json(config.get("id2label")) or _from_timm(config)
    return ClassNames(names, "config.json") if names else ClassNames()


def _from_text(text: str) -> dict[int, str]:
    """Names written as a Python dictionary or as JSON."""
    if len(text) > _LONGEST:
        return {}
    try:
        found = _from_json(json.loads(text))
    except (ValueError, RecursionError):
        found = {}
    return found or {int(index): single or double for index, single, double in _PAIR.findall(text)}


def _from_timm(config: Mapping[str, Any]) -> dict[int, str]:
    """timm's names of the classes, which may be identifiers that the file describes."""
    names, described = _from_json(config.get("label_names")), config.get("label_descriptions")
    if not isinstance(described, Mapping):
        return names
    words = {index: described.get(name) for index, name in names.items()}
    return {index: word if isinstance(word, str) else names[index] for index, word in words.items()}


def _from_json(names: object) -> dict[int, str]:
    if isinstance(names, Mapping):
        pairs = [(str(key), name) for key, name in names.items()]
    elif isinstance(names, Sequence) and not isinstance(names, str):
        pairs = [(str(index), name) for index, name in enumerate(names)]
    else:
        return {}
    found = {int(key): name for key, name in pairs if key.isascii() and key.isdigit() and isinstance(name, str)}
    return found if len(found) == len(pairs) and all(index < _MOST_CLASSES for index in found) else {}
