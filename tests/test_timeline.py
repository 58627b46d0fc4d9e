from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vs_cvrs.timeline import (
    MAX_GROUP_LENGTH,
    GroupTable,
    Timeline,
    choose_group_length,
    low_size,
    nearest_allowed_sizes,
    snap_rate,
    snap_ratio,
)

NAMED_RATIOS = [Fraction(2), Fraction(5, 4), Fraction(5, 2), Fraction(1001, 800), Fraction(1)]
ratios = st.sampled_from(NAMED_RATIOS) | st.fractions(1, 12, max_denominator=2000)
timelines = st.builds(Timeline, ratios, st.integers(1, 12))


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (14.985, Fraction(15000, 1001)),
        (11.988, Fraction(12000, 1001)),
        (24, Fraction(24)),
        (12.5, Fraction(25, 2)),
        (30.3, Fraction(303, 10)),
        (1000, Fraction(1000)),
    ],
)
def test_decimal_rates_become_exact_ones(fps: float, rate: Fraction) -> None:
    assert snap_rate(fps) == rate


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_are_none_are_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be a finite number"):
        snap_rate(fps)


@pytest.mark.parametrize(
    ("ratio", "preferred", "length"),
    [
        (Fraction(2), 4, 4),
        (Fraction(5, 4), 4, 4),
        (Fraction(5, 2), 4, 4),
        (Fraction(6, 5), 4, 5),
        (Fraction(1001, 800), 4, 4),
        (Fraction(7, 3), 5, 6),
        (Fraction(9, 8), 4, 8),
    ],
)
def test_group_length_makes_whole_groups_where_it_can(
    ratio: Fraction, preferred: int, length: int
) -> None:
    assert choose_group_length(ratio, preferred) == length


@pytest.mark.parametrize(
    ("high", "scale", "low"),
    [
        (1920, Fraction(4), 480),
        (1080, Fraction(4), 272),
        (1080, Fraction(1), 1080),
        (1078, Fraction(1), 1080),
        (854, Fraction(1), 856),
        (854, Fraction(2), 428),
        (1, Fraction(8), 4),
    ],
)
def test_low_sizes_are_multiples_of_four(high: int, scale: Fraction, low: int) -> None:
    assert low_size(high, scale) == low


def test_nearest_allowed_sizes() -> None:
    assert nearest_allowed_sizes(270) == (268, 272)
    assert nearest_allowed_sizes(2) == (4, 8)


@pytest.mark.parametrize(
    ("ratio", "length"),
    [(Fraction(1, 2), 4), (Fraction(2), 0), (Fraction(2), MAX_GROUP_LENGTH + 1)],
)
def test_impossible_timelines_are_refused(ratio: Fraction, length: int) -> None:
    with pytest.raises(ValueError, match=r"time factor must be|gop must be"):
        Timeline(ratio, length)


@given(timelines, st.integers(0, 10**12))
def test_groups_hold_the_frames_whose_centre_lies_in_their_span(
    timeline: Timeline, low: int
) -> None:
    first = timeline.high_begin(low)
    assert Fraction(2 * first + 1, 2) >= low * timeline.ratio
    assert first == 0 or Fraction(2 * first - 1, 2) < low * timeline.ratio


def assert_covered_once(table: GroupTable) -> None:
    groups = list(table.groups())
    assert len(groups) == len(table)
    assert [n for g in groups for n in g.source] == list(range(groups[-1].source.stop))
    assert [n for g in groups for n in g.output] == list(range(table.output_frames))
    for number, group in enumerate(groups):
        assert group.source
        assert group.output
        assert {table.group_of(n) for n in group.output} == {number}
        assert set(group.nearest) <= set(group.source)
        assert len(group.nearest) == len(group.output)
    for group in groups[1:]:
        assert (group.source_head, group.output_head) == (0, 0)
    for group in groups[:-1]:
        assert (group.source_tail, group.output_tail) == (0, 0)


@given(timelines, st.integers(1, 400))
def test_downsample_groups_cover_the_clip_once(timeline: Timeline, high_count: int) -> None:
    table = timeline.downsample_table(high_count)
    assert_covered_once(table)
    groups = list(table.groups())
    assert groups[-1].source.stop == high_count
    lows = table.output_frames
    # The tail is filled up to whole low-rate frames, with less than one of them.
    assert timeline.high_begin(lows) == high_count + groups[-1].source_tail
    assert lows == 1 or timeline.high_begin(lows - 1) < high_count
    assert {(g.source_head, g.output_head, g.output_tail) for g in groups} == {(0, 0, 0)}


@given(timelines, st.integers(1, 400))
def test_low_frames_show_a_frame_of_their_group(timeline: Timeline, high_count: int) -> None:
    groups = timeline.downsample_table(high_count).groups()
    shown = [n for group in groups for n in group.nearest]
    assert shown == [timeline.shown(low, high_count) for low in range(len(shown))]


@given(timelines, st.integers(1, 400))
def test_upsample_forms_the_groups_of_downsample(timeline: Timeline, high_count: int) -> None:
    down = timeline.downsample_table(high_count)
    up = timeline.upsample_table(down.output_frames, length=high_count)
    for sent, received in zip(down.groups(), up.groups(), strict=True):
        assert (received.source, received.output) == (sent.output, sent.source)
        assert received.output_tail == sent.source_tail
        assert (received.source_head, received.source_tail, received.output_head) == (0, 0, 0)


@given(timelines, st.integers(1, 100), st.data())
def test_a_trimmed_clip_keeps_the_groups(
    timeline: Timeline, low_count: int, data: st.DataObject
) -> None:
    phase = data.draw(st.integers(0, low_count - 1))
    end = data.draw(st.integers(phase + 1, low_count))
    part = timeline.upsample_table(end - phase, phase)
    assert_covered_once(part)
    origin = timeline.high_begin(phase)
    for group in part.groups():
        # What is there and what is missing make up the group that the whole clip has.
        first = phase + group.source.start - group.source_head
        assert first % timeline.group_length == 0
        made = origin + group.output.start - group.output_head
        assert made == timeline.high_begin(first)
        last = min(first + timeline.group_length, end)
        assert phase + group.source.stop == last
        assert origin + group.output.stop + group.output_tail == timeline.high_begin(last)


@given(timelines, st.integers(1, 100), st.data())
def test_length_cuts_the_end(timeline: Timeline, low_count: int, data: st.DataObject) -> None:
    span = timeline.high_begin(low_count)
    length = data.draw(st.integers(1, span))
    table = timeline.upsample_table(low_count, length=length)
    assert_covered_once(table)
    *_, last = table.groups()
    assert last.output.stop == length
    assert timeline.high_begin(last.source.stop) == length + last.output_tail
    with pytest.raises(ValueError, match=f"length must be 1 to {span}"):
        timeline.upsample_table(low_count, length=span + 1)


@given(timelines, st.integers(0, 10**7), st.integers(0, 10**7))
def test_tables_of_endless_clips_are_small(timeline: Timeline, phase: int, output: int) -> None:
    table = timeline.upsample_table(2**27, phase)
    assert len(table.source_begin) <= timeline.period() // timeline.group_length + 1
    group = table.group(table.group_of(output))
    assert output in group.output
    first = (phase + group.source.start) // timeline.group_length
    low = timeline.low_of(timeline.high_begin(phase) + output)
    assert low // timeline.group_length == first
    nearest = group.nearest[output - group.output.start]
    wanted = timeline.nearest_low(timeline.high_begin(phase) + output) - phase
    assert nearest == min(max(wanted, group.source.start), group.source.stop - 1)


@given(timelines, st.integers(0, 10**12))
def test_every_high_frame_lies_in_the_span_of_one_low_frame(timeline: Timeline, high: int) -> None:
    low = timeline.low_of(high)
    assert timeline.high_begin(low) <= high < timeline.high_begin(low + 1)


def test_huge_terms_stay_exact() -> None:
    ratio = Fraction(2**40 + 1, 2**40 - 1)
    timeline = Timeline(ratio, 4)
    table = timeline.upsample_table(9)
    groups = list(table.groups())
    assert [g.output.stop for g in groups] == [4, 8, 9]
    assert [n for g in groups for n in g.nearest] == list(range(9))


def test_nearest_frame_properties_at_twice_the_rate() -> None:
    table = Timeline(Fraction(2), 4).upsample_table(5, length=9)
    shown = [n for group in table.groups() for n in group.nearest]
    assert shown == [0, 0, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("high", "low", "ratio"),
    [
        (Fraction(30), Fraction(44000, 2933), Fraction(2)),  # 15 fps as a reader states it
        (Fraction(30000, 1001), Fraction(14986, 1000), Fraction(2)),
        (Fraction(30), Fraction(24), Fraction(5, 4)),
        (Fraction(30), Fraction(24000, 1001), Fraction(1001, 800)),
        (Fraction(30000, 1001), Fraction(15), Fraction(2000, 1001)),
    ],
)
def test_ratios_of_rounded_rates_are_simple(high: Fraction, low: Fraction, ratio: Fraction) -> None:
    assert snap_ratio(high / low) == ratio


def test_neighbours_of_frames_in_a_group() -> None:
    timeline = Timeline(Fraction(5, 2), 4)  # low-rate frames 2, 3 and 4 show 5, 7 and 10
    found = timeline.neighbours(2, 5, np.arange(4, 13))
    assert found.before.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.after.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2]
    assert found.share == pytest.approx([0, 0, 1 / 2, 0, 1 / 3, 2 / 3, 0, 0, 0])
    for n, low in enumerate(range(2, 5)):
        place = timeline.high_begin(low) - 4
        assert (found.before[place], found.after[place], found.share[place]) == (n, n, 0)


def test_what_a_clip_restores_to() -> None:
    timeline = Timeline(Fraction(2), 4)  # 23 frames were sent in 12
    assert timeline.restored_count(12, 0, 23) == 23
    assert timeline.restored_count(4, 3, 23) == 8
    assert timeline.restored_count(2, 10, 23) == 3
    assert timeline.restored_count(24, 0, 23) == 48  # twice
    assert timeline.restored_count(12, 8, 23) == 24  # the other way round
    assert timeline.restored_count(1, 12, 23) == -1
