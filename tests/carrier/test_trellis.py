from __future__ import annotations

import numpy as np
import pytest

from vs_cvrs.carrier import trellis


def some_bits(count: int, seed: int) -> trellis.Bits:
    return np.random.default_rng(seed).integers(0, 2, count, np.uint8)


@pytest.mark.parametrize("count", [1, 8, 80])
def test_what_was_encoded_is_decoded(count: int) -> None:
    bits = some_bits(count, count)
    coded = trellis.encode(bits)
    assert len(coded) == trellis.coded_length(count)
    assert set(np.unique(coded)) <= {-1.0, 1.0}
    assert np.array_equal(trellis.decode(coded * 0.01), bits)


def test_the_free_distance_is_18() -> None:
    words = [[1, *(int(b) for b in f"{n:08b}")] for n in range(256)]
    ones = [np.count_nonzero(trellis.encode(np.array(w, np.uint8)) < 0) for w in words]
    assert min(ones) == 18


def test_any_eight_wrong_bits_are_put_right() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        bits = some_bits(80, seed)
        coded = trellis.encode(bits)
        # Side by side is the worst place.
        begin = rng.integers(0, len(coded) - 12)
        coded[begin + rng.permutation(12)[:8]] *= -1
        assert np.array_equal(trellis.decode(coded), bits)


def test_bits_that_are_less_sure_count_less() -> None:
    bits = some_bits(80, 3)
    coded = trellis.encode(bits)
    wrong = np.random.default_rng(4).random(len(coded)) < 0.4
    received = np.where(wrong, -0.3 * coded, coded).astype(np.float32)
    assert np.array_equal(trellis.decode(received), bits)
    assert not np.array_equal(trellis.decode(np.sign(received)), bits)
