from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.model.base import round_to_8bit
from vs_cvrs.model.light import flag, time_net
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.lite_any import LiteAnyModel
from vs_cvrs.model.light.resampling import resampled
from vs_cvrs.model.light.residues import Rescalers
from vs_cvrs.model.light.time_net import Layout
from vs_cvrs.model.strips import bounded_memory
from vs_cvrs.timeline import Timeline, choose_group_length

pytestmark = pytest.mark.usefixtures("one_thread")

TIME = {"width": 16, "down_blocks": "hq", "up_blocks": "qhq", "cells": 1, "hidden": 8}
SPACE: dict[str, Any] = {
    "alone_half": "16h 16h mod 5",
    "alone_quarter": "16h 16hq mod 7",
    "shared_quarter": "16h 16hq 16h 16h mod 9",
    "shared_half": "16h 16h 16h mod 9",
    "enlarger": "16hq",
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
    ((5, 45, 51), (4, 16, 16)),
    ((12, 48, 40), (2, 12, 12)),
    ((8, 45, 51), (2, 24, 28)),
    ((3, 16, 16), (1, 12, 12)),
    ((7, 33, 42), (2, 36, 28)),
]


def small_model(seed: int = 0, **options: Any) -> LiteAnyModel:
    """A narrow model none of whose layers is zero, in which much comes from afar."""
    torch.manual_seed(seed)
    model = LiteAnyModel.from_options({**TIME, **SPACE, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("imsm") or name.endswith("bias"):
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif "correction.last" in name:
                parameter.normal_(std=0.2)
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
    ("ratio", "length"),
    [
        (Fraction(5, 4), 4),
        (Fraction(4, 3), 3),
        (Fraction(3, 2), 8),
        (Fraction(5, 3), 9),
        (Fraction(2), 4),
        (Fraction(5, 2), 8),
        (Fraction(3), 4),
        (Fraction(4), 4),
    ],
)
def test_groups_are_longer_where_much_lies_behind_the_last_low_rate_frame(
    ratio: Fraction, length: int
) -> None:
    model = small_model()
    assert model.suited_group_length(ratio, (96, 128), (48, 64)) == length
    kept = choose_group_length(ratio, model.group_length)
    assert model.suited_group_length(ratio, (93, 126), (96, 128)) == kept  # nothing hangs on it


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
    shown = [timeline.high_begin(j) for j in range(length)]
    for j in range(length):
        around = layout.around(j)
        assert around is not None
        first, second, places = around
        assert (first, second) == (min(j, length - 2), min(j, length - 2) + 1)
        span = shown[second] - shown[first]
        assert [shown[first] + place * span for place in places] == pytest.approx(
            list(layout.owned(j)[1:])
        )
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
        ((4, 300, 120), (4, 76, 32)),
        ((6, 150, 190), (2, 100, 128)),
    ],
)
def test_strips_change_nothing(
    high: tuple[int, int, int], low: tuple[int, int, int], limit: int
) -> None:
    model = small_model()
    x = smooth(high)
    with torch.inference_mode():
        encoded = model.encode(x, low)
        restored = model.decode(encoded, high)
        with bounded_memory(limit):
            assert (model.encode(x, low) - encoded).abs().max() < 1e-5
            assert (model.decode(encoded, high) - restored).abs().max() < 1e-5


@pytest.mark.parametrize("part", ["time_down", "time_up"])
def test_too_small_a_reach_would_show(part: str) -> None:
    model = small_model()
    getattr(model, part).reach -= 2
    assert strips_show(model, scale=1)


@pytest.mark.parametrize(
    ("kind", "part", "scale", "frames"),
    [
        *(("alone_half", part, 2, 2) for part in ("down", "up")),
        *(("alone_quarter", part, 4, 2) for part in ("down", "up")),
        *(("shared_half", part, 2, 4) for part in ("down", "up", "between")),
        *(("shared_quarter", part, 4, 4) for part in ("down", "up", "between", "correction")),
    ],
)
def test_too_small_a_reach_of_residues_would_show(
    part: str, kind: str, scale: int, frames: int
) -> None:
    model = small_model()
    model.predicts = False
    assert not strips_show(model, scale, frames)
    getattr(getattr(model, kind), part).radius -= 2
    assert strips_show(model, scale, frames)


def test_too_small_a_reach_of_the_enlarger_would_show() -> None:
    model = small_model()
    model.predicts = True
    assert not strips_show(model, 2, 8)
    model.enlarger.up.radius -= 2
    assert strips_show(model, 2, 8)


def test_of_many_frames_reduced_ones_are_hidden_as_others() -> None:
    model = small_model()
    x = smooth((8, 60, 50))
    size, low_size = (8, 60, 50), (2, 40, 36)
    reduced = resampled(x, 40, 36).clamp(0.0, 1.0)
    with torch.inference_mode():
        low = model.encode(x, low_size)
        assert torch.equal(low, model.encode(reduced, low_size))
        sent = round_to_8bit(low)
        small = model.upsample(model.extract(sent).clamp(0.0, 1.0), (8, 40, 36))
        wanted = model.enlarger(small, size[1:]).clamp(0.0, 1.0)
        assert torch.equal(model.decode(sent, size), wanted)
        # A group's levels hide no residues, and have no bounds.
        lowest, highest = model.limits(sent, size)
        assert (float(lowest.max()), float(highest.min())) == (0.0, 1.0)
        assert model.arrived(sent[:1], wanted[:1]) is None


@pytest.mark.parametrize(
    ("high", "low", "hidden"),
    [
        ((8, 32, 32), (2, 16, 16), True),  # four each
        ((14, 32, 32), (2, 16, 16), True),  # seven, of which four are carried
        ((8, 34, 34), (2, 16, 16), False),  # more than space 2x
        ((6, 36, 40), (2, 20, 24), True),  # three each
        ((6, 32, 40), (2, 16, 24), False),
        ((5, 32, 32), (2, 16, 16), False),  # two and three
        ((4, 32, 32), (2, 16, 16), False),
    ],
)
def test_which_groups_hide_reduced_frames(
    high: tuple[int, int, int], low: tuple[int, int, int], hidden: bool
) -> None:
    assert small_model().uses_imsm(high, low) is hidden


def soft_clip(frames: int, size: int) -> torch.Tensor:
    """Large blobs that come and go: a reduction takes nothing, motion explains nothing."""
    torch.manual_seed(11)
    x = F.interpolate(torch.rand(frames, 3, 5, 5), (size, size), mode="bicubic")
    return x.clamp(0.0, 1.0).transpose(0, 1)[None].contiguous()


def sharp_clip(frames: int, size: int) -> torch.Tensor:
    """Fine detail that moves by whole pixels: a reduction takes much, motion explains all."""
    torch.manual_seed(12)
    picture = torch.rand(3, size, size + 4 * frames)
    moved = [picture[:, :, 4 * n : 4 * n + size] for n in range(frames)]
    return torch.stack(moved, dim=1)[None].contiguous()


@pytest.mark.parametrize(
    ("frames", "high"), [(5, 128), (6, 128), (8, 128), (12, 128), (16, 128), (10, 192), (16, 256)]
)
def test_groups_go_the_way_that_suits_them_and_tell_the_receiver(frames: int, high: int) -> None:
    model = small_model()
    size, low_size = (frames, high, high), (4, 64, 64)
    batch = torch.cat((soft_clip(frames, high), sharp_clip(frames, high)))
    usual = model.uses_imsm(size, low_size)
    with torch.inference_mode():
        low = round_to_8bit(model.encode(batch, low_size))
        restored = model.decode(low, size)
        for n, predicted in enumerate((True, False)):
            here = slice(n, n + 1)
            tells = flag.agreement(low[here])
            assert tells == pytest.approx(-1.0 if predicted is not usual else 1.0)
            model.predicts = predicted
            sent = flag.flagged(model.encode(batch[here], low_size), predicted is not usual)
            assert torch.equal(low[here], round_to_8bit(sent))
            assert torch.equal(restored[here], model.decode(low[here], size))
            model.predicts = None
            lowest, highest = model.limits(low[here], size)
            assert flag.agreement(lowest) == flag.agreement(highest) == pytest.approx(tells)
            for noise, arrived in ((0.5, True), (2.0, None if predicted else False), (4.0, False)):
                changed = low[here] + noise / 255.0 * torch.randn_like(low[here])
                assert model.arrived(round_to_8bit(changed), restored[here]) is arrived


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ((8, 120, 128), (4, 60, 64)),  # too small to tell
        ((4, 128, 128), (4, 64, 64)),  # as many frames
        ((8, 256, 256), (4, 64, 64)),  # more than space 2x, and two frames each
        ((8, 64, 64), (4, 64, 64)),  # space 1x
    ],
)
def test_where_there_is_no_choice_the_usual_is_done(
    high: tuple[int, int, int], low: tuple[int, int, int]
) -> None:
    model = small_model()
    for clip in (soft_clip, sharp_clip):
        x = clip(high[0], high[2])[:, :, :, : high[1]]
        with torch.inference_mode():
            sent = model.encode(x, low)
            stage = model.downsample(x, low).clamp(0.0, 1.0)
            hidden = model.embed(stage) if model.uses_imsm(high, low) else stage
            assert torch.equal(sent, hidden.clamp(0.0, 1.0))


@pytest.mark.parametrize("low", [(40, 60), (40, 48), (40, 24), (16, 24)])  # of (60, 90)
def test_enlarged_frames_keep_their_place(low: tuple[int, int]) -> None:
    model = small_model()
    with torch.no_grad():
        for parameter in model.enlarger.up.last.parameters():
            parameter.zero_()
        ramp = torch.linspace(0.2, 0.8, 90).expand(1, 3, 2, 60, 90)
        made = model.enlarger(resampled(ramp, *low), (60, 90))
    assert made.shape == ramp.shape
    assert (made - ramp)[..., 12:-12].abs().max() < 2e-3


def smooth(size: tuple[int, int, int]) -> torch.Tensor:
    """A clip that moves: in noise, motion hangs on a sum's last bit."""
    frames, height, width = size
    x = torch.rand(1, 3, frames, height // 8 + 2, width // 8 + 2)
    return F.interpolate(x, size, mode="trilinear")


def strips_show(model: LiteAnyModel, scale: int = 2, frames: int = 4) -> bool:
    torch.manual_seed(4)
    low, high = (2, 120, 40), (frames, 120 * scale, 40 * scale)
    x = smooth(high)
    with torch.inference_mode():
        encoded = model.encode(x, low)
        restored = model.decode(encoded, high)
        with bounded_memory(1):
            made = model.encode(x, low), model.decode(encoded, high)
    # Of some samples the last bit decides which level, or which motion, is nearest.
    shares = [
        ((a - b).abs() > 1e-5).float().mean()
        for a, b in zip(made, (encoded, restored), strict=True)
    ]
    return bool(max(shares) > 1e-3)


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


@pytest.mark.parametrize("low_size", [(24, 20), (12, 12)])
def test_frames_that_are_alike_stay_alike(low_size: tuple[int, int]) -> None:
    model = small_model()
    x = torch.rand(1, 3, 1, 48, 40).expand(-1, -1, 4, -1, -1).contiguous()
    with torch.inference_mode():
        low = model.encode(x, (4, *low_size))
        restored = model.decode(low, (4, 48, 40))
    assert (low - low[:, :, :1]).abs().max() < 1e-6
    assert (restored - restored[:, :, :1]).abs().max() < 1e-6


@pytest.mark.parametrize("option", ["space_width", "path_width", "shared_width"])
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


@pytest.mark.parametrize("more", ["", "h", "q"])
def test_networks_of_frames_left_out_can_begin_as_those_of_frames_alone(more: str) -> None:
    deeper = "16hq 16hq 16h mod 9" if more == "q" else "16hh 16hq 16h mod 9"
    model = small_model(shared_quarter=deeper if more else "16h 16hq 16h mod 9")
    model.share()
    x = smooth((4, 64, 64))
    with torch.inference_mode():
        # Of what is hidden besides, and of how many frames there are, the sender knows nothing yet.
        for kind, size in (("half", 32), ("quarter", 16)):
            alone, shared = getattr(model, f"alone_{kind}"), getattr(model, f"shared_{kind}")
            shared.modulus = alone.modulus
            groups = Rescalers(alone, shared)
            each, all_of_them = Layout.of(4, 4), Layout.of(4, 2)
            low = groups.down(x, (size, size), all_of_them)
            assert torch.allclose(low, groups.down(x, (size, size), each)[:, :, ::2], atol=1e-5)
            back = groups.up(low, (64, 64), all_of_them)[:, :, ::2]
            wanted = groups.up(low, (64, 64), Layout.of(2, 2))
            assert torch.allclose(back, wanted, atol=1e-5)


@pytest.mark.parametrize("low_size", [(32, 32), (16, 16)])
def test_a_low_rate_frame_of_one_frame_is_as_in_a_group_that_keeps_its_frames(
    low_size: tuple[int, int],
) -> None:
    model = small_model()
    x = smooth((5, 64, 64))
    assert Layout.of(5, 4).counts == (1, 1, 2, 1)
    with torch.inference_mode():
        low = model.encode(x, (4, *low_size))
        for j, shown in ((0, 0), (1, 1), (3, 4)):
            frame = x[:, :, shown : shown + 1]
            assert torch.equal(low[:, :, j : j + 1], model.encode(frame, (1, *low_size)))
        sent = round_to_8bit(low)
        restored = model.upsample(sent, (5, 64, 64))
        apart = model.upsample(sent[:, :, :1], (1, 64, 64))
        # Where frames of a group are nearly alike, they are brought closer.
        assert (restored[:, :, :1] - apart).abs().max() < 4 / 255
        limits = model.limits(sent, (5, 64, 64))
    widths = 255.0 * (limits[1] - limits[0]).amax(dim=(0, 1, 3, 4))
    alone, shared = (5, 9) if low_size == (32, 32) else (7, 9)
    assert (widths + 1.0).tolist() == pytest.approx([alone, alone, shared, alone], abs=1e-3)


def test_networks_of_other_widths_cannot() -> None:
    with pytest.raises(ValueError, match="networks of 24h and 16h cannot begin as others of 16h"):
        small_model(shared_half="24h 16h 16h mod 9").share()


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
        ({"up_blocks": "hx"}, "up_blocks must be up to 64 letters of 'h', 'q'"),
        (
            {"shared_quarter": "8 8 mod 9"},
            "shared_quarter must be three or four widths of 8 to 1024 with",
        ),
        (
            {"alone_half": "32h"},
            "alone_half must be two or three widths of 8 to 1024 with their blocks and",
        ),
        ({"alone_quarter": "8x 8 mod 5"}, "alone_quarter must be up to 64 letters of 'h', 'q'"),
        (
            {"enlarger": "h"},
            "enlarger must be a width of 8 to 1024 with its blocks, as in '40hhhh'",
        ),
        ({"enlarger": "4h"}, "enlarger must be a width .*, got '4h'"),
        ({"enlarger": "16x"}, "enlarger must be up to 64 letters of 'h', 'q'"),
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
    made = time_net.steadied(noisy, 0.8)
    assert torch.allclose(made[0], noisy[0].mean(dim=1, keepdim=True).expand_as(made[0]), atol=1e-6)
    assert torch.allclose(made[1, :, :, :, :17], made[1, :, :1, :, :17], atol=1e-6)
    assert torch.allclose(made[1, :, :, :12, 20:], noisy[1, :, :, :12, 20:], atol=1e-6)
