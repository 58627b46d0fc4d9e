"""Clips as players give them: endless, of unknown rate, and black while the script is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs
from clips import clip_of, core, frames_of, pictures

ENDLESS = (2**31 - 1) // 16
"""The frames that mpv states."""


class Player:
    """Gives the frames of a low-rate clip once it plays; an error beyond their end, as mpv does."""

    def __init__(self, low: vs.VideoNode) -> None:
        self.playing = False
        self.begin = 0
        yuv = core.resize.Point(low, format=vs.YUV444P10, matrix=1, range=0)
        self._yuv = core.std.RemoveFrameProps(yuv)  # a file has none of Downsample's
        black = core.std.BlankClip(self._yuv, length=ENDLESS, fpsnum=0, fpsden=1, keep=True)
        self.video_in = core.std.FrameEval(black, self._give, clip_src=[black])

    def _give(self, n: int) -> vs.VideoNode:
        if not self.playing:
            frame = core.std.BlankClip(self._yuv, length=1, keep=True)
            return core.std.SetFrameProps(frame, _DurationNum=0, _DurationDen=1)
        if self.begin + n >= self._yuv.num_frames:
            raise ValueError("EOF")
        frame = core.std.SetFrameProps(self._yuv[self.begin + n], _DurationNum=1, _DurationDen=15)
        return core.std.Loop(frame, ENDLESS)


@pytest.fixture
def player(conv_model: Path) -> Player:
    low = core.cvrs.Downsample(clip_of(pictures(16, 64, 48)), fps=15, model=str(conv_model))
    return Player(low)


def restored(video_in: vs.VideoNode, model: Path) -> vs.VideoNode:
    """What the README's script for mpv does."""
    clip = core.std.Trim(video_in, length=1_000_000)
    clip = core.resize.Point(clip, format=vs.RGB24, matrix_in=1, range_in=0)
    return core.cvrs.Upsample(clip, factor_num=2, model=str(model))


def test_a_player_gets_the_frames_that_a_file_gives(player: Player, conv_model: Path) -> None:
    clip = restored(player.video_in, conv_model)
    player.playing = True
    low = core.cvrs.Downsample(clip_of(pictures(16, 64, 48)), fps=15, model=str(conv_model))
    expected = frames_of(core.cvrs.Upsample(low))
    np.testing.assert_array_equal(frames_of(clip[: len(expected)]), expected)


def test_a_player_learns_durations_and_that_frames_are_intact(
    player: Player, conv_model: Path
) -> None:
    clip = restored(player.video_in, conv_model)
    player.playing = True
    with clip.get_frame(5) as frame:
        told = {key: frame.props[key] for key in ("_DurationNum", "_DurationDen", "CVRSIntact")}
    assert told == {"_DurationNum": 1, "_DurationDen": 30, "CVRSIntact": 1}


def test_after_a_seek_a_player_gets_frames_that_say_they_are_not_intact(
    player: Player, conv_model: Path
) -> None:
    player.begin = 1  # the script is read again, and frames are counted from there
    clip = restored(player.video_in, conv_model)
    player.playing = True
    with clip.get_frame(0) as frame:
        assert frame.props["CVRSIntact"] == 0


def test_the_end_is_an_error_and_not_a_frame(player: Player, conv_model: Path) -> None:
    clip = restored(player.video_in, conv_model)
    player.playing = True
    with pytest.raises(vs.Error, match="EOF"):
        clip.get_frame(16)
    clip.get_frame(15).close()


def test_an_endless_clip_is_to_be_trimmed(player: Player, conv_model: Path) -> None:
    rgb = core.resize.Point(player.video_in, format=vs.RGB24, matrix_in=1, range_in=0)
    with pytest.raises(vs.Error, match=r"got 134217727.*core\.std\.Trim"):
        core.cvrs.Upsample(rgb, factor_num=2, model=str(conv_model))
