"""Video Swin attention: windows in time and space, every second block shifted by half a window.

Liu et al., "Video Swin Transformer", CVPR 2022. Tensors inside the blocks are (B, T, H, W, C).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.paper.blocks import Conv3d
from vs_cvrs.model.strips import in_strips

__all__ = ["MAX_WINDOW_CELLS", "SwinStage", "Window", "relative_position_index"]

Window = tuple[int, int, int]
"""A window's (frames, height, width)."""

MAX_WINDOW_CELLS = 1 << 12
"""Largest product of a window's sides; what attention needs grows with its square."""

_MASKED = -100.0
"""What is added to the attention between two positions that the cyclic shift brought together."""


_CHUNK_ELEMENTS = 1 << 24
"""Attention weights that are computed at once at most; bounds the memory of large frames."""


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # or a cached tensor could not be used in training later
def relative_position_index(window: Window, device: torch.device) -> Tensor:
    """Rows of the bias table for all pairs of positions in a window: (N, N), N = Wd * Wh * Ww."""
    axes = torch.meshgrid(*(torch.arange(n) for n in window), indexing="ij")
    position = torch.stack([axis.reshape(-1) for axis in axes])
    index = torch.zeros(position.shape[1], position.shape[1], dtype=torch.int64)
    for axis, n in zip(position, window, strict=True):
        index = index * (2 * n - 1) + (axis[:, None] - axis[None, :] + n - 1)
    return index.to(device)


def _regions(padded: Window, window: Window, shift: Window, device: torch.device) -> Tensor:
    """(windows, N): equal for positions that were neighbours before the cyclic shift."""
    region = torch.zeros(1, *padded, 1, device=device)
    for axis, (size, n, s) in enumerate(zip(padded, window, shift, strict=True)):
        if s:
            label = torch.zeros(size, device=device)
            label[size - n : size - s] = 1.0
            label[size - s :] = 2.0
            shape = [1] * 5
            shape[axis + 1] = size
            region = region * 3.0 + label.reshape(shape)
    return _to_windows(region, window)[..., 0]


def _to_windows(x: Tensor, window: Window) -> Tensor:
    """(B, T, H, W, C), sizes multiples of the window's, to (B * windows, N, C)."""
    b, t, h, w, c = x.shape
    d, e, f = window
    x = x.reshape(b, t // d, d, h // e, e, w // f, f, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, d * e * f, c)


def _from_windows(x: Tensor, window: Window, shape: tuple[int, int, int, int]) -> Tensor:
    """Undo `_to_windows`; ``shape`` is (B, T, H, W)."""
    b, t, h, w = shape
    d, e, f = window
    x = x.reshape(b, t // d, h // e, w // f, d, e, f, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, t, h, w, -1)


class _WindowAttention(nn.Module):
    def __init__(self, dim: int, window: Window, num_heads: int) -> None:
        super().__init__()
        self.window = window
        self.num_heads = num_heads
        rows = math.prod(2 * n - 1 for n in window)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, dim * 3, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, regions: Tensor | None) -> Tensor:
        """(B * windows, N, C) to the same; ``regions``: (windows, N), see `_regions`."""
        n = x.shape[1]
        # A window that shrank to the feature map uses the corner of the full table's index.
        index = relative_position_index(self.window, x.device)[:n, :n]
        bias = self.relative_position_bias_table[index.reshape(-1)].reshape(n, n, -1)
        bias = bias.permute(2, 0, 1)[None]
        if regions is not None:
            regions = regions.repeat(x.shape[0] // regions.shape[0], 1)
        chunk = max(1, _CHUNK_ELEMENTS // (n * n * self.num_heads))
        out = []
        for start in range(0, x.shape[0], chunk):
            part = None if regions is None else regions[start : start + chunk]
            out.append(self._attend(x[start : start + chunk], bias, part))
        return torch.cat(out) if len(out) > 1 else out[0]

    def _attend(self, x: Tensor, bias: Tensor, regions: Tensor | None) -> Tensor:
        windows, n, c = x.shape
        q, k, v = self.qkv(x).reshape(windows, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if regions is not None:
            apart = regions[:, None, :, None] != regions[:, None, None, :]
            bias = bias + torch.where(apart, _MASKED, 0.0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(windows, n, c))
        return projected


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _SwinBlock(nn.Module):
    def __init__(self, dim: int, window: Window, num_heads: int, *, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _WindowAttention(dim, window, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _Mlp(dim, dim * 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.norm1(x))

        def chain(y: Tensor) -> Tensor:
            y = y.permute(0, 2, 3, 4, 1)
            out: Tensor = y + self.mlp(self.norm2(y))
            return out.permute(0, 4, 1, 2, 3)

        # The hidden layer is four times as wide, once before and once after its GELU.
        wide = in_strips(chain, x.permute(0, 4, 1, 2, 3), 0, 10 * x.shape[-1])
        return wide.permute(0, 2, 3, 4, 1)

    def _attend(self, x: Tensor) -> Tensor:
        b, t, h, w, _ = x.shape
        size = (t, h, w)
        d, e, f = (min(a, n) for a, n in zip(size, self.window, strict=True))
        window = (d, e, f)
        sd, se, sf = (
            n // 2 if self.shifted and a > n else 0 for a, n in zip(size, self.window, strict=True)
        )
        padding = (-t % d, -h % e, -w % f)
        if any(padding):
            x = F.pad(x, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
        padded = (t + padding[0], h + padding[1], w + padding[2])
        regions = None
        if sd or se or sf:
            x = torch.roll(x, (-sd, -se, -sf), dims=(1, 2, 3))
            regions = _regions(padded, window, (sd, se, sf), x.device)
        x = _from_windows(self.attn(_to_windows(x, window), regions), window, (b, *padded))
        if regions is not None:
            x = torch.roll(x, (sd, se, sf), dims=(1, 2, 3))
        return x[:, :t, :h, :w]


class SwinStage(nn.Module):
    """Window attention blocks, then a 3x3x3 convolution with PReLU, plus the stage's input.

    Args:
        dim: channels; a multiple of ``num_heads``.
        depth: attention blocks; those with odd numbers are shifted.
        num_heads: attention heads.
        window: largest window; it shrinks to the feature map on axes where that is not larger.
    """

    def __init__(self, dim: int, depth: int, num_heads: int, window: Window) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _SwinBlock(dim, window, num_heads, shifted=i % 2 == 1) for i in range(depth)
        )
        self.conv3x3x3 = nn.Sequential(Conv3d(dim, dim, 3, padding=1), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            y = block(y)

        def chain(x: Tensor, y: Tensor) -> Tensor:
            out: Tensor = x + self.conv3x3x3(y)
            return out

        return in_strips(chain, (x, y.permute(0, 4, 1, 2, 3)), 1, 4 * x.shape[1])
