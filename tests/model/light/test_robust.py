from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from vs_cvrs.model.base import round_to_8bit
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.robust import RobustModel
from vs_cvrs.model.motion import bilateral_motion, moved
from vs_cvrs.model.strips import bounded_memory

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"width": 16, "down_blocks": "hq", "up_blocks": "qh", "hidden": 8}


def small_model(seed: int = 0, **options: object) -> RobustModel:
    """A narrow model none of whose layers is zero."""
    torch.manual_seed(seed)
    options = {**SMALL, "motion_width": 8, "motion_blocks": "h", **options}
    model = RobustModel.from_options(options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model.eval()


def trust(model: RobustModel, decoded: float) -> None:
    """Set how far what is decoded is believed, before a sigmoid."""
    assert model.up.last.bias is not None
    model.up.last.bias[24:] = decoded


@torch.no_grad()
def unlearned(model: RobustModel) -> None:
    """Take motion as it is found, and half of each side."""
    for layer in (model.motion.last, model.motion.skip):
        for parameter in layer.parameters():
            parameter.zero_()


def texture(height: int, width: int, seed: int = 3) -> Tensor:
    """A smooth random picture, (1, 3, height, width)."""
    torch.manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4, width // 4)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def panned(steps: list[tuple[int, int]], height: int = 64, width: int = 96) -> Tensor:
    """Frames of a picture that moves by these pixels from its place, (1, 3, T, height, width)."""
    picture = texture(height + 64, width + 64)
    return torch.stack(
        [picture[:, :, 32 - y : 32 - y + height, 32 - x : 32 - x + width] for x, y in steps], dim=2
    )


@pytest.mark.parametrize("step", [(0, 0), (3, 0), (-2, 4), (5, -6)])
def test_motion_of_a_pan_is_found(step: tuple[int, int]) -> None:
    x, y = step
    clip = panned([(0, 0), (2 * x, 2 * y)])
    motion = bilateral_motion(clip[:, :, 0], clip[:, :, 1])
    assert motion.shape == (1, 2, 16, 24)
    # Content moves by (x, y) up to the middle: it stands there later, and the other way before.
    inside = motion[..., 5:-5, 7:-7].flatten(2).median(dim=2).values[0]
    assert (inside - torch.tensor([x, y])).abs().max() < 0.5


def test_moved_takes_what_stands_there() -> None:
    x = torch.rand(1, 3, 8, 8)
    motion = torch.zeros(1, 2, 8, 8)
    motion[:, 0] = 2.0
    motion[:, 1] = -1.0
    made = moved(x, motion)
    assert torch.allclose(made[..., 1:, :6], x[..., :-1, 2:], atol=1e-5)
    assert torch.allclose(made[..., 7], made[..., 6], atol=1e-5)  # the edge goes on


def test_it_begins_as_the_lite_model_where_it_is_believed() -> None:
    torch.manual_seed(1)
    lite = LiteModel.from_options(SMALL).eval()
    model = small_model()
    model.start_from(lite)
    with torch.no_grad():
        trust(model, 30.0)  # what is decoded is believed
    x = torch.rand(1, 3, 6, 16, 24)
    with torch.inference_mode():
        low = lite.encode(x, (3, 16, 24))
        assert (model.encode(x, (3, 16, 24)) - low).abs().max() < 1e-5
        wanted = lite.decode(low, (6, 16, 24))
        assert (model.decode(low, (6, 16, 24)) - wanted).abs().max() < 1e-5


def test_what_is_hidden_is_read_from_the_groups_own_frames_alone() -> None:
    model = small_model()
    model.start_from(LiteModel.from_options(SMALL))
    with torch.no_grad():
        trust(model, 30.0)  # what is decoded is believed
    low = torch.rand(1, 3, 3, 16, 24)
    behind = torch.cat((low, torch.rand(1, 3, 1, 16, 24)), dim=2)
    with torch.inference_mode():
        wanted = model.decode(low, (6, 16, 24))
        assert torch.allclose(model.decode(behind, (6, 16, 24)), wanted, atol=1e-6)


def test_a_lite_model_of_other_layers_is_named() -> None:
    lite = LiteModel.from_options({**SMALL, "width": 24})
    with pytest.raises(ValueError, match="width 16 cannot begin as a lite model with width 24"):
        small_model().start_from(lite)


def test_where_nothing_is_believed_it_interpolates() -> None:
    model = small_model()
    with torch.no_grad():
        trust(model, -60.0)
    unlearned(model)
    clip = panned([(4 * n, 2 * n) for n in range(6)])
    with torch.inference_mode():
        made = model.decode(clip[:, :, 0::2], (5, 64, 96))
    assert torch.allclose(made[:, :, 0::2], clip[:, :, 0::2], atol=1e-4)
    inside = (slice(16, -16), slice(24, -24))
    error = (made - clip[:, :, :5])[:, :, 1::2, inside[0], inside[1]].square().mean()
    average = 0.5 * (clip[:, :, 0:4:2] + clip[:, :, 2:6:2])
    repeated = (average - clip[:, :, 1:5:2])[..., inside[0], inside[1]].square().mean()
    assert error < 0.02 * repeated


def test_frames_that_hide_nothing_are_interpolated() -> None:
    model = small_model()
    unlearned(model)
    clip = panned([(4 * n, 2 * n) for n in range(6)])
    low = clip[:, :, 0::2]
    with torch.inference_mode():
        made = model.interpolate(low, (5, 63, 94))
    assert torch.equal(made[:, :, 0::2], low[..., :63, :94])
    error = (made - clip[:, :, :5, :63, :94])[:, :, 1::2, 16:-16, 24:-24].square().mean()
    assert error < 1e-3
    assert torch.equal(made, model.interpolate(low, (6, 64, 96))[:, :, :5, :63, :94])


def test_it_does_not_interpolate_across_a_cut() -> None:
    model = small_model()
    unlearned(model)
    one, other = panned([(0, 0), (8, 4)]), torch.rand(1, 3, 2, 64, 96)
    low = torch.cat((one, other), dim=2)
    with torch.inference_mode():
        made = model.interpolate(low, (8, 64, 96))
        near = model.interpolate(one, (4, 64, 96))
    assert torch.equal(made[:, :, 3], low[:, :, 1])
    assert torch.equal(made[:, :, 7], low[:, :, 3])  # behind the last frame there is nothing
    assert not torch.equal(made[:, :, 1], low[:, :, 0])
    assert torch.allclose(made[:, :, 1], near[:, :, 1], atol=1e-5)


def test_the_frame_behind_a_group_is_looked_at() -> None:
    model = small_model()
    low = panned([(4 * n, 0) for n in range(3)])
    with torch.inference_mode():
        without = model.decode(low[:, :, :2], (4, 64, 96))
        ahead = model.decode(low, (4, 64, 96))
    assert ahead.shape == without.shape
    assert not torch.equal(ahead[:, :, 3], without[:, :, 3])


@pytest.mark.parametrize("high", [(1, 1, 1), (2, 16, 16), (7, 33, 42), (9, 17, 19), (4, 250, 4)])
def test_any_size_comes_back(high: tuple[int, int, int]) -> None:
    t, h, w = high
    low = (-(-t // 2), -(-h // 4) * 4, -(-w // 4) * 4)
    model = small_model()
    with torch.inference_mode():
        encoded = model.encode(torch.rand(1, 3, *high), low)
        assert encoded.shape == (1, 3, *low)
        made = model.decode(round_to_8bit(encoded), high)
    assert made.shape == (1, 3, *high)
    assert bool(torch.isfinite(made).all())
    assert 0 <= made.min() <= made.max() <= 1


def test_wrong_sizes_are_named() -> None:
    model = small_model()
    with pytest.raises(ValueError, match=r"makes \(4, 16, 16\) of \(8, 16, 16\), not \(4, 8, 8\)"):
        model.downsample(torch.rand(1, 3, 8, 16, 16), (4, 8, 8))
    with pytest.raises(ValueError, match=r"at most \(8, 16, 16\) of \(4, 16, 16\)"):
        model.upsample(torch.rand(1, 3, 4, 16, 16), (9, 16, 16))


def test_groups_of_a_batch_do_not_meet() -> None:
    model = small_model()
    x = torch.rand(2, 3, 6, 16, 16)
    with torch.inference_mode():
        together = model.encode(x, (3, 16, 16))
        apart = torch.cat([model.encode(group[None], (3, 16, 16)) for group in x])
        assert (together - apart).abs().max() < 1e-5
        back = model.decode(together, (6, 16, 16))
        apart = torch.cat([model.decode(group[None], (6, 16, 16)) for group in together])
    assert (back - apart).abs().max() < 1e-5


@pytest.mark.parametrize("limit", [1, 1_000_000])
@pytest.mark.parametrize(("height", "width"), [(120, 100), (37, 180), (30, 30)])
def test_strips_change_nothing(height: int, width: int, limit: int) -> None:
    model = small_model()
    x = torch.rand(1, 3, 4, height, width)
    size = (2, -(-height // 4) * 4, -(-width // 4) * 4)
    with torch.inference_mode():
        low = model.encode(x, size)
        high = model.decode(low, (4, height, width))
        with bounded_memory(limit):
            assert (model.encode(x, size) - low).abs().max() < 1e-5
            assert (model.decode(low, (4, height, width)) - high).abs().max() < 1e-5


def test_reduced_precision_costs_little() -> None:
    model = small_model()
    reduced = copy.deepcopy(model)
    reduced.convolution_dtype = torch.bfloat16
    x = panned([(n, n) for n in range(8)], 32, 32)
    with torch.inference_mode():
        low = round_to_8bit(model.encode(x, (4, 32, 32)))
        exact, coarse = model.decode(low, (8, 32, 32)), reduced.decode(low, (8, 32, 32))
    assert 0 < (exact - coarse).abs().mean() < 0.01


def test_what_the_sender_is_told_changes_what_it_sends() -> None:
    model = small_model()
    x = torch.rand(1, 3, 4, 16, 16)
    with torch.inference_mode():
        model.crf = 12.0
        light = model.encode(x, (2, 16, 16))
        model.crf = 28.0
        heavy = model.encode(x, (2, 16, 16))
        model.crf = 0.0
        least = model.encode(x, (2, 16, 16))
        model.crf = None
        untold = model.encode(x, (2, 16, 16))
    assert not torch.equal(light, heavy)
    assert not torch.equal(least, untold)
