from __future__ import annotations

import copy

import pytest
import torch
from reference_sampler import plain_sample
from torch import Tensor

from vs_cvrs.model.base import Size
from vs_cvrs.model.paper import sampler as sampler_module
from vs_cvrs.model.paper.sampler import Sampler

pytestmark = pytest.mark.usefixtures("one_thread")


def _sampler(channels: int, seed: int = 0) -> Sampler:
    torch.manual_seed(seed)
    return Sampler(channels)


def _error(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((4, 12, 16), (8, 12, 16)),  # time 2x, space as it is
        ((7, 12, 16), (4, 12, 16)),
        ((4, 12, 16), (4, 12, 16)),  # nothing changes: the last positions have no volume
        ((4, 8, 12), (8, 16, 24)),
        ((8, 9, 11), (10, 13, 29)),  # nothing divides anything
        ((10, 16, 12), (8, 7, 5)),
        ((3, 8, 8), (9, 24, 40)),  # odd factors put queries on centres, up to rounding
        ((9, 24, 40), (3, 8, 8)),
        ((1, 6, 5), (3, 6, 9)),
        ((3, 1, 4), (1, 1, 1)),
        ((2, 2, 2), (2, 1, 2)),
        ((2, 3, 4), (2, 33, 47)),
    ],
)
def test_fast_form_equals_the_plain_one(source: Size, target: Size) -> None:
    sampler = _sampler(5)
    features = torch.randn(2, 5, *source)
    with torch.inference_mode():
        assert _error(sampler(features, target), plain_sample(sampler, features, target)) < 1e-5


@pytest.mark.parametrize("tile", [30, 500])
@pytest.mark.parametrize("target", [(5, 12, 10), (6, 19, 23)])
def test_tiles_leave_no_seams(monkeypatch: pytest.MonkeyPatch, tile: int, target: Size) -> None:
    sampler = _sampler(4)
    features = torch.randn(3, 4, 5, 12, 10)
    with torch.inference_mode():
        whole = sampler(features, target)
        monkeypatch.setattr(sampler_module, "_CPU_TILE", tile)
        monkeypatch.setattr(sampler_module, "_CPU_CHANNELS", 8)
        monkeypatch.setattr(sampler_module, "_MAX_TILE_FRAMES", 2)
        assert _error(sampler(features, target), whole) < 2e-6


@pytest.mark.parametrize("target", [(4, 8, 6), (5, 7, 9)])
def test_gradients_equal_those_of_the_plain_form(target: Size) -> None:
    fast = _sampler(3)
    plain = copy.deepcopy(fast)
    features = torch.randn(2, 3, 3, 8, 6)
    weights = torch.randn(2, 3, *target)
    inputs = [features.clone().requires_grad_() for _ in range(2)]
    torch.autograd.backward((fast(inputs[0], target) * weights).sum())
    torch.autograd.backward((plain_sample(plain, inputs[1], target) * weights).sum())
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    assert _error(inputs[0].grad, inputs[1].grad) < 1e-4
    for (name, a), b in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        assert _error(a.grad, b.grad) < 1e-5 * max(1.0, b.grad.abs().max().item()), name


def test_changed_weights_are_noticed() -> None:
    sampler = _sampler(3)
    features = torch.randn(1, 3, 2, 5, 6)
    with torch.inference_mode():
        sampler(features, (4, 5, 6))
    with torch.no_grad():
        sampler.fc1.weight.mul_(1.5)
    with torch.inference_mode():
        expected = plain_sample(sampler, features, (4, 5, 6))
        assert _error(sampler(features, (4, 5, 6)), expected) < 1e-5
    sampler.load_state_dict(_sampler(3, seed=1).state_dict())
    with torch.inference_mode():
        expected = plain_sample(sampler, features, (4, 5, 6))
        assert _error(sampler(features, (4, 5, 6)), expected) < 1e-5


def test_few_shapes_are_kept_and_nothing_goes_into_checkpoints() -> None:
    sampler = _sampler(2)
    names = set(sampler.state_dict())
    with torch.inference_mode():
        for n in range(2, 9):
            sampler(torch.randn(1, 2, 2, n, n), (2, n, n))
    assert len(sampler._cache) <= 2
    assert set(sampler.state_dict()) == names


def test_what_inference_kept_serves_training() -> None:
    sampler = _sampler(3)
    features = torch.randn(1, 3, 2, 5, 6)
    with torch.inference_mode():
        sampler(features, (4, 5, 6))
    sampler.requires_grad_(False)
    given = features.clone().requires_grad_()
    torch.autograd.backward(sampler(given, (4, 5, 6)).sum())
    assert given.grad is not None


def test_autocast_stays_close_and_keeps_float32_sums() -> None:
    sampler = _sampler(4)
    features = torch.rand(1, 4, 3, 8, 10)
    with torch.inference_mode():
        exact = sampler(features, (6, 8, 10))
        with torch.autocast("cpu", torch.bfloat16):
            reduced = sampler(features, (6, 8, 10))
    assert reduced.dtype == torch.float32
    assert 0 < _error(reduced, exact) < 2e-2
