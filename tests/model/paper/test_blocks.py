from __future__ import annotations

import pytest
import torch
from torch import nn

from vs_cvrs.model.paper.blocks import Conv3d

pytestmark = pytest.mark.usefixtures("one_thread")


# PyTorch has a convolution of its own for the narrower one.
@pytest.mark.parametrize(("channels", "groups"), [(9, 1), (12, 12), (200, 1)])
def test_convolutions_and_their_gradients_are_those_of_pytorch(channels: int, groups: int) -> None:
    torch.manual_seed(5)
    plain = nn.Conv3d(channels, 24, (1, 3, 3), padding=(0, 1, 1), groups=groups)
    ours = Conv3d(channels, 24, (1, 3, 3), padding=(0, 1, 1), groups=groups)
    ours.load_state_dict(plain.state_dict())
    made, gradients = [], []
    for layer in (plain, ours):
        x = torch.linspace(-1, 1, channels * 3 * 40 * 30).sin().view(1, channels, 3, 40, 30)
        x.requires_grad_()
        out = layer(x)
        torch.autograd.backward(out.square().mean())
        made.append(out.detach())
        assert x.grad is not None
        assert layer.weight.grad is not None
        gradients.append(torch.cat((x.grad.flatten(), layer.weight.grad.flatten())))
    assert (made[0] - made[1]).abs().max() < 1e-5
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[0].abs().max()


def test_autocast_still_reduces_the_precision() -> None:
    layer = Conv3d(3, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.rand(1, 3, 3, 8, 8)).dtype == torch.bfloat16
