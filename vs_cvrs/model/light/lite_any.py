"""The light model for any rate and any size: `LiteModel`'s time network between networks for space.

Time and space are taken apart. Downsample first brings every frame to the low size (a bicubic
reduction, plus what a network hides of the lost detail in it), then several frames to one;
Upsample goes the same way back.

- Space: a frame is resampled to the next whole multiple m of the low size (2, 3 or 4) and m x m
  pixels are folded into channels; the networks work at the low size, see what share of the multiple
  is really there, and have first and last layers for each m.
- Time: whatever the ratio, a low-rate frame stands for a whole number c of high-rate frames: the
  one it shows and those up to the next one shown (`Timeline.high_begin`). 6/5, 5/4 and 24000/1001
  differ in the order of ones and twos alone. Each c from 1 to 4 has first and last layers of its
  own, the blocks between are shared. Of more than four, four are hidden and the others blended.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import Size
from vs_cvrs.model.light.base import LightModel
from vs_cvrs.model.light.blocks import Blocks, blocks_reach, conv3
from vs_cvrs.model.light.folding import fold, unfold
from vs_cvrs.model.light.fused import activate
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE, Timeline

__all__ = ["MAX_FOLD", "MAX_SLOTS", "LiteAnyModel"]

MAX_SLOTS = 4
"""Frames that a low-rate frame can carry, itself among them."""

MAX_FOLD = 4
"""Largest multiple of the low size that details are taken from."""

_FOLDED = 12  # channels of 2x2 pixels
_LAST_GAIN = 0.1

# BT.601, as colour differences: luma and the two chroma channels.
_LUMA_CHROMA = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))
_CODE_STRENGTH = 0.5
_CODE_RECOVERY = 0.4

_STILL = 0.8 / 255.0
_MOVING = 1.6 / 255.0
_AROUND = 7  # low-rate pixels

# Which frame each pixel of 2x2 begins with, for each number of frames: see LiteModel's interlace.
_PATTERNS = ((0, 0, 0, 0), (0, 1, 1, 0), (0, 1, 2, 0), (0, 1, 2, 3))


@dataclass(frozen=True)
class Layout:
    """Which high-rate frames the low-rate frames of a group carry.

    Attributes:
        counts: how many, for each low-rate frame; 1 to `MAX_SLOTS`.
        slots: high-rate indices, ``max(counts)`` for each low-rate frame; what is beyond a
            frame's count repeats its first.
        carried: the same without repetitions, rising.
        places: where in ``slots`` each of ``carried`` stands.
    """

    counts: tuple[int, ...]
    slots: tuple[int, ...]
    carried: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, high: int, low: int) -> Self:
        """The layout of a group of ``high`` and ``low`` frames, high at least low."""
        timeline = Timeline(Fraction(high, low), low)
        begins = [timeline.high_begin(j) for j in range(low + 1)]
        owned = []
        for begin, end in itertools.pairwise(begins):
            span = end - begin
            count = min(span, MAX_SLOTS)
            owned.append([begin + k * span // count for k in range(count)])
        counts = tuple(len(frames) for frames in owned)
        most = max(counts)
        slots = [(frames + frames[:1] * most)[:most] for frames in owned]
        return cls(
            counts=counts,
            slots=tuple(index for frames in slots for index in frames),
            carried=tuple(index for frames in owned for index in frames),
            places=tuple(
                j * most + k for j, frames in enumerate(owned) for k in range(len(frames))
            ),
        )


def _by_count(
    layers: nn.ModuleList, x: Tensor, counts: Sequence[int], inputs: int, outputs: int
) -> Tensor:
    """Give each low-rate frame to the layer of its count; outputs are filled up with zeros.

    Args:
        layers: those for 1, 2, ... frames.
        x: (B * t, C, h, w).
        counts: of the t frames, the same for each group of the batch.
        inputs: channels per frame that a layer takes; 0: all there are.
        outputs: channels per frame that a layer gives; 0: the same for all.
    """
    most = max(counts)

    def run(part: Tensor, count: int) -> Tensor:
        part = part[:, : inputs * count] if inputs else part
        made: Tensor = layers[count - 1](part.contiguous(memory_format=torch.channels_last))
        missing = outputs * (most - count)
        return F.pad(made, (0, 0, 0, 0, 0, missing)) if missing else made

    if len(set(counts)) == 1:
        return run(x, counts[0])
    every = torch.tensor(counts, device=x.device).repeat(x.shape[0] // len(counts))
    chosen = [torch.nonzero(every == count)[:, 0] for count in sorted(set(counts))]
    parts = [run(x[index], count) for index, count in zip(chosen, sorted(set(counts)), strict=True)]
    return torch.cat(parts)[torch.argsort(torch.cat(chosen))]


class TimeNet(nn.Module):
    """`Trunk` with layers at one end for each number of frames that a low-rate frame carries.

    The skip and the first convolution run in float32, for the reasons given there.

    Args:
        width, blocks: as in `Trunk`.
        down: several frames in and one out, else the other way round.

    Attributes:
        reach: how far it sees, in pixels of the features.
        held: values held at once per such pixel and low-rate frame, about.
    """

    def __init__(self, width: int, blocks: str, down: bool) -> None:
        super().__init__()
        self.down = down
        sizes = [_FOLDED * count for count in range(1, MAX_SLOTS + 1)]
        if down:
            self.first = nn.ModuleList(conv3(size, width) for size in sizes)
            self.last = nn.ModuleList([conv3(width, _FOLDED, _LAST_GAIN)])
            self.skip = nn.ModuleList(nn.Conv2d(size, _FOLDED, 1, bias=False) for size in sizes)
        else:
            self.first = nn.ModuleList([conv3(_FOLDED, width)])
            self.last = nn.ModuleList(conv3(width, size, _LAST_GAIN) for size in sizes)
            self.skip = nn.ModuleList(nn.Conv2d(_FOLDED, size, 1, bias=False) for size in sizes)
        self.body = Blocks(width, blocks)
        self.reach = blocks_reach(1, blocks) + 1
        self.held = 3 * width + 2 * sizes[-1]

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(B * t, 12 max(counts), h, w) to (B * t, 12, h, w), or the other way round."""
        device = x.device.type
        groups = x.shape[0] // len(counts)
        with torch.autocast(device, enabled=False):
            if self.down:
                out = _by_count(self.skip, x, counts, _FOLDED, 0)
                features = activate(_by_count(self.first, x, counts, _FOLDED, 0))
            else:
                out = _by_count(self.skip, x, counts, 0, _FOLDED)
                features = activate(self.first[0](x))
        if torch.is_autocast_enabled(device):
            features = features.to(torch.get_autocast_dtype(device))
        features = self.body(features, groups)
        out += (
            self.last[0](features)
            if self.down
            else _by_count(self.last, features, counts, 0, _FOLDED)
        )
        return out


class SpaceNet(nn.Module):
    """Details of m x m pixels in one, or the other way round, for m from 2 to `MAX_FOLD`.

    A linear part, ``code``, sees 2x2 low pixels at once. Before training it puts the luma's
    vertical and horizontal differences inside each low pixel into its two chroma channels, with
    signs that alternate like a checkerboard: chroma is smooth as a rule, so that they can be told
    from it. Plain bicubic frames as a start leave training in their neighbourhood, without hidden
    details. The linear part and the first convolution run in float32, for the reasons given in
    `Trunk`.

    Args:
        width, blocks: as in `Trunk`.
        down: m x m pixels in and one out, else the other way round.

    Attributes:
        reach, held: as in `TimeNet`, per high-rate frame.
    """

    def __init__(self, width: int, blocks: str, down: bool) -> None:
        super().__init__()
        folds = range(2, MAX_FOLD + 1)
        sizes = [3 * fold * fold for fold in folds]
        self.first = nn.ModuleList(conv3(size if down else 3, width) for size in sizes)
        self.last = nn.ModuleList(conv3(width, 3 if down else size, _LAST_GAIN) for size in sizes)
        self.code = nn.ModuleList(
            nn.Conv2d(4 * size, 12, 1, bias=False)
            if down
            else nn.Conv2d(12, 4 * size, 3, padding=1, bias=False)
            for size in sizes
        )
        with torch.no_grad():
            for fold, layer in zip(folds, self.code, strict=True):
                _copy(layer, _modulation(fold) if down else _demodulation(fold))
        self.filled = nn.Linear(2, width, bias=False)
        nn.init.zeros_(self.filled.weight)
        self.body = Blocks(width, blocks)
        self.reach = max(blocks_reach(1, blocks) + 1, 4)
        self.held = 3 * width + 3 * sizes[-1]

    def forward(self, x: Tensor, fold: int, filled: Tensor, groups: int) -> Tensor:
        """Features (B * T, C, h, w); ``filled``: how much of the multiple is there, (h, w)."""
        device = x.device.type
        with torch.autocast(device, enabled=False):
            out = F.pixel_shuffle(self.code[fold - 2](F.pixel_unshuffle(x, 2)), 2)
            shift = self.filled(4.0 * filled - 3.0)
            features = activate(self.first[fold - 2](x) + shift[:, None, None])
        if torch.is_autocast_enabled(device):
            features = features.to(torch.get_autocast_dtype(device))
        out += self.last[fold - 2](self.body(features, groups))
        return out


def _differences(fold: int) -> Tensor:
    """Signs of fold x fold pixels that make vertical and horizontal differences: (2, fold^2)."""
    side = torch.sign((fold - 1) / 2 - torch.arange(fold))
    return torch.stack((side[:, None].expand(fold, fold), side.expand(fold, fold))).flatten(1)


def _modulation(fold: int) -> Tensor:
    """What `SpaceNet.code` begins with on the way down: (12, 12 fold^2, 1, 1).

    Channels are (colour, pixel of 2x2) of the low size, and (pixel of fold x fold, colour, pixel of
    2x2).
    """
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0])
    weight = torch.einsum(
        "ck,kp,l,qr->cqplr",
        torch.linalg.inv(torch.tensor(_LUMA_CHROMA))[:, 1:],
        _differences(fold) / fold**2,
        torch.tensor(_LUMA_CHROMA[0]),
        _CODE_STRENGTH * torch.diag(sign),
    )
    return weight.reshape(12, 12 * fold * fold, 1, 1)


def _demodulation(fold: int) -> Tensor:
    """What `SpaceNet.code` begins with on the way up: (12 fold^2, 12, 3, 3), channels as above.

    A difference is estimated from how far its pixel's chroma lies from its four neighbours'.
    """
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    around = torch.zeros(2, 2, 2, 2, 3, 3)  # pixel, pixel looked at, cell looked at
    for y, x in itertools.product(range(2), range(2)):
        for dy, dx, share in (
            (0, 0, 1.0),
            (0, 1, -0.25),
            (1, 0, -0.25),
            (0, -1, -0.25),
            (-1, 0, -0.25),
        ):
            row, column = y + dy, x + dx
            around[y, x, row % 2, column % 2, row // 2 + 1, column // 2 + 1] = share * sign[y, x]
    weight = torch.einsum(
        "kp,kc,qrij->pqcrij",
        _differences(fold) * _CODE_RECOVERY / _CODE_STRENGTH,
        torch.tensor(_LUMA_CHROMA[1:]),
        around.reshape(4, 4, 3, 3),
    )
    # The same for all three colours.
    weight = weight[:, None].expand(-1, 3, -1, -1, -1, -1, -1)
    return weight.reshape(12 * fold * fold, 12, 3, 3)


class LiteAnyModel(LightModel):
    """Any time and space factor from 1, see the module's docstring.

    Where nothing is to be done - as many frames as before, and at scale 1 - frames stay as they
    are. At scale 1 the low size is the high one rounded up to multiples of 4, as in `LiteModel`.

    Args:
        width, down_blocks, up_blocks, cells, hidden: of the time networks and the IMSM, as in
            `LiteModel`.
        space_width, space_down_blocks, space_up_blocks: of the space networks; "h" at the low size,
            "q" at half of it.
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
            "interlace": interlace,
        }
        self._check_options()
        self.space_down = SpaceNet(space_width, space_down_blocks, down=True)
        self.time_down = TimeNet(width, down_blocks, down=True)
        self.imsm = LiteImsm(cells, hidden)
        self.time_up = TimeNet(width, up_blocks, down=False)
        self.space_up = SpaceNet(space_width, space_up_blocks, down=False)
        with torch.no_grad():
            for count, pattern in enumerate(_PATTERNS, start=1):
                frame = torch.tensor(pattern).repeat_interleave(3)
                weight = torch.zeros(_FOLDED, count, _FOLDED)
                pixel = torch.arange(_FOLDED)
                weight[pixel, 0, pixel] = 1.0 - interlace
                weight[pixel, frame, pixel] += interlace
                _copy(self.time_down.skip[count - 1], weight.flatten(1)[..., None, None])
                same = torch.eye(_FOLDED).repeat(count, 1)
                _copy(self.time_up.skip[count - 1], same[..., None, None])
        self._store_channels_last()

    @torch.no_grad()
    def start_from(self, lite: LiteModel) -> None:
        """Take over what a `LiteModel` has learned: at time 2x, space 1x this is that model then.

        Layers for other numbers of frames begin as what its two frames suggest.

        Raises:
            ValueError: its layers are not those of this model's time networks.
        """
        mine, its = self.options, lite.options
        for name in ("width", "down_blocks", "up_blocks", "cells", "hidden"):
            if mine[name] != its[name]:
                raise ValueError(
                    f"a lite-any model with {name} {mine[name]!r} cannot begin as a lite model "
                    f"with {name} {its[name]!r}"
                )
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
        x = self._to_low_size(high, size[1], size[2])
        if t == size[0]:
            return x
        layout = Layout.of(t, size[0])
        b = x.shape[0]
        slots = fold(x[:, :, list(layout.slots)], max(layout.counts), 2)

        def chain(part: Tensor) -> Tensor:
            return _clip(self.time_down(_frames(part), layout.counts), b)

        folded = in_strips(chain, _clip(slots, b), self.time_down.reach, self.time_down.held, 2)
        return unfold(_frames(folded), b, 1, 2)

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent (B, 3, t, h, w) to (B, 3, T, H, W), T at least t."""
        b, _, t = latent.shape[:3]
        _check_frames(size[0], t)
        if t == size[0]:
            return self._to_high_size(latent, size[1], size[2])
        layout = Layout.of(size[0], t)

        def chain(part: Tensor) -> Tensor:
            return _clip(self.time_up(_frames(part), layout.counts), b)

        folded = in_strips(
            chain, _clip(fold(latent, 1, 2), b), self.time_up.reach, self.time_up.held, 2
        )
        slots = unfold(_frames(folded), b, max(layout.counts), 2)
        frames = slots[:, :, list(layout.places)]
        if len(layout.carried) < size[0]:
            frames = _blended(frames, layout.carried, size[0])
        if not self.pads(size[1:], (latent.shape[3], latent.shape[4])):
            frames = _steadied(frames)
        return self._to_high_size(frames, size[1], size[2])

    def _to_low_size(self, high: Tensor, height: int, width: int) -> Tensor:
        b, h, w = high.shape[0], *high.shape[-2:]
        if self.pads((h, w), (height, width)):
            padding = (0, width - w, 0, height - h, 0, 0)
            return F.pad(high, padding, mode="replicate") if any(padding) else high
        factor, filled = _folding((h, w), (height, width), high)
        base = _resized(high, height, width, antialias=True)
        multiple = _resized(high, factor * height, factor * width, antialias=True)

        def chain(part: Tensor) -> Tensor:
            return _clip(self.space_down(_frames(part), factor, filled, b), b)

        folded = _clip(fold(multiple, 1, factor), b)
        return base + in_strips(chain, folded, self.space_down.reach, self.space_down.held, 2)

    def _to_high_size(self, low: Tensor, height: int, width: int) -> Tensor:
        b, h, w = low.shape[0], *low.shape[-2:]
        if self.pads((height, width), (h, w)):
            return low[..., :height, :width]
        factor, filled = _folding((height, width), (h, w), low)

        def chain(part: Tensor) -> Tensor:
            return _clip(self.space_up(_frames(part), factor, filled, b), b)

        folded = in_strips(chain, low, self.space_up.reach, self.space_up.held, 2)
        details = unfold(_frames(folded), b, 1, factor)
        return _resized(low, height, width) + _resized(details, height, width)


def _copy(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight.copy_(weight)
    if layer.bias is not None:
        assert bias is not None
        layer.bias.copy_(bias)


def _check_frames(high: int, low: int) -> None:
    if not 1 <= low <= high:
        raise ValueError(f"a lite-any model makes 1 to {high} frames of {high}, not {low}")


def _frames(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B * T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def _clip(x: Tensor, groups: int) -> Tensor:
    """Inverse of `_frames`; ``groups`` is the batch size B that it gives back."""
    return x.reshape(groups, -1, *x.shape[1:]).transpose(1, 2)


def _folding(high: tuple[int, int], low: tuple[int, int], x: Tensor) -> tuple[int, Tensor]:
    """The multiple of the low size to work at, and the share of it that is there on each axis."""
    most = max(Fraction(n, m) for n, m in zip(high, low, strict=True))
    factor = min(max(2, -(-most.numerator // most.denominator)), MAX_FOLD)
    share = [min(1.0, n / (factor * m)) for n, m in zip(high, low, strict=True)]
    return factor, torch.tensor(share, dtype=x.dtype, device=x.device)


def _resized(x: Tensor, height: int, width: int, antialias: bool = False) -> Tensor:
    """(B, 3, T, H, W) at another size, bicubic, in float32."""
    if x.shape[-2:] == (height, width):
        return x
    made = F.interpolate(
        _frames(x).contiguous(), (height, width), mode="bicubic", antialias=antialias
    )
    return _clip(made, x.shape[0])


def _steadied(frames: Tensor) -> Tensor:
    """Frames of a group (B, 3, T, h, w) without the differences that restoring them makes.

    Where nothing moves, restored frames differ by up to a level, and the space network would make
    more of it, which is seen as flicker. So around each pixel frames become their mean where they
    lie less than `_STILL` from it (RMS), stay where they lie more than `_MOVING` from it, and are
    weighed in between. Detail that moves by less than that is worth less than 0.1 dB.
    """
    mean = frames.mean(dim=2, keepdim=True)
    differences = frames - mean
    energy = differences.square().mean(dim=(1, 2)).unsqueeze(1)
    energy = F.avg_pool2d(energy, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    kept = ((energy - _STILL**2) / (_MOVING**2 - _STILL**2)).clamp(0.0, 1.0)
    return mean + differences * kept.unsqueeze(2)


def _blended(frames: Tensor, carried: Sequence[int], count: int) -> Tensor:
    """Fill in frames between those at the indices ``carried``, linearly; repeat the last."""
    made = []
    place = 0
    for index in range(count):
        while place + 1 < len(carried) and carried[place + 1] <= index:
            place += 1
        frame = frames[:, :, place]
        if carried[place] < index and place + 1 < len(carried):
            share = (index - carried[place]) / (carried[place + 1] - carried[place])
            frame = torch.lerp(frame, frames[:, :, place + 1], share)
        made.append(frame)
    return torch.stack(made, dim=2)
