from __future__ import annotations

import pytest
import torch

from vs_cvrs.model.light import cuts
from vs_cvrs.model.light.cuts import Cut

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 30, 45


def test_patterns_have_nothing_to_do_with_one_another() -> None:
    tile = cuts._tile(4, torch.device("cpu"))
    flat = tile.flatten(1)
    assert torch.equal(flat.abs(), torch.ones_like(flat))
    bound = 5.0 / flat.shape[1] ** 0.5
    assert (flat @ flat.t() / flat.shape[1] - torch.eye(4)).abs().max() < bound
    assert flat.mean(dim=1).abs().max() < bound
    for shift in ((0, 1), (1, 0), (1, 1), (0, 2)):
        assert (tile * tile.roll(shift, (2, 3))).mean().abs() < bound


@pytest.mark.parametrize("size", [SIZE, (130, 70), (64, 64), (270, 480)])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("most", [4, 0])
def test_residues_tell_of_a_cut(size: tuple[int, int], count: int, most: int) -> None:
    """Those of a picture, of up to four levels, and such as are all zero."""
    torch.manual_seed(9)
    for behind in range(count + 1):
        cut = Cut(torch.tensor([True, False]), torch.tensor([behind, behind]))
        residues = torch.randint(-most, most + 1, (2, 3, 1, *size)).float()
        sent = (residues + cuts.pattern(cut, count, size)).round()
        assert torch.equal(sent[1], residues[1])
        found = cuts.heard(sent[:, :, 0], count)
        assert found.there.tolist() == [True, False]
        assert found.behind.tolist() == [behind, 0]


def test_residues_without_a_pattern_tell_of_none() -> None:
    torch.manual_seed(10)
    x = torch.randint(-4, 5, (300, 3, 26, 50)).float()
    assert cuts.can_tell((26, 50))
    assert not cuts.heard(x, 3).there.any()
    flat = torch.arange(-4.0, 5.0)[:, None, None, None].expand(-1, 3, 64, 96)
    assert not cuts.heard(flat, 3).there.any()


def test_most_of_a_large_frame_stays_as_it_is() -> None:
    cut = Cut(torch.tensor([True]), torch.tensor([1]))
    for size, share in (((128, 224), 0.11), ((540, 960), 0.0062)):
        over = cuts.pattern(cut, 2, size)
        assert 0.9 * share < (over != 0).float().mean() < share


@pytest.mark.parametrize("period", [2, 3, 8, 64])
def test_periodic_residues_tell_of_none(period: int) -> None:
    torch.manual_seed(11)
    tile = torch.randint(-4, 5, (20, 3, period, period)).float()
    assert not cuts.heard(tile.repeat(1, 1, 256 // period, 512 // period), 3).there.any()


def test_small_frames_cannot_tell() -> None:
    assert not cuts.can_tell((36, 36))
    assert cuts.can_tell((36, 40))


def test_a_jump_is_where_one_frame_differs_as_no_other_does() -> None:
    grey = torch.full((3, 1, 8, 8), 0.4)
    moving = [grey + 0.01 * n for n in range(3)]
    clips = {
        "cut": [*moving, grey + 0.3],
        "fade": [grey + 0.1 * n for n in range(4)],
        "flash": [grey, grey + 0.5, grey, grey],
        "small": [grey, grey, grey + 0.04, grey + 0.04],
        "still": [grey] * 4,
    }
    x = torch.stack([torch.cat(frames, dim=1) for frames in clips.values()])
    assert cuts.jumps(x).tolist() == [True, False, False, False, False]
    assert cuts.jumps(x[:, :, 2:]).tolist() == [False] * 5  # nothing to compare with
