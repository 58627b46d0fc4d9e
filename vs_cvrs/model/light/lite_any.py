"""The light model for any rate and any size.

- Size kept: `LiteModel`'s networks for time, for any number of frames in one, and its IMSM.
- Size lost, with frames or without: a low-rate frame is a plain reduction that hides in the
  residues of its levels what it lacks, and what the frames lack that motion makes of such as are
  shown (`vs_cvrs.model.light.residues`).
- Or, where frames are lost too, above space 2x more than every other one: they are reduced, and
  hidden as those that keep their size; what they lack is predicted
  (`vs_cvrs.model.light.enlarging`). That is usual up to space 2x where every low-rate frame stands
  for four frames or more, and up to 7/4x where every one stands for three. A sender does what it
  expects more of (`vs_cvrs.model.light.choosing`), and tells whether that is usual in its frames
  (`vs_cvrs.model.light.flag`).
- Time: whatever the ratio, a low-rate frame stands for a whole number c of high-rate frames: the
  one it shows and those up to the next one shown (`Timeline.high_begin`). 6/5, 5/4 and 24000/1001
  differ in the order of ones and twos alone. Of the time networks each c from 1 to 4 has first and
  last layers of its own, the blocks between are shared. Of more than four, four are hidden and the
  others blended.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import Size, Stage, size_of
from vs_cvrs.model.light.base import ImsmModel
from vs_cvrs.model.light.blocks import Net, Shape
from vs_cvrs.model.light.choosing import better_predicted
from vs_cvrs.model.light.enlarging import Enlarger
from vs_cvrs.model.light.flag import agreement, can_flag, flagged, pinned
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, picked, unfold
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.resampling import resampled
from vs_cvrs.model.light.residues import (
    FACTORS,
    SLACK,
    Rescaler,
    Rescalers,
    factor_between,
    factor_of,
)
from vs_cvrs.model.light.time_net import FOLDED, MAX_SLOTS, Layout, TimeNet, blended, steadied
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE, Timeline, choose_group_length

__all__ = ["LiteAnyModel"]

_STILL = dict(zip(FACTORS, (0.8, 2.4), strict=True))
"""By how many levels RMS frames of a group may differ where nothing moves. They are off by several
times as much; detail that moves by less than that is worth less than 0.1 dB."""

_STILL_UNPAIRED = 1.2
"""Likewise at least, where low-rate frames do not all stand for two, and restored ones differ more.
"""

_PREDICTED = {3: Fraction(7, 4), MAX_SLOTS: Fraction(2)}
"""Up to which space factor what so many frames of each low-rate frame lack is usually predicted."""

_MANY = 3
"""For so many frames some low-rate frame must stand, or there is one way above space 2x: samples
that tell the way cost more than the better of two ways brings.
"""

_BEHIND = Fraction(1, 4)
"""Of the frames that a group leaves out, the share that may lie behind its last low-rate frame, of
which alone they are made then. Where there are more, as at times 3/2x and 5/2x, groups of twice the
length come back 0.3 dB better: docs/training.md, "Longer groups"."""

_LOST, _ARRIVED = 0.12, 0.5
"""What groups hide that tell their way is lost where they agree with neither by so much, and is
there where they agree with one by so much; between the two lies what time networks may have hidden,
but no residues: docs/damage.md."""

# Which frame each pixel of 2x2 begins with, for each number of frames: see LiteModel's interlace.
_PATTERNS = ((0, 0, 0, 0), (0, 1, 1, 0), (0, 1, 2, 0), (0, 1, 2, 3))


class LiteAnyModel(ImsmModel):
    """Any time and space factor from 1, see the module's docstring.

    Where nothing is to be done - as many frames as before, and at scale 1 - frames stay as they
    are. At scale 1 the low size is the high one rounded up to multiples of 4, as in `LiteModel`.

    Args:
        width, down_blocks, up_blocks, cells, hidden: of the time networks and the IMSM, as in
            `LiteModel`.
        alone_half, alone_quarter: networks of low-rate frames that lose size and carry the frame
            they show alone, as `Shape` reads them: up to space 2x, and above.
        shared_half, shared_quarter: of those that carry more.
        enlarger: the network that predicts what frames lack whose low-rate frames have no room for
            that; width and blocks, as `Net` reads them.
        interlace: as in `LiteModel`.

    Attributes:
        predicts: which way all groups go that have two, and tell of neither; None: the one that
            will come back better.
    """

    architecture: ClassVar[str] = "lite-any"
    takes_bfloat16: ClassVar[bool] = True
    takes_tf32: ClassVar[bool] = True
    counts_frames: ClassVar[bool] = True
    group_length = 4
    predicts: bool | None = None

    def __init__(
        self,
        width: int = 48,
        down_blocks: str = "hq",
        up_blocks: str = "qhqhq",
        cells: int = 2,
        hidden: int = 32,
        alone_half: str = "32hhh 48hhhh mod 5",
        alone_quarter: str = "48hhh 80hhhh 48hh mod 7",
        shared_half: str = "32hhhhh 48hhhh 64hh mod 7",
        shared_quarter: str = "48hhh 80hhhh 96hhh 44hhh mod 7",
        enlarger: str = "40hhhh",
        interlace: float = 1.0,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "width": width,
            "down_blocks": down_blocks,
            "up_blocks": up_blocks,
            "cells": cells,
            "hidden": hidden,
            "alone_half": alone_half,
            "alone_quarter": alone_quarter,
            "shared_half": shared_half,
            "shared_quarter": shared_quarter,
            "enlarger": enlarger,
            "interlace": interlace,
        }
        self._check_options()

        def rescaler(factor: int, name: str) -> Rescaler:
            shape = Shape.parse(name, self.options[name], between=name.startswith("shared"))
            return Rescaler(factor, shape)

        self.alone_half = rescaler(FACTORS[0], "alone_half")
        self.alone_quarter = rescaler(FACTORS[1], "alone_quarter")
        self.shared_half = rescaler(FACTORS[0], "shared_half")
        self.shared_quarter = rescaler(FACTORS[1], "shared_quarter")
        self.enlarger = Enlarger(Net.parse("enlarger", enlarger))
        self.time_down = TimeNet(width, down_blocks, down=True)
        self.imsm = LiteImsm(cells, hidden)
        self.time_up = TimeNet(width, up_blocks, down=False)
        with torch.no_grad():
            for count, pattern in enumerate(_PATTERNS, start=1):
                frame = torch.tensor(pattern).repeat_interleave(3)
                weight = torch.zeros(FOLDED, count, FOLDED)
                pixel = torch.arange(FOLDED)
                weight[pixel, 0, pixel] = 1.0 - interlace
                weight[pixel, frame, pixel] += interlace
                _copy(self.time_down.skip[count - 1], weight.flatten(1)[..., None, None])
                same = torch.eye(FOLDED).repeat(count, 1)
                _copy(self.time_up.skip[count - 1], same[..., None, None])
        self._store_channels_last()

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        if {"space_width", "path_width", "shared_width"} & options.keys():
            raise ValueError(
                "this lite-any model was made before residues carried what reductions lose; "
                "such models are no longer read"
            )
        return super().from_options(options)

    @torch.no_grad()
    def share(self) -> None:
        """Let networks of groups that lose frames and size begin as those of frames alone.

        Raises:
            ValueError: they are of other widths or blocks.
        """
        self.shared_half.begin_as(self.alone_half)
        self.shared_quarter.begin_as(self.alone_quarter)

    def space_parameters(self) -> list[nn.Parameter]:
        return self._named(("alone_", "shared_", "enlarger."))

    def shared_parameters(self) -> list[nn.Parameter]:
        return self._named(("shared_", "enlarger."))

    def receiver_parameters(self) -> list[nn.Parameter]:
        return [value for name, value in self.named_parameters() if _receives(name)]

    def _named(self, beginnings: tuple[str, ...]) -> list[nn.Parameter]:
        return [value for name, value in self.named_parameters() if name.startswith(beginnings)]

    @torch.no_grad()
    def start_from(self, lite: LiteModel) -> None:
        """Take over what a `LiteModel` has learned: at time 2x, space 1x this is that model then.

        Layers for other numbers of frames begin as what its two frames suggest.

        Raises:
            ValueError: its layers are not those of this model's time networks.
        """
        self._check_layers(lite)
        self.imsm.load_state_dict(lite.imsm.state_dict())
        for net, trunk in ((self.time_down, lite.down), (self.time_up, lite.up)):
            net.body.blocks.load_state_dict(trunk.blocks.state_dict())
        self.time_down.last[0].load_state_dict(lite.down.last.state_dict())
        self.time_up.first[0].load_state_dict(lite.up.first.state_dict())
        for count, pattern in enumerate(_PATTERNS, start=1):
            others = count - 1
            first, skip = self.time_down.first[others], self.time_down.skip[others]
            shown, other = lite.down.first.weight.chunk(2, dim=1)
            parts = [shown, *[other / others] * others] if others else [shown + other]
            _copy(first, torch.cat(parts, dim=1), lite.down.first.bias)
            shown, other = lite.down.skip.weight.chunk(2, dim=1)
            if count == 2:
                parts = [shown, other]
            else:
                # Pixels that lean to the second frame lean to one of the others each; the last
                # one, which leans to none, does as its neighbour.
                frame = torch.tensor(pattern).repeat_interleave(3)[:, None, None, None]
                shown, other = (
                    torch.where(frame == 3, x.roll((3, 3), (0, 1)), x) for x in (shown, other)
                )
                parts = [shown + other * (frame == 0)]
                parts += [other * (frame == k) for k in range(1, count)]
            _copy(skip, torch.cat(parts, dim=1))
            for source, target in (
                (lite.up.last, self.time_up.last[others]),
                (lite.up.skip, self.time_up.skip[others]),
            ):
                weight, bias = (
                    None if x is None else torch.cat([x.chunk(2)[0], *[x.chunk(2)[1]] * others])
                    for x in (source.weight, source.bias)
                )
                assert weight is not None
                _copy(target, weight, bias)

    def pads(self, high: tuple[int, int], low: tuple[int, int]) -> bool:
        return all(n <= m < n + SIZE_MULTIPLE for n, m in zip(high, low, strict=True))

    def suited_group_length(
        self, ratio: Fraction, high: tuple[int, int], low: tuple[int, int]
    ) -> int:
        length = choose_group_length(ratio, self.group_length)
        if self.pads(high, low):
            return length
        begins = [Timeline(ratio, length).high_begin(n) for n in (length - 1, length)]
        behind, left_out = begins[1] - begins[0] - 1, begins[1] - length
        if behind <= _BEHIND * left_out:
            return length
        return choose_group_length(ratio, 2 * self.group_length)

    def uses_imsm(self, high: Size, low: Size) -> bool:
        return high[0] > low[0] and self._way(high, low)

    def encode(self, high: Tensor, size: Size) -> Tensor:
        if size_of(high) == size:
            return high.clamp(0.0, 1.0)
        if not self._chooses(size_of(high), size):
            return super().encode(high, size)
        return _joined([self._encode_better(group, size) for group in torch.split(high, 1)])

    def decode(self, low: Tensor, size: Size) -> Tensor:
        if size_of(low) == size:
            return low.clamp(0.0, 1.0)
        if not self._chooses(size, size_of(low)):
            return super().decode(low, size)
        return _joined([self._decode_as_sent(group, size) for group in torch.split(low, 1)])

    def limits(self, low: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """See `CvrsModel.limits`; of one group."""
        predicted, agree = self._told(low, size)
        if predicted:
            ends = super().limits(low, size)
        else:
            layout = Layout.of(size[0], low.shape[2])
            ends = self._rescalers(size, size_of(low)).limits(low, layout)
        return ends if agree is None else pinned(low, *ends)

    def arrived(self, low: Tensor, restored: Tensor) -> bool | None:
        size = size_of(restored)
        predicted, agree = self._told(low, size)
        if agree is not None:
            doubtful = predicted and agree > _LOST
            return agree > _ARRIVED or (None if doubtful else False)
        if predicted:
            return None
        layout = Layout.of(size[0], low.shape[2])
        return self._rescalers(size, size_of(low)).arrived(low, restored, layout)

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to the latent (B, 3, t, h, w), t at most T."""
        return self._down(self._way(size_of(high), size))(high, size)

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent (B, 3, t, h, w) to (B, 3, T, H, W), T at least t."""
        return self._up(self._way(size, size_of(latent)))(latent, size)

    def _encode_better(self, high: Tensor, size: Size) -> Tensor:
        """The low-rate frames of one group that has two ways."""
        usual = self._way(size_of(high), size)
        predicted = better_predicted(high, size[1:], Layout.of(high.shape[2], size[0]))
        low = self._encode(high, size, self._down(predicted), predicted)
        return flagged(low, predicted != usual)

    def _decode_as_sent(self, low: Tensor, size: Size) -> Tensor:
        predicted, _ = self._told(low, size)
        return self._decode(low, size, self._up(predicted), predicted)

    def _told(self, low: Tensor, size: Size) -> tuple[bool, float | None]:
        """Which way a group went, and how much its frames agree on that; None: they do not tell."""
        usual = self._way(size, size_of(low))
        if not self._chooses(size, size_of(low)):
            return usual, None
        agree = agreement(low)
        return usual != (agree < 0.0), abs(agree)

    def _down(self, predicted: bool) -> Stage:
        return self._in_time if predicted else self._in_residues

    def _up(self, predicted: bool) -> Stage:
        return self._out_of_time if predicted else self._out_of_residues

    def _in_time(self, high: Tensor, size: Size) -> Tensor:
        t = high.shape[2]
        if self.pads(size_of(high)[1:], size[1:]):
            high = _padded(high, size)
        else:
            high = resampled(high, *size[1:]).clamp(0.0, 1.0)
        if t == size[0]:
            return high
        b = high.shape[0]
        layout = Layout.of(t, size[0])
        carried = [layout.carried[slot] for slot in layout.slots]
        slots = fold(picked(high, carried, 2), max(layout.counts), 2)
        net = self.time_down

        def chain(part: Tensor) -> Tensor:
            return as_clip(net(as_frames(part), layout.counts), b)

        folded = in_strips(chain, as_clip(slots, b), net.reach, net.held, 2)
        return unfold(as_frames(folded), b, 1, 2)

    def _out_of_time(self, latent: Tensor, size: Size) -> Tensor:
        b, _, t = latent.shape[:3]
        if t == size[0]:
            return latent[..., : size[1], : size[2]]
        layout = Layout.of(size[0], t)
        net = self.time_up

        def chain(part: Tensor) -> Tensor:
            return as_clip(net(as_frames(part), layout.counts), b)

        made = as_frames(in_strips(chain, as_clip(fold(latent, 1, 2), b), net.reach, net.held, 2))
        h, w = made.shape[2:]
        each = picked(made.reshape(b, -1, FOLDED, h, w), layout.places, 1).flatten(0, 1)
        frames = unfold(each, b, 1, 2)
        if self.pads(size[1:], size_of(latent)[1:]):
            frames = frames[..., : size[1], : size[2]]
        else:
            frames = self.enlarger(frames, size[1:])
        return _filled_up(frames, layout, size[0])

    def _in_residues(self, high: Tensor, size: Size) -> Tensor:
        layout = Layout.of(high.shape[2], size[0])
        return self._rescalers(size_of(high), size).down(high, size[1:], layout)

    def _out_of_residues(self, low: Tensor, size: Size) -> Tensor:
        t = low.shape[2]
        layout = Layout.of(size[0], t)
        rescalers = self._rescalers(size, size_of(low))
        frames = rescalers.up(low, size[1:], layout)
        if t < size[0]:
            still = _STILL[rescalers.alone.factor]
            paired = set(layout.counts) == {2}
            frames = steadied(frames, still if paired else max(still, _STILL_UNPAIRED))
        return _filled_up(frames, layout, size[0])

    def _rescalers(self, high: Size, low: Size) -> Rescalers:
        """What hides in residues what groups of these sizes lack."""
        if factor_between(high[1:], low[1:]) == FACTORS[0]:
            return Rescalers(self.alone_half, self.shared_half)
        return Rescalers(self.alone_quarter, self.shared_quarter)

    def _ways(self, high: Size, low: Size) -> tuple[bool, ...]:
        """The ways that there are for groups of these sizes, the usual one first.

        Each is whether the time networks hide frames, and what size takes from them is predicted.

        Raises:
            ValueError: there are more low-rate frames than others.
        """
        if not 1 <= low[0] <= high[0]:
            raise ValueError(
                f"a lite-any model makes 1 to {high[0]} frames of {high[0]}, not {low[0]}"
            )
        if self.pads(high[1:], low[1:]):
            return (True,)
        if high[0] == low[0]:
            return (False,)
        counts = Layout.of(high[0], low[0]).counts
        if factor_between(high[1:], low[1:]) != FACTORS[0] and max(counts) < _MANY:
            return (False,)
        most = _PREDICTED.get(min(counts))
        usual = most is not None and factor_of(high[1:], low[1:]) <= most + SLACK
        return (usual, not usual)

    def _way(self, high: Size, low: Size) -> bool:
        """Which way groups go whose frames do not tell."""
        usual, *other = self._ways(high, low)
        return self.predicts if other and self.predicts is not None else usual

    def _chooses(self, high: Size, low: Size) -> bool:
        """Whether senders choose a way for each group, and tell which."""
        return self.predicts is None and can_flag(low[1:]) and len(self._ways(high, low)) > 1


def _joined(groups: list[Tensor]) -> Tensor:
    return groups[0] if len(groups) == 1 else torch.cat(groups)


def _filled_up(frames: Tensor, layout: Layout, count: int) -> Tensor:
    """``count`` frames of those that are carried."""
    if len(layout.carried) == count:
        return frames
    return blended(frames, layout.carried, count)


def _padded(high: Tensor, size: Size) -> Tensor:
    padding = (0, size[2] - high.shape[4], 0, size[1] - high.shape[3], 0, 0)
    return F.pad(high, padding, mode="replicate") if any(padding) else high


def _receives(name: str) -> bool:
    return name.startswith(("time_up.", "enlarger.")) or name.split(".")[1] in ("up", "between")


def _copy(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight.copy_(weight)
    if layer.bias is not None:
        assert bias is not None
        layer.bias.copy_(bias)
