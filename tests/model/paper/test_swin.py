from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from vs_cvrs.model.paper import swin
from vs_cvrs.model.paper.swin import SwinStage, Window, relative_position_index

pytestmark = pytest.mark.usefixtures("one_thread")


def test_index_counts_offsets() -> None:
    window = (2, 3, 4)
    index = relative_position_index(window, torch.device("cpu"))
    cells = list(itertools.product(*map(range, window)))
    for (i, a), (j, b) in itertools.product(enumerate(cells), repeat=2):
        t, h, w = (p - q + n - 1 for p, q, n in zip(a, b, window, strict=True))
        assert index[i, j] == (t * 5 + h) * 7 + w
    assert index.max() == 3 * 5 * 7 - 1


def _attend_position_by_position(
    block: swin._SwinBlock, x: Tensor, largest: Window, *, shifted: bool
) -> Tensor:
    """Shifted window attention of (T, H, W, C), without windows, rolls or masks."""
    size = x.shape[:3]
    window = [min(a, n) for a, n in zip(size, largest, strict=True)]
    shift = [n // 2 if shifted and a > n else 0 for a, n in zip(size, largest, strict=True)]
    padded = [math.ceil(a / n) * n for a, n in zip(size, window, strict=True)]
    whole = torch.zeros(*padded, x.shape[3])
    whole[: size[0], : size[1], : size[2]] = x
    attention = block.attn
    index = relative_position_index(largest, x.device)
    heads = attention.num_heads
    q, k, v = attention.qkv(whole).unflatten(-1, (3, heads, -1)).unbind(3)
    out = torch.zeros_like(x)

    def place(p: tuple[int, ...]) -> tuple[list[int], list[int], int]:
        rolled = [(c - s) % n for c, s, n in zip(p, shift, padded, strict=True)]
        number = 0
        for c, n in zip(rolled, window, strict=True):
            number = number * n + c % n
        # On a shifted axis the far end has wrapped around: what wrapped keeps to itself.
        wrapped = [int(c < s) for c, s in zip(p, shift, strict=True)]
        return [c // n for c, n in zip(rolled, window, strict=True)], wrapped, number

    cells = list(itertools.product(*map(range, padded)))
    places = {p: place(p) for p in cells}
    for p in itertools.product(*map(range, size)):
        mates = [m for m in cells if places[m][0] == places[p][0]]
        apart = torch.tensor([-100.0 if places[m][1] != places[p][1] else 0.0 for m in mates])
        rows = torch.tensor([index[places[p][2], places[m][2]] for m in mates])
        keys, values = (torch.stack([y[m] for m in mates]) for y in (k, v))
        logits = torch.einsum("hc,mhc->hm", q[p], keys) / math.sqrt(q.shape[-1])
        logits = logits + attention.relative_position_bias_table[rows].t() + apart
        out[p] = attention.proj(torch.einsum("hm,mhc->hc", logits.softmax(1), values).flatten())
    return out


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((4, 6, 6), (2, 3, 3)),
        ((3, 5, 7), (2, 4, 3)),  # padded on all axes
        ((1, 3, 6), (2, 3, 4)),  # the window shrinks in time, and does not move in height
        ((2, 2, 2), (3, 4, 4)),
    ],
)
def test_attention_equals_the_definition(size: Window, window: Window, shifted: bool) -> None:
    torch.manual_seed(1)
    stage = SwinStage(4, 2, 2, window)
    block = stage.blocks[int(shifted)]
    assert isinstance(block, swin._SwinBlock)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(1, *size, 4)
    with torch.inference_mode():
        expected = _attend_position_by_position(block, x[0], window, shifted=shifted)
        made = block._attend(x)[0]
    assert (made - expected).abs().max() < 1e-5


def test_chunks_of_windows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    stage = SwinStage(8, 2, 2, (2, 4, 4))
    x = torch.randn(2, 8, 3, 9, 10)
    with torch.inference_mode():
        whole = stage(x)
        monkeypatch.setattr(swin, "_CHUNK_ELEMENTS", 5 * 32 * 32 * 2)
        assert (stage(x) - whole).abs().max() < 1e-5


def test_can_train_after_inference() -> None:
    stage = SwinStage(4, 2, 2, (2, 2, 2))
    x = torch.randn(1, 4, 3, 3, 3)
    with torch.inference_mode():
        stage(x)
    torch.autograd.backward(stage(x).sum())
    assert all(parameter.grad is not None for parameter in stage.parameters())
