"""The light model's way back to a size from frames that hide nothing of what a reduction lost.

Hiding frames in others takes room. Where all of it is better spent on frames of the low size
(`vs_cvrs.model.light.choosing`), what those lack is predicted, as in super-resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vs_cvrs.model.light.blocks import Net, Trunk
from vs_cvrs.model.light.folding import as_clip, as_frames, unfold
from vs_cvrs.model.light.resampling import filled, resampled, restored
from vs_cvrs.model.strips import in_strips

__all__ = ["Enlarger"]

_FACTOR = 2
_COLOURS = 3
_GREY = 0.5

_DIFFERENCE = 8.0
"""What the network gives is brought to about -1 to 1."""


class Enlarger(nn.Module):
    """Frames to larger frames.

    Bicubic, and what a network adds to that up to twice the height and width; bicubic beyond. The
    network works at the low size (Shi et al., CVPR 2016); neighbouring frames meet by shifting some
    channels along time.

    Args:
        net: its width and blocks.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.up = Trunk(_COLOURS + 2, _COLOURS * _FACTOR**2, *net, fold=1)
        with torch.no_grad():
            self.up.skip.weight.zero_()

    def forward(self, frames: Tensor, size: Sequence[int]) -> Tensor:
        """(B, 3, T, h, w) in 0..1, multiples of 4, to height and width ``size``; not clamped."""
        b, _, _, h, w = frames.shape
        with torch.autocast(frames.device.type, enabled=False):
            told = torch.cat((frames - _GREY, *filled(frames, size, _FACTOR)), dim=1)

        def chain(part: Tensor) -> Tensor:
            return as_clip(self.up(as_frames(part), b), b)

        details = in_strips(chain, told, self.up.radius, self.up.held, 2)
        with torch.autocast(frames.device.type, enabled=False):
            details = unfold(as_frames(details).float(), b, 1, _FACTOR) / _DIFFERENCE
            made = resampled(frames, _FACTOR * h, _FACTOR * w) + details
            inside = [min(n, m) for n, m in zip(size, made.shape[-2:], strict=True)]
            return resampled(restored(made, *inside), *size)
