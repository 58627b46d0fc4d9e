"""What VapourSynth says of a clip, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.plugin.limits import MAX_SIDE

__all__ = [
    "FORMATS",
    "Clip",
    "Value",
    "check_clip",
    "frame_type",
]

Value = int | float | str


FORMATS = {(False, 8), (False, 10), (False, 16), (True, 16), (True, 32)}


_FORMAT_NAMES = "RGB24, RGB30, RGB48, RGBH or RGBS"


@dataclass(frozen=True)
class Clip:
    """What VapourSynth says of a clip. ``rate`` is None where it is unknown or variable."""

    width: int
    height: int
    frames: int
    rate: Fraction | None
    is_float: bool
    bits: int


def check_clip(clip: Mapping[str, Value]) -> Clip:
    """The clip, as a filter takes it. Raises ValueError for one that it cannot take."""
    name = clip["format_name"]
    if not clip["is_constant"]:
        raise ValueError("the clip's format and size must be constant, got a variable one")
    is_float, bits = bool(clip["is_float"]), int(clip["bits"])
    if not clip["is_rgb"]:
        raise ValueError(
            f"the clip must be {_FORMAT_NAMES}, got {name}; convert it with "
            'core.resize.Bicubic(clip, format=vs.RGB24), and matrix_in_s="709" where the clip '
            "does not state its matrix"
        )
    if (is_float, bits) not in FORMATS:
        raise ValueError(f"the clip must be {_FORMAT_NAMES}, got {name}")
    width, height = int(clip["width"]), int(clip["height"])
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"the clip must be at most {MAX_SIDE} wide and high, got {width}x{height}")
    num, den = int(clip["rate_num"]), int(clip["rate_den"])
    rate = Fraction(num, den) if num > 0 and den > 0 else None
    return Clip(width, height, int(clip["frames"]), rate, is_float, bits)


def frame_type(clip: Clip) -> FrameType:
    """How a clip's frames lie in group buffers."""
    return FrameType(_sample_type(clip), clip.bits, clip.height, clip.width)


def _sample_type(clip: Clip) -> np.dtype[Any]:
    if clip.is_float:
        return np.dtype(np.float16 if clip.bits == 16 else np.float32)
    return np.dtype(np.uint8 if clip.bits == 8 else np.uint16)
