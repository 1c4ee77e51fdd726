"""The table of kernels, by operator type and the first opset version that they implement."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Kernel = Callable[..., Any]
_K = TypeVar("_K", bound=Kernel)

_KERNELS: dict[str, dict[int, Kernel]] = {}


def kernel(*op_types: str, since: int = 1) -> Callable[[_K], _K]:
    """Register the decorated function for `op_types` of the default domain from opset `since` on."""

    def register(function: _K) -> _K:
        for op_type in op_types:
            versions = _KERNELS.setdefault(op_type, {})
            assert since not in versions, f"two kernels for {op_type} since opset {since}"
            versions[since] = function
        return function

    return register


def find_kernel(op_type: str, version: int) -> Kernel | None:
    """The kernel that implements `op_type` at opset `version`, or None."""
    versions = _KERNELS.get(op_type, {})
    since = max((start for start in versions if start <= version), default=None)
    return None if since is None else versions[since]


def registered() -> Iterator[tuple[str, int, Kernel]]:
    """Every (operator type, first opset version, kernel), for the test that compares signatures with the schemas."""
    for op_type, versions in sorted(_KERNELS.items()):
        for since, function in sorted(versions.items()):
            yield op_type, since, function


def wants_output_count(function: Kernel) -> bool:
    """Whether the kernel has a keyword `n_outputs`, the number of outputs of its node."""
    return "n_outputs" in inspect.signature(function).parameters
