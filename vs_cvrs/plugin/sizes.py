"""From a scale or a size to the size that a filter makes."""

from __future__ import annotations

import math
from fractions import Fraction

from vs_cvrs.plugin.arguments import Arguments
from vs_cvrs.plugin.clip import Clip
from vs_cvrs.plugin.limits import MAX_SIDE
from vs_cvrs.plugin.statements import Stated
from vs_cvrs.timeline import (
    SIZE_MULTIPLE,
    low_size,
    nearest_allowed_sizes,
)

__all__ = [
    "downsample_size",
    "upsample_size",
]


def downsample_size(clip: Clip, given: Arguments) -> tuple[int, int, Fraction]:
    """Low-rate width and height, and the scale they stand for."""
    scale = given.scale() or Fraction(1)
    sizes = []
    explicit = False
    for side, high in (("width", clip.width), ("height", clip.height)):
        low = given.number(side, 1, MAX_SIDE)
        if low is None:
            sizes.append(low_size(high, scale))
            continue
        explicit = True
        if low % SIZE_MULTIPLE:
            below, above = nearest_allowed_sizes(low)
            raise ValueError(
                f"{side} must be a multiple of {SIZE_MULTIPLE}, got {low}; "
                f"nearest: {below} and {above}"
            )
        largest = low_size(high, Fraction(1))
        if low > largest:
            raise ValueError(f"{side} must be at most {largest} for this clip, got {low}")
        sizes.append(low)
    low_width, low_height = sizes
    if explicit:
        scale = _scale_between((low_width, low_height), (clip.width, clip.height))
    return low_width, low_height, scale


def upsample_size(clip: Clip, given: Arguments, stated: Stated | None) -> tuple[int, int, Fraction]:
    """Restored width and height, and the scale they stand for."""
    scale = given.scale()
    sizes = []
    for side, low, stated_size in (
        ("width", clip.width, stated.width if stated else None),
        ("height", clip.height, stated.height if stated else None),
    ):
        high = given.number(side, 1, MAX_SIDE)
        if high is not None:
            if stated is not None:
                stated.agree(side, high, stated_size)
        elif stated_size is not None:
            high = stated_size
            if scale is not None and low_size(high, scale) != low:
                raise ValueError(
                    f"scale {float(scale):g} makes {side} {round(low * scale)}, but the clip's "
                    f"{stated.where if stated else ''} state {stated_size}"
                )
        else:
            high = round(low * (scale or 1))
        if low_size(high, Fraction(1)) < low or high > MAX_SIDE:
            smallest = max(1, low - SIZE_MULTIPLE + 1)
            raise ValueError(f"{side} must be {smallest} to {MAX_SIDE} for this clip, got {high}")
        sizes.append(high)
    width, height = sizes
    exact = scale is not None and all(
        low_size(high, scale) == low
        for high, low in zip(sizes, (clip.width, clip.height), strict=True)
    )
    if scale is None or not exact:
        scale = _scale_between((clip.width, clip.height), (width, height))
    return width, height, scale


def _scale_between(low: tuple[int, int], high: tuple[int, int]) -> Fraction:
    """The simplest scale that leads from the high-rate size to the low-rate one.

    Sizes are rounded to multiples of 4, so that many scales do (1080 -> 272 is 4, not 3.97). Where
    none does for both axes, it is the exact one of the width.
    """
    exact = Fraction(high[0], low[0])
    for denominator in range(1, 101):
        middle = exact * denominator
        for numerator in {math.floor(middle), math.ceil(middle)}:
            scale = Fraction(numerator, denominator)
            if scale >= 1 and all(low_size(h, scale) == n for h, n in zip(high, low, strict=True)):
                return scale
    return max(exact, Fraction(1))
