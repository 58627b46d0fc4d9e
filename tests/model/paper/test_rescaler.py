from __future__ import annotations

from typing import Any

import pytest
import torch
from rescalers import CONV, DOWN, VARIANTS, mix

from vs_cvrs.model import ConvRescaler, MixRescaler, build

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("architecture", "options"), VARIANTS)
@pytest.mark.parametrize(
    ("high", "low"), [((7, 8, 12), (4, 8, 12)), ((5, 9, 14), (4, 8, 8)), ((1, 4, 4), (1, 4, 4))]
)
def test_stages_give_the_sizes_that_are_asked_for(
    architecture: str,
    options: dict[str, Any],
    high: tuple[int, int, int],
    low: tuple[int, int, int],
) -> None:
    torch.manual_seed(0)
    model = build(architecture, options).eval()
    x = torch.rand(2, 3, *high)
    with torch.inference_mode():
        made = model.encode(x, low)
        assert made.shape == (2, 3, *low)
        assert made.min() >= 0
        assert made.max() <= 1
        assert model.decode(made, high).shape == x.shape


@pytest.mark.parametrize(
    ("cls", "options", "name"),
    [
        (ConvRescaler, {**CONV, "block_num": 0}, "block_num"),
        (ConvRescaler, {**CONV, "block_num": True}, "block_num"),
        (ConvRescaler, {**CONV, "block_num": 10**6}, "block_num"),
        (ConvRescaler, {"block_num": 1, "down_opt": DOWN}, "up_opt"),
        (ConvRescaler, {**CONV, "down_opt": 3}, "down_opt"),
        (ConvRescaler, {**CONV, "down_opt": {**DOWN, "kernel_size": [3, 3]}}, "kernel_size"),
        (ConvRescaler, {**CONV, "up_opt": {**CONV["up_opt"], "mid_channels": 6}}, "mid_channels"),
        (MixRescaler, mix(dim=6), "dim"),
        (MixRescaler, mix(num_heads=[3]), "num_heads"),
        (MixRescaler, mix(num_heads=[2, 2]), "num_heads"),
        (MixRescaler, mix(depths="2"), "depths"),
        (MixRescaler, mix(use_shuffle=1), "use_shuffle"),
        (MixRescaler, mix(window_size=[64, 64, 64]), "window_size"),
    ],
)
def test_options_that_do_not_fit_are_named(
    cls: type[ConvRescaler | MixRescaler], options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        cls.from_options(options)


def test_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(ValueError, match="conv, lite, lite-any, mix"):
        build("vae", {})
