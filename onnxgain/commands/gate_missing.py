"""Finds the models of a baseline whose files are gone from the folders that are gated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from onnxgain.files import is_url


def missing_models(names: Iterable[str], arguments: Sequence[str], partners: Mapping[str, str]) -> dict[str, str]:
    """The models whose files are gone, each with the folder or pattern that would hold it.

    Models that were not gated because the command names single files are not missing.

    Args:
        names: the models of the baseline that none of the gated ones was compared with.
        arguments: the files, folders and patterns that are gated.
        partners: the baseline's path for each gated model. It shows where a path that was recorded in another place,
            such as a colleague's checkout, would be here.
    """
    moves = {("", ""), *(_prefixes(ours, theirs) for ours, theirs in partners.items())}
    found = {}
    for name in names:
        places = [here + name[len(there) :] for here, there in moves if name.startswith(there) and not is_url(name)]
        holders = (argument for argument in arguments if any(_holds(argument, place) for place in places))
        if not any(os.path.lexists(place) for place in places) and (holder := next(holders, None)) is not None:
            found[name] = holder
    return found


def _prefixes(ours: str, theirs: str) -> tuple[str, str]:
    """What two paths begin with before their common end, which begins with a separator or a whole path."""
    one, other = ours.replace("\\", "/").split("/"), theirs.replace("\\", "/").split("/")
    while one and other and one[-1] == other[-1]:
        one.pop()
        other.pop()
    return "".join(f"{part}/" for part in one), "".join(f"{part}/" for part in other)


def _holds(argument: str, place: str) -> bool:
    """Whether a folder or a pattern would find a file at a place."""
    path = os.path.abspath(place)  # noqa: PTH100  links stay
    whole = os.path.abspath(argument)  # noqa: PTH100
    if Path(argument).is_dir():
        return PurePath(path).is_relative_to(whole)
    if is_url(argument) or not set("*?[") & set(argument):
        return False
    return fnmatchcase(path, whole) and ("**" in argument or len(PurePath(path).parts) == len(PurePath(whole).parts))
