"""Groups found by the marks of the frames that are there, whatever was done to the clip."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vs_cvrs.plugin.alignment import Alignment, Mark, Unit
from vs_cvrs.timeline import Timeline

Frames = list[Mark | None]

RATIOS = [
    Fraction(2),
    Fraction(5, 4),
    Fraction(5, 2),
    Fraction(1001, 800),
    Fraction(3),
    Fraction(1),
]


def sent(count: int, clip: str = "a") -> Frames:
    """The marks of a clip of ``count`` low-rate frames as it was sent."""
    return [Mark(clip, index, count) for index in range(count)]


@dataclass
class Reader:
    """Gives the marks that are asked for, and notes which those are."""

    alignment: Alignment
    frames: Frames

    def unit(self, output: int, known: set[int] | None = None) -> tuple[Unit, set[int]]:
        """The unit of an output frame, and the frames that were looked at for it."""
        marks = {n: self.frames[n] for n in known or ()}
        looked: set[int] = set()
        for _ in range(8):
            placed = self.alignment.place(output, marks)
            if isinstance(placed, Unit):
                return placed, looked
            assert set(placed) - marks.keys(), "nothing new is asked for"
            looked |= set(placed)
            marks |= {n: self.frames[n] for n in placed}
        raise AssertionError("not found")


def reader(frames: Frames, ratio: Fraction = Fraction(2), size: int = 4, phase: int = 0) -> Reader:
    timeline = Timeline(ratio, size)
    length = timeline.high_begin(phase + len(frames)) - timeline.high_begin(phase)
    return Reader(Alignment(timeline, len(frames), phase, length), frames)


def units(made: Reader) -> list[Unit]:
    """All units, in order. Each output frame is in one, whatever is known when it is asked for."""
    every = set(range(len(made.frames)))
    found: list[Unit] = []
    output = 0
    while output < made.alignment.length:
        unit, _ = made.unit(output, every)
        assert unit.output.start == output
        assert unit.output
        for other in unit.output:
            assert made.unit(other, every)[0] == unit
        found.append(unit)
        output = unit.output.stop
    assert [n for unit in found for n in unit.run] == list(range(len(made.frames)))
    return found


def assert_sound(made: Reader, unit: Unit) -> None:
    """What a unit says of itself is true."""
    timeline = made.alignment.timeline
    marks = [made.frames[n] for n in unit.sources]
    expected = None
    if some := next((made.frames[n] for n in unit.run if made.frames[n]), None):
        first = some.index // timeline.group_length * timeline.group_length
        last = min(first + timeline.group_length, some.sent)
        expected = [replace(some, index=n) for n in range(first, last)]
    assert unit.whole == (expected is not None and marks == expected)
    high = timeline.high_begin
    assert unit.made == high(unit.first + len(unit.sources)) - high(unit.first)
    # One restored frame after the other; at most one is left over, or shown twice.
    start = high(unit.index) - high(unit.first)
    stop = high(unit.index + len(unit.run)) - high(unit.first)
    assert list(unit.shown) == [min(n, stop - 1) for n in range(start, start + len(unit.output))]
    if unit.output.stop < made.alignment.length:
        assert abs(len(unit.output) - (stop - start)) <= 1
    assert set(unit.nearest) <= set(unit.run)
    assert list(unit.nearest) == sorted(unit.nearest)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 22])
def test_of_a_clip_that_nobody_cut_only_each_group_is_looked_at(
    ratio: Fraction, count: int
) -> None:
    made = reader(sent(count), ratio)
    table = made.alignment.timeline.upsample_table(count)
    for group in table.groups():
        for output in group.output:
            unit, looked = made.unit(output)
            assert looked == set(group.source)
            assert unit.whole
            assert (unit.run, unit.output, unit.nearest) == (
                group.source,
                group.output,
                group.nearest,
            )
            assert unit.shown == tuple(range(unit.made))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("begin", range(9))
@pytest.mark.parametrize("known", [True, False])
def test_a_clip_cut_anywhere_keeps_its_whole_groups(
    ratio: Fraction, begin: int, known: bool
) -> None:
    for end in range(begin + 1, 22):
        made = reader(sent(22)[begin:end], ratio, phase=begin if known else 0)
        for unit in units(made):
            assert_sound(made, unit)
            first, last = unit.first, min(unit.first + 4, 22)
            assert unit.whole == (begin <= first and last <= end)
            if unit.whole:
                assert unit.run == range(first - begin, last - begin)


def test_groups_of_scenes_in_another_order_are_whole_where_they_are_shown_and_where_not() -> None:
    whole = sent(24)
    made = reader(whole[13:21] + whole[2:9] + whole[13:21])
    told = [(unit.run.start, unit.first, len(unit.run), unit.whole) for unit in units(made)]
    assert told == [
        (0, 12, 3, False),
        (3, 16, 4, True),
        (7, 20, 1, False),
        (8, 0, 2, False),
        (10, 4, 4, True),
        (14, 8, 1, False),
        (15, 12, 3, False),
        (18, 16, 4, True),
        (22, 20, 1, False),
    ]


def test_a_doubled_frame_does_not_break_its_group() -> None:
    whole = sent(12)
    for doubled in range(12):
        made = reader(whole[: doubled + 1] + whole[doubled:])
        for unit in units(made):
            assert unit.whole
            assert_sound(made, unit)


def test_a_dropped_frame_takes_only_its_own_group_along() -> None:
    whole = sent(16)
    for dropped in range(16):
        made = reader(whole[:dropped] + whole[dropped + 1 :])
        for unit in units(made):
            assert unit.whole == (unit.first != dropped // 4 * 4)
            wanted = [n for n in range(unit.first, unit.first + 4) if n != dropped]
            there = {m.index for n in unit.sources if (m := made.frames[n])}
            assert there == set(wanted)


def test_reversed_frames_are_restored_too() -> None:
    made = reader(sent(16)[::-1])
    assert all(unit.whole and len(unit.run) == 1 for unit in units(made))


def test_a_damaged_frame_stays_with_its_group() -> None:
    for begin in range(4):
        for damaged in range(begin, 15):
            frames = sent(16)
            frames[damaged] = None
            made = reader(frames[begin:])
            for unit in units(made):
                assert_sound(made, unit)
                lost = damaged // 4 == unit.first // 4 or (begin and unit.first == 0)
                assert unit.whole == (not lost)
                assert unit.run == range(max(0, unit.first - begin), unit.first - begin + 4)


def test_a_frame_without_a_mark_is_not_taken_for_one_that_stands_elsewhere() -> None:
    made = reader([*sent(6)[:3:-1], None, *sent(6)[2::-1]], size=5)
    assert [unit.whole for unit in units(made) if unit.run == range(2, 3)] == [False]


def test_of_an_endless_clip_no_frame_behind_a_whole_group_is_looked_at() -> None:
    """Nobody knows where it ends, and a frame behind its end is an error."""
    for begin in range(9):
        frames = sent(22)[begin:]
        plain = reader(frames)
        endless = reader(frames)
        endless.alignment = replace(plain.alignment, endless=True)
        for output in range(-begin % 4 * 2, plain.alignment.length):
            unit, looked = endless.unit(output)
            assert unit == plain.unit(output)[0]
            assert looked == set(unit.run)
            # The first frame of a group that nobody cut has been looked at.
            assert endless.unit(output, {output // 8 * 4})[0] == unit


def test_frames_without_marks_are_taken_for_those_that_belong_there() -> None:
    made = reader([None] * 10, phase=3)
    runs = [(unit.run, unit.sources) for unit in units(made)]
    assert runs == [
        (range(1), (0, 0, 0, 0)),
        (range(1, 5), (1, 2, 3, 4)),
        (range(5, 9), (5, 6, 7, 8)),
        (range(9, 10), (9,)),
    ]
    assert {len(made.unit(n)[1]) for n in range(20)} == {1, 4}


def test_equal_numbers_of_another_clip_do_not_make_a_group() -> None:
    made = reader(sent(8, "a")[:6] + sent(8, "b")[6:])
    assert [unit.whole for unit in units(made)] == [True, False, False]


def test_the_time_axis_at_ratios_that_are_not_whole() -> None:
    """5/4: frame p of the clip begins at output frame ceil(5 p / 4 - 1/2)."""
    whole = sent(16)
    made = reader(whole[3:12], Fraction(5, 4))
    assert made.alignment.length == 11
    told = [(unit.run, unit.output, unit.shown) for unit in units(made)]
    assert told == [
        (range(1), range(1), (4,)),
        (range(1, 5), range(1, 6), (0, 1, 2, 3, 4)),
        (range(5, 9), range(6, 11), (0, 1, 2, 3, 4)),
    ]
    # Cut inside groups: a frame that stood for one output frame may now have the time of two.
    made = reader([*whole[:2], whole[4], *whole[5:8]], Fraction(5, 4))
    told = [(unit.run, unit.output, unit.shown) for unit in units(made)]
    assert told == [
        (range(2), range(2), (0, 1)),
        (range(2, 6), range(2, 7), (0, 1, 2, 3, 4)),
    ]
    made = reader([whole[0], whole[1], whole[1]], Fraction(5, 4))
    told = [(unit.run, unit.output, unit.shown) for unit in units(made)]
    assert told == [(range(2), range(2), (0, 1)), (range(2, 3), range(2, 4), (1, 1))]


def test_where_groups_differ_in_length_one_frame_is_left_over_or_shown_twice() -> None:
    """1001/800: most groups of 4 make 5 frames, every 200th one more."""
    timeline = Timeline(Fraction(1001, 800), 4)
    long = next(
        g for g in range(200) if timeline.high_begin(4 * g + 4) - timeline.high_begin(4 * g) == 6
    )
    whole = sent(800)
    there = whole[4 * long : 4 * long + 4]
    (unit,) = units(reader(there, Fraction(1001, 800)))
    assert (unit.made, unit.shown, unit.whole) == (6, (0, 1, 2, 3, 4), True)
    made = reader(whole[:4], Fraction(1001, 800), phase=4 * long)
    (unit,) = units(made)
    assert (unit.made, unit.shown, unit.whole) == (5, (0, 1, 2, 3, 4, 4), True)


@st.composite
def edited(draw: Any) -> Frames:
    """One or two clips after an editor, a converter and a bad line."""
    clips = {name: sent(draw(st.integers(1, 40)), name) for name in "ab"}
    frames: Frames = []
    for _ in range(draw(st.integers(1, 5))):
        clip = clips[draw(st.sampled_from("ab"))]
        begin = draw(st.integers(0, len(clip) - 1))
        part = clip[begin : begin + draw(st.integers(1, 24))]
        frames += part[::-1] if draw(st.integers(0, 9)) == 0 else part
    for _ in range(draw(st.integers(0, 3))):
        n = draw(st.integers(0, len(frames) - 1))
        how = draw(st.sampled_from(["double", "drop", "damage", "swap"]))
        if how == "double":
            frames.insert(n, frames[n])
        elif how == "damage":
            frames[n] = None
        elif how == "swap":
            frames[n], frames[n - 1] = frames[n - 1], frames[n]
        elif len(frames) > 1:
            del frames[n]
    return frames


@settings(deadline=None)
@given(
    edited(),
    st.sampled_from(RATIOS) | st.fractions(1, 6, max_denominator=30),
    st.integers(1, 9),
    st.integers(0, 50),
    st.integers(),
)
def test_whatever_was_done_to_a_clip(
    frames: Frames, ratio: Fraction, size: int, phase: int, seed: int
) -> None:
    made = reader(frames, ratio, size, phase)
    rng = random.Random(seed)
    found = units(made)
    whole = {unit.run.start for unit in found if unit.whole}
    for unit in found:
        assert_sound(made, unit)
        # The same, whatever is known already, and never more than the frames around is asked for.
        output = rng.choice(unit.output)
        known = set(rng.sample(range(len(frames)), rng.randrange(len(frames) + 1)))
        again, looked = made.unit(output, known)
        assert again == unit
        endless = Reader(replace(made.alignment, endless=True), frames)
        assert endless.unit(output, known)[0] == unit
        reach = 2 * size - 1
        assert all(unit.run.start - reach <= n < unit.run.stop + reach for n in looked)
    # Every whole group that is there is restored where it stands.
    for begin, mark in enumerate(frames):
        if mark is None or mark.index % size:
            continue
        last = min(mark.index + size, mark.sent)
        group = [replace(mark, index=n) for n in range(mark.index, last)]
        if frames[begin : begin + len(group)] == group:
            assert begin in whole
