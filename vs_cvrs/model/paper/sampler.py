"""3-D implicit feature modulation: the sampler that takes features to any size (CVPR 2025).

Every output position ("query") sees the features of eight source cells around it, each scaled by
the volume of the diagonally opposite corner, next to its offsets to those cells' centres. Two
pointwise layers make three channels of it, and a trilinear shortcut is added.

`Sampler` computes what that definition says at a fraction of its cost; what makes it fast:

* The grid is separable: a cell index and an offset per axis and sign describe all queries.
* Everything before the GELU is linear. The pointwise convolution and the layer after it are one
  matrix, and what the offset and cell channels give is a sum of three small tables, one per axis.
* On an axis that keeps its size one of the two corners has no weight, except at the far end.
* The rest is done in tiles that stay in the cache, a few corners at a time.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import Size
from vs_cvrs.model.paper.blocks import Conv3d, SeparableConv

__all__ = ["Sampler"]

_HIDDEN = 256
_SHIFT = 1e-6  # keeps lookups off the cells' borders
_VOLUME_FLOOR = 1e-9  # is added to the volume of every corner

_NO_WEIGHT = 1e-7
"""A corner whose share on an axis is at most this has no weight there."""

_NARROW = 0.1
"""Where a query's two corners on an axis are closer together than this (in half cells; 2 is usual),
the floor of the volumes counts, and all eight corners may have weight."""

_CPU_TILE = 4096
_GPU_TILE = 1 << 18
"""Output positions in a tile: 1 KiB each for the hidden channels in float32."""

_CPU_CHANNELS = 128
"""Corner channels that are gathered at once on a CPU."""

_MAX_TILE_FRAMES = 16
_CACHED_SHAPES = 2

_REL = 24
_CELL = 3


class _Span(NamedTuple):
    """Output positions start..stop of an axis, and the signs of the corners with weight there."""

    start: int
    stop: int
    signs: tuple[int, ...]
    narrow: bool

    def parts(self, length: int) -> Iterator[tuple[int, int]]:
        """Equal parts of at most ``length`` positions."""
        count = math.ceil((self.stop - self.start) / length)
        step = math.ceil((self.stop - self.start) / count)
        for start in range(self.start, self.stop, step):
            yield start, min(start + step, self.stop)


class _Box(NamedTuple):
    """A tile of the output: (start, stop) on batch, time, height and width; and signs per axis."""

    ranges: tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
    signs: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        b, t, h, w = (stop - start for start, stop in self.ranges)
        return b, t, h, w


class _Axis:
    """One axis of the grid: which source cells the queries see, and how far away these are.

    The arithmetic is that of the definition, in float32 and in its order: where both corners of a
    query are at the same distance to rounding, the rounding decides the weights.

    Attributes:
        source, size: cells, and queries n.
        index: (2, n), source cell of the minus and of the plus corner.
        rel: (2, n), query - centre of the cell, in half source cells.
        spans: the axis in at most three pieces with the corners that count in each.
    """

    def __init__(self, source: int, target: int) -> None:
        queries = _cell_centres(target)
        signs = torch.tensor([[-1.0 / source + _SHIFT], [1.0 / source + _SHIFT]])
        lookup = (queries + signs).clamp(-1.0 + _SHIFT, 1.0 - _SHIFT)
        position = ((lookup + 1.0) * source - 1.0) / 2.0
        self.source, self.size = source, target
        self.index = torch.round(position).long().clamp(0, source - 1)
        self.rel = (queries - _cell_centres(source)[self.index]) * source
        self.spans = self._cut()

    def _cut(self) -> list[_Span]:
        distance = self.rel.abs()
        total = distance.sum(0)
        # The weight of a corner is the distance to the other one.
        share = distance.flip(0) / total.clamp_min(1e-30)
        labels = torch.stack([share[0] > _NO_WEIGHT, share[1] > _NO_WEIGHT, total < _NARROW])
        # The depthwise convolution looks one position further on both sides.
        labels = F.max_pool1d(labels[None].float(), 3, stride=1, padding=1)[0] > 0
        codes = (labels.long() * torch.tensor([[1], [2], [4]])).sum(0)
        changes = (torch.nonzero(codes[1:] != codes[:-1]).flatten() + 1).tolist()
        cuts = [0, *changes, self.size]
        longest = max(range(len(cuts) - 1), key=lambda i: cuts[i + 1] - cuts[i])
        edges = [0, cuts[longest], cuts[longest + 1], self.size]
        spans = []
        for start, stop in itertools.pairwise(edges):
            if start < stop:
                minus, plus, narrow = labels[:, start:stop].any(1).tolist()
                signs = tuple(s for s, used in enumerate((minus, plus)) if used)
                spans.append(_Span(start, stop, signs, narrow))
        return spans

    def parts(self, length: int) -> list[tuple[int, int]]:
        """Parts of the queries that see about ``length`` source cells each."""
        count = max(1, round(self.source / length))
        edges = [i * self.size // count for i in range(count + 1)]
        return [part for part in itertools.pairwise(edges) if part[0] < part[1]]

    def seen(self, start: int, stop: int) -> slice:
        """Source cells that count for queries start..stop, and for their neighbours."""
        index = self.index[:, max(0, start - 1) : stop + 1]
        below, above, _ = self.linear(start, stop)
        # The shortcut's convolution looks one cell further.
        low = min(int(index.min()), int(below.min()) - 1)
        high = max(int(index.max()), int(above.max()) + 1)
        return slice(max(low, 0), min(high + 1, self.source))

    def linear(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Linear interpolation between cell centres: (n,) lower and upper cell, share of that."""
        scale = torch.tensor(self.source, dtype=torch.float32) / self.size
        position = (scale * (torch.arange(start, stop) + 0.5) - 0.5).clamp_min(0.0)
        below = position.long().clamp_max(self.source - 1)
        return below, (below + 1).clamp_max(self.source - 1), position - below

    def tap_offsets(self) -> Tensor:
        """(n, 2, 3): `rel` at the three taps around each position, zero outside the axis."""
        return F.pad(self.rel, (1, 1)).unfold(1, 3, 1).permute(1, 0, 2)

    def tap_masks(self) -> Tensor:
        """(3, 3): which taps are inside at the first, at an inner and at the last position."""
        several = float(self.size > 1)
        return torch.tensor([[0.0, 1.0, several], [1.0, 1.0, 1.0], [several, 1.0, 0.0]])

    def edges(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """Pieces of start..stop, counted from start, with their row of `tap_masks`."""
        cuts = (0, 1, max(1, self.size - 1), self.size)
        for row, (low, high) in enumerate(itertools.pairwise(cuts)):
            low, high = max(low, start), min(high, stop)
            if low < high:
                yield row, slice(low - start, high - start)


_Axes = tuple[_Axis, _Axis, _Axis]
"""Time, height, width."""


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # or a cached tensor could not be used in training later
def _axis(source: int, target: int) -> _Axis:
    return _Axis(source, target)


def _cell_centres(n: int) -> Tensor:
    half = 1.0 / n
    return (-1.0 + half) + (2.0 * half) * torch.arange(n, dtype=torch.float32)


@dataclass(frozen=True)
class _Region:
    """A part of the output in height and width.

    Attributes:
        rows, columns: (start, stop) of the part.
    """

    axes: _Axes
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        _, height, width = self.axes
        return (self.rows, self.columns) == ((0, height.size), (0, width.size))

    @cached_property
    def source(self) -> tuple[slice, slice]:
        """Rows and columns of the source that it needs."""
        _, height, width = self.axes
        if self.is_whole:
            return slice(0, height.source), slice(0, width.source)
        return height.seen(*self.rows), width.seen(*self.columns)

    @property
    def origin(self) -> Size:
        """Where `source` begins on each axis."""
        rows, columns = self.source
        return 0, rows.start, columns.start

    def interpolate(self, x: Tensor) -> Tensor:
        """(B, C, t, source rows, source columns) to (B, C, T, rows, columns), trilinearly."""
        ranges = ((0, self.axes[0].size), self.rows, self.columns)
        for number, (axis, (start, stop)) in enumerate(zip(self.axes, ranges, strict=True)):
            dim, first = number + 2, self.origin[number]
            if axis.size == axis.source:
                x = x.narrow(dim, start - first, stop - start)
                continue
            below, above, share = (v.to(x.device) for v in axis.linear(start, stop))
            share = share.to(x.dtype).view(-1, *[1] * (2 - number))
            x = torch.lerp(
                x.index_select(dim, below - first), x.index_select(dim, above - first), share
            )
        # What is added to it must not be added to what it was made of.
        return x.contiguous() if self.is_whole else x.clone()

    def boxes(self, batch: int, on_gpu: bool) -> Iterator[_Box]:
        """Tiles within which the same corners have weight."""
        budget = _GPU_TILE if on_gpu else _CPU_TILE
        time, height, width = self.axes
        spans_of = (
            time.spans,
            list(_clip(height.spans, *self.rows)),
            list(_clip(width.spans, *self.columns)),
        )
        for spans in itertools.product(*spans_of):
            narrow = any(span.narrow for span in spans)
            t_signs, h_signs, w_signs = ((0, 1) if narrow else span.signs for span in spans)
            frames, high, wide = (span.stop - span.start for span in spans)
            frames = min(frames, _MAX_TILE_FRAMES)
            area = max(1, budget // frames)
            rows = min(high, max(1, math.isqrt(area), area // wide))
            columns = min(wide, max(1, area // rows))
            items = max(1, budget // (frames * rows * columns))
            for first in range(0, batch, items):
                items_range = (first, min(first + items, batch))
                for t, h, w in itertools.product(
                    spans[0].parts(frames), spans[1].parts(rows), spans[2].parts(columns)
                ):
                    yield _Box((items_range, t, h, w), (t_signs, h_signs, w_signs))


def _clip(spans: list[_Span], start: int, stop: int) -> Iterator[_Span]:
    for span in spans:
        low, high = max(span.start, start), min(span.stop, stop)
        if low < high:
            yield span._replace(start=low, stop=high)


@dataclass(frozen=True)
class _Merged:
    """The linear layers before the GELU as one depthwise convolution and one matrix.

    Attributes:
        depthwise: (8, C, 1, 3, 3, 3), of the scaled features.
        matrix: (8, C, 256), of the scaled features.
        offsets: (3, 2, 3, 3, 3, 256): per axis, sign and tap, of the offset channels.
        cell: (3, 3, 3, 256): per tap, of the cell channels.
        bias: (256,).
    """

    depthwise: Tensor
    matrix: Tensor
    offsets: Tensor
    cell: Tensor
    bias: Tensor


@dataclass(frozen=True)
class _Grid:
    """The three axes on the device, and the position's part of the hidden layer.

    Attributes:
        axes: time, height, width.
        index: per axis, (2, n).
        distance: per axis, (2, n), from the opposite corner's centre: what scales a corner.
        by_frame: (n, 3, 3, 256), of a frame, per edge class of height and width.
        by_row: (n frames, 3, n, 256), of a row in a frame, per edge class of width.
        by_column: (n frames, 3, n, 256), of a column in a frame, per edge class of height.
    """

    axes: _Axes
    index: list[Tensor]
    distance: list[Tensor]
    by_frame: Tensor
    by_row: Tensor
    by_column: Tensor


class Sampler(nn.Module):
    """Features of any size to three channels of any other size.

    The parameters are those of the definition: ``conv00_3d`` (depthwise 3x3x3, pointwise) over
    24 offsets, 8C scaled features and 3 cell sizes; ``fc1``, GELU, ``fc2``; and ``short_cut``.

    Args:
        channels: of the features, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv00_3d = SeparableConv(_REL + 8 * channels + _CELL, _HIDDEN)
        self.fc1 = Conv3d(_HIDDEN, _HIDDEN, 1)
        self.fc2 = Conv3d(_HIDDEN, 3, 1)
        self.short_cut = nn.Sequential(SeparableConv(channels, 3))
        self._cache: OrderedDict[object, tuple[_Merged, _Grid]] = OrderedDict()

    def forward(self, features: Tensor, size: Size) -> Tensor:
        """(B, C, t, h, w) to ``(B, 3, *size)``.

        What depends on the shape and the weights alone is kept for the last shapes, unless
        gradients of the weights are wanted. Under autocast the hidden layer is computed in the
        smaller type; the shortcut, which carries the picture, and the sum never are.
        """
        t, h, w = features.shape[2:]
        return self.sample_parts(lambda rows, columns: features, (t, h, w), size, (h, w))

    def sample_parts(
        self,
        features: Callable[[slice, slice], Tensor],
        source: Size,
        size: Size,
        part: tuple[int, int],
    ) -> Tensor:
        """`forward` of features that need never be there as a whole.

        Args:
            features: gives those of some rows and columns, (B, C, t, rows, columns).
            source: (t, h, w) of all of them.
            size: of the output.
            part: about how many rows and columns of the source to ask for at once.
        """
        size = (size[0], size[1], size[2])
        axes = (_axis(source[0], size[0]), _axis(source[1], size[1]), _axis(source[2], size[2]))
        out: Tensor | None = None
        for rows, columns in itertools.product(axes[1].parts(part[0]), axes[2].parts(part[1])):
            region = _Region(axes, rows, columns)
            seen = features(*region.source)
            device = seen.device.type
            reduced = torch.is_autocast_enabled(device)
            dtype = torch.get_autocast_dtype(device) if reduced else seen.dtype
            with torch.autocast(device, enabled=False):
                colours = self._sample(seen, dtype, region)
            if region.is_whole:
                return colours
            if out is None:
                shape = (colours.shape[0], 3, *size)
                out = torch.empty(shape, dtype=colours.dtype, device=colours.device)
            out[..., rows[0] : rows[1], columns[0] : columns[1]] = colours
        assert out is not None
        return out

    def _sample(self, features: Tensor, dtype: torch.dtype, region: _Region) -> Tensor:
        source = features.permute(0, 2, 3, 4, 1).contiguous()
        out: Tensor = self.short_cut(source.permute(0, 4, 1, 2, 3).to(self.fc2.weight.dtype))
        out = region.interpolate(out)
        source = source.to(dtype)
        merged, grid = self._prepared(source, region.axes)
        weight, bias = _matrix(self.fc2)
        weight, bias = weight.to(dtype), bias.to(dtype)
        top, left = region.rows[0], region.columns[0]
        for box in region.boxes(source.shape[0], source.is_cuda):
            hidden = _position_part(grid, box)
            hidden = _add_features(hidden, source, region.origin, merged, grid, box)
            colours = F.linear(F.gelu(hidden), weight, bias)
            (b0, b1), (t0, t1), (h0, h1), (w0, w1) = box.ranges
            part = out[b0:b1, :, t0:t1, h0 - top : h1 - top, w0 - left : w1 - left]
            part += colours.view(*box.shape, 3).movedim(-1, 1)
        return out

    def _prepared(self, features: Tensor, axes: _Axes) -> tuple[_Merged, _Grid]:
        """For features of (B, t, h, w, C)."""
        layers = (self.conv00_3d.depthwise, self.conv00_3d.pointwise, self.fc1)
        parameters = [p for layer in layers for p in layer.parameters()]
        source, size = tuple(axis.source for axis in axes), tuple(axis.size for axis in axes)
        # An inference tensor does not count its changes, so nothing would tell a stale entry.
        countless = any(p.is_inference() for p in parameters)
        if countless or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
            merged = self._merge(features.dtype)
            return merged, _make_grid(merged, axes)
        key = (source, size, features.dtype, *((p.data_ptr(), p._version) for p in parameters))
        if key not in self._cache:
            with torch.inference_mode(False), torch.no_grad():
                merged = self._merge(features.dtype)
                self._cache[key] = merged, _make_grid(merged, axes)
            while len(self._cache) > _CACHED_SHAPES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _merge(self, dtype: torch.dtype) -> _Merged:
        taps = self.conv00_3d.depthwise.weight.flatten(0, 1).float()
        _, tap_bias = _matrix(self.conv00_3d.depthwise)
        pointwise, pointwise_bias = _matrix(self.conv00_3d.pointwise)
        fc1, fc1_bias = _matrix(self.fc1)
        matrix = (fc1 @ pointwise).t()
        # Corners are numbered by their signs (t, h, w), the offset channels of each are (t, h, w).
        offsets = torch.einsum("kxyz,ko->kxyzo", taps[:_REL], matrix[:_REL])
        offsets = offsets.view(2, 2, 2, 3, 3, 3, 3, _HIDDEN)
        by_axis = [offsets[:, :, :, 0].sum((1, 2))]
        by_axis += [offsets[:, :, :, 1].sum((0, 2)), offsets[:, :, :, 2].sum((0, 1))]
        # The cell channels are 2 / n_source * n_source.
        cell = 2.0 * torch.einsum("kxyz,ko->xyzo", taps[-_CELL:], matrix[-_CELL:])
        return _Merged(
            depthwise=taps[_REL:-_CELL].view(8, self.channels, 1, 3, 3, 3).to(dtype),
            matrix=matrix[_REL:-_CELL].view(8, self.channels, _HIDDEN).to(dtype),
            offsets=torch.stack(by_axis),
            cell=cell,
            bias=tap_bias @ matrix + fc1 @ pointwise_bias + fc1_bias,
        )


def _matrix(layer: nn.Conv3d) -> tuple[Tensor, Tensor]:
    """A pointwise layer's (out, in) matrix and its bias, in float32."""
    assert layer.bias is not None
    return layer.weight.flatten(1).float(), layer.bias.float()


def _make_grid(merged: _Merged, axes: _Axes) -> _Grid:
    device, dtype = merged.matrix.device, merged.matrix.dtype
    in_t, in_h, in_w = (axis.tap_masks().to(device) for axis in axes)
    at_t, at_h, at_w = (axis.tap_offsets().to(device) for axis in axes)
    of_t, of_h, of_w = merged.offsets
    frames = axes[0].size
    edges = torch.zeros(frames, dtype=torch.int64)
    for row, part in axes[0].edges(0, frames):
        edges[part] = row
    in_t = in_t[edges.to(device)]
    # Letters: t, h, w positions; u, v edge classes of height and width; x, y, z taps; s signs.
    cell = torch.einsum("xyzo,uy,vz->xuvo", merged.cell, in_h, in_w)
    by_frame = torch.einsum("tx,xuvo->tuvo", in_t, cell) + merged.bias
    of_t = torch.einsum("sxyzo,uy,vz->sxuvo", of_t, in_h, in_w)
    by_frame = by_frame + torch.einsum("tsx,sxuvo->tuvo", at_t, of_t)
    of_h = torch.einsum("sxyzo,tx,vz->tvsyo", of_h, in_t, in_w)
    of_w = torch.einsum("sxyzo,tx,uy->tuszo", of_w, in_t, in_h)
    return _Grid(
        axes=axes,
        index=[axis.index.to(device) for axis in axes],
        distance=[axis.rel.abs().flip(0).to(device) for axis in axes],
        by_frame=by_frame.to(dtype),
        by_row=torch.einsum("hsy,tvsyo->tvho", at_h, of_h).to(dtype).contiguous(),
        by_column=torch.einsum("wsz,tuszo->tuwo", at_w, of_w).to(dtype).contiguous(),
    )


def _position_part(grid: _Grid, box: _Box) -> Tensor:
    """(positions, 256): the hidden layer without the features, for the positions of a box."""
    (b0, b1), (t0, t1), (h0, h1), (w0, w1) = box.ranges
    _, height_axis, width_axis = grid.axes

    def part(u: int, v: int, rows: slice, columns: slice) -> Tensor:
        by_row = grid.by_row[t0:t1, v, h0:h1][:, rows]
        by_column = grid.by_column[t0:t1, u, w0:w1][:, columns]
        by_column = by_column + grid.by_frame[t0:t1, u, v, None]
        return by_row[:, :, None] + by_column[:, None]

    # As if all were inner positions, which nearly all are; then the edges, which overwrite.
    out = part(1, 1, slice(None), slice(None))
    for u, rows in height_axis.edges(h0, h1):
        for v, columns in width_axis.edges(w0, w1):
            if (u, v) != (1, 1):
                out[:, rows, columns] = part(u, v, rows, columns)
    return out.flatten(0, 2).repeat(b1 - b0, 1) if b1 - b0 > 1 else out.flatten(0, 2)


def _add_features(
    hidden: Tensor, source: Tensor, origin: Size, merged: _Merged, grid: _Grid, box: _Box
) -> Tensor:
    """Add what the scaled features give.

    ``hidden`` is (positions, 256), ``source`` (B, t, h, w, C) and contiguous, from ``origin`` on.
    """
    index, weight, padding = _corners(source.shape, origin, grid, box)
    channels = source.shape[-1]
    numbers = torch.tensor(
        [4 * t + 2 * h + w for t, h, w in itertools.product(*box.signs)], device=source.device
    )
    group = len(numbers) if source.is_cuda else max(1, _CPU_CHANNELS // channels)
    features = source.view(-1, channels)
    for first in range(0, len(numbers), group):
        part = slice(first, first + group)
        scaled = features.index_select(0, index[..., part].reshape(-1))
        scaled = scaled.view(*index.shape[:-1], -1, channels)
        scaled = (scaled * weight[..., part, None].to(scaled.dtype)).flatten(4)
        kernel = merged.depthwise[numbers[part]].flatten(0, 1)
        scaled = F.conv3d(
            scaled.permute(0, 4, 1, 2, 3), kernel, padding=padding, groups=kernel.shape[0]
        )
        scaled = scaled.permute(0, 2, 3, 4, 1).reshape(-1, kernel.shape[0])
        hidden.addmm_(scaled, merged.matrix[numbers[part]].flatten(0, 1))
    return hidden


def _corners(
    shape: torch.Size, origin: Size, grid: _Grid, box: _Box
) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    """Where the corners of a box's positions are in the flattened source, and their weights.

    Positions are those of the box and one more on each side of axes that it does not cover; these
    have no weight outside the output, as the zero padding has.

    Returns:
        (B, T, H, W, corners), index of the source cell; (T, H, W, corners), its weight; and the
        padding that the depthwise convolution has to do.
    """
    device = grid.index[0].device
    index = torch.zeros(1, 1, 1, 1, 1, 1, dtype=torch.int64, device=device)
    volume = torch.ones(1, 1, 1, 1, 1, 1, device=device)
    total = torch.ones(1, 1, 1, device=device)
    inside = torch.ones(1, 1, 1, device=device)
    padding = []
    for number, axis in enumerate(grid.axes):
        start, stop = box.ranges[number + 1]
        whole = stop - start == axis.size
        padding.append(1 if whole else 0)
        halo = 0 if whole else 1
        low, high = max(start - halo, 0), min(stop + halo, axis.size)
        beyond = (low - (start - halo), stop + halo - high)
        cells = F.pad(grid.index[number][:, low:high] - origin[number], beyond)
        distance = F.pad(grid.distance[number][:, low:high], beyond)
        seen = F.pad(torch.ones(high - low, device=device), beyond)
        signs = list(box.signs[number])
        view = [1] * 6
        view[number], view[number + 3] = len(seen), len(signs)
        index = index * shape[number + 1] + cells[signs].t().contiguous().view(view)
        volume = volume * distance[signs].t().contiguous().view(view)
        view = [1] * 3
        view[number] = len(seen)
        total = total * distance.sum(0).reshape(view)
        inside = inside * seen.reshape(view)
    scale = inside / (total + 8.0 * _VOLUME_FLOOR)
    weight = (volume + _VOLUME_FLOOR).flatten(3) * scale[..., None]
    items = torch.arange(*box.ranges[0], device=device) * math.prod(shape[1:4])
    return (
        index.flatten(3) + items.view(-1, 1, 1, 1, 1),
        weight,
        (padding[0], padding[1], padding[2]),
    )
