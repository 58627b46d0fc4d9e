"""Convolutions that do what follows them in the same pass, where PyTorch has that.

oneDNN can apply an activation, or add to another tensor, while a convolution's sums are still in
registers. PyTorch hands this on by operators that its compiler uses and that it does not promise
to keep: they are tried before they are used, and the plain layers take their place where they are
missing or give anything else. They are used for bfloat16 without gradients; in float32 the
convolution takes so much longer that they gain nothing.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SLOPE", "activate", "activated", "added"]

SLOPE = 0.1
"""Of the light models' activation, a leaky ReLU, below zero."""

_DTYPE = torch.bfloat16


def activate(x: Tensor) -> Tensor:
    """The activation of all light models, in place."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def activated(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0
) -> Tensor:
    """``activate(conv2d(x))``."""
    if not _fuses(x):
        return activate(F.conv2d(x, weight, bias, stride, padding))
    return _convolve_and_activate(x, weight, bias, stride, padding)


def added(conv: nn.Conv2d, x: Tensor, target: Tensor) -> Tensor:
    """``target + conv(x)``; may overwrite ``target`` where no gradients are wanted."""
    stored = target.dtype == _DTYPE and target.is_contiguous(memory_format=torch.channels_last)
    if stored and _fuses(x):
        return _convolve_onto(x, conv.weight, conv.bias, int(conv.padding[0]), target)
    made: Tensor = conv(x)
    if torch.is_grad_enabled():
        return made.add_(target)
    return target.add_(made)


def _fuses(x: Tensor) -> bool:
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    reduced = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if reduced else x.dtype
    return dtype == _DTYPE and _works()


def _convolve_and_activate(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    made: Tensor = torch.ops.mkldnn._convolution_pointwise(
        *_cast(x, weight, bias), *_geometry(stride, padding), "leaky_relu", [SLOPE], ""
    )
    return made


def _convolve_onto(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, target: Tensor
) -> Tensor:
    made: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        target, *_cast(x, weight, bias), *_geometry(1, padding), "add", 1.0, None, [], None
    )
    return made


def _cast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    return x.to(_DTYPE), weight.to(_DTYPE), None if bias is None else bias.to(_DTYPE)


def _geometry(stride: int, padding: int) -> tuple[list[int], list[int], list[int], int]:
    """Padding, stride, dilation and groups, as the operators take them."""
    return [padding] * 2, [stride] * 2, [1, 1], 1


@functools.cache
def _works() -> bool:
    """Whether this PyTorch has the operators, and they compute what they are used for."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, target = (
        torch.randn(size, generator=generator).to(_DTYPE).to(memory_format=torch.channels_last)
        for size in ((2, 16, 8, 6), (16, 16, 3, 3), (2, 16, 8, 6))
    )
    bias = torch.randn(16, generator=generator).to(_DTYPE)
    plain = F.conv2d(x.float(), weight.float(), bias.float(), padding=1)
    try:
        with torch.autocast("cpu", enabled=False):
            made = (
                _convolve_and_activate(x, weight, bias, 1, 1),
                _convolve_onto(x, weight, bias, 1, target.clone()),
            )
    except Exception:  # whatever a later PyTorch says of operators that have changed
        return False
    return all(
        bool(((ours - wanted).abs() <= 0.01 * wanted.abs() + 0.01).all())
        for ours, wanted in zip(made, (F.leaky_relu(plain, SLOPE), target + plain), strict=True)
    )
