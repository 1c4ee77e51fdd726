"""PyTorch functions for case tables, imported only when they are called: PyTorch is optional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def torch_function(name: str, *arguments: Any, **keywords: Any) -> Callable[..., Any]:
    """``torch.<name>`` as a function of tensors, with further arguments bound after them."""

    def call(*tensors: Any) -> Any:
        import torch

        return getattr(torch, name)(*tensors, *arguments, **keywords)

    return call


def functional(name: str, *arguments: Any, **keywords: Any) -> Callable[..., Any]:
    """``torch.nn.functional.<name>`` as a function of tensors, with further arguments bound after them."""

    def call(*tensors: Any) -> Any:
        import torch.nn.functional

        return getattr(torch.nn.functional, name)(*tensors, *arguments, **keywords)

    return call
