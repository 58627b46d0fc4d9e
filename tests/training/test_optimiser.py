from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vs_cvrs.model.light.blocks import Trunk
from vs_cvrs.training.optimiser import Optimiser


def stepped(net: nn.Module, optimiser: Optimiser, seed: int) -> None:
    torch.manual_seed(seed)
    loss = net(torch.rand(2, 3, 8, 8), 2).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def made(muon: bool) -> tuple[Trunk, Optimiser]:
    torch.manual_seed(0)
    net = Trunk(3, 3, 8, "hq", fold=1).train()
    return net, Optimiser(net.named_parameters(), 1e-2, 0.0, muon)


@pytest.mark.parametrize("muon", [False, True])
def test_a_saved_state_goes_on_as_it_would_have(muon: bool) -> None:
    net, optimiser = made(muon)
    stepped(net, optimiser, 1)
    weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimiser.state_dict())
    stepped(net, optimiser, 2)
    other, again = made(muon)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    stepped(other, again, 2)
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_muon_takes_kernels_of_blocks_and_turns_all_of_their_directions() -> None:
    net, optimiser = made(True)
    before = copy.deepcopy(net.state_dict())
    stepped(net, optimiser, 1)
    for name, value in net.state_dict().items():
        change = value - before[name]
        assert change.abs().max() > 0 or name.endswith("skip.bias"), name
        if value.ndim == 4 and ".blocks." in f".{name}":
            strengths = torch.linalg.svdvals(change.permute(0, 2, 3, 1).flatten(1))
            assert strengths.sum() > 0.5 * len(strengths) * strengths.max(), name
            assert 0.05e-2 < change.square().mean().sqrt() < 0.4e-2


def test_what_is_not_trained_stays() -> None:
    net, _ = made(True)
    net.blocks.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    optimiser = Optimiser(net.named_parameters(), 1e-2, 0.1, True)
    stepped(net, optimiser, 1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("blocks."), name


def test_a_new_rate_is_that_of_all() -> None:
    net, optimiser = made(True)
    before = copy.deepcopy(net.state_dict())
    optimiser.set_rate(0.0)
    stepped(net, optimiser, 1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
