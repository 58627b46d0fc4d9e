"""The sampler's plain form, word for word as the method describes it; slow, for comparison only."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from vs_cvrs.model.base import Size
from vs_cvrs.model.paper.sampler import Sampler


def _centres(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    half = 1.0 / n
    return (-1.0 + half) + (2.0 * half) * torch.arange(n, dtype=dtype)


def _lookup(features: Tensor, grid: Tensor, mode: str) -> Tensor:
    """``grid``: (T, H, W, 3) in the order (t, h, w); grid_sample wants (x, y, z)."""
    flipped = grid.flip(-1)[None].expand(features.shape[0], -1, -1, -1, -1).to(features.dtype)
    padding = "border" if mode == "bilinear" else "zeros"
    return F.grid_sample(features, flipped, mode=mode, padding_mode=padding, align_corners=False)


def plain_sample(sampler: Sampler, features: Tensor, size: Size) -> Tensor:
    """What ``sampler(features, size)`` must give; (B, C, t, h, w) to (B, 3, T, H, W)."""
    batch = features.shape[0]
    source = features.shape[2:]
    queries = torch.stack(torch.meshgrid(*map(_centres, size), indexing="ij"), -1)
    centres = torch.stack(torch.meshgrid(*map(_centres, source), indexing="ij"))[None]
    cells = torch.tensor(source, dtype=torch.float32)

    rels, corners, volumes = [], [], []
    for signs in itertools.product((-1, 1), repeat=3):
        shift = torch.tensor([s / n + 1e-6 for s, n in zip(signs, source, strict=True)])
        grid = (queries + shift).clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        corners.append(_lookup(features, grid, "nearest"))
        centre = _lookup(centres, grid, "nearest")[0].permute(1, 2, 3, 0)
        rel = (queries - centre) * cells
        rels.append(rel.permute(3, 0, 1, 2))
        volumes.append(torch.abs(rel[..., 0] * rel[..., 1] * rel[..., 2]) + 1e-9)
    total = torch.stack(volumes).sum(0)
    scaled = [c * (v / total) for c, v in zip(corners, reversed(volumes), strict=True)]

    rel_channels = torch.cat(rels)[None].expand(batch, -1, -1, -1, -1).to(features.dtype)
    cell = torch.full((batch, 3, *size), 2.0, dtype=features.dtype)
    x = torch.cat([rel_channels, *scaled, cell], dim=1)
    x = sampler.fc2(F.gelu(sampler.fc1(sampler.conv00_3d(x))))
    # In float64, or grid_sample's own rounding would be most of what a comparison finds.
    exact = torch.stack(
        torch.meshgrid(*(_centres(n, torch.float64) for n in size), indexing="ij"), -1
    )
    base = _lookup(sampler.short_cut(features).double(), exact, "bilinear")
    out: Tensor = x + base.to(x.dtype)
    return out
