"""Numbers that look random and are the same everywhere, whatever PyTorch's generators become."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mixed"]


def mixed(sizes: tuple[int, ...]) -> Tensor:
    """A tensor of these sizes, of whole numbers of 32 bits."""
    numbers = torch.zeros(sizes, dtype=torch.int64)
    for place in torch.meshgrid(*(torch.arange(n) for n in sizes), indexing="ij"):
        for factor in (0x9E3779B1, 0x85EBCA6B):
            numbers = (numbers ^ (place + 1)) * factor % 2**32
            numbers = numbers ^ (numbers >> 15)
    return numbers
