"""The light model's way between sizes: what a reduction loses, hidden in the levels it leaves.

A level of 8 bits is a multiple of a modulus m, the coarse level, and a residue, -(m - 1) / 2 to
(m - 1) / 2. The sender moves each sample of the plain reduction to the nearest level that has the
residue it wants to send: quantisation index modulation (Chen and Wornell, IEEE Transactions on
Information Theory 47(4), 2001). So the receiver reads residues without error, whatever the picture
is, and the coarse level of every sample, which is off by at most (m - 1) / 2 levels. A network of
the sender makes residues of what enlarging the reduction would not bring back; where there is
nothing to tell, it sends the sample's own residue, and the reduction stays as it was. A network of
the receiver makes of coarse levels and residues what must be added to the enlarged coarse levels.

Of 10 bits the residue has quarters of levels, which carry more with the same networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import round_to_8bit
from vs_cvrs.model.constants import constant
from vs_cvrs.model.light.blocks import CoarseBlock, ResidualBlock, Shape, Trunk
from vs_cvrs.model.light.cuts import Cut, can_tell, heard, jumps, pattern
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, picked, unfold
from vs_cvrs.model.light.resampling import filled, resampled, restored
from vs_cvrs.model.light.time_net import MAX_SLOTS, Layout
from vs_cvrs.model.motion import (
    coarse_luma,
    dense,
    moved,
    of_two_scenes,
    searched,
    ways,
)
from vs_cvrs.model.strips import in_strips

__all__ = [
    "FACTORS",
    "SLACK",
    "Rescaler",
    "Rescalers",
    "aligned",
    "bounds",
    "factor_between",
    "factor_of",
    "hide",
    "motions",
    "reveal",
    "sent_sides",
]

FACTORS = (2, 4)
"""Frames are resampled to one of these times the low size."""

SLACK = Fraction(1, 20)
"""Of a factor of two: low sizes are rounded to multiples of 4, and a little more loses little."""

_LAST = torch.channels_last
_LEVELS = 255.0
_GREY = 0.5
_COLOURS = 3
_TOLD = 2 * _COLOURS + 2
"""Channels of a low-rate frame: its levels, their residues, and the share of the factor that is
there on either axis."""

_ARRIVED = {True: {2: 0.287, 4: 0.27}, False: {2: 0.253, 4: 0.29}}
"""Halves of a modulus that a sample in the middle lies from what is restored and reduced, at least,
where residues arrived: for frames alone and others, and each of `FACTORS`. They lie farther through
8-bit 4:4:4, of which frames come back better than interpolated; through x264 at CRF 4 those of
frames alone lie nearer, and of others only some: docs/damage.md."""

_ALIGNED = 0.6
"""How much a frame behind a cut is taken from the next one, moved to where things are there."""

_BENT = 2
"""Motion is bent alike in blocks of this many pixels squared, with slopes between them."""

_BENDS = 4
"""x and y, of the earlier and of the later side."""

_ALONE = 1.5
"""The place of frames that one low-rate frame alone tells of."""

_BEYOND = 0.37
"""By how much a residue may pass the largest whole one: in 10 bits too it rounds to no other."""

# What networks see and give is brought to about -1 to 1.
_RESIDUE = 1.0 / 8.0
_DIFFERENCE = 8.0

_LUMA = (0.299, 0.587, 0.114)


def factor_between(high: tuple[int, int], low: tuple[int, int]) -> int:
    """Which of `FACTORS` stands between two sizes (height, width)."""
    return FACTORS[0] if factor_of(high, low) <= FACTORS[0] + SLACK else FACTORS[1]


def factor_of(high: tuple[int, int], low: tuple[int, int]) -> Fraction:
    """The larger of the factors between two heights and two widths."""
    return max(Fraction(n, m) for n, m in zip(high, low, strict=True))


def hide(plain: Tensor, residues: Tensor, modulus: int) -> Tensor:
    """The frames in 0..1 nearest to ``plain`` whose levels have these residues.

    ``residues`` are in levels, and need not be whole: they are rounded with the frames. Gradients
    pass to them alone.
    """
    whole = residues.detach().round()
    coarse = modulus * ((_LEVELS * plain.detach() - whole) / modulus).round()
    level = coarse + whole
    # Beyond black and white there are no levels: the next one inside.
    coarse = coarse + modulus * ((level < 0).to(coarse) - (level > _LEVELS).to(coarse))
    return ((coarse + residues) / _LEVELS).clamp(0.0, 1.0)


def reveal(low: Tensor, modulus: int) -> tuple[Tensor, Tensor]:
    """Coarse levels in 0..1, and residues in levels; gradients pass from the residues alone."""
    levels = _LEVELS * low
    coarse = modulus * (levels.detach() / modulus).round()
    return coarse / _LEVELS, levels - coarse


def bounds(low: Tensor, modulus: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest level that have the same coarse level as each of ``low``."""
    coarse, _ = reveal(low, modulus)
    most = (modulus - 1) / 2 / _LEVELS
    return (coarse - most).clamp(0.0, 1.0), (coarse + most).clamp(0.0, 1.0)


class Rescaler(nn.Module):
    """Frames to frames of a smaller size that hide what those lack, and back.

    A low-rate frame shows one frame, and is made and read by itself. Frames that are left out are
    made of those shown before and after them, moved to where they belong
    (`vs_cvrs.model.motion`), by sender and receiver alike; those at a group's end, of the
    last one as it is and moved on. What that lacks is hidden in the frame before, too, and a
    network of the receiver's makes of it what must be added, and how motion must be bent.

    Args:
        factor: one of `FACTORS`.
        shape: of its networks; without one for frames between, none can be left out.
    """

    def __init__(self, factor: int, shape: Shape) -> None:
        super().__init__()
        self.factor, self.shape, self.modulus = factor, shape, shape.modulus
        frame = _COLOURS * factor**2
        hidden = 0 if shape.between is None else 1 + (MAX_SLOTS - 1) * frame
        self.down = Trunk(_TOLD + hidden + frame, _COLOURS, *shape.down, fold=1)
        self.up = Trunk(_TOLD, frame, *shape.up, fold=1)
        self.between: Trunk | None = None
        if shape.between is not None:
            # What the low-rate frame says, when and of how many; the mix of both sides, and how far
            # each lies from it. Out: what is to be added, and which side to believe.
            # And how motion must be bent, for both sides.
            self._parts = [frame, factor**2, _BENDS * (factor // _BENT) ** 2]
            inputs, outputs = _TOLD + 2 + 3 * frame, sum(self._parts)
            self.between = Trunk(inputs, outputs, *shape.between, fold=1)
            with torch.no_grad():
                self.between.last.weight[-self._parts[-1] :] = 0.0
        self.correction: Trunk | None = None
        if shape.correction is not None:
            inputs = self.down.first.in_channels
            self.correction = Trunk(inputs, _COLOURS, *shape.correction, fold=1)
            with torch.no_grad():
                self.correction.skip.weight.zero_()
                self.correction.last.weight.zero_()
        with torch.no_grad():
            self._begin(_TOLD + min(hidden, 1))

    def _begin(self, told: int) -> None:
        """Let residues begin as how luma rises across and down and both within a low-rate pixel."""
        rise = torch.linspace(-1.0, 1.0, self.factor)
        rise = rise / rise.square().mean().sqrt()
        flat = torch.ones(self.factor)
        planes = (torch.outer(flat, rise), torch.outer(rise, flat), torch.outer(rise, rise))
        gain = _LEVELS * _RESIDUE / _DIFFERENCE  # a level of residue for one of difference
        for net in (self.down, self.up, self.between):
            if net is not None:
                net.skip.weight.zero_()
        for colour, plane in enumerate(planes):
            weight = (plane[..., None] * torch.tensor(_LUMA)).flatten() * gain
            shown = slice(told, told + weight.numel())
            self.down.skip.weight[colour, shown, 0, 0] = weight / self.factor**2
            weight = plane[..., None].expand(-1, -1, _COLOURS).flatten() / gain
            self.up.skip.weight[:, _COLOURS + colour, 0, 0] = weight

    def begin_as(self, other: Rescaler) -> None:
        """Take over what one has learned that knows of no frames between.

        Blocks that the sender's network has more than the other's change nothing yet.

        Raises:
            ValueError: its networks have other widths or blocks.
        """
        here, theirs = self.shape.down, other.shape.down
        more = here.blocks.removeprefix(theirs.blocks)
        if (
            self.shape.up != other.shape.up
            or here.width != theirs.width
            or here.blocks != theirs.blocks + more
        ):
            raise ValueError(
                f"networks of {here} and {self.shape.up} cannot begin as others of "
                f"{theirs} and {other.shape.up}"
            )
        self.up.load_state_dict(other.up.state_dict())
        for n, block in enumerate(self.down.blocks):
            if n < len(theirs.blocks):
                block.load_state_dict(other.down.blocks[n].state_dict())
            else:
                assert isinstance(block, (ResidualBlock, CoarseBlock))
                block.change_nothing()
        self.down.last.load_state_dict(other.down.last.state_dict())
        for mine, source in (
            (self.down.first, other.down.first),
            (self.down.skip, other.down.skip),
        ):
            mine.weight.zero_()
            mine.weight[:, :_TOLD] = source.weight[:, :_TOLD]
            frame = slice(_TOLD + 1, 1 + source.in_channels)
            mine.weight[:, frame] = source.weight[:, _TOLD:]
            if mine.bias is not None and source.bias is not None:
                mine.bias.copy_(source.bias)

    def draft(
        self,
        high: Tensor,
        size: tuple[int, int],
        layout: Layout,
        low: int,
        shown_frames: Sequence[Tensor],
        motion: Tensor | None,
    ) -> Draft:
        """A low-rate frame of height and width ``size``, and what it is made of.

        Args:
            high: the group's frames, (B, 3, T, H, W) in 0..1.
            size: multiples of 4.
            layout: of the group.
            low: which of its low-rate frames.
            shown_frames: those that the low-rate frames show, resampled to ``around``.
            motion: what `motions` found between those.
        """
        shown, *hidden = layout.owned(low)
        with torch.autocast(high.device.type, enabled=False):
            plain = resampled(high[:, :, shown : shown + 1], *size).clamp(0.0, 1.0)
            enlarged = resampled(plain, *self.around(size))
            told = self._told(plain, reveal(plain, self.modulus)[1], high.shape[-2:])
            left_out: Tensor | None = None
            cut: Cut | None = None
            errors = [shown_frames[low] - enlarged]
            if hidden:
                wanted = [resampled(high[:, :, n : n + 1], *self.around(size)) for n in hidden]
                left_out = torch.cat(wanted, dim=2)
                sides, cut = sent_sides(shown_frames, layout, low, motion, left_out, size)
                errors.append(left_out - sides.mixed)
        sent = self._residues(self.down, told, errors)
        over = None if cut is None else pattern(cut, len(hidden), size)
        return Draft(plain, sent, over, left_out, self._hidden(plain, sent, over))

    def corrected(self, draft: Draft, errors: Sequence[Tensor], high: Sequence[int]) -> Tensor:
        """The low-rate frame of a draft, once it is known what the receiver makes of that.

        Args:
            draft: of a low-rate frame (B, 3, 1, h, w).
            errors: what the receiver's frames lack: the one shown, and those left out.
            high: the height and width of the group's frames.
        """
        if self.correction is None:
            return draft.low
        with torch.autocast(draft.low.device.type, enabled=False):
            coarse, residues = reveal(draft.low.detach(), self.modulus)
            told = self._told(coarse, residues, high)
        more = self._residues(self.correction, told, errors)
        return self._hidden(draft.plain, draft.sent + more, draft.over)

    def _residues(self, net: Trunk, told: Tensor, errors: Sequence[Tensor]) -> Tensor:
        """Residues (B, 3, 1, h, w), not bounded.

        Args:
            net: the sender's.
            told: of the low-rate frame.
            errors: what is lacked: by the frame shown, (B, 3, 1, H, W), and by those left out.
        """
        with torch.autocast(told.device.type, enabled=False):
            parts = [told]
            if self.between is not None:
                parts.append(_all(told, sum(x.shape[2] for x in errors)))
            b, _, h, w = told.shape
            parts += [self._folded(x).reshape(b, -1, h, w) for x in errors]
            x = torch.cat(parts, dim=1)
            x = F.pad(x, (0, 0, 0, 0, 0, net.first.in_channels - x.shape[1]))
        return _through(net, x).float().unsqueeze(2) / _RESIDUE

    def _hidden(self, plain: Tensor, residues: Tensor, over: Tensor | None) -> Tensor:
        bound = (self.modulus - 1) / 2 + _BEYOND
        residues = bound * torch.tanh(residues / bound)
        if over is not None:
            residues = (residues + over).clamp(-bound, bound)
        return hide(plain, residues, self.modulus)

    def around(self, size: tuple[int, int]) -> tuple[int, int]:
        """The height and width that frames are brought to before low-rate ones are made."""
        return self.factor * size[0], self.factor * size[1]

    def read(self, low: Tensor, size: Sequence[int]) -> Read:
        """What a low-rate frame (B, 3, 1, h, w) of frames of height and width ``size`` says."""
        b, _, _, h, w = low.shape
        coarse, residues = reveal(low, self.modulus)
        told = self._told(coarse, residues, size)
        details = _through(self.up, told).float()
        with torch.autocast(low.device.type, enabled=False):
            enlarged = resampled(coarse, *self.around((h, w)))
            shown = enlarged + unfold(details, b, 1, self.factor) / _DIFFERENCE
        return Read(told, enlarged, shown)

    def left_out(
        self, read: Sequence[Read], layout: Layout, low: int, motion: Tensor | None
    ) -> Rough:
        """The frames that a low-rate frame carries besides the one it shows, see `aligned`.

        Args:
            read: what the group's low-rate frames say.
            layout: of the group.
            low: which of them.
            motion: what `motions` found between what they show.
        """
        h, w = read[low].told.shape[-2:]
        cut: Cut | None = None
        if can_tell((h, w)) and layout.around(low) is not None:
            residues = read[low].told[:, _COLOURS : 2 * _COLOURS].float() / _RESIDUE
            cut = heard(residues, layout.counts[low] - 1)
        sides = _sides_of([each.shown for each in read], layout, low, motion, cut and cut.there)
        if cut is not None:
            sides = sides.turned(cut.behind)
        return self._between(read[low], sides)

    def _between(self, here: Read, sides: _Sides) -> Rough:
        """Frames that one low-rate frame carries besides the one it shows."""
        assert self.between is not None
        b, n, f = here.shown.shape[0], len(sides.places), self.factor
        with torch.autocast(here.shown.device.type, enabled=False):
            told = here.told.repeat_interleave(n, dim=0)
            places = _numbers(sides.places, sides.mixed)
            x = torch.cat(
                (
                    told,
                    places.repeat(b).view(-1, 1, 1, 1).expand_as(told[:, :1]),
                    _all(told, n + 1),
                    self._folded(sides.mixed - here.enlarged),
                    self._folded(sides.earlier - sides.mixed),
                    self._folded(sides.later - sides.mixed),
                ),
                dim=1,
            )
        made = _through(self.between, x).float()
        with torch.autocast(here.shown.device.type, enabled=False):
            more, share, bend = torch.split(made, self._parts, dim=1)
            more = unfold(more, b, 1, f) / _DIFFERENCE
            share = unfold(share, b, 1, f)
            share = torch.sigmoid(share + torch.logit(_mixed_at(places)).view(-1, 1, 1))
            bend = as_frames(unfold(bend, b, 1, f // _BENT))
            bend = F.interpolate(bend, scale_factor=_BENT, mode="bilinear", align_corners=False)
            return Rough(torch.lerp(*sides.bent(bend), share) + more, sides.after, sides.behind)

    def _folded(self, difference: Tensor) -> Tensor:
        return fold(difference, 1, self.factor) * _DIFFERENCE

    def _told(self, levels: Tensor, residues: Tensor, high: Sequence[int]) -> Tensor:
        """What networks are told of a low-rate frame (B, 3, 1, h, w): (B, `_TOLD`, h, w)."""
        there = filled(levels, high, self.factor)
        return torch.cat((levels - _GREY, residues * _RESIDUE, *there), dim=1)[:, :, 0]


class Rescalers(NamedTuple):
    """Groups of frames to low-rate frames of a smaller size, and back.

    Attributes:
        alone: for low-rate frames that carry the one frame they show.
        shared: for those that carry more; of the same factor.
    """

    alone: Rescaler
    shared: Rescaler

    def down(self, high: Tensor, size: tuple[int, int], layout: Layout) -> Tensor:
        """Low-rate frames of height and width ``size``, (B, 3, t, h, w) in 0..1.

        Args:
            high: (B, 3, T, H, W) in 0..1.
            size: multiples of 4.
            layout: of the low-rate frames to make.
        """
        around = self.alone.around(size)
        shown = [resampled(high[:, :, first : first + 1], *around) for first in layout.shown]
        nets = [self._of(layout, low) for low in range(len(shown))]
        motion = motions(shown, layout)
        drafts = [
            net.draft(high, size, layout, low, shown, motion[low]) for low, net in enumerate(nets)
        ]
        if all(net.correction is None for net in nets):
            return torch.cat([draft.low for draft in drafts], dim=2)
        with torch.no_grad():
            low_rate = round_to_8bit(torch.cat([draft.low for draft in drafts], dim=2))
            read = self._read(low_rate, high.shape[-2:], layout)
            left_out = self._left_out(read, layout)
        made = []
        for low, (net, draft) in enumerate(zip(nets, drafts, strict=True)):
            errors = []
            if net.correction is not None:
                with torch.no_grad():
                    errors = [shown[low] - read[low].shown]
                    if draft.left_out is not None:
                        errors.append(draft.left_out - next(left_out))
            made.append(net.corrected(draft, errors, high.shape[-2:]))
        return torch.cat(made, dim=2)

    def up(self, low: Tensor, size: tuple[int, int], layout: Layout) -> Tensor:
        """Low-rate frames (B, 3, t, h, w) to those carried, of height and width ``size``.

        Not clamped.
        """
        read = self._read(low, size, layout)
        left_out = self._left_out(read, layout)
        made = []
        for j, here in enumerate(read):
            made.append(restored(here.shown, *size))
            if layout.counts[j] > 1:
                made.append(restored(next(left_out), *size))
        return torch.cat(made, dim=2)

    def limits(self, low: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """`bounds` of low-rate frames (B, 3, t, h, w)."""
        each = [
            bounds(frame, self._of(layout, j).modulus)
            for j, frame in enumerate(torch.split(low, 1, dim=2))
        ]
        lowest, highest = (torch.cat(ends, dim=2) for ends in zip(*each, strict=True))
        return lowest, highest

    def arrived(self, low: Tensor, restored: Tensor, layout: Layout) -> bool:
        """Whether low-rate frames (1, 3, t, h, w) still have the residues that they were sent with.

        A sample was moved from the plain reduction to its residue, by up to half a modulus either
        way. Where the residue still says what it said, what is restored reduces to the plain
        reduction, and lies as far from the sample. Where it says something else, networks find no
        reason in it to move the sample far.
        """
        reduced = resampled(picked(restored, layout.shown, 2), *low.shape[-2:])
        lowest, highest = self.limits(low, layout)
        half = ((highest - lowest) / 2).clamp_min(1.0 / _LEVELS)
        least = [_ARRIVED[count == 1][self.alone.factor] for count in layout.counts]
        enough = half * low.new_tensor(least)[:, None, None]
        return float(((low - reduced).abs() / enough).median()) > 1.0

    def _left_out(self, read: Sequence[Read], layout: Layout) -> Iterator[Tensor]:
        """What is left out, (B, 3, n, H, W), of each low-rate frame that carries more than one."""
        motion = motions([each.shown for each in read], layout)
        rough = (
            self.shared.left_out(read, layout, low, motion[low])
            for low, count in enumerate(layout.counts)
            if count > 1
        )
        if _known_at_once(read[0].shown):
            for each in rough:  # one by one: less is held at a time
                yield from aligned([each])
        else:
            yield from aligned(list(rough))

    def _read(self, low: Tensor, size: Sequence[int], layout: Layout) -> list[Read]:
        frames = enumerate(torch.split(low, 1, dim=2))
        return [self._of(layout, j).read(frame, size) for j, frame in frames]

    def _of(self, layout: Layout, low: int) -> Rescaler:
        return self.alone if layout.counts[low] == 1 else self.shared


class Draft(NamedTuple):
    """A low-rate frame before it is corrected.

    Attributes:
        plain: the reduction, (B, 3, 1, h, w).
        sent: residues in levels, not bounded.
        over: what tells of a cut, on top of them.
        left_out: the frames that it carries besides the one it shows.
        low: the frame.
    """

    plain: Tensor
    sent: Tensor
    over: Tensor | None
    left_out: Tensor | None
    low: Tensor


class Read(NamedTuple):
    """What networks are told of a low-rate frame, its coarse levels enlarged, and what it shows."""

    told: Tensor
    enlarged: Tensor
    shown: Tensor


class Rough(NamedTuple):
    """Frames (B, 3, n, H, W) that are left out, as they were ``made``.

    Those ``behind`` a cut are of the scene of the one ``after`` them.
    """

    made: Tensor
    after: Tensor
    behind: Tensor


class _Sides(NamedTuple):
    """What n frames are made of, (B, 3, n, H, W) each.

    Attributes:
        earlier: the frame shown before, moved to where they are; before a cut as it is.
        later: the one after, likewise; before a cut the one before.
        mixed: their mix.
        places: where they are, see `Layout.around`.
        before, after: the frames before and after as they are.
        back, on: from where each was moved, (B * n, 2, H, W) in pixels.
        cut: whether the one after is of another scene, or there is none, (B, 1, n, 1, 1).
        behind: whether a frame is of that scene too.
    """

    earlier: Tensor
    later: Tensor
    mixed: Tensor
    places: tuple[float, ...]
    before: Tensor
    after: Tensor
    back: Tensor
    on: Tensor
    cut: Tensor
    behind: Tensor

    def bent(self, bend: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides, moved otherwise; before a cut as they are.

        Args:
            bend: by what, (B * n, 4, H, W): x and y of the earlier one and of the later one.
        """
        b = self.before.shape[0]
        earlier, later = (
            as_clip(moved(as_frames(frames), way + change, sharp=True), b)
            for frames, way, change in (
                (self.before, self.back, bend[:, :2]),
                (self.after, self.on, bend[:, 2:]),
            )
        )
        return (
            torch.where(self.cut, self.earlier, earlier),
            torch.where(self.cut, self.later, later),
        )

    def apart(self, cut: Tensor, here: Tensor) -> _Sides:
        """The same, but where there is a ``cut`` (B,) all frames are what is shown ``here``."""
        flags = cut[:, None, None, None, None]
        return self._made_of(here, flags)._replace(cut=self.cut | flags)

    def behind_cut(self, frames: Tensor) -> Tensor:
        """How many of these frames (B, 3, n, H, W) are of the later scene, (B,)."""
        to_after, to_before = (
            (frames - side).abs().mean(dim=(1, 3, 4)) for side in (self.after, self.mixed)
        )
        behind = (to_after < to_before) & self.cut.flatten(1)
        return behind.flip(1).cumprod(dim=1).sum(dim=1)  # with all behind it

    def turned(self, behind: Tensor) -> _Sides:
        """The same, but the last ``behind`` frames (B,) are made of the one after."""
        n = self.mixed.shape[2]
        after = torch.arange(n, device=behind.device) >= n - behind[:, None]
        after = after[:, None, :, None, None]
        return self._made_of(self.after, after)._replace(behind=after)

    def _made_of(self, frames: Tensor, flags: Tensor) -> _Sides:
        """The same, but where ``flags`` are set both sides and their mix are ``frames``."""
        earlier, later, mixed = (
            torch.where(flags, frames, x) for x in (self.earlier, self.later, self.mixed)
        )
        return self._replace(earlier=earlier, later=later, mixed=mixed)


def sent_sides(
    shown: Sequence[Tensor],
    layout: Layout,
    low: int,
    motion: Tensor | None,
    left_out: Tensor,
    size: tuple[int, int],
) -> tuple[_Sides, Cut | None]:
    """`_sides_of` as the receiver will find them, and what it must be told of a cut for that."""
    sides = _sides_of(shown, layout, low, motion)
    if not can_tell(size) or layout.around(low) is None:
        return sides, None
    there = sides.cut.flatten(1).any(dim=1)
    if low + 1 < len(shown):
        there = there | jumps(torch.cat((shown[low], left_out, shown[low + 1]), dim=2))
    sides = sides.apart(there, shown[low])
    behind = sides.behind_cut(left_out)
    return sides.turned(behind), Cut(there, behind)


def _sides_of(
    shown: Sequence[Tensor],
    layout: Layout,
    low: int,
    motion: Tensor | None,
    cut: Tensor | None = None,
) -> _Sides:
    """Of the frames that a low-rate frame carries besides the one it shows.

    Args:
        shown: by the low-rate frames.
        layout: of the group.
        low: which of its low-rate frames.
        motion: what `motions` found of it.
        cut: whether the frames shown around it are of two scenes, (B,); None: find out.
    """
    n, here = layout.counts[low] - 1, shown[low]
    around = layout.around(low)
    if around is None or motion is None:
        still = here.expand(-1, -1, n, -1, -1)
        nothing = torch.ones_like(here[:, :1, :, :1, :1], dtype=torch.bool)
        rest = as_frames(torch.zeros_like(still[:, :2]))
        return _Sides(
            still, still, still, (_ALONE,) * n, still, still, rest, rest, nothing, ~nothing
        )
    first, second, places = around
    b = here.shape[0]
    before, after, here = (
        as_frames(x.expand(-1, -1, n, -1, -1)) for x in (shown[first], shown[second], here)
    )
    at = _numbers(places, here).repeat(b)
    back, on = ways(at)
    way = dense(motion, here.shape[-2:])
    back, on = -back * way, on * way
    earlier, later = moved(before, back, sharp=True), moved(after, on, sharp=True)
    with torch.no_grad():
        two = (
            of_two_scenes(before, after, earlier, later)
            if cut is None
            else cut.repeat_interleave(n)
        )[:, None, None, None]
    if places[-1] > 1.0:  # the one shown is the one after: what is earlier stands still
        earlier, before, back = here, here, torch.zeros_like(back)
    # Before a cut, what is shown is repeated.
    earlier, later = torch.where(two, here, earlier), torch.where(two, here, later)
    mixed = torch.lerp(earlier, later, _mixed_at(at).view(-1, 1, 1, 1))
    earlier, later, mixed, before, after, two = (
        as_clip(x, b) for x in (earlier, later, mixed, before, after, two)
    )
    none = torch.zeros_like(two)
    return _Sides(earlier, later, mixed, places, before, after, back, on, two, none)


def motions(shown: Sequence[Tensor], layout: Layout) -> list[Tensor | None]:
    """Motion of what each low-rate frame carries besides the one it shows, searched for at once.

    Args:
        shown: by the low-rate frames, (B, 3, 1, H, W) each.
        layout: of the group.

    Returns:
        (B * n, 2, H/4, W/4) for each, see `bilateral_motion`; None where there is nothing to find.
    """
    found: list[Tensor | None] = [None] * len(layout.counts)
    between = {}
    for low, count in enumerate(layout.counts):
        around = layout.around(low)
        if count > 1 and around is not None:
            between[low] = around
    if between:
        coarse = [coarse_luma(frame[:, :, 0]) for frame in shown]
        earlier = [coarse[first].repeat_interleave(len(at), 0) for first, _, at in between.values()]
        later = [coarse[second].repeat_interleave(len(at), 0) for _, second, at in between.values()]
        places = [_numbers(at, coarse[0]).repeat(len(coarse[0])) for *_, at in between.values()]
        motion = searched(torch.cat(earlier), torch.cat(later), torch.cat(places))
        parts = torch.split(motion, [len(part) for part in earlier])
        for low, part in zip(between, parts, strict=True):
            found[low] = part
    return found


def aligned(rough: Sequence[Rough]) -> list[Tensor]:
    """Frames (B, 3, n, H, W), those behind a cut moved to where things are in the one after it."""
    cut = [n for n, each in enumerate(rough) if not _surely_none(each.behind)]
    frames = [each.made for each in rough]
    if not cut:
        return frames
    here = torch.cat([coarse_luma(as_frames(rough[n].made)) for n in cut])
    there = torch.cat([coarse_luma(as_frames(rough[n].after)) for n in cut])
    motion = searched(here, there, torch.zeros_like(here[:, 0, 0, 0]))
    sizes = [frames[n].shape[0] * frames[n].shape[2] for n in cut]
    for n, part in zip(cut, torch.split(motion, sizes), strict=True):
        before = as_frames(frames[n])
        way = 2.0 * dense(part, before.shape[-2:])
        after = moved(as_frames(rough[n].after), way, sharp=True)
        better = as_clip(torch.lerp(before, after, _ALIGNED), frames[n].shape[0])
        frames[n] = torch.where(rough[n].behind, better, frames[n])
    return frames


def _known_at_once(values: Tensor) -> bool:
    """Whether values are known at once. A GPU would have to be waited for.

    In training it is, for the losses.
    """
    return values.device.type == "cpu" or torch.is_grad_enabled()


def _surely_none(flags: Tensor) -> bool:
    """Whether none is set, as far as can be told at once."""
    return _known_at_once(flags) and not bool(flags.any())


def _numbers(values: tuple[float, ...], like: Tensor) -> Tensor:
    return constant(values, like.dtype, like.device)


def _mixed_at(places: Tensor) -> Tensor:
    """The later side's share; behind both, where one stands still, it is as likely as the other."""
    return torch.where(places > 1.0, 0.5, places)


def _all(like: Tensor, count: int) -> Tensor:
    """A channel that tells how many frames a low-rate frame carries."""
    return torch.full_like(like[:, :1], count / MAX_SLOTS)


def _through(net: Trunk, x: Tensor) -> Tensor:
    """(N, C, h, w) through a network; each by itself."""

    def chain(part: Tensor) -> Tensor:
        made: Tensor = net(part[:, :, 0].contiguous(memory_format=_LAST), 0)
        return made.unsqueeze(2)

    return in_strips(chain, x.unsqueeze(2), net.radius, net.held, 2)[:, :, 0]
