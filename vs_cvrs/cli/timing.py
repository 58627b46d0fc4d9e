"""From the times of a file's frames to the one rate that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = ["Timing", "rate_text"]

_ROUNDING = 0.00101  # seconds: two times, each rounded to a millisecond
_JITTER = 0.25  # of a step: what cameras do is less, and a dropped frame is more
_UNREAD = 0.5  # seconds that a file may state too much
_STEADY = 0.05  # of a step: frames that jitter by more are on no simple grid of their own
_SPAN = 128  # frames: for longer, steps that vary by themselves keep no beat
_BEAT = 0.4  # of 1: what frames have that are off their beat by a third of a step
_WIDE = 1.25  # how far the beat is looked for: less than any multiple of it
_SLOWEST = Fraction(1, 1000)
_NEAR = 0.0025  # of a rate: what the mean of rounded steps is off by, and more
_BROKEN_END = 16  # frames: as far as a frame can wait for others that are cut off
_UNITS = (Fraction(1, 2), Fraction(500, 1001))


@dataclass(frozen=True)
class Timing:
    """When a file's frames are shown.

    Attributes:
        times: of each frame, in seconds; rising.
        stated: frames per second as the file's reader gives them; 0 where it does not know.
    """

    times: npt.NDArray[np.float64]
    stated: Fraction

    def rate(self) -> Fraction:
        """The simple rate that the times stand for, else the stated or the mean one.

        Matroska rounds times to milliseconds, and BestSource takes the mean of what it finds: it
        gives 15 fps as 44000/2933. Multiples of 1/2 and of 500/1001 whose grid is within that
        rounding of every frame are what was meant.
        """
        if self.times.size < 2 or self.stated <= 0:
            return self.stated
        simple = [unit * round(self.stated / unit) for unit in _UNITS]
        if self.stated in simple:
            return self.stated
        fitting = [rate for rate in simple if rate > 0 and self.is_constant(rate)]
        if fitting or self.is_constant(self.stated):
            return min(fitting, key=self._off, default=self.stated)
        seconds = float(self.times[-1] - self.times[0])
        mean = Fraction(round(1e6 * (self.times.size - 1) / seconds) if seconds > 0 else 0, 10**6)
        return mean if mean > 0 and self.is_constant(mean) else self.stated

    def usual_rate(self) -> Fraction:
        """The rate that most frames have: a simple one that is near, or else three decimals.

        Of frames that jitter it is a whole number.
        """
        steps = np.diff(self.times)
        steps = steps[steps > 0]
        if steps.size == 0:
            return self.stated
        median = float(np.quantile(steps, 0.5, method="lower"))
        usual = steps[np.abs(steps - median) <= max(2 * _ROUNDING, _JITTER * median)]
        mean = 1 / float(usual.mean())
        if usual.std() > max(_ROUNDING / 2, _STEADY * usual.mean()):
            return self._beat(mean)
        simple = [unit * round(Fraction(mean) / unit) for unit in _UNITS]
        best = min(simple, key=lambda rate: abs(float(rate) - mean))
        if abs(float(best) - mean) <= _NEAR * mean:
            return best
        return max(Fraction(round(1000 * mean), 1000), _SLOWEST)

    def _beat(self, near: float) -> Fraction:
        """The whole rate in whose beat most frames come, or else the one that is nearest.

        Steps alone mislead here: where frames are dropped as well, the short ones of those that are
        left are of the usual length more often than the long ones.
        """
        rates = np.arange(max(1.0, np.ceil(near / _WIDE)), np.floor(near * _WIDE) + 1)
        power = np.zeros(rates.size)
        most = 0
        for begin in range(0, self.times.size, _SPAN):
            part = self.times[begin : begin + _SPAN]
            power += np.abs(np.exp(2j * np.pi * np.outer(rates, part)).sum(axis=1)) ** 2
            most += part.size**2
        if rates.size and power.max() >= _BEAT**2 * most:
            return Fraction(int(rates[power.argmax()]))
        return Fraction(round(near)) or Fraction(near).limit_denominator(1000)

    def is_constant(self, rate: Fraction) -> bool:
        """Whether every frame is in its place, but for the rounding of times."""
        return self.times.size < 2 or self._off(rate) <= _ROUNDING

    def missing_at_end(self, rate: Fraction) -> int:
        """How many frames are missing between the last ones, where all others are in their places.

        A file that was cut off lacks frames that its last ones follow: they came later in the
        file. 0 where frames are missing elsewhere too, or more than were cut off like that.
        """
        steps = np.diff(self.times) * float(rate)
        gaps = np.flatnonzero(np.abs(steps - 1) > 0.5)
        if gaps.size == 0 or gaps[0] < self.times.size - 1 - _BROKEN_END or gaps[0] < _BROKEN_END:
            return 0
        if not Timing(self.times[: gaps[0] + 1], self.stated).is_constant(rate):
            return 0
        missing = int(np.round(steps[gaps] - 1).sum())
        return missing if 0 < missing <= _BROKEN_END else 0

    def missing_behind(self, stated: float, read: float = 0.0) -> bool:
        """Whether the file states that its frames go on for longer.

        Args:
            stated: up to when, in seconds on the frames' axis.
            read: when the last packet of another track is, likewise.
        """
        longest = float(np.diff(self.times).max(initial=0.0))
        return stated > max(float(self.times[-1]), read) + longest + _UNREAD

    def range_text(self) -> str:
        """The shortest and the longest that a frame lasts."""
        steps = np.diff(self.times) * 1000
        return f"frames last {steps.min():.4g} to {steps.max():.4g} ms"

    def _off(self, rate: Fraction) -> float:
        """By how many seconds a frame is off its place at most."""
        places = self.times[0] + np.arange(self.times.size) / float(rate)
        return float(np.abs(self.times - places).max())


def rate_text(rate: Fraction) -> str:
    """A rate as people write it: 25, 23.976, 29.97."""
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")
