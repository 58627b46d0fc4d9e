"""The light model for any rate and any size: `LiteModel`'s time network between ways through space.

Time and space are taken apart. Downsample first brings every frame to the low size, then several
frames to one; Upsample goes the same way back.

- Space: a pair of networks (`vs_cvrs.model.light.details`), or an invertible path
  (`vs_cvrs.model.light.space`). Groups that keep their frames take that where the model has one:
  what is hidden then only has to outlive the rounding to 8 bits. On the way through the time
  networks it must be hidden more strongly: groups that lose frames take the networks, or a path
  with weights of its own, which is told which frames will share a low-rate frame.
- Time: whatever the ratio, a low-rate frame stands for a whole number c of high-rate frames: the
  one it shows and those up to the next one shown (`Timeline.high_begin`). 6/5, 5/4 and 24000/1001
  differ in the order of ones and twos alone. Each c from 1 to 4 has first and last layers of its
  own, the blocks between are shared. Of more than four, four are hidden and the others blended.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import Size
from vs_cvrs.model.light.base import ImsmModel
from vs_cvrs.model.light.details import SpaceNet, enlarged, reduced
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, unfold
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.space import MAX_LEVELS, SpaceLevel, SpaceStack, levels_between
from vs_cvrs.model.light.time_net import FOLDED, Layout, TimeNet, blended, steadied
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = ["LiteAnyModel"]

# Which frame each pixel of 2x2 begins with, for each number of frames: see LiteModel's interlace.
_PATTERNS = ((0, 0, 0, 0), (0, 1, 1, 0), (0, 1, 2, 0), (0, 1, 2, 3))


class LiteAnyModel(ImsmModel):
    """Any time and space factor from 1, see the module's docstring.

    Where nothing is to be done - as many frames as before, and at scale 1 - frames stay as they
    are. At scale 1 the low size is the high one rounded up to multiples of 4, as in `LiteModel`.

    Args:
        width, down_blocks, up_blocks, cells, hidden: of the time networks and the IMSM, as in
            `LiteModel`.
        space_width, space_down_blocks, space_up_blocks: of the networks for space of groups that
            lose frames; "h" at the low size, "q" at half of it.
        path_width, path_cells: channels inside the coupling functions of each level of the
            invertible path for space, and its cells; without cells there is none, and all groups
            take the networks.
        path_mixes_time: these functions see the frame before and the one after.
        path_through_time: groups that lose frames have such a path in place of the networks.
        interlace: as in `LiteModel`.
    """

    architecture: ClassVar[str] = "lite-any"
    takes_bfloat16: ClassVar[bool] = True
    group_length = 4

    def __init__(
        self,
        width: int = 48,
        down_blocks: str = "hq",
        up_blocks: str = "qhqhq",
        cells: int = 2,
        hidden: int = 32,
        space_width: int = 48,
        space_down_blocks: str = "hq",
        space_up_blocks: str = "hqhqh",
        path_width: int = 48,
        path_cells: int = 0,
        path_mixes_time: bool = True,
        path_through_time: bool = False,
        interlace: float = 1.0,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "width": width,
            "down_blocks": down_blocks,
            "up_blocks": up_blocks,
            "cells": cells,
            "hidden": hidden,
            "space_width": space_width,
            "space_down_blocks": space_down_blocks,
            "space_up_blocks": space_up_blocks,
            "path_width": path_width,
            "path_cells": path_cells,
            "path_mixes_time": path_mixes_time,
            "path_through_time": path_through_time,
            "interlace": interlace,
        }
        self._check_options()

        def path() -> nn.ModuleList:
            return nn.ModuleList(
                SpaceStack(levels, path_width, path_cells, path_mixes_time)
                for levels in range(1, (MAX_LEVELS if path_cells else 0) + 1)
            )

        self.path = path()
        if path_through_time and path_cells:
            self.shared_path = path()
        else:
            self.space_down = SpaceNet(space_width, space_down_blocks, down=True)
            self.space_up = SpaceNet(space_width, space_up_blocks, down=False)
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

    def space_parameters(self) -> list[nn.Parameter]:
        parts = ("path.", "shared_path.", "space_")
        return [value for name, value in self.named_parameters() if name.startswith(parts)]

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

    @torch.no_grad()
    def spread_space(self) -> None:
        """Begin each level of the paths for space with what that for space 2x has learned."""
        source = self.path[0]
        assert isinstance(source, SpaceStack)
        learned = source.levels[0].state_dict()
        for module in self.modules():
            if isinstance(module, SpaceLevel):
                module.load_state_dict(learned)

    def pads(self, high: tuple[int, int], low: tuple[int, int]) -> bool:
        return all(n <= m < n + SIZE_MULTIPLE for n, m in zip(high, low, strict=True))

    def hides_in_time(self, high: int, low: int) -> bool:
        return high > low or not self.path

    def encode(self, high: Tensor, size: Size) -> Tensor:
        if tuple(high.shape[2:]) == size:
            return high.clamp(0.0, 1.0)
        return super().encode(high, size)

    def decode(self, low: Tensor, size: Size) -> Tensor:
        if tuple(low.shape[2:]) == size:
            return low.clamp(0.0, 1.0)
        return super().decode(low, size)

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to the latent (B, 3, t, h, w), t at most T."""
        t = high.shape[2]
        _check_frames(t, size[0])
        layout = Layout.of(t, size[0])
        x = self._to_low_size(high, size[1], size[2], layout)
        if t == size[0]:
            return x
        b = x.shape[0]
        slots = fold(x[:, :, list(layout.slots)], max(layout.counts), 2)

        def chain(part: Tensor) -> Tensor:
            return as_clip(self.time_down(as_frames(part), layout.counts), b)

        folded = in_strips(chain, as_clip(slots, b), self.time_down.reach, self.time_down.held, 2)
        return unfold(as_frames(folded), b, 1, 2)

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent (B, 3, t, h, w) to (B, 3, T, H, W), T at least t."""
        b, _, t = latent.shape[:3]
        _check_frames(size[0], t)
        layout = Layout.of(size[0], t)
        if t == size[0]:
            return self._to_high_size(latent, size[1], size[2], layout)

        def chain(part: Tensor) -> Tensor:
            return as_clip(self.time_up(as_frames(part), layout.counts), b)

        folded = in_strips(
            chain, as_clip(fold(latent, 1, 2), b), self.time_up.reach, self.time_up.held, 2
        )
        slots = unfold(as_frames(folded), b, max(layout.counts), 2)
        frames = slots[:, :, list(layout.places)]
        if not self.pads(size[1:], (latent.shape[3], latent.shape[4])):
            frames = steadied(frames)
        frames = self._to_high_size(frames, size[1], size[2], layout)
        if len(layout.carried) < size[0]:
            frames = blended(frames, layout.carried, size[0])
        return frames

    def _to_low_size(self, high: Tensor, height: int, width: int, layout: Layout) -> Tensor:
        """The frames that are carried, at the low size."""
        size, low = (high.shape[3], high.shape[4]), (height, width)
        stack = None if self.pads(size, low) else self._stack(size, low, layout)
        if stack is not None:
            # Beyond white and black nothing can be sent. With time networks in between, the path
            # learns to do without it more easily than they do.
            made: Tensor = stack(high, low, layout.carried, layout.told(high))
            return made.clamp(0.0, 1.0)
        if len(layout.carried) < high.shape[2]:
            high = high[:, :, list(layout.carried)]
        if not self.pads(size, low):
            return reduced(self.space_down, high, height, width)
        padding = (0, width - size[1], 0, height - size[0], 0, 0)
        return F.pad(high, padding, mode="replicate") if any(padding) else high

    def _to_high_size(self, low: Tensor, height: int, width: int, layout: Layout) -> Tensor:
        size = low.shape[3], low.shape[4]
        if self.pads((height, width), size):
            return low[..., :height, :width]
        stack = self._stack((height, width), size, layout)
        if stack is None:
            return enlarged(self.space_up, low, height, width)
        return stack.inverse(low, (height, width), layout.told(low))

    def _stack(
        self, high: tuple[int, int], low: tuple[int, int], layout: Layout
    ) -> SpaceStack | None:
        """The part of the path that a group takes; None: it takes the networks."""
        alone = max(layout.counts) == 1
        if not self.path or not (alone or self.options["path_through_time"]):
            return None
        stacks = self.path if alone else self.shared_path
        stack = stacks[levels_between(high, low) - 1]
        assert isinstance(stack, SpaceStack)
        return stack


def _copy(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight.copy_(weight)
    if layer.bias is not None:
        assert bias is not None
        layer.bias.copy_(bias)


def _check_frames(high: int, low: int) -> None:
    if not 1 <= low <= high:
        raise ValueError(f"a lite-any model makes 1 to {high} frames of {high}, not {low}")
