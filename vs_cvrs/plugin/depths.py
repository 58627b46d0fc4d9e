"""How many bits the samples of low-rate frames have."""

from __future__ import annotations

import numpy as np

from vs_cvrs.carrier.lossless import DEPTHS
from vs_cvrs.plugin.arguments import Arguments
from vs_cvrs.plugin.clip import Clip
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.plugin.statements import Stated

__all__ = ["downsample_bits", "low_rate_type", "upsample_bits"]

_AUTO = 0
_LEAST, _MOST = DEPTHS


def downsample_bits(clip: Clip, given: Arguments) -> int:
    """Bits of the low-rate frames to make: 8 where nothing is given; 0 goes by the source."""
    bits = _bits(given)
    if bits == _AUTO:
        return _MOST if clip.bits > _LEAST else _LEAST
    return bits or _LEAST


def upsample_bits(clip: Clip, given: Arguments, stated: Stated | None) -> int:
    """Bits of the levels that a clip's samples stand for.

    A clip of more bits may hold converted frames of 8. Where neither properties nor a stamp tell,
    they are taken for that.
    """
    bits = _bits(given) or None
    if stated is not None:
        stated.agree("bits", bits, stated.bits)
        bits = stated.bits
    if bits is not None and clip.bits < bits:
        raise ValueError(
            f"the low-rate frames were made with {bits} bits, and the clip has {clip.bits}: "
            "read it as RGB30"
        )
    return bits or _LEAST


def low_rate_type(bits: int, height: int, width: int) -> FrameType:
    """How low-rate frames lie in group buffers."""
    return FrameType(np.dtype(np.uint8 if bits == _LEAST else np.uint16), bits, height, width)


def _bits(given: Arguments) -> int | None:
    bits = given.number("bits", _AUTO, _MOST)
    if bits not in (None, _AUTO, *DEPTHS):
        raise ValueError(
            f"bits must be {_LEAST}, {_MOST}, or {_AUTO} to go by the clip, got {bits}"
        )
    return bits
