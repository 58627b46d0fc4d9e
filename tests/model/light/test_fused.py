"""What is computed in one pass is what the plain layers compute."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vs_cvrs.model.light import fused
from vs_cvrs.model.light.fused import activated, added

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def judge_anew() -> Iterator[None]:
    fused._works.cache_clear()
    yield
    fused._works.cache_clear()


def features(dtype: torch.dtype = torch.bfloat16) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 16, 10, 14).to(dtype).contiguous(memory_format=torch.channels_last)


def assert_close(made: Tensor, wanted: Tensor) -> None:
    """Equal but for the rounding of bfloat16, which has 8 bits."""
    assert made.dtype == torch.bfloat16
    assert ((made - wanted).abs() <= wanted.abs() / 64 + 1e-2).all()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (2, 2, 0), (1, 1, 0)])
def test_activated(autocast: bool, kernel: int, stride: int, padding: int) -> None:
    x = features(torch.float32 if autocast else torch.bfloat16)
    weight, bias = 0.1 * torch.randn(24, 16, kernel, kernel), torch.randn(24)
    wanted = functional.leaky_relu(
        functional.conv2d(x.float(), weight, bias, stride, padding), fused.SLOPE
    )
    kind = torch.float32 if autocast else torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert_close(activated(x, weight.to(kind), bias.to(kind), stride, padding), wanted)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_added(layout: torch.memory_format) -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1)
    x = features()
    target = features().flip(2).contiguous(memory_format=layout)
    wanted = target.float() + conv(x.float())
    conv.to(torch.bfloat16)
    with torch.inference_mode():
        assert_close(added(conv, x, target.clone(memory_format=torch.preserve_format)), wanted)
    before = target.clone()
    made = added(conv, x, target)
    assert_close(made, wanted)
    assert torch.equal(target, before)  # gradients need it
    made.sum().backward()  # type: ignore[no-untyped-call]
    assert conv.weight.grad is not None


@pytest.mark.parametrize("fault", ["missing", "changed", "wrong"])
def test_operators_that_are_not_as_they_were_are_not_used(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object) -> Tensor:
        raise TypeError("takes other arguments")

    def wrong(x: Tensor, *_: object) -> Tensor:
        return torch.zeros_like(x)

    operator = {"changed": changed, "wrong": wrong}.get(fault)
    operators = SimpleNamespace()
    if operator is not None:
        operators._convolution_pointwise = operator
        operators._convolution_pointwise_ = SimpleNamespace(binary=operator)
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    x = features()
    weight = 0.1 * torch.randn(24, 16, 3, 3)
    wanted = functional.leaky_relu(functional.conv2d(x.float(), weight, padding=1), fused.SLOPE)
    with torch.inference_mode():
        assert_close(activated(x, weight.to(torch.bfloat16), None, padding=1), wanted)
    assert not fused._works()
