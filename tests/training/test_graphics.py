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
