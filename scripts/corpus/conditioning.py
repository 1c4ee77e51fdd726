"""Random weights with which every part of a network affects the gradient, and rounding errors stay small.

A freshly initialized classifier is a poor test of gradients: zero-initialized residual branches, layer scales of 1e-6,
zero heads and biases, attention weights with a standard deviation of 0.02 and initial batch-norm statistics disable
much of it, so a wrong derivative there would go unnoticed. `condition` redraws all of these and then calibrates the
network on noise, layer by layer in data-flow order: batch normalization takes its statistics from its input, and
convolution and linear layers are scaled to an output of unit variance (layer-sequential unit-variance initialization,
Mishkin & Matas, ICLR 2016).

The output of batch normalization and of convolutions with a bias has a mean of about `SHIFT` standard deviations. A
layer of normalization and ReLU multiplies the relative size of a small perturbation by sqrt(E[relu'(u)^2] /
Var[relu(u)]), u ~ N(SHIFT, 1). Without a shift that is 1.2, or 10,000 over fifty layers, so that float32 rounding flips
many ReLUs; with a shift of 1.5 it is 1.02.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)

SHIFT = 1.5
SHIFT_SPREAD = 0.25

# Words in the names of parameters that are added to the data instead of multiplied by it.
ADDED = ("bias", "beta", "token", "embed")


def condition(model: nn.Module, noise: torch.Tensor, generator: torch.Generator) -> None:
    """Redraw the parameters of `model` and calibrate it on `noise`, in place, in evaluation mode.

    Args:
        model: a classifier in evaluation mode.
        noise: a batch of input images, shape (B, C, H, W); B of at least 2.
        generator: the source of every random number.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point():
                redraw(name, parameter, generator)
        calibrate(model, noise, generator)


def redraw(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Redraw a parameter, unless it is already random, in place.

    matrix, kernel, table   normal, variance 1 / (elements per leading index)
    position table (1, ...) normal, standard deviation 0.5
    constant zero, added    normal, standard deviation 0.2
    constant near zero      uniform in [0.5, 1): it scales a branch (or starts it at nothing)
    other constant c        uniform in c [0.75, 1.25)
    other vector            left as it is
    """
    extents = [extent for extent in parameter.shape if extent > 1]
    if len(extents) > 1 and parameter.shape[0] > 1:
        parameter.normal_(0.0, math.sqrt(parameter.shape[0] / parameter.numel()), generator=generator)
        return
    if len(extents) > 1:
        parameter.normal_(0.0, 0.5, generator=generator)
        return
    constant = float(parameter.flatten()[0])
    if not bool((parameter == constant).all()) or (parameter.numel() == 1 and abs(constant) >= 0.1):
        return
    if constant == 0 and any(word in name.rsplit(".", 1)[-1] for word in ADDED):
        parameter.normal_(0.0, 0.2, generator=generator)
    elif abs(constant) < 0.1:
        parameter.uniform_(0.5, 1.0, generator=generator)
    else:
        parameter.uniform_(0.75, 1.25, generator=generator).mul_(constant)


def calibrate(model: nn.Module, noise: torch.Tensor, generator: torch.Generator) -> None:
    """Run one forward pass in which each layer is fitted to its input just before it runs."""
    fitted: set[nn.Module] = set()

    def fit(module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        # A module that is applied several times is fitted to its first input only.
        if module in fitted or not inputs:
            return
        fitted.add(module)
        if isinstance(module, LAYERS):
            _fit_layer(module, inputs[0], generator)
        else:
            _fit_normalization(module, inputs[0], generator)

    hooks = [
        module.register_forward_pre_hook(fit)
        for module in model.modules()
        if isinstance(module, LAYERS) or getattr(module, "running_mean", None) is not None
    ]
    try:
        model(noise)
    finally:
        for hook in hooks:
            hook.remove()


def _fit_layer(layer: nn.Module, data: torch.Tensor, generator: torch.Generator) -> None:
    """Scale the output to unit variance; for a convolution with a bias, also shift each channel's mean."""
    output = layer.forward(data)
    # Variance over positions: over a few images alone, only their small differences would remain.
    centred = not isinstance(layer, nn.Linear) and layer.bias is not None and output[0, 0].numel() > 1
    if centred:
        output = output - _channel_means(output)
    spread = float(output.std())
    if math.isfinite(spread) and spread > 1e-6:
        layer.weight.mul_(1 / spread)
    if centred:
        layer.bias.sub_(_channel_means(layer.forward(data)).flatten())
        layer.bias.add_(torch.empty_like(layer.bias).normal_(SHIFT, SHIFT_SPREAD, generator=generator))


def _fit_normalization(norm: nn.Module, data: torch.Tensor, generator: torch.Generator) -> None:
    means = _channel_means(data)
    variances = (data - means).square().mean(dim=_all_but_channels(data))
    # A channel that is constant on the noise must not be amplified by 1 / sqrt(eps) on other images.
    norm.running_var.copy_(variances.clamp(min=1e-2 * float(variances.mean())))
    norm.running_mean.copy_(means.flatten())
    if norm.bias is not None:
        norm.bias.normal_(SHIFT, SHIFT_SPREAD, generator=generator)


def _channel_means(data: torch.Tensor) -> torch.Tensor:
    return data.mean(dim=_all_but_channels(data), keepdim=True)


def _all_but_channels(data: torch.Tensor) -> list[int]:
    return [axis for axis in range(data.ndim) if axis != 1]
