"""A script's arguments, typed and checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from vs_cvrs.plugin.clip import Value
from vs_cvrs.plugin.limits import MAX_RATE, MAX_SIDE
from vs_cvrs.timeline import (
    snap_rate,
    snap_ratio,
)

__all__ = [
    "Arguments",
]


class Arguments:
    """A script's arguments, typed and checked one by one."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def number(self, name: str, low: int, high: int) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not low <= int(value) <= high:
            raise ValueError(f"{name} must be {low} to {high}, got {value}")
        return int(value)

    def text(self, name: str) -> str:
        value = str(self._values.get(name, "auto"))
        if not value or "\0" in value:
            raise ValueError(f"{name} must not be empty or hold a zero character")
        return value

    def rate(self) -> Fraction | None:
        """The target rate, from fps or fps_num and fps_den."""
        exact = self._fraction("fps_num", "fps_den")
        fps = self._values.get("fps")
        if fps is None:
            return exact
        if exact is not None:
            raise ValueError("give either fps or fps_num and fps_den, not both")
        rate = snap_rate(float(fps))
        if rate.numerator > MAX_RATE:
            raise ValueError(f"fps must be at most {MAX_RATE}, got {fps:g}")
        return rate

    def ratio(self, high: Fraction, low: Fraction) -> Fraction:
        """Of the clip's rate and the target rate, whichever is which."""
        return snap_ratio(high / low) if "fps" in self._values else high / low

    def factor(self) -> Fraction | None:
        """The time factor, from factor_num and factor_den."""
        factor = self._fraction("factor_num", "factor_den")
        if factor is not None and factor < 1:
            raise ValueError(f"the time factor must be at least 1, got {factor}")
        return factor

    def scale(self) -> Fraction | None:
        value = self._values.get("scale")
        if value is None:
            return None
        if not 1 <= float(value) <= MAX_SIDE:
            raise ValueError(f"scale must be 1 to {MAX_SIDE}, got {value:g}")
        return Fraction(float(value)).limit_denominator(1000)

    def say_all(self, depth: int) -> bool:
        """Whether rate, size and bits are known without a look at frames of ``depth`` bits."""
        names = self._values.keys()
        timed = bool(names & {"fps", "fps_num", "factor_num"})
        sized = "scale" in names or {"width", "height"} <= names
        return timed and sized and ("bits" in names or depth == 8)

    def _fraction(self, numerator: str, denominator: str) -> Fraction | None:
        num = self.number(numerator, 1, MAX_RATE)
        den = self.number(denominator, 1, MAX_RATE)
        if num is None:
            if den is not None:
                raise ValueError(f"{denominator} is given without {numerator}")
            return None
        return Fraction(num, den or 1)
