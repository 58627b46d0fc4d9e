"""What the group filter asks of Python for each group: making its frames, and judging them.

Downsample stamps the frames that it makes (`vs_cvrs.carrier.stamp`), and marks them where they are
to be encoded with loss (`vs_cvrs.carrier.mark`). Upsample reads both (`vs_cvrs.plugin.reading`). A
group that hides nothing, or whose hidden motion did not arrive, is interpolated: marks tell of it,
or without them `vs_cvrs.plugin.damage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from vs_cvrs.carrier import mark, stamp
from vs_cvrs.carrier.levels import Levels, to_levels
from vs_cvrs.carrier.mark import Message
from vs_cvrs.carrier.stamp import Mode, Sent, Stamp
from vs_cvrs.plugin.alignment import Unit
from vs_cvrs.plugin.damage import Judge, Verdict
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.plugin.interpolation import interpolate
from vs_cvrs.plugin.reading import Reader
from vs_cvrs.plugin.selfcheck import SelfCheck
from vs_cvrs.runtime.session import Frames, Session
from vs_cvrs.timeline import Timeline

__all__ = [
    "Downsampler",
    "Processor",
    "Upsampler",
]

_SOURCE = "CVRSSource"
"""The frame property that says what restored frames come from:"""
_HIDDEN = "hidden"
"""what their whole group hides;"""
_PARTLY = "partly"
"""what is left of it, or what only some of the group's frames hide;"""
_INTERPOLATED = "interpolated"
"""nothing hidden: frames are made up between those that are there;"""
_REPEATED = "repeated"
"""nothing hidden: those that are there are repeated."""


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
        cuts: Sequence[int],
    ) -> Verdict:
        """Read ``source_frames`` frames at the start of one buffer, write the other.

        ``first`` is the number of the first frame of the output clip that is shown of these,
        ``unit`` what `Upsampler.place` found out, None where it was not asked. ``cuts``: places
        among the source frames at which another scene is known to begin.
        """
        return self.compute(
            first,
            unit,
            self.source.view(source, source_frames),
            self.output.view(output, output_frames),
            cuts,
        )

    def compute(
        self, first: int, unit: Unit | None, source: Frames, output: Frames, cuts: Sequence[int]
    ) -> Verdict:
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
        refine: steps by which low-rate frames are made better, see `Session.encode`.
        crf: what will be done to the low-rate frames, for models that outlive it.
        message: what marks say that outlive it too.
    """

    timeline: Timeline
    length: int
    stamp: Stamp | None
    check: bool
    headroom: int
    refine: int
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
            self.refine,
            self._stamp if self.stamp is not None else None,
        )

    def compute(
        self, first: int, unit: Unit | None, source: Frames, output: Frames, cuts: Sequence[int]
    ) -> Verdict:
        if self.check:
            outcome = self._check.encode(first, source, output)
            found = {"CVRSPsnr": outcome.psnr, "CVRSHidden": int(outcome.sent.mode == Mode.HIDDEN)}
            if outcome.psnr_removed is not None:
                found["CVRSPsnrRemoved"] = outcome.psnr_removed
            return Verdict(properties=found)
        bits, low_bits = self.source.bits, self.output.bits
        self.session.encode(
            source, output, bits=bits, low_bits=low_bits, crf=self.crf, refine=self.refine
        )
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
        timeline: the grouping.
        reader: reads where the groups are, and what they hide; None where nobody asks.
        strict: damage is an error.
        bits: of the levels that the low-rate samples stand for, whatever type they come in.
    """

    timeline: Timeline
    reader: Reader | None
    judge: Judge
    strict: bool
    bits: int = 8
    _warned: bool = field(default=False, init=False)

    def place(
        self, output: int, begin: int, frames: npt.NDArray[np.uint8], count: int
    ) -> tuple[Unit | None, int, int]:
        """Find out where the group of an output frame is.

        ``begin`` is the number in the clip of the first of ``count`` frames at the start of a
        buffer, which are read and remembered.

        Returns:
            The unit that makes the output frame; or None, and the first of the frames that are
            needed to tell, and the one after their last.
        """
        assert self.reader is not None
        there = enumerate(self.source.view(frames, count), start=begin)
        self.reader.read({n: self._levels(f) for n, f in there if not self.reader.knows(n)})
        placed = self.reader.alignment.place(output, self.reader.marks)
        if isinstance(placed, Unit):
            return self._with_next(placed), 0, 0
        wanted = self.reader.wanted(placed)
        return None, wanted.start, wanted.stop

    def _with_next(self, unit: Unit) -> Unit:
        """A unit with the frame behind it, where it is damaged and may have to be interpolated."""
        assert self.reader is not None
        alignment = self.reader.alignment
        if (
            alignment.ahead
            or alignment.endless
            or not self.reader.stamped
            or unit.sources != tuple(unit.run)
            or unit.run.stop >= alignment.frames
        ):
            return unit
        damage = self.judge.damage(unit, self.reader.stamps(unit.run))
        if damage is None or damage.readable:
            return unit
        return replace(unit, sources=(*unit.sources, unit.run.stop))

    def compute(
        self, first: int, unit: Unit | None, source: Frames, output: Frames, cuts: Sequence[int]
    ) -> Verdict:
        if unit is None or self.reader is None:
            self._decode(source, output, Sent())
            return Verdict()
        of_scene = self._before_cut(unit, source, cuts)
        found = self.reader.stamps(unit.run)
        # Frames that were encoded with loss have no stamps, and need none.
        expected = self.reader.stamped and not (self.session.model.outlives_loss and not any(found))
        if not expected and not self.strict:
            if self.reader.message is not None:
                whence = self._restore(unit, source, output, cuts)
                warning = "" if all(map(self.reader.carries, unit.run)) else self._once(_bare(unit))
                return Verdict(None, warning, {_SOURCE: whence})
            self._decode(of_scene, output, Sent())
            return Verdict()
        damage = self.judge.damage(unit, found)
        if damage is not None and self.strict:
            raise ValueError(damage.what)
        # Of a damaged group, any frame that is left tells how it was sent.
        sent = next((s.sent for s in found if s and s.checksum == self.session.checksum), Sent())
        if sent.mode != Mode.HIDDEN:
            self._show(unit, source[: self._own(unit)], sent.mode, output)
            whence = _INTERPOLATED if sent.mode == Mode.INTERPOLATED else _REPEATED
        elif damage is not None and not damage.readable and self.session.model.outlives_loss:
            whence = self._restore(unit, source, output, cuts)
        else:
            self._decode(of_scene, output, sent)
            whence = _HIDDEN if damage is None else _PARTLY
            if damage is not None and not damage.readable:
                arrived = self._arrived(of_scene, output, sent)
                if not arrived:
                    made = np.empty_like(output)
                    self._interpolate(unit, source, made, cuts, sent)
                    if arrived is not None or not self.judge.arrived(unit, output, made):
                        output[:] = made
                        whence = _INTERPOLATED
        if damage is None:
            return Verdict(True, properties={_SOURCE: whence})
        instead = (
            "frames between them are interpolated"
            if whence == _INTERPOLATED
            else "what is restored of it is not what was sent"
        )
        what = f"{damage.what}; {instead}"
        return Verdict(False, self._once(what), {_SOURCE: whence})

    def _arrived(self, source: Frames, output: Frames, sent: Sent) -> bool | None:
        """Whether what a damaged group hides is still there, where the model can tell."""
        if (sent.black, sent.white) != (Sent().black, Sent().white):
            return None  # what is restored has another contrast than what was received
        received, restored = (
            torch.from_numpy(frames.astype(np.float32) / np.float32(top)).transpose(0, 1)[None]
            for frames, top in ((source, self.source.top), (output, self.judge.output.top))
        )
        return self.session.model.arrived(received, restored)

    def _restore(self, unit: Unit, source: Frames, output: Frames, cuts: Sequence[int]) -> str:
        """Restore what frames hide, and interpolate those that hide nothing; say which it was."""
        assert self.reader is not None
        carry = [self.reader.carries(n) for n in unit.run]
        decoded: Frames | None = None
        if any(carry):
            self._decode(self._before_cut(unit, source, cuts), output, Sent())
            if all(carry):
                return _HIDDEN if unit.whole else _PARTLY
            decoded = output.copy()
        self._interpolate(unit, source, output, cuts, Sent())
        if decoded is None:
            return _INTERPOLATED
        hidden = np.array([self.reader.carries(n) for n in unit.sources])[self._low_of(unit)]
        output[hidden] = decoded[hidden]
        return _PARTLY

    def _interpolate(
        self, unit: Unit, source: Frames, output: Frames, cuts: Sequence[int], sent: Sent
    ) -> None:
        """Show a group's low-rate frames, and between them what is made up of them."""
        span = (sent.black, sent.white)
        behind = len(source) - self._own(unit)
        self.session.interpolate(source, output, bits=self.source.bits, span=span, behind=behind)
        shown_by = self._low_of(unit)
        for cut in cuts:
            between = np.flatnonzero(shown_by == cut - 1)
            output[between] = output[between[:1]]

    def _low_of(self, unit: Unit) -> npt.NDArray[np.int64]:
        """In the time of which of a unit's low-rate frames each frame lies that is made of it."""
        begin = self.timeline.high_begin(unit.first)
        return np.array([self.timeline.low_of(begin + n) - unit.first for n in range(unit.made)])

    def _own(self, unit: Unit) -> int:
        """How many of the frames that a unit is made of are not behind it."""
        last = self.timeline.high_begin(unit.first) + unit.made - 1
        return self.timeline.low_of(last) - unit.first + 1

    def _before_cut(self, unit: Unit, source: Frames, cuts: Sequence[int]) -> Frames:
        """What its model is given of a group: those behind it only where they are of its scene."""
        own = self._own(unit)
        given = source[: own + self.session.model.looks_ahead]
        return given[: next((cut for cut in cuts if cut >= own), len(given))]

    def _once(self, warning: str) -> str:
        """A warning, unless there was one before."""
        said, self._warned = self._warned, True
        return "" if said else warning

    def _levels(self, frames: Frames) -> Levels:
        return to_levels(frames, self.source.top, self.bits)

    def _decode(self, source: Frames, output: Frames, sent: Sent) -> None:
        span = (sent.black, sent.white)
        self.session.decode(source, output, bits=self.source.bits, low_bits=self.bits, span=span)

    def _show(self, unit: Unit, source: Frames, mode: Mode, output: Frames) -> None:
        """Show a group that was sent to be shown as it is."""
        high = self.timeline.high_begin(unit.first) + np.arange(len(output))
        between = self.timeline.neighbours(unit.first, unit.first + len(source), high)
        interpolate(self._levels(source), between, mode, output, self.output)


def _bare(unit: Unit) -> str:
    """What to say of frames without stamps, some of which have no marks either."""
    return (
        f"nothing is hidden in frames {unit.run.start} to {unit.run.stop - 1} of the clip, or in "
        "some of them, or it did not arrive; such frames are interpolated"
    )
