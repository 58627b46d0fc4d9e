"""Frames and pixels folded into channels, and channels taken from frames before and after."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vs_cvrs.model.constants import constant

__all__ = [
    "SHIFT_FRACTION",
    "as_clip",
    "as_frames",
    "fold",
    "fold_rows",
    "join_columns",
    "picked",
    "shift_time",
    "shifted_rows",
    "split_columns",
    "unfold",
    "unfold_rows",
    "unfolded",
]

SHIFT_FRACTION = 8


def fold(x: Tensor, frames: int, factor: int) -> Tensor:
    """Fold ``frames`` consecutive frames and ``factor`` x ``factor`` pixels into channels.

    (B, C, T, H, W) -> (B * T/frames, frames * factor^2 * C, H/factor, W/factor), channels last,
    channel order (frame, dy, dx, c).
    """
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t // frames, frames, h // factor, factor, w // factor, factor)
    x = x.permute(0, 2, 4, 6, 3, 5, 7, 1)
    x = x.reshape(b * t // frames, h // factor, w // factor, frames * factor * factor * c)
    return x.permute(0, 3, 1, 2)


def unfold(x: Tensor, groups: int, frames: int, factor: int) -> Tensor:
    """Inverse of `fold`; ``groups`` is the batch size B that it gives back."""
    n, channels, h, w = x.shape
    c = channels // (frames * factor * factor)
    x = x.permute(0, 2, 3, 1).reshape(groups, n // groups, h, w, frames, factor, factor, c)
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(groups, c, n // groups * frames, h * factor, w * factor)


def fold_rows(x: Tensor, frames: int) -> Tensor:
    """`fold` by 4 x 4 pixels, in the channel order (frame, row parity, c, dy // 2, dx).

    The pixels of even rows and those of odd rows are a run of channels each. Four neighbours in a
    row stay neighbours: without gradients they move as one number of 16 bytes, in half the time.
    """
    b, c, t, h, w = x.shape
    fours = _fours(x)
    x = x if fours is None else fours
    x = x.reshape(b, c, t // frames, frames, h // 4, 2, 2, w // 4, -1)
    x = x.permute(0, 2, 4, 7, 3, 6, 1, 5, 8).contiguous()
    if fours is not None:
        x = x.view(torch.float32)
    return x.reshape(b * t // frames, h // 4, w // 4, frames * c * 16).permute(0, 3, 1, 2)


def unfold_rows(x: Tensor, groups: int, frames: int) -> Tensor:
    """Inverse of `fold_rows`; ``groups`` is the batch size B that it gives back."""
    n, channels, h, w = x.shape
    c = channels // (frames * 16)
    x = x.permute(0, 2, 3, 1)
    fours = _fours(x)
    x = x if fours is None else fours
    x = x.reshape(groups, n // groups, h, w, frames, 2, c, 2, -1)
    x = x.permute(0, 6, 1, 4, 2, 7, 5, 3, 8).contiguous()
    if fours is not None:
        x = x.view(torch.float32)
    return x.reshape(groups, c, n // groups * frames, h * 4, w * 4)


def _fours(x: Tensor) -> Tensor | None:
    """Each four floats of the last axis as a number; None where they cannot be seen like that."""
    steps = (x.storage_offset(), x.shape[-1], *x.stride()[:-1])
    apart = x.dtype != torch.float32 or torch.is_grad_enabled() or x.stride(-1) != 1
    if apart or any(step % 4 for step in steps):
        return None
    return x.view(torch.complex128)


def split_columns(x: Tensor) -> tuple[Tensor, Tensor]:
    """Fold 4 x 4 pixels into channels, even and odd columns apart.

    (B, C, T, H, W) -> twice (B * T, 8 * C, H/4, W/4), channels last, channel order (dy, dx, c).
    """
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // 4, 4, w // 4, 2, 2).permute(7, 0, 2, 3, 5, 4, 6, 1)
    even, odd = x.reshape(2, b * t, h // 4, w // 4, 8 * c).permute(0, 1, 4, 2, 3)
    return even, odd


def join_columns(even: Tensor, odd: Tensor, groups: int) -> Tensor:
    """Inverse of `split_columns`; ``groups`` is the batch size B that it gives back."""
    n, channels, h, w = even.shape
    x = even.new_empty(groups, channels // 8, n // groups, h * 4, w * 4)
    columns = x.view(groups, channels // 8, n // groups, h, 4, w, 2, 2)
    for place, half in enumerate((even, odd)):
        folded = half.permute(0, 2, 3, 1).reshape(groups, n // groups, h, w, 4, 2, channels // 8)
        columns[..., place].copy_(folded.permute(0, 6, 1, 2, 4, 3, 5))
    return x


def shift_time(x: Tensor, groups: int) -> Tensor:
    """Take an eighth of the channels from the previous frame and an eighth from the next.

    Nothing crosses the ends of a group: there the missing frame counts as zeros. With 0 ``groups``
    frames are alone, and stay as they are.
    """
    if groups == 0:
        return x
    n, c, h, w = x.shape
    k = c // SHIFT_FRACTION
    v = x.permute(0, 2, 3, 1).reshape(groups, n // groups, h, w, c)
    before = F.pad(v[:, :-1, ..., :k], (0, 0, 0, 0, 0, 0, 1, 0))
    after = F.pad(v[:, 1:, ..., k : 2 * k], (0, 0, 0, 0, 0, 0, 0, 1))
    v = torch.cat((before, after, v[..., 2 * k :]), dim=-1)
    return v.reshape(n, h, w, c).permute(0, 3, 1, 2)


def shifted_rows(x: Tensor, groups: int, frame: int, rows: slice) -> Tensor:
    """Some rows of a frame of ``shift_time(x, groups)``, (1, C, rows, W)."""
    if groups == 0:
        return x[frame : frame + 1, :, rows]
    n, c, _, w = x.shape
    k = c // SHIFT_FRACTION
    position, length = frame % (n // groups), n // groups
    v = x.permute(0, 2, 3, 1)[:, rows]
    nothing = x.new_zeros(()).expand(v.shape[1], w, k)
    before = v[frame - 1, ..., :k] if position > 0 else nothing
    after = v[frame + 1, ..., k : 2 * k] if position < length - 1 else nothing
    return torch.cat((before, after, v[frame, ..., 2 * k :]), dim=-1)[None].permute(0, 3, 1, 2)


def unfolded(x: Tensor) -> Tensor:
    """Features (N, C, H, W), channels last, seen as (N, H/2, W/2, dy, dx, C)."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).view(n, h // 2, 2, w // 2, 2, c).transpose(2, 3)


def as_frames(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B * T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def as_clip(x: Tensor, groups: int) -> Tensor:
    """Inverse of `as_frames`; ``groups`` is the batch size B that it gives back."""
    return x.reshape(groups, -1, *x.shape[1:]).transpose(1, 2)


def picked(x: Tensor, indices: Sequence[int], axis: int) -> Tensor:
    """What stands at these indices of an axis, in this order."""
    return x.index_select(axis, constant(tuple(indices), torch.int64, x.device))
