"""What this process runs in: installed runtime packages, usable cores, usable memory. Imports nothing heavy."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

VERSION = "0.1.0"
"""Of onnxgain; the build reads it here."""

RUNTIME_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-training", "onnxruntime-openvino", "onnxruntime-directml",
    "onnxruntime-rocm", "onnxruntime-training-cpu", "onnxruntime-qnn", "onnxruntime-webgpu", "onnxruntime-migraphx",
    "onnxruntime-coreml", "onnxruntime-cann", "onnxruntime-azure",
)  # fmt: skip
"""Distributions that install the one folder ``onnxruntime`` and overwrite each other there."""

_CGROUPS = Path("/sys/fs/cgroup")


def installed_runtimes() -> dict[str, str]:
    """Version of each installed distribution that provides onnxruntime."""
    return installed(RUNTIME_PACKAGES)


@functools.cache
def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of the distributions that are installed."""
    import importlib.metadata

    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def usable_cores() -> int:
    """Number of cores this process may use: its affinity, or the container's quota rounded up where that is less."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_number("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    return max(min(affinity, math.ceil(quota) if quota else affinity), 1)


def core_cache() -> int:
    """Bytes of cache that a core has of its own, the second level; 1 MiB where the system does not say."""
    try:
        return max(os.sysconf("SC_LEVEL2_CACHE_SIZE"), 0) or 1 << 20
    except (AttributeError, ValueError, OSError):
        return 1 << 20


def usable_memory() -> int | None:
    """Bytes of memory this process may use: the machine's, or the container's limit; None where nobody says."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes", None)
    return int(min(physical, limit)) if limit else physical


def _cgroup_number(file: str, old_file: str, old_divisor: str | None) -> float | None:
    """The smallest limit of this process's control groups (version 2, else version 1), as a quotient of two numbers."""
    limits = [_quotient(_words(folder / file)) for folder in _own_groups()]
    old = _words(_CGROUPS / old_file) + (_words(_CGROUPS / old_divisor) if old_divisor else [])
    limits.append(_quotient(old))
    return min((limit for limit in limits if limit is not None), default=None)


def _own_groups() -> list[Path]:
    """The folder of this process's version 2 control group and those above it."""
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
    """ "max" and -1 say that there is no limit."""
    if not words or not all(word.isdigit() for word in words):
        return None
    numbers = [*map(int, words), 1]
    return numbers[0] / numbers[1] if numbers[1] else None
