"""Low-rate frames in other formats than the one they were made in, as the levels they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.lossless import DEPTHS
from vs_cvrs.carrier.stamp import Stamp

__all__ = ["Levels", "find_stamp", "read_stamp", "to_levels", "white_of"]

Levels = npt.NDArray[Any]
"""(..., 3, height, width): uint8 for 8 bits, uint16 for 10."""


def white_of(levels: Levels) -> float:
    """The level of white."""
    return 255.0 if levels.dtype == np.uint8 else 1023.0


def to_levels(frames: npt.NDArray[Any], white: float, bits: int = 8) -> Levels:
    """Samples of any type as the levels of ``bits`` bits that they stand for.

    Args:
        frames: of any shape and type.
        white: the sample that stands for white.
        bits: one of `DEPTHS`.
    """
    top = 2.0**bits - 1.0
    kind = np.uint8 if bits == 8 else np.uint16
    if frames.dtype == kind and white == top:
        return frames
    # Samples that are no numbers stand for no level; whoever computes with them complains.
    with np.errstate(invalid="ignore", over="ignore"):
        levels = np.round(frames.astype(np.float32) * np.float32(top / white))
        return np.clip(levels, 0, top).astype(kind)


def read_stamp(frame: Levels) -> Stamp | None:
    """The stamp of a frame of 8 or of 10 bits; None where it has none."""
    found = find_stamp(frame, white_of(frame))
    return None if found is None else found[0]


def find_stamp(frame: npt.NDArray[Any], white: float) -> tuple[Stamp, int] | None:
    """A frame's stamp and the bits of the levels that carry it; None where it has none.

    A frame of 10 bits may be one of 8 that was converted: the stamp tells them apart.

    Args:
        frame: (3, height, width) of any type.
        white: the sample that stands for white.
    """
    for bits in DEPTHS:
        if white == 255.0 and bits > 8:  # levels that a frame of 8 bits cannot have
            break
        found = stamp.read(to_levels(frame, white, bits))
        if found is not None:
            return found, bits
    return None
