"""Splits a comparison into parts for many machines, and merges the parts.

    onnxgain compare exports/ --shard 1/8 -o part1.json        ... one for each of 8 machines
    onnxgain merge part*.json --format json -o comparison.json

Part i of n has the models i, i + n, i + 2n, ... in the order of the arguments, so that all parts take about as long.
Merging restores that order: the output is byte for byte the same as from a single run over all models.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from onnxgain.engine.environment import VERSION
from onnxgain.errors import OnnxgainError, text_problem, unique_keys
from onnxgain.files import is_url, read_text
from onnxgain.fleet.result import Result, from_records
from onnxgain.fleet.sources import Source
from onnxgain.measure.record import from_json, to_json
from onnxgain.measure.record_file import LIMIT

SCHEMA = "onnxgain.part/1"

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index`, counted from 1, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """The items that belong to this part."""
        return list(items[self.index - 1 :: self.count])


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """Parse a part: "3/8", or "auto" for the part that a scheduler assigns.

    "auto" reads SLURM_ARRAY_TASK_ID, _MIN, _STEP and _COUNT, or JOB_COMPLETION_INDEX of an indexed Kubernetes job with
    JOB_COMPLETIONS. "auto/8" gives the number of parts if the scheduler does not.

    Raises:
        ValueError: the text or the environment does not identify a part.
    """
    environment = os.environ if environment is None else environment
    match = re.fullmatch(r"(auto|[0-9]{1,6})(?:/([0-9]{1,6}))?", text.strip())
    if match is None or (match[2] is None and match[1] != "auto"):
        raise ValueError(f"{text!r} is not a part such as 3/8, nor auto")
    if match[1] == "auto":
        index, count = _scheduled(environment)
        count = int(match[2]) if match[2] is not None else count
    else:
        index, count = int(match[1]), int(match[2])
    if count is None:
        raise ValueError("JOB_COMPLETIONS is not set: say how many parts there are, e.g. auto/8")
    if not 1 <= index <= count:
        raise ValueError(f"there is no part {index} of {count}")
    return Shard(index, count)


def _scheduled(environment: Mapping[str, str]) -> tuple[int, int | None]:
    try:
        if "SLURM_ARRAY_TASK_ID" in environment:
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", "1"))
            step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
            index, remainder = divmod(int(environment["SLURM_ARRAY_TASK_ID"]) - first, step)
            count = environment.get("SLURM_ARRAY_TASK_COUNT")
            if remainder:
                raise ValueError("SLURM_ARRAY_TASK_ID is not a whole number of steps from SLURM_ARRAY_TASK_MIN")
            return index + 1, int(count) if count is not None else None
        if "JOB_COMPLETION_INDEX" in environment:
            count = environment.get("JOB_COMPLETIONS")
            return int(environment["JOB_COMPLETION_INDEX"]) + 1, int(count) if count is not None else None
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"the scheduler's variables do not identify a part: {error}") from error
    raise ValueError("neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set: write e.g. 3/8")


def question(names: Sequence[str], request: Mapping[str, Any]) -> str:
    """A hash of the models, the request and the version: only parts with the same hash can be merged."""
    asked = json.dumps([VERSION, list(names), request], sort_keys=True)
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


def part_to_json(shard: Shard, asked: str, results: Sequence[Result]) -> str:
    """A part as a JSON document. `asked` is the `question` for all models."""
    listed = [
        {
            "index": result.source.index,
            "name": result.source.name,
            "error": None if result.error is None else str(result.error),
            "records": json.loads(to_json(result.records))["records"],
        }
        for result in sorted(results, key=lambda result: result.source.index)
    ]
    document = {"schema": SCHEMA, "part": shard.index, "parts": shard.count, "question": asked, "results": listed}
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_parts(paths: Sequence[str | os.PathLike[str]]) -> list[Result]:
    """The results of all parts, in the order of the models.

    Raises:
        OnnxgainError: a file is not a part, or parts are missing, given twice, or from different comparisons.
    """
    parts = {str(path): _read(Path(path)) for path in paths}
    first, whole = next(iter(parts.items()))
    seen: dict[int, str] = {}
    results: list[Result] = []
    for path, part in parts.items():
        if (part.asked, part.shard.count) != (whole.asked, whole.shard.count):
            raise OnnxgainError(
                f"belongs to another comparison than {first}",
                where=path,
                remedy="measure all parts with the same models, options and version",
            )
        if part.shard.index in seen:
            raise OnnxgainError(
                f"part {part.shard} is already in {seen[part.shard.index]}", where=path, remedy="leave one of them out"
            )
        seen[part.shard.index] = path
        results += part.results
    missing = [str(i) for i in range(1, whole.shard.count + 1) if i not in seen]
    if missing:
        listed = ", ".join(missing[:20]) + (", ..." if len(missing) > 20 else "")
        raise OnnxgainError(
            f"part {listed} of {whole.shard.count} is missing" if len(missing) == 1
            else f"parts {listed} of {whole.shard.count} are missing",
            remedy="measure them with --shard, and name their files too",
        )  # fmt: skip
    return sorted(results, key=lambda result: result.source.index)


@dataclass(frozen=True)
class _Part:
    shard: Shard
    asked: str
    results: tuple[Result, ...]


def _read(path: Path) -> _Part:
    where, remedy = str(path), "name files that `onnxgain compare --shard` wrote"
    try:
        document = json.loads(read_text(path, LIMIT), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise OnnxgainError(f"not JSON ({text_problem(error)})", where=where, remedy=remedy) from error
    try:
        if document["schema"] != SCHEMA:
            raise OnnxgainError(f"holds schema {document['schema']!r}, not {SCHEMA!r}", where=where, remedy=remedy)
        shard = parse_shard(f"{document['part']}/{document['parts']}")
        results = tuple(_result(values, where) for values in document["results"])
        return _Part(shard, str(document["question"]), results)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OnnxgainError(f"damaged: {error}", where=where, remedy="measure this part again") from error


def _result(values: Any, where: str) -> Result:
    from onnxgain.measure.record import SCHEMA as RECORDS

    text = json.dumps({"schema": RECORDS, "records": values["records"]})
    index, name, error = values["index"], str(values["name"]), values["error"]
    if not isinstance(index, int) or not isinstance(error, (str, type(None))):
        raise TypeError("a result of another form")
    source = Source(index, Path(name), url=name if is_url(name) else None)
    problem = None if error is None else OnnxgainError(error)
    return Result(source, from_records(from_json(text, where=where)), problem, origin="file")
