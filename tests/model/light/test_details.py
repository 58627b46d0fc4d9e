"""The pair of networks for space."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vs_cvrs.model.light.details import SpaceNet, enlarged, reduced

pytestmark = pytest.mark.usefixtures("one_thread")


def linear_nets() -> tuple[SpaceNet, SpaceNet]:
    """A pair as before training, of which only the linear part is left."""
    torch.manual_seed(0)
    down, up = SpaceNet(16, "hq", down=True), SpaceNet(16, "qhq", down=False)
    with torch.no_grad():
        for parameter in (*down.last.parameters(), *up.last.parameters()):
            parameter.zero_()
    return down, up


def round_trip(nets: tuple[SpaceNet, SpaceNet], x: Tensor, low: tuple[int, int]) -> Tensor:
    return enlarged(nets[1], reduced(nets[0], x, *low), x.shape[3], x.shape[4])


def without_code(nets: tuple[SpaceNet, SpaceNet]) -> None:
    with torch.no_grad():
        for net in nets:
            for parameter in net.code.parameters():
                parameter.zero_()


@pytest.mark.parametrize(("high", "low"), [((64, 64), (32, 32)), ((50, 70), (28, 52))])
def test_a_picture_keeps_its_place(high: tuple[int, int], low: tuple[int, int]) -> None:
    """A ramp at the low size is the ramp of the frame: nothing is displaced."""
    nets = linear_nets()
    without_code(nets)
    ramp = torch.linspace(0.2, 0.8, high[1]).expand(1, 3, 2, high[0], high[1])
    with torch.inference_mode():
        restored = round_trip(nets, ramp, low)
    assert (restored - ramp)[..., 8:-8].abs().max() < 2e-3


@pytest.mark.parametrize("fold", [2, 3, 4])
def test_untrained_networks_hide_luma_details_in_chroma(fold: int) -> None:
    nets = linear_nets()
    torch.manual_seed(2)
    size = (1, 24 * fold, 24 * fold)
    with torch.inference_mode():
        grey = (0.5 + 0.1 * torch.randn(1, 1, *size)).expand(1, 3, -1, -1, -1)
        low = reduced(nets[0], grey, 24, 24)
        assert (low.mean(dim=1) - low[:, 0]).abs().max() > 0.01  # no longer grey
        hidden = (round_trip(nets, grey, (24, 24)) - grey).square().mean()
        without_code(nets)
        low = reduced(nets[0], grey, 24, 24)
        assert (low.mean(dim=1) - low[:, 0]).abs().max() < 1e-5
        dropped = (round_trip(nets, grey, (24, 24)) - grey).square().mean()
    assert hidden < 0.95 * dropped
