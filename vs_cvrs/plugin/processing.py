"""What the group filter asks of Python for each group: making its frames, and judging them.

Downsample stamps the frames that it makes (`vs_cvrs.carrier.stamp`); Upsample reads the stamps of
what it gets, and shows of a damaged group what `vs_cvrs.plugin.damage` says.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vs_cvrs.carrier import mark, stamp
from vs_cvrs.carrier.levels import Levels, to_levels
from vs_cvrs.carrier.mark import Message
from vs_cvrs.carrier.stamp import Mode, Sent, Stamp
from vs_cvrs.plugin.alignment import Alignment, Mark, Unit
from vs_cvrs.plugin.damage import Judge, Verdict
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.plugin.interpolation import interpolate, stretch
from vs_cvrs.plugin.selfcheck import SelfCheck
from vs_cvrs.runtime.session import Frames, Session
from vs_cvrs.timeline import MAX_GROUP_LENGTH, Timeline

__all__ = [
    "Downsampler",
    "Processor",
    "Upsampler",
]

_REMEMBERED = 32 * MAX_GROUP_LENGTH
"""Stamps that are remembered: many times what is needed to tell where one group is."""


@dataclass
class Processor:
    """Makes the output frames of one group from its source frames, in flat group buffers."""

    session: Session
    source: FrameType
    output: FrameType

    def allocate(self, size: int) -> npt.NDArray[np.uint8]:
        """Memory for group buffers."""
        return self.session.allocate(size)

    def process(
        self,
        first: int,
        unit: Unit | None,
        source: npt.NDArray[np.uint8],
        source_frames: int,
        output: npt.NDArray[np.uint8],
        output_frames: int,
    ) -> Verdict:
        """Read ``source_frames`` frames at the start of one buffer, write the other.

        ``first`` is the number of the first frame of the output clip that is shown of these,
        ``unit`` what `Upsampler.place` found out, None where it was not asked.
        """
        return self.compute(
            first,
            unit,
            self.source.view(source, source_frames),
            self.output.view(output, output_frames),
        )

    def compute(self, first: int, unit: Unit | None, source: Frames, output: Frames) -> Verdict:
        """Make the frames of a group."""
        raise NotImplementedError


@dataclass
class Downsampler(Processor):
    """Makes low-rate frames.

    Attributes:
        timeline: the grouping.
        length: frames of the source clip.
        stamp: that of frame 0, None for frames without stamps.
        check: whether groups are restored and compared with their source.
        headroom: levels by which black and white may move where that helps.
        crf: what will be done to the low-rate frames, for models that outlive it.
        message: what marks say that outlive it too.
    """

    timeline: Timeline
    length: int
    stamp: Stamp | None
    check: bool
    headroom: int
    crf: float | None = None
    message: Message | None = None
    _check: SelfCheck = field(init=False)

    def __post_init__(self) -> None:
        self._check = SelfCheck(
            self.session,
            self.source,
            self.output,
            self.timeline,
            self.length,
            self.headroom,
            self._stamp if self.stamp is not None else None,
        )

    def compute(self, first: int, unit: Unit | None, source: Frames, output: Frames) -> Verdict:
        if self.check:
            outcome = self._check.encode(first, source, output)
            found = {"CVRSPsnr": outcome.psnr, "CVRSHidden": int(outcome.sent.mode == Mode.HIDDEN)}
            if outcome.psnr_removed is not None:
                found["CVRSPsnrRemoved"] = outcome.psnr_removed
            return Verdict(properties=found)
        bits, low_bits = self.source.bits, self.output.bits
        self.session.encode(source, output, bits=bits, low_bits=low_bits, crf=self.crf)
        if self.message is not None:
            mark.write(output, self.message, first)
        if self.stamp is not None:
            self._stamp(first, output, Sent())
        return Verdict()

    def _stamp(self, first: int, low: Frames, sent: Sent) -> None:
        """Stamp the low-rate frames of a group; ``first`` is the number of the first of them."""
        assert self.stamp is not None
        stamp.write(low, replace(self.stamp, index=first, sent=sent))


@dataclass
class Upsampler(Processor):
    """Restores frames.

    Attributes:
        alignment: where the groups are; None where nobody asks.
        timeline: the grouping.
        strict: damage is an error.
        bits: of the levels that the low-rate samples stand for, whatever type they come in.
        stamped: frames ought to have stamps, which say what is wrong with them.
    """

    timeline: Timeline
    alignment: Alignment | None
    strict: bool
    bits: int = 8
    stamped: bool = True
    _warned: bool = field(default=False, init=False)
    _judge: Judge = field(init=False)
    _stamps: OrderedDict[int, Stamp | None] = field(default_factory=OrderedDict, init=False)
    _marks: dict[int, Mark | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        low = (self.source.height, self.source.width)
        self._judge = Judge(self.timeline, self.session.checksum, low, self.output)

    def place(
        self, output: int, begin: int, frames: npt.NDArray[np.uint8], count: int
    ) -> tuple[Unit | None, int, int]:
        """Find out where the group of an output frame is.

        ``begin`` is the number in the clip of the first of ``count`` frames at the start of a
        buffer, of which the stamps are read and remembered.

        Returns:
            The unit that makes the output frame; or None, and the first of the frames that are
            needed to tell, and the one after their last.
        """
        assert self.alignment is not None
        for n, frame in enumerate(self.source.view(frames, count), start=begin):
            if n not in self._stamps:
                found = stamp.read(self._levels(frame)) if self.stamped else None
                self._remember(n, found)
        placed = self.alignment.place(output, self._marks)
        if isinstance(placed, Unit):
            return placed, 0, 0
        return None, placed.start, placed.stop

    def compute(self, first: int, unit: Unit | None, source: Frames, output: Frames) -> Verdict:
        found = [] if unit is None else [self._stamps.get(n) for n in unit.run]
        # Frames that were encoded with loss have no stamps, and need none.
        expected = self.stamped and not (self.session.model.outlives_loss and not any(found))
        if unit is None or (not expected and not self.strict):
            self._decode(source, output, Sent())
            return Verdict()
        damage = self._judge.damage(unit, found)
        if damage is not None and self.strict:
            raise ValueError(damage.what)
        # Of a damaged group, any frame that is left tells how it was sent.
        sent = next((s.sent for s in found if s and s.checksum == self.session.checksum), Sent())
        if sent.mode == Mode.HIDDEN:
            self._decode(source, output, sent)
        else:
            self._interpolate(unit, source, sent.mode, output)
        if damage is None:
            return Verdict(True)
        if sent.mode == Mode.HIDDEN and not damage.readable:
            self._judge.repeat_if_better(unit, stretch(self._levels(source), sent), output)
        warning = (
            "" if self._warned else f"{damage.what}; what is restored of it is not what was sent"
        )
        self._warned = True
        return Verdict(False, warning)

    def _levels(self, frames: Frames) -> Levels:
        return to_levels(frames, self.source.top, self.bits)

    def _remember(self, frame: int, found: Stamp | None) -> None:
        self._stamps[frame] = found
        self._marks[frame] = self._judge.mark(found)
        if len(self._stamps) > _REMEMBERED:
            oldest, _ = self._stamps.popitem(last=False)
            del self._marks[oldest]

    def _decode(self, source: Frames, output: Frames, sent: Sent) -> None:
        span = (sent.black, sent.white)
        self.session.decode(source, output, bits=self.source.bits, low_bits=self.bits, span=span)

    def _interpolate(self, unit: Unit, source: Frames, mode: Mode, output: Frames) -> None:
        """Show a group that hides nothing."""
        high = self.timeline.high_begin(unit.first) + np.arange(len(output))
        between = self.timeline.neighbours(unit.first, unit.first + len(source), high)
        interpolate(self._levels(source), between, mode, output, self.output)
