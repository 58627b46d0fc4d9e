from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vs_cvrs.model.base import round_to_8bit
from vs_cvrs.model.light.folding import fold_rows, unfold_rows
from vs_cvrs.model.light.imsm import CouplingCell
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.tiny import TinyModel
from vs_cvrs.model.strips import bounded_memory

pytestmark = pytest.mark.usefixtures("one_thread")


def small_model(**options: object) -> TinyModel:
    """A narrow model in which much comes from as far as its layers see."""
    torch.manual_seed(0)
    model = TinyModel.from_options(
        {"width": 16, "down_blocks": "h", "cells": 2, "hidden": 8, **options}
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("log_scale"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif name.startswith("imsm"):
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif name.endswith(("conv2.weight", "last.weight")):
                parameter.mul_(5.0)
    return model.eval()


def turned(x: Tensor) -> Tensor:
    """Rows for columns."""
    return x.transpose(-1, -2)


def levels(*size: int) -> Tensor:
    """Frames of 8 bits."""
    return torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0)) / 255.0


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("cut", [0, 4, 6])
def test_folding_rows_is_undone_and_ordered(gradients: bool, cut: int) -> None:
    x = torch.arange(2 * 3 * 4 * 8 * 24, dtype=torch.float32).reshape(2, 3, 4, 8, 24)
    x = x[..., cut : cut + 12]
    with torch.set_grad_enabled(gradients):
        folded = fold_rows(x, 2)
        assert folded.shape == (4, 96, 2, 3)
        assert folded.is_contiguous(memory_format=torch.channels_last)
        # channel order (frame, row parity, c, dy // 2, dx)
        assert folded[1, 95, 1, 2] == x[0, 2, 3, 7, 11]
        assert folded[0, 1, 0, 0] == x[0, 0, 0, 0, 1]
        assert folded[0, 4, 0, 0] == x[0, 0, 0, 2, 0]
        assert folded[0, 24, 0, 0] == x[0, 0, 0, 1, 0]
        assert torch.equal(unfold_rows(folded, 2, 2), x)


@pytest.mark.parametrize("high", [(1, 1, 1), (7, 33, 42), (9, 17, 19), (32, 8, 8)])
def test_any_size_comes_back(high: tuple[int, int, int]) -> None:
    t, h, w = high
    low = (-(-t // 2), -(-h // 4) * 4, -(-w // 4) * 4)
    model = small_model()
    x = levels(1, 3, *high)
    before = x.clone()
    with torch.inference_mode():
        encoded = model.encode(x, low)
        assert encoded.shape == (1, 3, *low)
        assert encoded.min() >= 0
        assert encoded.max() <= 1
        sent = round_to_8bit(encoded)
        kept = sent.clone()
        assert model.decode(sent, high).shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(sent, kept)


@pytest.mark.parametrize("cells", [0, 2])
def test_folded_all_the_way_is_what_the_stages_make(cells: int) -> None:
    model = small_model(cells=cells)
    x = levels(2, 3, 8, 16, 20)
    with torch.inference_mode():
        low = model.encode(x, (4, 16, 20))
        latent = model.downsample(x, (4, 16, 20)).clamp(0.0, 1.0)
        assert (model.embed(latent).clamp(0.0, 1.0) - low).abs().max() < 1e-6
        assert (model.extract(model.embed(latent)) - latent).abs().max() < 1e-5
        restored = model.upsample(model.extract(low).clamp(0.0, 1.0), (8, 16, 20))
        assert (model.decode(low, (8, 16, 20)) - restored.clamp(0.0, 1.0)).abs().max() < 1e-6


def test_it_begins_as_the_linear_part_and_the_imsm_of_lite() -> None:
    torch.manual_seed(1)
    lite = LiteModel(width=16, down_blocks="q", up_blocks="h", cells=2, hidden=8)
    with torch.no_grad():
        for cell in lite.imsm.cells:
            assert isinstance(cell, CouplingCell)
            for parameter in cell.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            # lite's scales change with the picture, those of tiny do not
            cell.h.conv2.weight[:24] = 0.0
            assert cell.h.conv2.bias is not None
            cell.h.conv2.bias[:24].normal_(0.0, 0.3)
        for trunk in (lite.down, lite.up):
            trunk.skip.weight.normal_(0.0, 0.3)
            assert trunk.last.bias is not None
            trunk.last.bias.normal_(0.0, 0.3)
            trunk.last.weight.zero_()
        model = small_model()
        model.start_from(lite)
        for trunk in (model.down, model.up):
            trunk.last.weight.zero_()
    x, low = levels(2, 3, 6, 72, 80), levels(2, 3, 3, 72, 80)
    with torch.inference_mode():
        pairs = {
            "down": (model.downsample(x, (3, 72, 80)), lite.downsample(turned(x), (3, 80, 72))),
            "hide": (model.embed(low), lite.embed(turned(low))),
            "reveal": (model.extract(low), lite.extract(turned(low))),
            "up": (model.upsample(low, (6, 72, 80)), lite.upsample(turned(low), (6, 80, 72))),
        }
    # Outside of a picture, lite sees black and tiny grey.
    inner = slice(model.imsm.radius, -model.imsm.radius)
    for part, (mine, its) in pairs.items():
        assert (mine - turned(its))[..., inner, inner].abs().max() < 1e-5, part
    assert (pairs["hide"][0] - low).abs().max() > 0.1


def test_it_does_not_begin_with_another_imsm() -> None:
    with pytest.raises(ValueError, match="a tiny model with hidden 8 cannot begin as a lite model"):
        small_model().start_from(LiteModel(hidden=16))


def test_an_untrained_model_interlaces() -> None:
    model = TinyModel(width=16, down_blocks="", up_blocks="", interlace=0.5)
    with torch.no_grad():
        model.down.last.weight.zero_()
        model.up.last.weight.zero_()
    x = levels(1, 3, 2, 8, 8)
    with torch.inference_mode():
        low = model.encode(x, (1, 8, 8))
        restored = model.decode(low, (2, 8, 8))
    between = 0.5 * (x[:, :, 0] + x[:, :, 1])
    assert torch.allclose(low[:, :, 0, 0, 0], x[:, :, 0, 0, 0], atol=1e-6)
    assert torch.allclose(low[:, :, 0, 0, 1], between[:, :, 0, 1], atol=1e-6)
    assert torch.allclose(low[:, :, 0, 1, 0], between[:, :, 1, 0], atol=1e-6)
    assert torch.allclose(low[:, :, 0, 1, 1], x[:, :, 0, 1, 1], atol=1e-6)
    assert torch.allclose(restored, low.expand_as(restored), atol=1e-6)


def test_the_first_convolution_sees_each_level_in_bfloat16() -> None:
    """What differs by a level alone must not look the same to it."""
    model = small_model()
    seen: list[Tensor] = []
    model.up.skip.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    x = (torch.arange(256) / 255.0).reshape(1, 1, 1, 16, 16).repeat(1, 3, 1, 1, 1)
    model.upsample(x, (2, 16, 16))
    assert torch.equal(seen[0].bfloat16().float(), seen[0])
    assert len(set(seen[0].flatten().tolist())) == 256


@pytest.mark.parametrize("tile", [1, 3000])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_tiles_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tile: int, dtype: torch.dtype | None
) -> None:
    monkeypatch.setattr("vs_cvrs.model.light.tiles._TILE", tile)
    model = small_model()
    model.convolution_dtype = dtype
    x = levels(2, 3, 8, 36, 28)
    low, high = (4, 36, 28), (8, 36, 28)
    whole = model.encode(x, low)
    restored = model.decode(whole.detach(), high)
    assert whole.requires_grad
    with torch.inference_mode():
        tolerance = 1e-5 if dtype is None else 0.05
        assert (model.encode(x, low) - whole).abs().max() < tolerance
        assert (model.decode(whole, high) - restored).abs().max() < tolerance


@pytest.mark.parametrize(("height", "width"), [(180, 100), (37, 220), (30, 30)])
def test_strips_change_nothing(height: int, width: int) -> None:
    model = small_model()
    x = levels(1, 3, 4, height, width)
    size = (2, -(-height // 4) * 4, -(-width // 4) * 4)
    with torch.inference_mode():
        low = model.encode(x, size)
        high = model.decode(low, (4, height, width))
        with bounded_memory(1):
            assert (model.encode(x, size) - low).abs().max() < 1e-5
            assert (model.decode(low, (4, height, width)) - high).abs().max() < 1e-5


@pytest.mark.parametrize("part", ["down", "imsm", "up"])
def test_too_small_a_radius_would_show(part: str) -> None:
    model = small_model()
    getattr(model, part).radius -= 4
    x = levels(1, 3, 4, 180, 40)
    with torch.inference_mode():
        low = model.encode(x, (2, 180, 40))
        high = model.decode(low, (4, 180, 40))
        with bounded_memory(1):
            low_error = (model.encode(x, (2, 180, 40)) - low).abs().max()
            high_error = (model.decode(low, (4, 180, 40)) - high).abs().max()
    assert max(low_error, high_error) > 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 4}, "width must be 8 to 1024, got 4"),
        ({"up_blocks": "hq"}, "up_blocks of a tiny model must be letters 'h', got 'hq'"),
        ({"interlace": 2.0}, "interlace must be 0 to 1, got 2.0"),
        ({"cells": -1}, "cells must be 0 to 64, got -1"),
        ({"depth": 3}, "options of a tiny model: .*'depth'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinyModel.from_options(options)
