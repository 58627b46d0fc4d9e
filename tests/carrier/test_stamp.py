from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.stamp import Mode, Sent, Stamp

STAMP = Stamp(
    ratio=Fraction(1001, 800),
    rate=Fraction(30),
    width=1918,
    height=1078,
    length=2**24,
    group_length=256,
    index=2**23 + 5,
    checksum="0123456789abcdef",
    sent=Sent(91, 88, Mode.INTERPOLATED, 16, 239),
)


def noise(height: int, width: int, seed: int = 0) -> stamp.Frame:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)


def stamped(frame: stamp.Frame, what: Stamp = STAMP) -> Stamp:
    """Stamp a group of one frame; what is read of it."""
    stamp.write(frame[None], what)
    found = stamp.read(frame)
    assert found is not None
    return found


@pytest.mark.parametrize("size", [(12, 16), (16, 16), (4, 40), (256, 448), (272, 480)])
@pytest.mark.parametrize("rate", [None, Fraction(60000, 1001)])
def test_what_was_written_is_read(size: tuple[int, int], rate: Fraction | None) -> None:
    frame = noise(*size)
    before = frame.copy()
    wanted = replace(STAMP, rate=rate)
    assert replace(stamped(frame, wanted), group=b"") == wanted
    change = np.abs(frame.astype(int) - before)
    assert change.max() == 1
    assert np.count_nonzero(change) <= stamp.MIN_SAMPLES


# The lowest bits of noise(12, 12) with STAMP, as the code of version 1 wrote it.
_VERSION_1 = (
    "0281020400f40408040850100af710002000fd107b7848b70140020001040400"
    "4208005008868563c2756cdf5e46170aa70c3c0740c5"
)


# The lowest bits of noise(12, 12) with STAMP, as the code of version 2 wrote it.
_VERSION_2 = (
    "020000000f0004000041000bb82000003f483bf010d804000000030000800002"
    "8094d159e2b579bdd5b58014877e61031e39657368c6"
)


@pytest.mark.parametrize(
    ("bits", "wanted"), [(_VERSION_1, replace(STAMP, sent=Sent())), (_VERSION_2, STAMP)]
)
def test_stamps_of_earlier_versions_are_read(bits: str, wanted: Stamp) -> None:
    lowest = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))
    frame = noise(12, 12) & np.uint8(0xFE) | lowest.reshape(3, 12, 12)
    assert stamp.read(frame) == wanted
    frame[0, 0, 0] ^= 2
    assert stamp.read(frame) is None


def test_the_frames_of_a_group_are_numbered_and_know_their_group() -> None:
    group = np.stack([noise(24, 32, seed) for seed in range(3)])
    stamp.write(group, STAMP)
    found = [stamp.read(frame) for frame in group]
    hashed = found[0].group if found[0] else b""
    assert len(hashed) == 4
    assert found == [replace(STAMP, index=STAMP.index + n, group=hashed) for n in range(3)]


def test_a_group_is_told_by_all_its_frames_and_by_nothing_else() -> None:
    def group_of(frames: stamp.Frame, what: Stamp = STAMP) -> bytes:
        stamp.write(frames, what)
        groups = {found.group for frame in frames if (found := stamp.read(frame))}
        assert len(groups) == 1
        return groups.pop()

    frames = np.stack([noise(24, 32, seed) for seed in range(3)])
    once = group_of(frames)
    assert group_of(frames, replace(STAMP, index=7, sent=Sent(), rate=None)) == once
    for n in range(3):
        other = frames.copy()
        other[n, 1, 3, 5] ^= 2
        assert group_of(other) != once
    assert group_of(frames[::-1].copy()) != once
    assert group_of(frames[:2].copy()) != once


def test_quality_is_said_in_half_decibels() -> None:
    for psnr, quality in (
        (45.49, 90),
        (45.5, 91),
        (0.0, 1),
        (-math.inf, 1),
        (200.0, 254),
        (math.inf, stamp.EXACT),
    ):
        assert stamp.quality_of(psnr) == quality
    assert [stamp.psnr_of(q) for q in (0, 1, 91, stamp.EXACT)] == [None, 0.5, 45.5, math.inf]


def test_the_same_clip_whatever_the_group() -> None:
    assert STAMP.same_clip(replace(STAMP, index=0, sent=Sent(), group=b"1234"))
    assert not STAMP.same_clip(replace(STAMP, length=3))


def test_the_same_frame_gets_the_same_stamp() -> None:
    frames = [noise(24, 32) for _ in range(2)]
    for frame in frames:
        stamped(frame)
    np.testing.assert_array_equal(frames[0], frames[1])
    once = frames[0].copy()
    stamped(frames[0])
    np.testing.assert_array_equal(frames[0], once)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3 * 24 * 32 - 1), st.integers(0, 7))
def test_one_changed_bit_anywhere_is_seen(sample: int, bit: int) -> None:
    frame = noise(24, 32)
    stamped(frame)
    frame.reshape(-1)[sample] ^= np.uint8(1 << bit)
    assert stamp.read(frame) is None


def test_samples_of_ten_bits() -> None:
    frame = np.random.default_rng(0).integers(0, 1024, (3, 24, 32), np.uint16)
    before = frame.copy()
    assert replace(stamped(frame), group=b"") == STAMP
    assert np.abs(frame.astype(int) - before).max() == 1
    assert stamp.read((frame & 255).astype(np.uint8)) is None
    frame[1, 3, 5] ^= 512
    assert stamp.read(frame) is None


def test_frames_that_were_never_stamped_are_not_intact() -> None:
    assert all(stamp.read(noise(16, 16, seed)) is None for seed in range(2000))
    for level in (0, 1, 255):
        assert stamp.read(np.full((3, 24, 32), level, np.uint8)) is None


def test_another_shape_of_the_same_samples_is_seen() -> None:
    frame = noise(24, 32)
    stamped(frame)
    assert stamp.read(frame.reshape(3, 32, 24)) is None


def test_small_frames_carry_none() -> None:
    assert not stamp.fits(12, 12)
    assert stamp.fits(12, 16)
    frame = noise(12, 8)
    with pytest.raises(ValueError, match="needs 448 samples, got 288"):
        stamp.write(frame[None], STAMP)
    assert stamp.read(frame) is None


def test_values_beyond_their_fields_are_refused() -> None:
    frame = noise(24, 32)
    with pytest.raises(ValueError, match="does not fit"):
        stamp.write(frame[None], replace(STAMP, length=2**32))


@pytest.mark.parametrize(
    "change",
    [
        {"ratio": Fraction(1, 2)},
        {"length": 0},
        {"group_length": 0},
        {"width": 0},
        {"sent": Sent(mode=4)},  # type: ignore[arg-type]
        {"sent": Sent(black=200, white=200)},
    ],
)
def test_a_forged_payload_that_makes_no_sense_is_no_stamp(change: dict[str, object]) -> None:
    frame = noise(24, 32)
    stamp.write(frame[None], replace(STAMP, **change))  # type: ignore[arg-type]
    assert stamp.read(frame) is None


@pytest.mark.parametrize("frame", [noise(24, 32)[:, ::2], noise(24, 32).astype(np.int32)])
def test_arrays_of_another_form_are_refused(frame: stamp.Frame) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        stamp.read(frame)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_large_frames_are_stamped_and_read_together_as_alone(kind: type) -> None:
    group: npt.NDArray[Any] = np.stack([noise(600, 600, seed) for seed in range(3)]).astype(kind)
    assert group[0].nbytes >= stamp._WORTH_THREADS
    stamp.write(group, STAMP)
    alone = [stamp.read(frame) for frame in group]
    assert [found and found.index for found in alone] == [STAMP.index + n for n in range(3)]
    assert stamp.read_all(list(group)) == alone
    group[1, 2, -1, -1] ^= 2
    assert stamp.read_all(list(group)) == [alone[0], None, alone[2]]
