from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from rescalers import CONV, VARIANTS
from torch import Tensor

from vs_cvrs.model import build
from vs_cvrs.model.paper.imsm import Imsm
from vs_cvrs.model.strips import bounded_memory, in_strips

pytestmark = pytest.mark.usefixtures("one_thread")


def _chain() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Conv3d(2, 2, (3, 3, 5), padding=(1, 1, 2)) for _ in "ab"))


@pytest.mark.parametrize("limit", [1, 40_000, 120_000, 1 << 30])
@pytest.mark.parametrize(("height", "width"), [(97, 70), (33, 200), (200, 33), (5, 7)])
def test_strips_give_what_the_whole_gives(height: int, width: int, limit: int) -> None:
    chain = _chain()
    x = torch.randn(1, 2, 3, height, width)
    with torch.inference_mode(), bounded_memory(limit):
        assert (in_strips(chain, x, 4, 4) - chain(x)).abs().max() < 1e-6


@pytest.mark.parametrize("limit", [1, 40_000])
def test_gradients_of_strips_are_those_of_the_whole(limit: int) -> None:
    chain = _chain()
    x = torch.randn(1, 2, 3, 97, 70, requires_grad=True)
    wanted = torch.randn(1, 2, 3, 97, 70)
    (whole,) = torch.autograd.grad((chain(x) * wanted).sum(), x)
    with bounded_memory(limit):
        (stripped,) = torch.autograd.grad((in_strips(chain, x, 4, 4) * wanted).sum(), x)
    assert (stripped - whole).abs().max() < 1e-5


def test_strips_hold_nothing_for_their_gradients() -> None:
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.numel()
        return x

    x = torch.randn(1, 2, 3, 97, 70, requires_grad=True)
    chain = torch.nn.Sequential(*_chain(), *_chain())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda y: y):
        out = chain(x)
        assert sum(held.values()) > 3 * x.numel()
        held.clear()
        with bounded_memory(40_000):
            out = in_strips(chain, x, 8, 4)
    assert out.requires_grad
    assert sum(held.values()) <= 1.1 * x.numel()


def test_too_small_a_radius_would_show() -> None:
    chain = _chain()
    x = torch.randn(1, 2, 3, 97, 70)
    with torch.inference_mode(), bounded_memory(1):
        assert (in_strips(chain, x, 3, 4) - chain(x)).abs().max() > 1e-4


def test_strips_stay_within_the_limit() -> None:
    areas: list[int] = []

    def watched(x: Tensor) -> Tensor:
        areas.append(x[0, 0, 0].numel())
        return x * 2

    x = torch.randn(2, 3, 4, 300, 400)
    limit = 10 * 2 * 4 * 4 * 20_000  # channels, batch, frames, bytes, pixels
    with bounded_memory(limit):
        assert torch.equal(in_strips(watched, x, 4, 10), x * 2)
    assert len(areas) > 1
    assert max(areas) <= 20_000


def _widest(model: torch.nn.Module, work: Callable[[], object]) -> int:
    """The largest input of a 3x3 convolution that ``work`` makes a model see, in pixels."""
    sizes: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _, given, __: sizes.append(given[0][0, 0, 0].numel()))
        for layer in model.modules()
        if isinstance(layer, torch.nn.Conv3d) and layer.kernel_size[1] > 1
    ]
    work()
    for hook in hooks:
        hook.remove()
    return max(sizes)


def test_imsm_in_strips() -> None:
    torch.manual_seed(1)
    imsm = Imsm(1)
    for name, parameter in imsm.named_parameters():
        if ".conv5." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    x = torch.rand(1, 3, 2, 160, 144)
    with torch.inference_mode():
        whole = imsm(x)
        with bounded_memory(1):
            assert (imsm(x) - whole).abs().max() < 1e-5
            assert (imsm.inverse(whole) - x).abs().max() < 1e-5
            assert _widest(imsm, lambda: imsm(x)) <= 56 * 56
        assert _widest(imsm, lambda: imsm(x)) == 80 * 72


@pytest.mark.parametrize("low_size", [(144, 100), (72, 52), (92, 68), (36, 28)])
@pytest.mark.parametrize("variant", [0, 1, 2])
def test_models_in_strips(variant: int, low_size: tuple[int, int]) -> None:
    architecture, options = VARIANTS[variant]
    torch.manual_seed(2)
    model = build(architecture, copy.deepcopy(options)).eval()
    x = torch.rand(1, 3, 3, 144, 100)
    with torch.inference_mode():
        low = model.encode(x, (2, *low_size))
        high = model.decode(low, (3, 144, 100))
        with bounded_memory(1):
            assert (model.encode(x, (2, *low_size)) - low).abs().max() < 1e-5
            assert (model.decode(low, (3, 144, 100)) - high).abs().max() < 1e-5


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_no_convolution_sees_the_whole_picture(variant: int) -> None:
    """Nor does any in the sampler."""
    architecture, options = VARIANTS[variant]
    model = build(architecture, copy.deepcopy(options)).eval()
    x = torch.rand(1, 3, 2, 256, 256)
    with torch.inference_mode(), bounded_memory(1):
        low = model.encode(x, (1, 256, 256))
        for work in (
            lambda: model.encode(x, (1, 256, 256)),
            lambda: model.decode(low, (2, 256, 256)),
        ):
            assert _widest(model, work) < 100 * 100


def test_gradients_pass_through_strips() -> None:
    model = build("conv", copy.deepcopy(CONV))
    x = torch.rand(1, 3, 1, 40, 72)
    gradients = []
    for limit in (None, 1):
        model.zero_grad()
        with bounded_memory(limit):
            torch.autograd.backward(model.downsample(x, (1, 40, 72)).square().sum())
        weight = next(model.parameters())
        assert weight.grad is not None
        gradients.append(weight.grad.clone())
    assert (gradients[0] - gradients[1]).abs().max() < 1e-4 * gradients[0].abs().max()


def test_the_limit_ends_with_its_context_and_thread() -> None:
    calls: list[int] = []

    def count(x: Tensor) -> Tensor:
        calls.append(x.shape[-2])
        return x

    x = torch.zeros(1, 1, 1, 100, 8)
    with bounded_memory(1):
        thread = threading.Thread(target=lambda: in_strips(count, x, 1, 1))
        thread.start()
        thread.join()
    in_strips(count, x, 1, 1)
    assert calls == [100, 100]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_positive(limit: int) -> None:
    with pytest.raises(ValueError, match="must be positive"), bounded_memory(limit):
        pass
