"""Numbers known beforehand, made on the device that computes with them.

A tensor made of Python's numbers lies in the host's memory first. Its copy to a device makes the
host wait for that and for all that was begun before, so that nothing else is begun meanwhile. Each
is therefore made once for each device, and kept.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

__all__ = ["constant"]


@functools.lru_cache(maxsize=1024)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of numbers, or of tuples of them. It is shared and must not be changed."""
    # Whoever asks first: training, which keeps tensors for gradients, may come next.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
