"""Values of options: rates, factors and places in a file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from fractions import Fraction

from vs_cvrs.cli.running import CliError
from vs_cvrs.texts import shown
from vs_cvrs.timeline import snap_rate

__all__ = ["parse_factor", "parse_frame", "parse_preset", "parse_rate"]

_MAX_TERM = 2**31 - 1
_NUMBER = re.compile(r"[+-]?([0-9]{1,20}(/[0-9]{1,20})?|[0-9]{1,20}\.[0-9]{0,20}|\.[0-9]{1,20})")
_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    *("slow", "slower", "veryslow", "placebo"),
)


def parse_rate(text: str, option: str) -> Fraction:
    """Read "25", "30000/1001", or a decimal that stands for a broadcast rate ("23.976")."""
    rate = _fraction(text, option)
    if "/" not in text:
        try:
            rate = snap_rate(float(rate))
        except ValueError as error:
            raise CliError(
                f"{option} must be at least 0.001 frames per second, got {text!r}"
            ) from error
    if rate <= 0:
        raise CliError(f"{option} must be greater than 0, got {text!r}")
    if not 0 < rate.numerator <= _MAX_TERM or rate.denominator > _MAX_TERM:
        raise CliError(f"{option} is out of range, got {text!r}")
    return rate


def parse_preset(text: str | None, codec: str, encoder: str | None = None) -> str | None:
    """A preset of x264 and x265, which have the same ones.

    Args:
        text: what the user wrote.
        codec: likewise.
        encoder: what stands for that codec here; None: it is not chosen yet.

    Raises:
        CliError: there is none of that name, or the codec has none.
    """
    if text is None:
        return None
    encoder = encoder or codec
    if encoder in ("ffv1", "av1"):
        which = f"got --codec {codec}" + ("" if encoder == codec else f", which is {encoder} here")
        raise CliError(f"--preset is for x264 and x265, {which}")
    if text not in _PRESETS:
        raise CliError(f"--preset must be one of {', '.join(_PRESETS)}, got {text!r}")
    return text


def parse_factor(text: str, option: str) -> Fraction:
    """Read "2", "5/4" or "2.5", at least 1."""
    factor = _fraction(text, option)
    if abs(factor) <= _MAX_TERM:
        factor = factor.limit_denominator(1000)
    if not 1 <= factor <= _MAX_TERM:
        raise CliError(f"{option} must be at least 1, got {text!r}")
    return factor


def parse_frame(text: str, nearest: Callable[[Fraction], int], option: str) -> int:
    """Read "300f", "12.5" (seconds) or "1:02:03.5" as the number of a frame.

    Args:
        text: what the user wrote.
        nearest: gives the frame that is nearest to a time in seconds.
        option: the option's name.
    """
    if re.fullmatch(r"[0-9]{1,10}f", text):
        return int(text[:-1])
    if not re.fullmatch(r"([0-9]{1,10}:){0,2}[0-9]{1,10}(\.[0-9]{1,20})?", text):
        raise CliError(f"{option} must be like 12.5, 1:02:03.5 or 300f, got {text!r}")
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = seconds * 60 + Fraction(part)
    return nearest(seconds)


def _fraction(text: str, option: str) -> Fraction:
    # What Fraction takes beyond that, like 1e60000000, it may work out for minutes.
    if _NUMBER.fullmatch(text):
        with contextlib.suppress(ZeroDivisionError):
            return Fraction(text)
    raise CliError(f"{option} must be a number or a fraction, got {shown(repr(text))}")
