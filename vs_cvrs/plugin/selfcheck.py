"""What the sender knows of a group before it is sent: how well it comes back, and what helps.

The sender has the source and the receiver's part. For each group it compares what will be restored
with what was there, and sends it in the way that comes back best:

- hidden, as models do;
- hidden after black and white were moved inwards. Hiding adds and subtracts levels, and at the ends
  of the range there is only one way to go: drawn graphics lose most of it. Only tried where much of
  the error lies at the ends, as it costs the low-rate frames their contrast;
- not hidden: low-rate frames that only show, with blended or repeated frames between them. Of what
  stands still that is exact, and of patterns and noise it is often the better half.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vs_cvrs.carrier.levels import Levels
from vs_cvrs.carrier.stamp import Mode, Sent, quality_of
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.plugin.interpolation import interpolate, reduce
from vs_cvrs.runtime.session import FULL_SPAN, Frames, Session
from vs_cvrs.timeline import Timeline

__all__ = ["MAX_HEADROOM", "Outcome", "SelfCheck"]

_GOOD = 35.0
"""dB from which on no room is made at the ends of the range."""

_INVISIBLE = 55.0
"""dB from which on nothing is gained by hiding: rounding to 8 bits alone leaves 59."""

MAX_HEADROOM = 64
"""Levels of 8 bits by which black and white may move inwards. More brought nothing."""

_STEP = 16
_WORTH = 0.5
"""dB that each step inwards must bring."""

_ENDS = 16.0 / 255.0
_ENDS_SHARE = 0.25
"""Share of the squared error at samples within `_ENDS` of black or white that makes steps tried."""


_AT_ONCE = 2**14
"""Samples that are compared at once: what is made of them stays in a core's cache."""


@dataclass(frozen=True)
class Outcome:
    """How a group was sent, and the PSNR in dB with which it comes back; infinite where exactly.

    ``psnr_removed`` is that of the frames that no low-rate frame shows, None where there are none.
    """

    sent: Sent
    psnr: float
    psnr_removed: float | None


@dataclass(frozen=True)
class _Errors:
    """Mean squared errors of a group, of samples of 0..1: all, of removed frames, and at the ends.

    ``removed`` is NaN where no frame was removed; ``ends`` is a share of the whole error.
    """

    every: float
    removed: float
    ends: float

    @property
    def psnr(self) -> float:
        return _psnr(self.every)


@dataclass
class SelfCheck:
    """Makes groups of low-rate frames, and knows how they come back.

    Attributes:
        session: sender's and receiver's model.
        source, output: types of the source's and the low-rate frames.
        timeline: the grouping.
        length: frames of the source clip.
        headroom: levels by which black and white may move, up to `MAX_HEADROOM`.
        refine: steps by which low-rate frames are made better, see `Session.encode`.
        stamp: puts stamps into the low-rate frames of a group, from which the receiver knows how it
            was sent. None: there are none, and all groups are hidden as they are.
    """

    session: Session
    source: FrameType
    output: FrameType
    timeline: Timeline
    length: int
    headroom: int
    refine: int
    stamp: Callable[[int, Frames, Sent], None] | None
    _memory: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def encode(self, first: int, source: Frames, low: Frames) -> Outcome:
        """Make the low-rate frames of a group in the way that comes back best.

        Args:
            first: number of the first of them.
            source: its frames, padding at the end of the clip included.
            low: written.
        """
        outcome = self._encode(first, source, low)
        if self.stamp is not None:
            self.stamp(first, low, outcome.sent)
        return outcome

    def _encode(self, first: int, source: Frames, low: Frames) -> Outcome:
        restored = self._restored(source)
        if self.stamp is None:
            errors = self._hide(first, source, low, restored, FULL_SPAN, self.refine)
            return _outcome(Sent(), errors)
        plain = self._plain(first, source, len(low))
        # What a stamp changes is the same for any way, and takes its part in what is compared.
        self.stamp(first, plain, Sent())
        mode, shown = self._best_interpolation(first, plain, source, restored)
        if not shown.psnr >= _INVISIBLE:  # not a number: the session will complain of it
            span, hidden = self._best_hiding(first, source, low, restored)
            if self.refine:
                hidden = self._hide(first, source, low, restored, span, self.refine)
            if hidden.every <= shown.every:
                return _outcome(Sent(black=span[0], white=span[1]), hidden)
        low[:] = plain
        return _outcome(Sent(mode=mode), shown)

    def _restored(self, source: Frames) -> Frames:
        """Memory for what is restored, of the form of the source."""
        if self._memory.size < source.nbytes:
            self._memory = self.session.allocate(source.nbytes)
        return self.source.view(self._memory, len(source))

    def _best_hiding(
        self, first: int, source: Frames, low: Frames, restored: Frames
    ) -> tuple[tuple[int, int], _Errors]:
        span, best = FULL_SPAN, self._hide(first, source, low, restored, FULL_SPAN)
        if best.ends < _ENDS_SHARE:
            return span, best
        tried = np.empty_like(low)
        for levels in range(_STEP, self.headroom + 1, _STEP):
            candidate = (levels, 255 - levels)
            if best.psnr >= _GOOD:
                break
            found = self._hide(first, source, tried, restored, candidate)
            if found.psnr < best.psnr + _WORTH:
                break
            span, best = candidate, found
            low[:] = tried
        return span, best

    def _hide(
        self,
        first: int,
        source: Frames,
        low: Frames,
        restored: Frames,
        span: tuple[int, int],
        refine: int = 0,
    ) -> _Errors:
        bits = self.source.bits
        low_bits = self.output.bits
        self.session.encode(source, low, bits=bits, low_bits=low_bits, span=span, refine=refine)
        if self.stamp is not None:
            self.stamp(first, low, Sent())
        # Integers of two depths at once are not what sessions take.
        received = low if low_bits == 8 else low.astype(np.float32) / np.float32(self.output.top)
        self.session.decode(received, restored, bits=bits, low_bits=low_bits, span=span)
        return self._compare(first, source, restored)

    def _plain(self, first: int, source: Frames, count: int) -> Levels:
        """Low-rate frames that only show."""
        begin = self.timeline.high_begin(first)
        places = (self.timeline.high_begin(first + n) - begin for n in range(count))
        return np.stack([reduce(source[n], self.source, self.output) for n in places])

    def _best_interpolation(
        self, first: int, plain: Levels, source: Frames, restored: Frames
    ) -> tuple[Mode, _Errors]:
        high = self.timeline.high_begin(first) + np.arange(len(source))
        between = self.timeline.neighbours(first, first + len(plain), high)
        found = []
        for mode in (Mode.INTERPOLATED, Mode.EARLIER, Mode.LATER):
            interpolate(plain, between, mode, restored, self.source)
            found.append((mode, self._compare(first, source, restored)))
            if not between.share.any() or not found[-1][1].every > 0.0:
                break
        return min(found, key=lambda pair: pair[1].every)

    def _compare(self, first: int, source: Frames, restored: Frames) -> _Errors:
        """Errors over the frames that will be shown."""
        begin = self.timeline.high_begin(first)
        count = min(len(source), self.length - begin)
        lows = range(first, first + self.timeline.group_length)
        shown = {self.timeline.high_begin(n) - begin for n in lows}
        errors, at_ends = [], 0.0
        for n in range(count):
            error, at_end = _squared_errors(source[n], restored[n], self.source.top)
            errors.append(error)
            at_ends += at_end
        removed = [error for n, error in enumerate(errors) if n not in shown]
        total = sum(errors)
        return _Errors(
            total / len(errors),
            sum(removed) / len(removed) if removed else math.nan,
            at_ends / total if total > 0.0 else 0.0,
        )


def _squared_errors(wanted: Frames, made: Frames, top: float) -> tuple[float, float]:
    """The mean squared error of two frames' samples of 0..1, and the part of it at the ends."""
    scale = np.float32(1.0 / top)
    every = at_ends = 0.0
    wanted, made = wanted.reshape(-1), made.reshape(-1)
    # Of numbers that are not finite the session complains.
    with np.errstate(invalid="ignore", over="ignore"):
        for begin in range(0, wanted.size, _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            right = wanted[part].astype(np.float32)
            right *= scale
            wrong = made[part].astype(np.float32)
            wrong *= scale
            wrong -= right
            every += float(np.einsum("i,i", wrong, wrong))
            wrong *= (right < _ENDS) | (right > 1.0 - _ENDS)
            at_ends += float(np.einsum("i,i", wrong, wrong))
    return every / wanted.size, at_ends / wanted.size


def _psnr(mse: float) -> float:
    return math.inf if mse == 0.0 else -10.0 * math.log10(mse)


def _outcome(sent: Sent, errors: _Errors) -> Outcome:
    removed = None if math.isnan(errors.removed) else _psnr(errors.removed)
    sent = replace(
        sent,
        quality=quality_of(_psnr(errors.every)),
        quality_removed=0 if removed is None else quality_of(removed),
    )
    return Outcome(sent, _psnr(errors.every), removed)
