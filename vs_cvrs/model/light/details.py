"""The light model's networks for space of groups that lose frames: a pair that shares nothing.

A frame is resampled to the next whole multiple m of the low size (2, 3 or 4) and m x m pixels are
folded into channels; the networks work at the low size, see what share of the multiple is really
there, and have first and last layers for each m. What the one hides of the details in the bicubic
reduction of a frame the other looks for.

Low-rate frames of such groups come through the time networks, whose errors the invertible path
(`vs_cvrs.model.light.space`) does not bear unless it is trained with them.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.light.blocks import Blocks, blocks_reach, conv3
from vs_cvrs.model.light.constants import constant
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, unfold
from vs_cvrs.model.light.fused import activate
from vs_cvrs.model.strips import in_strips

__all__ = ["MAX_FOLD", "SpaceNet", "enlarged", "reduced"]

MAX_FOLD = 4
"""Largest multiple of the low size that details are taken from."""

_LAST_GAIN = 0.1

# BT.601, as colour differences: luma and the two chroma channels.
_LUMA_CHROMA = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))
_CODE_STRENGTH = 0.5
_CODE_RECOVERY = 0.4


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


def reduced(net: SpaceNet, high: Tensor, height: int, width: int) -> Tensor:
    """Frames (B, 3, T, H, W) at the low size: bicubic, and what ``net`` hides in them."""
    b, h, w = high.shape[0], *high.shape[-2:]
    factor, filled = _folding((h, w), (height, width), high)
    base = _resized(high, height, width, antialias=True)
    multiple = _resized(high, factor * height, factor * width, antialias=True)

    def chain(part: Tensor) -> Tensor:
        return as_clip(net(as_frames(part), factor, filled, b), b)

    folded = as_clip(fold(multiple, 1, factor), b)
    return base + in_strips(chain, folded, net.reach, net.held, 2)


def enlarged(net: SpaceNet, low: Tensor, height: int, width: int) -> Tensor:
    """Low frames (B, 3, T, h, w) at the high size: bicubic, and what ``net`` finds in them."""
    b, h, w = low.shape[0], *low.shape[-2:]
    factor, filled = _folding((height, width), (h, w), low)

    def chain(part: Tensor) -> Tensor:
        return as_clip(net(as_frames(part), factor, filled, b), b)

    folded = in_strips(chain, low, net.reach, net.held, 2)
    details = unfold(as_frames(folded), b, 1, factor)
    return _resized(low, height, width) + _resized(details, height, width)


def _copy(layer: nn.Module, weight: Tensor) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight.copy_(weight)


def _folding(high: tuple[int, int], low: tuple[int, int], x: Tensor) -> tuple[int, Tensor]:
    """The multiple of the low size to work at, and the share of it that is there on each axis."""
    most = max(Fraction(n, m) for n, m in zip(high, low, strict=True))
    factor = min(max(2, -(-most.numerator // most.denominator)), MAX_FOLD)
    share = tuple(min(1.0, n / (factor * m)) for n, m in zip(high, low, strict=True))
    return factor, constant(share, x.dtype, x.device)


def _resized(x: Tensor, height: int, width: int, antialias: bool = False) -> Tensor:
    """(B, 3, T, H, W) at another size, bicubic, in float32."""
    if x.shape[-2:] == (height, width):
        return x
    made = F.interpolate(
        as_frames(x).contiguous(), (height, width), mode="bicubic", antialias=antialias
    )
    return as_clip(made, x.shape[0])
