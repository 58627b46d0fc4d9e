"""Clips as players give them: endless, of unknown rate, and black while the script is read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs
from clips import clip_of, core, frames_of, pictures

# mpv writes the property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:The _ColorRange frame property")

ENDLESS = (2**31 - 1) // 16
"""The frames that mpv states."""

BUFFERED = 32
"""The frames that mpv holds with ``buffered-frames=32`` and one request at a time; the newest ones
that were asked for, and no older ones."""

IMAGE = b"of the decoder"
"""What mpv keeps of a frame in a property of its own, and wants to find in what comes back."""


class Player:
    """Gives the frames of a low-rate clip once it plays, as mpv's vf_vapoursynth.c does.

    The clip is endless, of unknown rate and variable durations. While the script is read it is
    black. Frames are counted from where decoding began. Frames beyond the end are errors, and so
    are frames that have left the buffer.
    """

    def __init__(self, low: vs.VideoNode) -> None:
        self.playing = False
        self.begin = 0
        self.read: list[int] = []
        self._oldest = 0
        yuv = core.resize.Point(low, format=vs.YUV444P10, matrix=1, range=0)
        self._yuv = core.std.RemoveFrameProps(yuv)  # a file has none of Downsample's
        black = core.std.BlankClip(self._yuv, length=ENDLESS, fpsnum=0, fpsden=1, keep=True)
        self.video_in = core.std.FrameEval(black, self._give, clip_src=[black])

    def _give(self, n: int) -> vs.VideoNode:
        self.read.append(n)
        if not self.playing:
            frame = core.std.BlankClip(self._yuv, length=1, keep=True)
            return self._with_properties(frame, 0, 1)
        if n < self._oldest:
            raise ValueError(f"frame {n} requested, but only have frames from {self._oldest}")
        self._oldest = max(self._oldest, n - BUFFERED + 1)
        if self.begin + n >= self._yuv.num_frames:
            raise ValueError("EOF")
        # In whole microseconds. How long the last frame is it does not know, and says -1 second.
        last = self.begin + n == self._yuv.num_frames - 1
        duration = -999999 if last else 66667
        frame = self._with_properties(self._yuv[self.begin + n], duration, 1000000)
        return core.std.Loop(frame, ENDLESS)

    @staticmethod
    def _with_properties(frame: vs.VideoNode, numerator: int, denominator: int) -> vs.VideoNode:
        return core.std.SetFrameProps(
            frame,
            _DurationNum=numerator,
            _DurationDen=denominator,
            _SARNum=1,
            _SARDen=1,
            _ColorRange=1,
            _ColorSpace=1,
            _ChromaLocation=0,
            _FieldBased=0,
            _MP_IMAGE=IMAGE,
        )


@pytest.fixture
def player(conv_model: Path) -> Player:
    low = core.cvrs.Downsample(clip_of(pictures(48, 64, 48)), fps=15, model=str(conv_model))
    return Player(low)


def restored(video_in: vs.VideoNode, model: Path) -> vs.VideoNode:
    """What the documented script for mpv does."""
    clip = core.resize.Point(video_in, format=vs.RGB24, matrix_in=1, range_in=0)
    return core.cvrs.Upsample(clip, factor_num=2, scale=1, model=str(model))


def test_a_player_gets_the_frames_that_a_file_gives(player: Player, conv_model: Path) -> None:
    clip = restored(player.video_in, conv_model)
    player.playing = True
    low = core.cvrs.Downsample(clip_of(pictures(48, 64, 48)), fps=15, model=str(conv_model))
    expected = frames_of(core.cvrs.Upsample(low))
    np.testing.assert_array_equal(frames_of(clip[: len(expected)]), expected)


def test_a_player_learns_durations_and_that_frames_are_intact(
    player: Player, conv_model: Path
) -> None:
    clip = restored(player.video_in, conv_model)
    player.playing = True
    for n in (5, 47):  # the last one is as long as the one before
        with clip.get_frame(n) as frame:
            duration = Fraction(frame.props["_DurationNum"], frame.props["_DurationDen"])
            assert duration == Fraction(66667, 2000000)
            assert frame.props["CVRSIntact"] == 1
            assert frame.props["_MP_IMAGE"] == IMAGE


@pytest.mark.parametrize("begin", range(8))
def test_after_a_seek_a_player_gets_every_whole_group(
    begin: int, player: Player, conv_model: Path
) -> None:
    """The script is read again, and frames are counted from there."""
    low = core.cvrs.Downsample(clip_of(pictures(48, 64, 48)), fps=15, model=str(conv_model))
    whole = frames_of(core.cvrs.Upsample(low))
    player.begin = begin
    clip = restored(player.video_in, conv_model)
    player.playing = True
    first = -begin % 4 * 2  # of the first whole group
    count = (24 - begin) // 4 * 8
    shown = clip[: first + count]
    told = [frame.props["CVRSIntact"] for frame in shown.frames()]
    assert told == [0] * first + [1] * count
    np.testing.assert_array_equal(frames_of(shown)[first:], whole[2 * begin + first :][:count])


def test_the_end_is_an_error_and_not_a_frame(player: Player, conv_model: Path) -> None:
    clip = restored(player.video_in, conv_model)
    player.playing = True
    with pytest.raises(vs.Error, match="EOF"):
        clip.get_frame(48)
    clip.get_frame(47).close()


def test_a_last_group_that_is_shorter_is_shown(conv_model: Path) -> None:
    """Though the frames that would make it as long as the others are errors."""
    low = core.cvrs.Downsample(clip_of(pictures(43, 64, 48)), fps=15, model=str(conv_model))
    player = Player(low)
    clip = restored(player.video_in, conv_model)
    player.playing = True
    np.testing.assert_array_equal(frames_of(clip[:43]), frames_of(core.cvrs.Upsample(low)))


def test_an_endless_clip_needs_no_trim(player: Player, conv_model: Path) -> None:
    """And no frame is read before it plays."""
    clip = restored(player.video_in, conv_model)
    assert player.read == []
    assert clip.num_frames == 2 * ENDLESS
    rgb = core.resize.Point(player.video_in, format=vs.RGB24, matrix_in=1, range_in=0)
    with pytest.raises(vs.Error, match=r"Upsample: the restored clip must have at most .*Trim"):
        core.cvrs.Upsample(rgb, factor_num=17, model=str(conv_model))
