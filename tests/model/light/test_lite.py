from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from vs_cvrs.model.base import round_to_8bit
from vs_cvrs.model.light.blocks import CoarseBlock
from vs_cvrs.model.light.folding import fold, join_columns, shift_time, split_columns, unfold
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.strips import bounded_memory

pytestmark = pytest.mark.usefixtures("one_thread")


def small_model(seed: int = 0, **options: object) -> LiteModel:
    """A narrow model none of whose layers is zero."""
    torch.manual_seed(seed)
    model = LiteModel.from_options(
        {"width": 16, "down_blocks": "hq", "up_blocks": "qh", "hidden": 8, **options}
    )
    with torch.no_grad():
        for parameter in model.imsm.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def test_fold_and_unfold_are_inverses_and_ordered() -> None:
    x = torch.arange(2 * 3 * 4 * 8 * 12, dtype=torch.float32).reshape(2, 3, 4, 8, 12)
    folded = fold(x, 2, 2)
    assert folded.shape == (4, 24, 4, 6)
    # channel order (frame, dy, dx, c): the last channel is blue of the second frame's last pixel
    assert folded[1, 23, 3, 5] == x[0, 2, 3, 7, 11]
    assert torch.equal(unfold(folded, 2, 2, 2), x)


def test_split_and_join_columns_are_inverses_and_ordered() -> None:
    x = torch.arange(2 * 3 * 4 * 8 * 12, dtype=torch.float32).reshape(2, 3, 4, 8, 12)
    even, odd = split_columns(x)
    assert even.shape == odd.shape == (8, 24, 2, 3)
    # channel order (dy, dx, c): the last channel is blue of the last row's second such column
    assert even[4, 23, 1, 2] == x[1, 2, 0, 7, 10]
    assert odd[4, 23, 1, 2] == x[1, 2, 0, 7, 11]
    assert torch.equal(join_columns(even, odd, 2), x)


def test_a_coarse_block_is_what_its_layers_say() -> None:
    torch.manual_seed(0)
    block = CoarseBlock(8)
    x = torch.randn(4, 8, 12, 16)

    def space_to_depth(y: torch.Tensor) -> torch.Tensor:
        # PixelUnshuffle orders channels (c, dy, dx), the block (dy, dx, c).
        n, c, h, w = y.shape
        folded = functional.pixel_unshuffle(y, 2).reshape(n, c, 4, h // 2, w // 2)
        return folded.transpose(1, 2).flatten(1, 2)

    y = functional.leaky_relu(block.reduce(space_to_depth(x)), 0.1)
    y = block.expand(functional.leaky_relu(block.conv(shift_time(y, 2)), 0.1))
    y = functional.pixel_shuffle(y.reshape(4, 4, 8, 6, 8).transpose(1, 2).flatten(1, 2), 2)
    assert (block(x, 2) - (x + y)).abs().max() < 1e-5


@pytest.mark.parametrize("tile", [1, 3000, 20_000])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_tiles_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tile: int, dtype: torch.dtype | None
) -> None:
    """Without gradients a CPU computes tile by tile, with gradients all at once."""
    monkeypatch.setattr("vs_cvrs.model.light.tiles._TILE", tile)
    model = far_seeing_model()
    model.convolution_dtype = dtype
    x = torch.rand(2, 3, 8, 36, 28)
    low, high = (4, 36, 28), (8, 36, 28)
    whole = model.encode(x, low)
    restored = model.decode(whole.detach(), high)
    assert whole.requires_grad
    with torch.inference_mode():
        # In bfloat16 the sums of a convolution may be ordered otherwise at another size.
        tolerance = 1e-5 if dtype is None else 0.05
        before = x.clone()
        assert (model.encode(x, low) - whole).abs().max() < tolerance
        assert torch.equal(x, before)
        before = whole.clone()
        assert (model.decode(whole, high) - restored).abs().max() < tolerance
        assert torch.equal(whole, before)


def test_shift_time_does_not_leave_the_group() -> None:
    x = torch.arange(1.0, 7.0).reshape(6, 1, 1, 1).expand(6, 8, 2, 2).contiguous()
    shifted = shift_time(x, 2)[:, :, 0, 0]
    assert shifted[:, 0].tolist() == [0, 1, 2, 0, 4, 5]
    assert shifted[:, 1].tolist() == [2, 3, 0, 5, 6, 0]
    assert torch.equal(shifted[:, 2:], x[:, 2:, 0, 0])


@pytest.mark.parametrize("size", [(1, 4, 4), (2, 16, 20), (4, 36, 8), (16, 12, 12)])
def test_extract_undoes_embed(size: tuple[int, int, int]) -> None:
    model = small_model()
    latent = torch.rand(2, 3, *size)
    with torch.inference_mode():
        low = model.embed(latent)
        assert (low - latent).abs().max() > 1e-3
        assert (model.extract(low) - latent).abs().max() < 1e-5


@pytest.mark.parametrize(
    "high", [(1, 1, 1), (2, 16, 16), (7, 33, 42), (8, 30, 64), (9, 17, 19), (32, 8, 8)]
)
def test_any_size_comes_back(high: tuple[int, int, int]) -> None:
    t, h, w = high
    low = (-(-t // 2), -(-h // 4) * 4, -(-w // 4) * 4)
    model = small_model()
    x = torch.rand(1, 3, *high)
    with torch.inference_mode():
        encoded = model.encode(x, low)
        assert encoded.shape == (1, 3, *low)
        assert encoded.min() >= 0
        assert encoded.max() <= 1
        assert model.decode(round_to_8bit(encoded), high).shape == x.shape


def test_the_last_frame_fills_an_odd_group() -> None:
    model = small_model()
    x = torch.rand(1, 3, 3, 8, 8)
    filled = torch.cat((x, x[:, :, -1:]), dim=2)
    with torch.inference_mode():
        assert torch.equal(model.encode(x, (2, 8, 8)), model.encode(filled, (2, 8, 8)))


def test_groups_of_a_batch_do_not_meet() -> None:
    model = small_model()
    x = torch.rand(2, 3, 8, 16, 16)
    with torch.inference_mode():
        together = model.encode(x, (4, 16, 16))
        apart = torch.cat([model.encode(group[None], (4, 16, 16)) for group in x])
    assert (together - apart).abs().max() < 1e-5


def test_an_untrained_model_interlaces() -> None:
    model = LiteModel(width=16, down_blocks="", up_blocks="", hidden=8, interlace=0.5)
    with torch.no_grad():
        model.down.last.weight.zero_()
    x = torch.rand(1, 3, 2, 8, 8)
    with torch.inference_mode():
        low = model.embed(model.downsample(x, (1, 8, 8)))
    assert torch.allclose(low[0, :, 0, 0, 0], x[0, :, 0, 0, 0], atol=1e-6)
    between = 0.5 * (x[0, :, 0, 0, 1] + x[0, :, 1, 0, 1])
    assert torch.allclose(low[0, :, 0, 0, 1], between, atol=1e-6)


def test_reduced_precision_costs_little() -> None:
    model = small_model()
    reduced = copy.deepcopy(model)
    reduced.convolution_dtype = torch.bfloat16
    x = torch.rand(1, 3, 8, 32, 32)
    with torch.inference_mode():
        low = round_to_8bit(model.encode(x, (4, 32, 32)))
        exact, coarse = model.decode(low, (8, 32, 32)), reduced.decode(low, (8, 32, 32))
    assert 0 < (exact - coarse).abs().max() < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 4}, "width must be 8 to 1024, got 4"),
        ({"up_blocks": "hx"}, "up_blocks must be up to 64 letters of 'h', 'q', got 'hx'"),
        ({"cells": -1}, "cells must be 0 to 64, got -1"),
        ({"interlace": 2.0}, "interlace must be 0 to 1, got 2.0"),
        ({"depth": 3}, "options of a lite model: .*'depth'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LiteModel.from_options(options)


def test_wrong_sizes_are_named() -> None:
    model = small_model()
    with pytest.raises(ValueError, match=r"makes \(4, 16, 16\) of \(8, 16, 16\), not \(4, 8, 8\)"):
        model.downsample(torch.rand(1, 3, 8, 16, 16), (4, 8, 8))
    with pytest.raises(ValueError, match=r"at most \(8, 16, 16\) of \(4, 16, 16\)"):
        model.upsample(torch.rand(1, 3, 4, 16, 16), (9, 16, 16))


def far_seeing_model() -> LiteModel:
    """A model in which much comes from as far as its layers see."""
    model = small_model(up_blocks="qhq")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("imsm") and name.endswith(
                ("conv2.weight", "expand.weight", "last.weight")
            ):
                parameter.mul_(5.0)
    return model


@pytest.mark.parametrize("limit", [1, 1_000_000])
@pytest.mark.parametrize(("height", "width"), [(120, 100), (37, 180), (180, 37), (30, 30)])
def test_strips_change_nothing(height: int, width: int, limit: int) -> None:
    model = far_seeing_model()
    x = torch.rand(1, 3, 4, height, width)
    size = (2, -(-height // 4) * 4, -(-width // 4) * 4)
    with torch.inference_mode():
        low = model.encode(x, size)
        high = model.decode(low, (4, height, width))
        with bounded_memory(limit):
            assert (model.encode(x, size) - low).abs().max() < 1e-5
            assert (model.decode(low, (4, height, width)) - high).abs().max() < 1e-5


def test_strips_are_smaller_than_the_picture() -> None:
    model = small_model()
    rows: dict[str, list[int]] = {"down.last": [], "up.last": [], "imsm.cells.0.f.conv2": []}
    for name, convolution in model.named_modules():
        if name in rows:
            convolution.register_forward_hook(
                lambda _, given, __, seen=rows[name]: seen.append(given[0].shape[2])
            )
    x = torch.rand(1, 3, 2, 320, 40)
    with torch.inference_mode(), bounded_memory(1):
        model.decode(model.encode(x, (1, 320, 40)), (2, 320, 40))
    assert all(len(seen) >= 10 for seen in rows.values())
    assert max(rows["down.last"]) <= 32 // 2 + model.down.radius + 2
    assert max(rows["up.last"]) <= 32 // 2 + model.up.radius + 2
    assert max(rows["imsm.cells.0.f.conv2"]) <= 32 // 4 + model.imsm.radius // 2


@pytest.mark.parametrize("part", ["down", "imsm", "up"])
def test_too_small_a_radius_would_show(part: str) -> None:
    model = far_seeing_model()
    getattr(model, part).radius -= 4
    x = torch.rand(1, 3, 4, 120, 40)
    with torch.inference_mode():
        low = model.encode(x, (2, 120, 40))
        high = model.decode(low, (4, 120, 40))
        with bounded_memory(1):
            low_error = (model.encode(x, (2, 120, 40)) - low).abs().max()
            high_error = (model.decode(low, (4, 120, 40)) - high).abs().max()
    assert max(low_error, high_error) > 1e-5
