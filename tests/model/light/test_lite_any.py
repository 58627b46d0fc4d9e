from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.model.base import round_to_8bit
from vs_cvrs.model.light import lite_any
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.lite_any import Layout, LiteAnyModel
from vs_cvrs.model.strips import bounded_memory
from vs_cvrs.timeline import Timeline

pytestmark = pytest.mark.usefixtures("one_thread")

TIME = {"width": 16, "down_blocks": "hq", "up_blocks": "qhq", "cells": 1, "hidden": 8}
SPACE = {"space_width": 16, "space_down_blocks": "hq", "space_up_blocks": "qhq"}

SIZES = [  # high-rate and low-rate (frames, height, width)
    ((8, 32, 48), (4, 32, 48)),
    ((5, 33, 42), (4, 36, 44)),
    ((10, 32, 32), (4, 24, 20)),
    ((3, 40, 40), (3, 20, 20)),
    ((6, 45, 51), (5, 16, 16)),
    ((1, 16, 16), (1, 4, 4)),
    ((16, 16, 16), (4, 16, 16)),
    ((9, 17, 19), (1, 8, 12)),
    ((7, 64, 20), (4, 12, 20)),
    ((40, 16, 16), (16, 8, 8)),
    ((2, 24, 24), (2, 4, 4)),
]


def small_model(seed: int = 0, **options: object) -> LiteAnyModel:
    """A narrow model none of whose layers is zero, in which much comes from afar."""
    torch.manual_seed(seed)
    model = LiteAnyModel.from_options({**TIME, **SPACE, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("imsm") or name.endswith(("bias", "filled.weight")):
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif name.endswith(("conv2.weight", "expand.weight")) or ".last." in name:
                parameter.mul_(5.0)
    return model.eval()


def small_lite() -> LiteModel:
    torch.manual_seed(1)
    model = LiteModel.from_options(TIME)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(("high", "low"), SIZES)
def test_any_size_comes_back(high: tuple[int, int, int], low: tuple[int, int, int]) -> None:
    model = small_model()
    x = torch.rand(2, 3, *high)
    with torch.inference_mode():
        encoded = model.encode(x, low)
        assert encoded.shape == (2, 3, *low)
        assert encoded.min() >= 0
        assert encoded.max() <= 1
        restored = model.decode(round_to_8bit(encoded), high)
    assert restored.shape == x.shape
    assert bool(torch.isfinite(restored).all())


def test_a_group_that_keeps_its_size_is_left_alone() -> None:
    model = small_model()
    x = torch.rand(1, 3, 4, 16, 20)
    called: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    assert torch.equal(model.encode(x, (4, 16, 20)), x)
    assert torch.equal(model.decode(x, (4, 16, 20)), x)
    assert called == []


@pytest.mark.parametrize(
    ("ratio", "length", "counts"),
    [
        (Fraction(2), 4, (2, 2, 2, 2)),
        (Fraction(5, 4), 4, (1, 1, 2, 1)),
        (Fraction(6, 5), 5, (1, 1, 2, 1, 1)),
        (Fraction(5, 2), 4, (2, 3, 2, 3)),
        (Fraction(4), 2, (4, 4)),
        (Fraction(13, 2), 2, (4, 4)),
    ],
)
def test_low_rate_frames_carry_those_up_to_the_next(
    ratio: Fraction, length: int, counts: tuple[int, ...]
) -> None:
    timeline = Timeline(ratio, length)
    layout = Layout.of(timeline.high_begin(length), length)
    assert layout.counts == counts
    most = max(counts)
    assert [layout.slots[j * most] for j in range(length)] == [
        timeline.high_begin(j) for j in range(length)
    ]
    assert [layout.slots[place] for place in layout.places] == list(layout.carried)
    if ratio <= lite_any.MAX_SLOTS:
        assert layout.carried == tuple(range(timeline.high_begin(length)))


def test_frames_that_are_not_carried_are_blended() -> None:
    model = small_model(interlace=0.0)
    with torch.no_grad():  # what is carried comes back as the low-rate frame itself
        for module in (*model.time_down.last, *model.time_up.last):
            for parameter in module.parameters():
                parameter.zero_()
        for parameter in model.imsm.parameters():
            parameter.zero_()
        x = torch.zeros(1, 3, 12, 16, 16)
        x[:, :, 6:] = 1.0
        restored = model.decode(model.encode(x, (2, 16, 16)), (12, 16, 16))
    # six frames each: 0, 1, 3 and 4 of them are carried, so the sixth lies half way to the next
    assert torch.allclose(restored[0, 0, :, 3, 3], torch.tensor([0.0] * 5 + [0.5] + [1.0] * 6))


def test_it_can_begin_as_lite() -> None:
    lite, model = small_lite(), small_model()
    model.start_from(lite)
    x = torch.rand(2, 3, 8, 33, 42)
    with torch.inference_mode():
        low = lite.encode(x, (4, 36, 44))
        assert (model.encode(x, (4, 36, 44)) - low).abs().max() < 1e-6
        wanted = lite.decode(low, (8, 33, 42))
        assert (model.decode(low, (8, 33, 42)) - wanted).abs().max() < 1e-6


def test_it_cannot_begin_as_another_lite() -> None:
    with pytest.raises(
        ValueError, match="with width 24 cannot begin as a lite model with width 16"
    ):
        small_model(width=24).start_from(small_lite())


@pytest.mark.parametrize("limit", [1, 1_000_000])
@pytest.mark.parametrize(
    ("high", "low"),
    [
        ((5, 120, 100), (4, 120, 100)),
        ((4, 150, 90), (4, 100, 60)),
        ((6, 37, 380), (2, 20, 192)),
        ((3, 300, 301), (2, 76, 76)),
    ],
)
def test_strips_change_nothing(
    high: tuple[int, int, int], low: tuple[int, int, int], limit: int
) -> None:
    model = small_model()
    x = torch.rand(1, 3, *high)
    with torch.inference_mode():
        encoded = model.encode(x, low)
        restored = model.decode(encoded, high)
        with bounded_memory(limit):
            assert (model.encode(x, low) - encoded).abs().max() < 1e-5
            assert (model.decode(encoded, high) - restored).abs().max() < 1e-5


@pytest.mark.parametrize("part", ["space_down", "time_down", "time_up", "space_up"])
def test_too_small_a_reach_would_show(part: str) -> None:
    model = small_model()
    getattr(model, part).reach -= 2
    x = torch.rand(1, 3, 4, 240, 80)
    low, high = (2, 120, 40), (4, 240, 80)
    with torch.inference_mode():
        encoded = model.encode(x, low)
        restored = model.decode(encoded, high)
        with bounded_memory(1):
            low_error = (model.encode(x, low) - encoded).abs().max()
            high_error = (model.decode(encoded, high) - restored).abs().max()
    assert max(low_error, high_error) > 1e-5


@pytest.mark.parametrize("tile", [1, 3000])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr("vs_cvrs.model.light.tiles._TILE", tile)
    model = small_model()
    x = torch.rand(2, 3, 5, 72, 56)
    whole = model.encode(x, (4, 36, 28))
    restored = model.decode(whole.detach(), (5, 72, 56))
    assert whole.requires_grad
    with torch.inference_mode():
        assert (model.encode(x, (4, 36, 28)) - whole).abs().max() < 1e-5
        assert (model.decode(whole, (5, 72, 56)) - restored).abs().max() < 1e-5


def test_groups_of_a_batch_do_not_meet() -> None:
    model = small_model()
    x = torch.rand(2, 3, 5, 32, 32)
    with torch.inference_mode():
        together = model.encode(x, (4, 16, 16))
        apart = torch.cat([model.encode(group[None], (4, 16, 16)) for group in x])
    assert (together - apart).abs().max() < 1e-5


def test_reduced_precision_costs_little() -> None:
    model = small_model()
    reduced = copy.deepcopy(model)
    reduced.convolution_dtype = torch.bfloat16
    x = torch.rand(1, 3, 5, 32, 32)
    with torch.inference_mode():
        low = round_to_8bit(model.encode(x, (4, 16, 16)))
        exact, coarse = model.decode(low, (5, 32, 32)), reduced.decode(low, (5, 32, 32))
    assert 0 < (exact - coarse).abs().mean() < 0.02


def without_networks(model: LiteAnyModel) -> LiteAnyModel:
    """Only resampling and the linear part of the space networks are left at time 1x."""
    with torch.no_grad():
        for parameter in (*model.space_down.last.parameters(), *model.space_up.last.parameters()):
            parameter.zero_()
        for parameter in model.imsm.parameters():
            parameter.zero_()
    return model


@pytest.mark.parametrize(("high", "low"), [((64, 64), (32, 32)), ((50, 70), (28, 52))])
def test_a_picture_keeps_its_place(high: tuple[int, int], low: tuple[int, int]) -> None:
    """A ramp at the low size is the ramp of the frame: nothing is displaced."""
    model = without_networks(small_model())
    with torch.no_grad():
        for parameter in (*model.space_down.code.parameters(), *model.space_up.code.parameters()):
            parameter.zero_()
        ramp = torch.linspace(0.2, 0.8, high[1]).expand(1, 3, 2, high[0], high[1])
        restored = model.decode(model.encode(ramp, (2, *low)), (2, *high))
    assert (restored - ramp)[..., 8:-8].abs().max() < 2e-3


@pytest.mark.parametrize("fold", [2, 3, 4])
def test_an_untrained_model_hides_luma_details_in_chroma(fold: int) -> None:
    model = without_networks(small_model())
    torch.manual_seed(2)
    size = (1, 24 * fold, 24 * fold)
    with torch.no_grad():
        grey = (0.5 + 0.1 * torch.randn(1, 1, *size)).expand(1, 3, -1, -1, -1)
        low = model.encode(grey, (1, 24, 24))
        assert (low.mean(dim=1) - low[:, 0]).abs().max() > 0.01  # no longer grey
        hidden = (model.decode(low, size) - grey).square().mean()
        for parameter in (*model.space_down.code.parameters(), *model.space_up.code.parameters()):
            parameter.zero_()
        low = model.encode(grey, (1, 24, 24))
        assert (low.mean(dim=1) - low[:, 0]).abs().max() < 1e-5
        dropped = (model.decode(low, size) - grey).square().mean()
    assert hidden < 0.95 * dropped


@pytest.mark.parametrize(
    "broken",
    [
        lambda model, x: model.downsample(x, (9, 16, 16)),
        lambda model, x: model.upsample(x, (7, 16, 16)),
    ],
)
def test_more_low_rate_frames_than_high_rate_ones_are_named(
    broken: Callable[[LiteAnyModel, torch.Tensor], object],
) -> None:
    with pytest.raises(ValueError, match="a lite-any model makes 1 to"):
        broken(small_model(), torch.rand(1, 3, 8, 16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space_width": 4}, "space_width must be 8 to 1024, got 4"),
        ({"space_up_blocks": "hx"}, "space_up_blocks must be up to 64 letters of 'h', 'q'"),
        ({"cells": 65}, "cells must be 0 to 64, got 65"),
        ({"depth": 3}, "options of a lite-any model: .*'depth'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LiteAnyModel.from_options(options)


def test_a_checkpoint_gives_the_same_model(tmp_path: Path) -> None:
    model = small_model()
    checkpoint.save(tmp_path / "any.safetensors", model, {})
    loaded = checkpoint.load(tmp_path / "any.safetensors").model
    assert loaded.options == model.options
    assert (loaded.time_factor, loaded.space_factor) == (None, None)
    x = torch.rand(1, 3, 5, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model.encode(x, (4, 16, 16)), loaded.encode(x, (4, 16, 16)))


def test_where_nothing_moves_frames_are_made_the_same() -> None:
    torch.manual_seed(0)
    still = torch.rand(1, 3, 1, 24, 40).expand(2, -1, 6, -1, -1)
    noisy = still + 0.4 / 255 * torch.randn(2, 3, 6, 24, 40)
    noisy[1, :, 4:, :12, 20:] += 0.1  # in the second of two groups something moves
    made = lite_any._steadied(noisy)
    assert torch.allclose(made[0], noisy[0].mean(dim=1, keepdim=True).expand_as(made[0]), atol=1e-6)
    assert torch.allclose(made[1, :, :, :, :17], made[1, :, :1, :, :17], atol=1e-6)
    assert torch.allclose(made[1, :, :, :12, 20:], noisy[1, :, :, :12, 20:], atol=1e-6)
