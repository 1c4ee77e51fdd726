"""Finds the models of a baseline whose files are gone from where models are gated."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from onnxgain.analysis.pairing import pair_models
from onnxgain.files import is_url


@dataclass(frozen=True)
class Missing:
    """A model of a baseline whose file is gone.

    Attributes:
        holder: the file, folder or pattern of the command that would hold it.
        argument: what to name to take just this model out of the baseline, or all that the holder would hold if it
            holds nothing any more.
        is_file: whether the holder is the file itself.
    """

    holder: str
    argument: str
    is_file: bool = False


def missing_models(
    names: Sequence[str], arguments: Sequence[str], partners: Mapping[str, str], absent: Collection[str] = ()
) -> dict[str, Missing]:
    """The models whose files are gone, by their names.

    Models that were not gated because the command names other files are not missing.

    Args:
        names: the models of the baseline that none of the gated ones was compared with.
        arguments: the files, folders and patterns that are gated.
        partners: the baseline's path for each gated model. It shows where a path that was recorded in another place,
            such as a colleague's checkout, would be here.
        absent: the arguments that lead to no file.
    """
    moves = {("", ""), *(_prefixes(ours, theirs) for ours, theirs in partners.items())}
    found = {}
    for name in names:
        places = [here + name[len(there) :] for here, there in moves if name.startswith(there) and not is_url(name)]
        if any(os.path.lexists(place) for place in places):
            continue
        held = ((argument, place) for argument in arguments for place in places if _holds(argument, place))
        holder, place = next(held, ("", ""))
        if holder:
            found[name] = Missing(holder, holder if holder in absent else place, is_file=_is_place(holder, place))
    files = pair_models([argument for argument in absent if not Path(argument).is_dir()], names, lone=False)
    found |= {name: Missing(file, file, is_file=True) for file, name in files.items() if not os.path.lexists(name)}
    return found


def _is_place(argument: str, place: str) -> bool:
    return os.path.abspath(argument) == os.path.abspath(place)  # noqa: PTH100  links stay


def _prefixes(ours: str, theirs: str) -> tuple[str, str]:
    """What two paths begin with before their common end, which begins with a separator or a whole path."""
    one, other = ours.replace("\\", "/").split("/"), theirs.replace("\\", "/").split("/")
    while one and other and one[-1] == other[-1]:
        one.pop()
        other.pop()
    return "".join(f"{part}/" for part in one), "".join(f"{part}/" for part in other)


def _holds(argument: str, place: str) -> bool:
    """Whether a folder, which may be gone, or a pattern would find a file at a place."""
    path = os.path.abspath(place)  # noqa: PTH100  links stay
    whole = os.path.abspath(argument)  # noqa: PTH100
    if Path(argument).is_dir() or not (os.path.lexists(argument) or set("*?[") & set(argument)):
        return PurePath(path).is_relative_to(whole)
    if is_url(argument) or not set("*?[") & set(argument):
        return False
    return fnmatchcase(path, whole) and ("**" in argument or len(PurePath(path).parts) == len(PurePath(whole).parts))
