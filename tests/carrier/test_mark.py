"""The mark through what happens to files: real encoders, scaling, colours, cuts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from material import material
from places import DATA, VIMEO

from vs_cvrs import metrics
from vs_cvrs.carrier import mark
from vs_cvrs.carrier.mark import Evidence, Message, Place
from vs_cvrs.evaluation.scenes import read_frames
from vs_cvrs.training import transports
from vs_cvrs.training.transports import Planes

MESSAGE = Message(Fraction(2), 4, mark.model_id("9c3f"), 1234, (0, 2))


@functools.cache
def footage(count: int, width: int, height: int, seed: int = 0) -> mark.Frames:
    """A camera that passes a picture as rough as photographs are (1/f)."""
    rng = np.random.default_rng(seed)
    high, wide = height + 2 * count, width + 3 * count
    scale = np.hypot(np.fft.fftfreq(high)[:, None], np.fft.rfftfreq(wide)[None])
    scale[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(3, high, wide))) / scale
    spectrum[1:] = 0.8 * spectrum[:1] + 0.2 * spectrum[1:]
    picture = np.fft.irfft2(spectrum, (high, wide))
    picture = 120 + 35 * picture / picture.std()
    crops = [picture[:, 2 * n :, 3 * n :][:, :height, :width] for n in range(count)]
    return np.round(np.stack(crops)).clip(0, 255).astype(np.uint8)


def marked(clip: mark.Frames, message: Message = MESSAGE, first: int = 0) -> mark.Frames:
    made = clip.copy()
    for n in range(0, len(made), message.group_length):
        mark.write(made[n : n + message.group_length], message, first + n)
    return made


def evidence_of(clip: mark.Frames) -> list[Evidence]:
    return [mark.read(frame) for frame in clip]


def numbers(places: Sequence[Place | None]) -> list[int | None]:
    return [None if place is None else place.number for place in places]


def encoded(clip: mark.Frames, codec: str, crf: float, preset: str = "medium") -> mark.Frames:
    pytest.importorskip("av")
    planes = transports.to_planes(torch.from_numpy(clip) / 255)
    planes = Planes(*(plane.round().clamp(0, 255) for plane in planes))
    back = transports.encode_and_decode(planes, codec, crf, preset)
    return levels(transports.from_planes(back) * 255)


def levels(x: torch.Tensor) -> mark.Frames:
    made: mark.Frames = x.round().clamp(0, 255).to(torch.uint8).numpy()
    return made


def resized(clip: mark.Frames, height: int, width: int) -> mark.Frames:
    x = torch.from_numpy(clip).float()
    size = (height, width)
    return levels(torch.nn.functional.interpolate(x, size=size, mode="bicubic", antialias=True))


RATIOS = st.builds(
    lambda n, d, factor: Fraction(n, d) * factor,
    st.integers(1, 32),
    st.integers(1, 32),
    st.sampled_from([Fraction(1), Fraction(1001, 1000), Fraction(1000, 1001)]),
).filter(lambda ratio: ratio >= 1)
MESSAGES = st.builds(
    Message,
    RATIOS,
    st.integers(1, 256),
    st.integers(0, 1023),
    st.none() | st.integers(1, 2**20 - 1),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)


@given(MESSAGES)
def test_what_was_packed_is_unpacked(message: Message) -> None:
    assert Message.unpack(message.pack()) == message
    assert message.period % message.group_length == 0
    assert 768 < message.period <= 1024


def test_a_length_that_does_not_fit_is_not_said() -> None:
    assert Message.unpack(replace(MESSAGE, length=2**20).pack()) == replace(MESSAGE, length=None)


@pytest.mark.parametrize(
    "message",
    [
        replace(MESSAGE, ratio=Fraction(33)),
        replace(MESSAGE, ratio=Fraction(1, 2)),
        replace(MESSAGE, ratio=Fraction(100, 99)),
        replace(MESSAGE, group_length=0),
        replace(MESSAGE, group_length=257),
        replace(MESSAGE, model=1024),
        replace(MESSAGE, length=-1),
        replace(MESSAGE, excess=(4, 0)),
    ],
)
def test_values_that_do_not_fit_are_refused(message: Message) -> None:
    with pytest.raises(ValueError, match="mark: a value does not fit"):
        message.pack()


def with_field(first_bit: int, bits: int, value: int) -> bytes:
    packed, place = int.from_bytes(MESSAGE.pack()), 56 - first_bit - bits
    packed &= ~(((1 << bits) - 1) << place)
    return (packed | value << place).to_bytes(7)


HOSTILE = {
    "another version": with_field(0, 2, 2),
    "less than one": with_field(17, 5, 31),
    "a fraction that is not reduced": with_field(12, 10, 7 << 5 | 3),
    "a factor that there is not": with_field(22, 2, 3),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_a_mark_that_lies_is_refused(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = replace(MESSAGE, length=int(payload[0]) + 7)  # not the one that a cache knows
    monkeypatch.setattr(Message, "pack", lambda _: payload)
    evidence = evidence_of(marked(footage(4, 320, 180), liar))
    assert mark.find(evidence) is None
    assert mark.guess(evidence)[1] > 0.9
    assert mark.follow(evidence) == [None] * 4


@pytest.mark.parametrize("size", [(160, 90), (176, 144), (320, 180), (640, 352), (1280, 720)])
@pytest.mark.parametrize("bits", [8, 10])
def test_what_was_written_is_read(size: tuple[int, int], bits: int) -> None:
    clip = footage(2, *size)
    if bits == 10:
        clip = clip.astype(np.uint16) * 4 + 2
    message = replace(MESSAGE, group_length=2)
    sent = marked(clip, message, first=1020)
    evidence = evidence_of(sent)
    found = mark.find(evidence)
    assert found is not None
    assert (found.message, found.colours) == (message, 0)
    assert found.likeness > 0.9
    assert found.surprise > 200
    assert numbers(mark.follow(evidence)) == [1020, 1021]
    white = 2.0**bits - 1
    error = np.square((sent.astype(float) - clip) / white).mean()
    assert -10 * np.log10(error) > 43.5


@pytest.mark.parametrize("length", [1, 5, 256])
def test_groups_of_any_length(length: int) -> None:
    message = replace(MESSAGE, group_length=length)
    first = message.period - 3
    evidence = evidence_of(marked(footage(6, 320, 180), message, first))
    places = mark.follow(evidence)
    assert numbers(places) == [(first + n) % message.period for n in range(6)]
    assert places[0] is not None
    assert places[0].message == message
    assert places[0].in_group == first % length


def test_frames_that_cannot_be_marked_are_refused() -> None:
    assert not mark.fits(160, 89)
    assert not mark.fits(1000, 60)
    for shape in ((2, 3, 89, 160), (3, 180, 320), (1, 4, 180, 320)):
        with pytest.raises(ValueError, match="mark: "):
            mark.write(np.zeros(shape, np.uint8), MESSAGE, 0)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        mark.read(np.zeros((3, 180, 320), np.float32))
    frozen = np.zeros((1, 3, 180, 320), np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        mark.write(frozen, MESSAGE, 0)
    mark.read(frozen[0])


ENCODERS = [
    ("libx264", 26, "medium"),
    ("libx265", 26, "veryfast"),
    ("libsvtav1", 35, "8"),
    ("libvpx-vp9", 35, "4"),
]


@pytest.mark.parametrize(("codec", "crf", "preset"), ENCODERS)
def test_encoders_leave_the_mark(codec: str, crf: float, preset: str) -> None:
    clip = footage(8, 448, 256)
    evidence = evidence_of(encoded(marked(clip), codec, crf, preset))
    found = mark.find(evidence)
    assert found is not None
    assert found.message == MESSAGE
    assert numbers(mark.follow(evidence)) == list(range(8))
    assert mark.find(evidence_of(encoded(clip, codec, crf, preset))) is None


def test_a_group_is_enough() -> None:
    evidence = evidence_of(encoded(marked(footage(12, 448, 256)), "libx264", 19))
    for begin in (0, 4, 8):
        found = mark.find(evidence[begin : begin + 4])
        assert found is not None
        assert found.message == MESSAGE
        places = mark.follow(evidence[begin : begin + 4], [found])
        assert numbers(places) == list(range(begin, begin + 4))


def test_a_second_encoder_and_scaling_leave_the_mark() -> None:
    sent = encoded(marked(footage(8, 448, 256)), "libx264", 18)
    assert numbers(mark.follow(evidence_of(encoded(sent, "libx264", 23)))) == list(range(8))
    small = encoded(resized(sent, 170, 298), "libx264", 18)
    back = resized(small, 256, 448)
    assert numbers(mark.follow(evidence_of(back))) == list(range(8))
    evidence = [mark.read(frame, size=(448, 256)) for frame in small]
    assert numbers(mark.follow(evidence)) == list(range(8))


def as_luma(x: torch.Tensor, red: float, blue: float) -> torch.Tensor:
    """RGB to Y, R - Y and B - Y, scaled to the range of Cr and Cb."""
    y = red * x[:, 0] + (1 - red - blue) * x[:, 1] + blue * x[:, 2]
    return torch.stack((y, (x[:, 0] - y) / (1 - red), (x[:, 2] - y) / (1 - blue)), dim=1)


def as_rgb(x: torch.Tensor, red: float, blue: float) -> torch.Tensor:
    y = x[:, 0]
    r, b = y + x[:, 1] * (1 - red), y + x[:, 2] * (1 - blue)
    return torch.stack((r, (y - red * r - blue * b) / (1 - red - blue), b), dim=1)


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


@pytest.mark.parametrize("matrices", [(BT601, BT601), (BT601, BT709), (BT709, BT601)])
@pytest.mark.parametrize("scale", [1.0, 219 / 255, 255 / 219])
def test_colours_taken_for_others_leave_the_mark(
    matrices: tuple[tuple[float, float], ...], scale: float
) -> None:
    x = torch.from_numpy(marked(footage(4, 320, 180))).float()
    x = as_rgb(as_luma(x, *matrices[0]), *matrices[1])
    evidence = evidence_of(levels((x - 128) * scale + 128))
    found = mark.find(evidence)
    assert found is not None
    assert found.message == MESSAGE
    assert found.likeness > 0.9
    assert numbers(mark.follow(evidence)) == [0, 1, 2, 3]


@functools.cache
def sent(seed: int = 0, message: Message = MESSAGE) -> list[Evidence]:
    """Of 24 frames that an encoder had."""
    clip = marked(footage(24, 320, 180, seed), message)
    return evidence_of(encoded(clip, "libx264", 14))


def test_cuts_are_found() -> None:
    evidence = sent()
    assert numbers(mark.follow(evidence[5:])) == list(range(5, 24))
    dropped = [*range(9), *range(10, 24)]
    assert numbers(mark.follow([evidence[n] for n in dropped])) == dropped
    doubled = [*range(10), *range(9, 24)]
    assert numbers(mark.follow([evidence[n] for n in doubled])) == doubled
    apart = [*range(12, 24), *range(12)]
    assert numbers(mark.follow([evidence[n] for n in apart])) == apart


def test_clips_are_told_apart() -> None:
    other = replace(MESSAGE, group_length=5, length=77)
    foreign = evidence_of(encoded(footage(12, 320, 180, 7), "libx264", 20))
    evidence = [*sent()[3:15], *foreign, *sent(1, other)[:12]]
    places = mark.follow(evidence)
    assert numbers(places) == [*range(3, 15), *[None] * 12, *range(12)]
    assert {place.message for place in places[:12] if place} == {MESSAGE}
    assert {place.message for place in places[24:] if place} == {other}


def matched(order: Sequence[int | None], first: int = 0, marked: bool = False) -> list[int | None]:
    """Numbers that `mark.match` finds in frames of a clip; None: a frame of another one."""
    foreign = evidence_of(footage(4, 320, 180, 7))
    evidence = [foreign[i % 4] if n is None else sent()[n] for i, n in enumerate(order)]
    unknown = replace(MESSAGE, length=None, excess=(0, 0))
    return numbers(mark.match(evidence, unknown, first, marked))


@pytest.mark.parametrize("known", [False, True])
def test_a_group_is_where_it_is_expected_or_where_its_numbers_say(known: bool) -> None:
    assert matched([4, 5, 6, 7], 4, known) == [4, 5, 6, 7]
    assert matched([4, 5, 6, 7], 4 + MESSAGE.period, known) == [4, 5, 6, 7]
    assert matched([9, 10, 11, 12], 8, known) == [9, 10, 11, 12]
    assert matched([8, 9, 9, 10], 8, known) == [8, 9, 9, 10]
    assert matched([8, 10, 11, 12], 8, known) == [8, 10, 11, 12]
    assert matched([8, 9, 20, 21], 8, known) == [8, 9, 20, 21]
    assert matched([None] * 4, 8, known) == [None] * 4


def test_marks_of_another_kind_are_none() -> None:
    evidence = sent()[:4]
    for changed in (1, 6, 1023):
        other = replace(MESSAGE, model=MESSAGE.model ^ changed)
        assert mark.match(evidence, other, 0, marked=True) == [None] * 4
    longer = replace(MESSAGE, length=99, excess=(1, 2))
    assert numbers(mark.match(evidence, longer, 0)) == [0, 1, 2, 3]


def test_clips_without_a_mark_match_none() -> None:
    for name, clip in material().items():
        large = np.kron(clip, np.ones((1, 1, 4, 4), np.uint8))
        assert mark.match(evidence_of(large)[:4], MESSAGE, 0) == [None] * len(large[:4]), name


def test_the_number_in_the_clip() -> None:
    period = MESSAGE.period
    assert mark.index_near(Place(MESSAGE, 5), 0) == 5
    assert mark.index_near(Place(MESSAGE, 5), 3 * period) == 3 * period + 5
    assert mark.index_near(Place(MESSAGE, period - 1), 3 * period) == 3 * period - 1
    assert mark.index_near(Place(MESSAGE, period - 1), 0) == period - 1


def test_clips_without_a_mark_have_none() -> None:
    for name, clip in material().items():
        large = np.kron(clip, np.ones((1, 1, 4, 4), np.uint8))
        evidence = evidence_of(large)
        assert mark.follow(evidence) == [None] * len(large), name


def test_flat_pictures_change_little() -> None:
    grey = np.full((4, 3, 360, 640), 120, np.uint8)
    error = np.square(marked(grey).astype(float) - grey).mean()
    assert error < 0.9  # 48.6 dB
    evidence = evidence_of(marked(grey))
    assert numbers(mark.follow(evidence)) == [0, 1, 2, 3]
    black = np.zeros_like(grey)
    assert np.square(marked(black).astype(float)).mean() < 0.1


@pytest.mark.skipif(not DATA.exists(), reason="no footage")
@pytest.mark.parametrize("scene", ["00001_0808", "00005_0128", "00018_0043"])
def test_footage(scene: str) -> None:
    clip = read_frames(VIMEO / scene / f"im{n}.png" for n in (1, 3, 5, 7))
    sent = marked(clip)
    assert metrics.clip_psnr(sent, clip) > 44
    evidence = evidence_of(encoded(sent, "libx264", 28))
    found = mark.find(evidence)
    assert found is not None
    assert found.message == MESSAGE
    assert numbers(mark.follow(evidence)) == [0, 1, 2, 3]
    foreign = evidence_of(encoded(clip, "libx264", 28))
    readings = [mark.guess(foreign, colours) for colours in range(mark.COLOURS)]
    assert max(likeness for _, likeness, _ in readings) < 0.65
    assert max(surprise for _, _, surprise in readings) < mark.HASH_BITS + 20
