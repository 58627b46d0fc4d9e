"""The light model for any rate and any size: `LiteModel`'s time network between ways through space.

- Groups that keep their frames: each becomes a plain reduction that hides in the residues of its
  levels what it lacks (`vs_cvrs.model.light.residues`).
- Groups that lose frames and size: Downsample first brings every frame to the low size, by an
  invertible path (`vs_cvrs.model.light.space`), then several frames to one; Upsample goes the same
  way back. The path is told which frames will share a low-rate frame; time networks of its own
  take in what it leaves of details beside the frames, and give back an estimate of them.
- Time: whatever the ratio, a low-rate frame stands for a whole number c of high-rate frames: the
  one it shows and those up to the next one shown (`Timeline.high_begin`). 6/5, 5/4 and 24000/1001
  differ in the order of ones and twos alone. Each c from 1 to 4 has first and last layers of its
  own, the blocks between are shared. Of more than four, four are hidden and the others blended.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import Size
from vs_cvrs.model.light.base import ImsmModel
from vs_cvrs.model.light.blocks import Shape
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, picked, unfold
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.residues import FACTORS, Rescaler, limits
from vs_cvrs.model.light.space import DETAILS, MAX_LEVELS, SpaceStack, levels_between
from vs_cvrs.model.light.time_net import FOLDED, Layout, TimeNet, blended, steadied
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = ["LiteAnyModel"]

_BESIDE = 4 * DETAILS  # channels, of 2x2 pixels

# Which frame each pixel of 2x2 begins with, for each number of frames: see LiteModel's interlace.
_PATTERNS = ((0, 0, 0, 0), (0, 1, 1, 0), (0, 1, 2, 0), (0, 1, 2, 3))


class LiteAnyModel(ImsmModel):
    """Any time and space factor from 1, see the module's docstring.

    Where nothing is to be done - as many frames as before, and at scale 1 - frames stay as they
    are. At scale 1 the low size is the high one rounded up to multiples of 4, as in `LiteModel`.

    Args:
        width, down_blocks, up_blocks, cells, hidden: of the time networks and the IMSM, as in
            `LiteModel`.
        alone_half, alone_quarter: networks of groups that keep their frames, as `Shape` reads them:
            up to space 2x, and above.
        shared_width, shared_cells: channels inside the coupling functions of each level of the path
            of groups that lose frames and size, and its cells.
        shared_down_blocks, shared_up_blocks: of the time networks at the low size that belong to
            that path; they begin with those of the other time networks.
        interlace: as in `LiteModel`.
    """

    architecture: ClassVar[str] = "lite-any"
    takes_bfloat16: ClassVar[bool] = True
    takes_tf32: ClassVar[bool] = True
    group_length = 4

    def __init__(
        self,
        width: int = 48,
        down_blocks: str = "hq",
        up_blocks: str = "qhqhq",
        cells: int = 2,
        hidden: int = 32,
        alone_half: str = "32hhh 48hhhh mod 5",
        alone_quarter: str = "48hhh 80hhhh mod 7",
        shared_width: int = 24,
        shared_cells: int = 4,
        shared_down_blocks: str = "hq",
        shared_up_blocks: str = "qhqhq",
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
            "shared_width": shared_width,
            "shared_cells": shared_cells,
            "shared_down_blocks": shared_down_blocks,
            "shared_up_blocks": shared_up_blocks,
            "interlace": interlace,
        }
        self._check_options()
        for name in ("down_blocks", "up_blocks"):
            if not self.options[f"shared_{name}"].startswith(self.options[name]):
                raise ValueError(
                    f"shared_{name} must begin with {name}, {self.options[name]!r}, "
                    f"got {self.options[f'shared_{name}']!r}"
                )

        self.alone = nn.ModuleList(
            Rescaler(factor, Shape.parse(name, self.options[name]))
            for factor, name in zip(FACTORS, ("alone_half", "alone_quarter"), strict=True)
        )
        self.shared_path = SpaceStack(MAX_LEVELS, shared_width, shared_cells)
        self.shared_down = TimeNet(width, shared_down_blocks, down=True, details=_BESIDE)
        self.shared_up = TimeNet(width, shared_up_blocks, down=False, details=_BESIDE)
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
            self.share()
        self._store_channels_last()

    @torch.no_grad()
    def share(self) -> None:
        """Begin the time networks of groups that lose frames and size with those of the others.

        Details come in beside the frames and go out with them as nothing.
        """
        for mine, other in ((self.shared_down, self.time_down), (self.shared_up, self.time_up)):
            for block, source in zip(mine.body.blocks, other.body.blocks, strict=False):
                block.load_state_dict(source.state_dict())
            for name in ("first", "last", "skip"):
                for layer, source in zip(getattr(mine, name), getattr(other, name), strict=True):
                    _copy_widened(layer, source)

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        if "space_width" in options or "path_width" in options:
            raise ValueError(
                "this lite-any model was made before residues carried what reductions lose; "
                "such models are no longer read"
            )
        return super().from_options(options)

    def space_parameters(self) -> list[nn.Parameter]:
        return self._named(("alone.", "shared_"))

    def shared_parameters(self) -> list[nn.Parameter]:
        return self._named(("shared_",))

    def receiver_parameters(self) -> list[nn.Parameter]:
        return self._named(("time_up.", "shared_up.", "alone.0.up.", "alone.1.up."))

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
        self.share()

    def pads(self, high: tuple[int, int], low: tuple[int, int]) -> bool:
        return all(n <= m < n + SIZE_MULTIPLE for n, m in zip(high, low, strict=True))

    def uses_imsm(self, high: Size, low: Size) -> bool:
        return high[0] > low[0]

    def encode(self, high: Tensor, size: Size) -> Tensor:
        if tuple(high.shape[2:]) == size:
            return high.clamp(0.0, 1.0)
        return super().encode(high, size)

    def decode(self, low: Tensor, size: Size) -> Tensor:
        if tuple(low.shape[2:]) == size:
            return low.clamp(0.0, 1.0)
        return super().decode(low, size)

    def limits(self, low: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        wanted, given = size[1:], (low.shape[3], low.shape[4])
        if low.shape[2] < size[0] or self.pads(wanted, given):
            return super().limits(low, size)
        return limits(low, self._rescaler(wanted, given).modulus)

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to the latent (B, 3, t, h, w), t at most T."""
        t = high.shape[2]
        _check_frames(t, size[0])
        if t == size[0] and not self.pads((high.shape[3], high.shape[4]), size[1:]):
            rescaler = self._rescaler((high.shape[3], high.shape[4]), size[1:])
            return rescaler.forward(high, size[1:])
        layout = Layout.of(t, size[0])
        frames, details = self._to_low_size(high, size[1], size[2], layout)
        if t == size[0]:
            return frames
        b = frames.shape[0]
        slots = fold(picked(frames, layout.slots, 2), max(layout.counts), 2)
        net = self.time_down
        if details is not None:
            net = self.shared_down
            slots = _beside(slots, fold(details, 1, 2), b, layout)

        def chain(part: Tensor) -> Tensor:
            return as_clip(net(as_frames(part), layout.counts), b)

        folded = in_strips(chain, as_clip(slots, b), net.reach, net.held, 2)
        return unfold(as_frames(folded), b, 1, 2)

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent (B, 3, t, h, w) to (B, 3, T, H, W), T at least t."""
        b, _, t = latent.shape[:3]
        _check_frames(size[0], t)
        low = latent.shape[3], latent.shape[4]
        scaled = not self.pads(size[1:], low)
        if t == size[0]:
            if scaled:
                return self._rescaler(size[1:], low).inverse(latent, size[1:])
            return latent[..., : size[1], : size[2]]
        layout = Layout.of(size[0], t)
        net = self.shared_up if scaled else self.time_up

        def chain(part: Tensor) -> Tensor:
            return as_clip(net(as_frames(part), layout.counts), b)

        made = as_frames(in_strips(chain, as_clip(fold(latent, 1, 2), b), net.reach, net.held, 2))
        # Each carried frame on its own: its pixels, and what comes beside them.
        h, w = made.shape[2:]
        each = picked(made.reshape(b, -1, net.channels, h, w), layout.places, 1).flatten(0, 1)
        frames = unfold(each[:, :FOLDED], b, 1, 2)
        details = unfold(each[:, FOLDED:], b, 1, 2) if net.channels > FOLDED else None
        if scaled:
            frames, details = steadied(frames, details)
        frames = self._to_high_size(frames, details, size[1], size[2], layout)
        if len(layout.carried) < size[0]:
            frames = blended(frames, layout.carried, size[0])
        return frames

    def _to_low_size(
        self, high: Tensor, height: int, width: int, layout: Layout
    ) -> tuple[Tensor, Tensor | None]:
        """The frames that are carried, at the low size; and their details, where it is another."""
        size, low = (high.shape[3], high.shape[4]), (height, width)
        if not self.pads(size, low):
            made, details = self.shared_path(high, low, layout.carried, layout.told(high))
            # Beyond white and black nothing can be sent. With time networks in between, the path
            # learns to do without it more easily than they do.
            return made.clamp(0.0, 1.0), details
        if len(layout.carried) < high.shape[2]:
            high = picked(high, layout.carried, 2)
        padding = (0, width - size[1], 0, height - size[0], 0, 0)
        return F.pad(high, padding, mode="replicate") if any(padding) else high, None

    def _to_high_size(
        self, low: Tensor, details: Tensor | None, height: int, width: int, layout: Layout
    ) -> Tensor:
        size = low.shape[3], low.shape[4]
        if self.pads((height, width), size):
            return low[..., :height, :width]
        told = layout.told(low)
        return self.shared_path.inverse(low, (height, width), told, details)

    def _rescaler(self, high: tuple[int, int], low: tuple[int, int]) -> Rescaler:
        rescaler = self.alone[levels_between(high, low) - 1]
        assert isinstance(rescaler, Rescaler)
        return rescaler


def _beside(slots: Tensor, details: Tensor, groups: int, layout: Layout) -> Tensor:
    """Frames' pixels in slots, (B * t, 12 n, h, w), each with its details beside it."""
    h, w = slots.shape[2:]
    pixels = slots.reshape(groups, -1, FOLDED, h, w)
    chosen = picked(details.reshape(groups, -1, _BESIDE, h, w), layout.slots, 1)
    return torch.cat((pixels, chosen), dim=2).reshape(slots.shape[0], -1, h, w)


def _copy_widened(layer: nn.Module, source: nn.Module) -> None:
    """Copy a convolution to one whose frames have more channels, which begin as nothing."""
    assert isinstance(layer, nn.Conv2d)
    assert isinstance(source, nn.Conv2d)

    def widened(x: Tensor, axis: int, size: int) -> Tensor:
        if x.shape[axis] == size:
            return x
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        frames = x.reshape(*before, -1, FOLDED, *after)
        wide = frames.new_zeros(*before, frames.shape[axis], size // frames.shape[axis], *after)
        # Joined with zeros, weights without memory would wait for PyTorch's compiler.
        wide.narrow(axis + 1, 0, FOLDED).copy_(frames)
        return wide.reshape(*before, size, *after)

    outputs, inputs = layer.weight.shape[:2]
    bias = None if source.bias is None else widened(source.bias, 0, outputs)
    _copy(layer, widened(widened(source.weight, 1, inputs), 0, outputs), bias)


def _copy(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight.copy_(weight)
    if layer.bias is not None:
        assert bias is not None
        layer.bias.copy_(bias)


def _check_frames(high: int, low: int) -> None:
    if not 1 <= low <= high:
        raise ValueError(f"a lite-any model makes 1 to {high} frames of {high}, not {low}")
