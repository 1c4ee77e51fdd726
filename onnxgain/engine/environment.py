"""The environment of this process: installed runtime packages, usable cores and memory. Imports nothing heavy."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

VERSION = "0.1.0"
"""The version of onnxgain; the build reads it from here."""

RUNTIME_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-training", "onnxruntime-openvino", "onnxruntime-directml",
    "onnxruntime-rocm", "onnxruntime-training-cpu", "onnxruntime-qnn", "onnxruntime-webgpu", "onnxruntime-migraphx",
    "onnxruntime-coreml", "onnxruntime-cann", "onnxruntime-azure",
)  # fmt: skip
"""Distributions that all install into the folder ``onnxruntime``, where they overwrite each other."""

_CGROUPS = Path("/sys/fs/cgroup")


def installed_runtimes() -> dict[str, str]:
    """The version of each installed distribution that provides onnxruntime."""
    return installed(RUNTIME_PACKAGES)


@functools.cache
def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of those ``packages`` that are installed."""
    import importlib.metadata

    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def usable_cores() -> int:
    """The number of cores that this process may use, by its affinity and the container's quota, rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_number("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    return max(min(affinity, math.ceil(quota) if quota else affinity), 1)


def core_cache() -> int:
    """Bytes of a core's L2 cache; 1 MiB if the system does not say."""
    try:
        return max(os.sysconf("SC_LEVEL2_CACHE_SIZE"), 0) or 1 << 20
    except (AttributeError, ValueError, OSError):
        return 1 << 20


def usable_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or the container's limit; None if it is unknown."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes", None)
    return int(min(physical, limit)) if limit else physical


def _cgroup_number(file: str, old_file: str, old_divisor: str | None) -> float | None:
    """The smallest limit of this process's control groups, versions 2 and 1; None if there is no limit.

    Args:
        file: file of version 2 in the folder of a group.
        old_file, old_divisor: files of version 1; the limit is the quotient of their numbers.
    """
    limits = [_quotient(_words(folder / file)) for folder in _own_groups()]
    old = _words(_CGROUPS / old_file) + (_words(_CGROUPS / old_divisor) if old_divisor else [])
    limits.append(_quotient(old))
    return min((limit for limit in limits if limit is not None), default=None)


def _own_groups() -> list[Path]:
    """The folders of this process's control group (version 2) and of its parents."""
    for line in _words(Path("/proc/self/cgroup")):
        if line.startswith("0::/"):
            own = _CGROUPS / line.removeprefix("0::/")
            return [own, *(folder for folder in own.parents if folder.is_relative_to(_CGROUPS))]
    return [_CGROUPS]


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []


def _quotient(words: list[str]) -> float | None:
    """The first number over the second, if any; None for "max" and -1, which mean no limit."""
    if not words or not all(word.isdigit() for word in words):
        return None
    numbers = [*map(int, words), 1]
    return numbers[0] / numbers[1] if numbers[1] else None
