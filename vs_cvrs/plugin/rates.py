"""From a target rate or a time factor to the ratio of high and low rate."""

from __future__ import annotations

from fractions import Fraction

from vs_cvrs.plugin.arguments import Arguments
from vs_cvrs.plugin.clip import Clip
from vs_cvrs.plugin.limits import MAX_RATE
from vs_cvrs.plugin.statements import Stated

__all__ = [
    "downsample_rate",
    "pair",
    "upsample_rate",
]


def downsample_rate(clip: Clip, given: Arguments) -> tuple[Fraction, Fraction | None]:
    """High over low rate, and the low rate where it is known."""
    factor, target = _one_target(given)
    if target is not None:
        if clip.rate is None:
            raise ValueError(_UNKNOWN_RATE)
        factor = given.ratio(clip.rate, target)
        if factor < 1:
            raise ValueError(f"the target rate {target} is above the clip's rate {clip.rate}")
    ratio = factor or Fraction(1)
    low_rate = None if clip.rate is None else clip.rate / ratio
    _check_rate(low_rate, "the resulting")
    _check_rate(clip.rate, "the clip's")
    return ratio, low_rate


def upsample_rate(
    clip: Clip, given: Arguments, stated: Stated | None
) -> tuple[Fraction, Fraction | None]:
    """High over low rate, and the high rate where it is known."""
    factor, target = _one_target(given)
    if stated is not None:
        by_properties = stated.has_properties
        contradicting = clip.rate is not None and clip.rate * stated.factor != stated.rate
        # Readers make out a file's rate from rounded times: only stamps have the exact one.
        if by_properties and contradicting and stated.rate is not None:
            raise ValueError(
                f"the clip's rate {clip.rate} contradicts its frame properties, which state "
                f"{stated.rate / stated.factor if stated.rate else None}"
            )
        stated.agree("the time factor", factor, stated.factor)
        if target is not None and stated.rate is not None:
            if given.ratio(target, stated.rate) != 1:
                stated.agree("the target rate", target, stated.rate)
            factor = stated.factor
        elif target is None:
            factor = stated.factor
    if target is not None and factor is None:
        if clip.rate is None:
            raise ValueError(_UNKNOWN_RATE)
        factor = given.ratio(target, clip.rate)
        if factor < 1:
            raise ValueError(f"the target rate {target} is below the clip's rate {clip.rate}")
        if stated is not None:
            stated.agree("the time factor", factor, stated.factor)
    ratio = factor or Fraction(1)
    high_rate = clip.rate * ratio if clip.rate is not None else target
    if stated is not None and stated.rate is not None:
        high_rate = stated.rate
    _check_rate(high_rate, "the resulting")
    return ratio, high_rate


_UNKNOWN_RATE = (
    "the clip's frame rate is unknown: give factor_num and factor_den instead of a rate, or state "
    "the rate with core.std.AssumeFPS"
)


def _one_target(given: Arguments) -> tuple[Fraction | None, Fraction | None]:
    """The wanted time factor and target rate, of which a script may give one."""
    factor, target = given.factor(), given.rate()
    if factor is not None and target is not None:
        raise ValueError("give either a rate or a time factor, not both")
    return factor, target


def _check_rate(rate: Fraction | None, whose: str) -> None:
    if rate is not None and max(rate.numerator, rate.denominator) > MAX_RATE:
        raise ValueError(f"{whose} frame rate {rate} is beyond {MAX_RATE} in its terms")


def pair(value: Fraction | None) -> tuple[int, int]:
    """Numerator and denominator; (0, 0) for what is unknown."""
    return (0, 0) if value is None else (value.numerator, value.denominator)
