from __future__ import annotations

import itertools

import numpy as np

from vs_cvrs.training import graphics


def test_drawn_pictures_reach_both_ends_of_the_range() -> None:
    rng = np.random.default_rng(0)
    pictures = [graphics.draw(rng, 96) for _ in range(20)]
    assert {p.shape for p in pictures} == {(96, 96, 3)}
    assert np.mean([p.std() > 0 for p in pictures]) > 0.7
    ends = [np.isin(p, (0, 255)).mean() for p in pictures]
    assert np.mean(ends) > 0.5


def test_drawn_pictures_scroll_by_whole_pixels() -> None:
    for seed in range(20):
        clip = graphics.scroll(np.random.default_rng(seed), 5, 48)
        assert clip.shape == (5, 48, 48, 3)
        found = [
            (y, x)
            for y in range(-8, 9)
            for x in range(-8, 9)
            if all(
                np.array_equal(
                    after[max(0, -y) : 48 - max(0, y), max(0, -x) : 48 - max(0, x)],
                    before[max(0, y) : 48 + min(0, y), max(0, x) : 48 + min(0, x)],
                )
                for before, after in itertools.pairwise(clip)
            )
        ]
        assert found


def test_the_same_generator_draws_the_same() -> None:
    first, second = (graphics.scroll(np.random.default_rng(3), 4, 32) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_stretching_clips_and_keeps_order() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 3))[None, None]
    for seed in range(10):
        stretched = graphics.stretch(np.random.default_rng(seed), ramp)[0, 0, :, 0].astype(int)
        assert (np.diff(stretched) >= 0).all()
        assert np.isin(stretched, (0, 255)).sum() > 2


def test_patterns_are_fine_and_stand_still() -> None:
    grey = np.full((3, 40, 56, 3), 120, np.uint8)
    seen = []
    for seed in range(40):
        clip = graphics.patterned(np.random.default_rng(seed), grey)
        assert clip.shape == grey.shape
        assert (clip == clip[:1]).all()
        levels = np.unique(clip)
        assert len(levels) == 2
        across = np.abs(np.diff(clip[0, :, :, 0].astype(int), axis=1)).astype(bool).mean()
        down = np.abs(np.diff(clip[0, :, :, 0].astype(int), axis=0)).astype(bool).mean()
        assert max(across, down) > 0.05
        seen.append((across, down))
    assert any(a > 0.95 and d > 0.95 for a, d in seen)  # a checkerboard of single pixels
    assert any(a < 0.01 for a, _ in seen)  # stripes


def test_dither_keeps_means_with_few_levels() -> None:
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
    clip = np.broadcast_to(ramp[:, None, None], (1, 64, 64, 3))
    for seed in range(10):
        made = graphics.dither(np.random.default_rng(seed), clip)
        assert len(np.unique(made)) <= 16
        blocks = made[0].reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
        wanted = clip[0].reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
        assert np.abs(blocks - wanted).max() < 6
