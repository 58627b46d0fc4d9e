from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.model.base import round_to_8bit
from vs_cvrs.model.light import space, time_net
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.lite_any import LiteAnyModel
from vs_cvrs.model.light.time_net import Layout
from vs_cvrs.model.strips import bounded_memory
from vs_cvrs.timeline import Timeline

pytestmark = pytest.mark.usefixtures("one_thread")

TIME = {"width": 16, "down_blocks": "hq", "up_blocks": "qhq", "cells": 1, "hidden": 8}
SPACE: dict[str, Any] = {
    "alone_half": "16h 16h mod 5",
    "alone_quarter": "16h 16hq mod 7",
    "shared_width": 16,
    "shared_cells": 2,
    "shared_up_blocks": "qhqh",
}

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


def small_model(seed: int = 0, **options: Any) -> LiteAnyModel:
    """A narrow model none of whose layers is zero, in which much comes from afar."""
    torch.manual_seed(seed)
    model = LiteAnyModel.from_options({**TIME, **SPACE, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("imsm") or name.endswith(("bias", "told.weight")):
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif name.startswith("shared_path") and name.endswith("last.weight"):
                parameter.add_(0.03 * torch.randn_like(parameter))
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
    assert [layout.carried[layout.slots[j * most]] for j in range(length)] == [
        timeline.high_begin(j) for j in range(length)
    ]
    assert [layout.slots[place] for place in layout.places] == list(range(len(layout.carried)))
    told = layout.told(torch.zeros(()))
    assert told[:, :-1].argmax(dim=1).tolist() == [n - 1 for n in counts for _ in range(n)]
    assert told[:, -1].tolist() == [float(k == 0) for n in counts for k in range(n)]
    if ratio <= time_net.MAX_SLOTS:
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


@pytest.mark.parametrize("part", ["shared_down", "time_down", "time_up", "shared_up"])
def test_too_small_a_reach_would_show(part: str) -> None:
    model = small_model()
    getattr(model, part).reach -= 2
    assert strips_show(model, scale=2 if part.startswith("shared") else 1)


@pytest.mark.parametrize("part", ["down", "up"])
def test_too_small_a_reach_of_frames_that_are_alone_would_show(part: str) -> None:
    model = small_model()
    assert not strips_show(model, frames=2)
    net: Any = model.alone[0].get_submodule(part)
    net.radius -= 2
    assert strips_show(model, frames=2)


@pytest.mark.parametrize("part", ["f", "h"])
def test_too_small_a_reach_of_a_coupling_would_show(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model()
    pieces = space.SpaceCoupling.pieces
    level: Any = model.shared_path.levels[-1]  # the one between these sizes
    shortened_ones = [getattr(cell, part) for cell in level.cells]

    def shortened(self: space.SpaceCoupling, *arguments: Any) -> Iterator[Any]:
        mine = any(self is coupling for coupling in shortened_ones)
        monkeypatch.setattr(space, "_REACH", 2 if mine else 3)
        return iter(list(pieces(self, *arguments)))

    assert not strips_show(model)
    monkeypatch.setattr(space.SpaceCoupling, "pieces", shortened)
    assert strips_show(model)


def strips_show(model: LiteAnyModel, scale: int = 2, frames: int = 4) -> bool:
    torch.manual_seed(4)
    low, high = (2, 120, 40), (frames, 120 * scale, 40 * scale)
    x = torch.rand(1, 3, *high)
    with torch.inference_mode():
        encoded = model.encode(x, low)
        restored = model.decode(encoded, high)
        with bounded_memory(1):
            low_error = (model.encode(x, low) - encoded).abs().max()
            high_error = (model.decode(encoded, high) - restored).abs().max()
    return bool(max(low_error, high_error) > 1e-5)


@pytest.mark.parametrize("tile", [1, 3000])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr("vs_cvrs.model.light.tiles._TILE", tile)
    monkeypatch.setattr("vs_cvrs.model.light.space._TILE", tile)
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
    """Only resampling and the linear beginning are left where groups keep their frames."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("alone") and ".last." in name:
                parameter.zero_()
    return model


@pytest.mark.parametrize(
    ("high", "low"),
    [((64, 64), (32, 32)), ((50, 70), (28, 52)), ((90, 96), (32, 32)), ((130, 128), (32, 32))],
)
def test_a_picture_keeps_its_place(high: tuple[int, int], low: tuple[int, int]) -> None:
    """A ramp at the low size is the ramp of the frame: nothing is displaced."""
    model = without_networks(small_model())
    with torch.no_grad():
        ramp = torch.linspace(0.2, 0.8, high[1]).expand(1, 3, 2, high[0], high[1])
        made = model.encode(ramp, (2, *low))
        centres = (torch.arange(low[1]) + 0.5) * high[1] / low[1] - 0.5
        wanted = 0.2 + 0.6 / (high[1] - 1) * centres
        # Levels are moved by half a modulus at most, to either side.
        error = (made - wanted)[..., 2:-2]
        assert error.abs().max() < 4 / 255
        assert error.mean().abs() < 5e-4
        restored = model.decode(made, (2, *high))
    error = (restored - ramp)[..., 8:-8]
    assert error.abs().max() < 4 / 255
    assert error.mean().abs() < 1e-3


@pytest.mark.parametrize(
    ("high", "low"),
    [((32, 48), (16, 24)), ((33, 37), (20, 24)), ((64, 96), (16, 24)), ((54, 61), (16, 16))],
)
def test_the_path_for_space_loses_nothing_but_details(
    high: tuple[int, int], low: tuple[int, int]
) -> None:
    """With the details that were made, not zeros, frames come back: it is invertible."""
    model = small_model()
    x = torch.rand(2, 3, 3, *high)
    layout = Layout.of(3, 2)
    kept: list[torch.Tensor] = []
    stack: Any = space.SpaceStack(space.levels_between(high, low), 16, 2)
    for level, learned in zip(stack.levels[::-1], model.shared_path.levels[::-1], strict=False):
        level.load_state_dict(learned.state_dict())
    told = layout.told(x)
    with torch.inference_mode():
        made, _ = stack(x, low, layout.carried, told)
        for level in stack.levels:
            level.register_forward_pre_hook(lambda *a: kept.append(a[1][0]))
        stack(x, low, layout.carried, told)
        # Level by level: what a level is given, in its means and details.
        every = space._told(high, low, 2 ** len(stack.levels), told, 2)
        back = made
        sides = [high, *[tuple(n * 2 for n in low)] * (len(stack.levels) - 1)]
        for level, given, side in reversed(list(zip(stack.levels, kept, sides, strict=True))):
            size = tuple(back.shape[-2:])
            means, details = level._take_apart(given, size, layout.carried)
            for cell in level.cells:
                means, details = cell(means, details, every)
            for cell in reversed(level.cells):
                means, details = cell.inverse(means, details, every)
            back = level._put_together(means, details, 2, side)
            assert (back - given).abs().max() < 2e-3
        assert (back - x).abs().max() < 2e-3


def test_frames_that_are_alike_stay_alike() -> None:
    model = small_model()
    x = torch.rand(1, 3, 1, 48, 40).expand(-1, -1, 4, -1, -1).contiguous()
    with torch.inference_mode():
        low = model.encode(x, (4, 24, 20))
        restored = model.decode(low, (4, 48, 40))
    assert (low - low[:, :, :1]).abs().max() < 1e-6
    assert (restored - restored[:, :, :1]).abs().max() < 1e-6


@pytest.mark.parametrize("option", ["space_width", "path_width"])
def test_models_from_before_residues_are_named(option: str) -> None:
    with pytest.raises(ValueError, match="made before residues carried what reductions lose"):
        LiteAnyModel.from_options({option: 48})


def test_frames_of_groups_that_keep_them_do_not_meet() -> None:
    model = small_model()
    x = torch.rand(1, 3, 4, 32, 48)
    with torch.inference_mode():
        low = model.encode(x, (4, 16, 24))
        apart = torch.cat(
            [model.encode(frame, (1, 16, 24)) for frame in torch.split(x, 1, 2)], dim=2
        )
        assert torch.equal(low, apart)
        restored = model.decode(round_to_8bit(low), (4, 32, 48))
        alone = model.decode(round_to_8bit(low[:, :, 2:3]), (1, 32, 48))
    assert torch.equal(restored[:, :, 2:3], alone)


def test_details_beside_the_frames_bring_back_what_was_lost() -> None:
    """The path through time gives back all that it took when no detail is lost on the way."""
    model = small_model()
    x = torch.rand(2, 3, 4, 40, 56)
    layout = Layout.of(4, 2)
    with torch.inference_mode():
        frames, details = model._to_low_size(x.clone() * 0.2 + 0.4, 20, 28, layout)
        assert details is not None
        back = model._to_high_size(frames, details.clone(), 40, 56, layout)
        without = model._to_high_size(frames, None, 40, 56, layout)
    assert (back - (x * 0.2 + 0.4)).abs().max() < 1e-4
    assert (without - (x * 0.2 + 0.4)).abs().mean() > 1e-2


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
        ({"shared_width": 4}, "shared_width must be 8 to 1024, got 4"),
        ({"up_blocks": "hx"}, "up_blocks must be up to 64 letters of 'h', 'q'"),
        ({"shared_cells": 65}, "shared_cells must be 0 to 64, got 65"),
        (
            {"shared_cells": 1, "shared_up_blocks": "hq"},
            "shared_up_blocks must begin with up_blocks, 'qhqhq', got 'hq'",
        ),
        ({"alone_half": "32h"}, "alone_half must be two widths of 8 to 1024 with their blocks and"),
        ({"alone_quarter": "8x 8 mod 5"}, "alone_quarter must be up to 64 letters of 'h', 'q'"),
        ({"alone_half": "8 8 mod 6"}, "an odd modulus of 3 to 31, as in .*, got '8 8 mod 6'"),
        ({"cells": 65}, "cells must be 0 to 64, got 65"),
        ({"depth": 3}, "options of a lite-any model: .*'depth'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
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
    made, details = time_net.steadied(noisy, noisy.repeat(1, 3, 1, 1, 1))
    assert details is not None
    assert torch.allclose(details[:, 3:6], made, atol=1e-6)
    assert torch.allclose(made[0], noisy[0].mean(dim=1, keepdim=True).expand_as(made[0]), atol=1e-6)
    assert torch.allclose(made[1, :, :, :, :17], made[1, :, :1, :, :17], atol=1e-6)
    assert torch.allclose(made[1, :, :, :12, 20:], noisy[1, :, :, :12, 20:], atol=1e-6)
