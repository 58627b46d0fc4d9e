"""A group's frames as they lie in group buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vs_cvrs.carrier.levels import Levels, white_of
from vs_cvrs.model.interpolation import fitted
from vs_cvrs.runtime.session import Frames

__all__ = [
    "FrameType",
    "fit",
]


@dataclass(frozen=True)
class FrameType:
    """Frames in a group buffer: sample type, bits that are used of it, size."""

    dtype: np.dtype[Any]
    bits: int
    height: int
    width: int

    def view(self, memory: npt.NDArray[np.uint8], count: int) -> Frames:
        """The first ``count`` frames of a group buffer."""
        size = count * 3 * self.height * self.width * self.dtype.itemsize
        return memory[:size].view(self.dtype).reshape(count, 3, self.height, self.width)

    @property
    def top(self) -> float:
        """The level of white."""
        if self.dtype.kind == "f":
            return 1.0
        return float(2**self.bits - 1)

    def samples(self, levels: npt.NDArray[np.float32]) -> Frames:
        """What levels of 8 bits and fractions of them are in this type."""
        made = levels * np.float32(self.top / 255.0)
        return (np.round(made) if self.dtype.kind == "u" else made).astype(self.dtype)


def fit(low: Levels, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A low-rate frame `fitted` to another size, in levels of 8 bits and fractions of them."""
    levels = low.astype(np.float32) * np.float32(255.0 / white_of(low))
    made = fitted(torch.from_numpy(levels)[None], *size)[0].clamp(0.0, 255.0)
    return np.asarray(made.numpy(), dtype=np.float32)
