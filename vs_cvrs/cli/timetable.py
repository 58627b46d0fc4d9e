"""When the frames of a low-rate file are shown, once they are restored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.cli.clips import Video
from vs_cvrs.cli.tags import Tags
from vs_cvrs.cli.times import Times, attached_times, times_between
from vs_cvrs.timeline import Timeline

__all__ = ["restored_times"]

_NEAR = 0.002  # seconds: times of containers are rounded


def restored_times(
    source: Path, tags: Tags | None, video: Video, first: Stamp, length: int
) -> tuple[Times | None, str]:
    """The times of restored frames, and what is to be said of them.

    Args:
        source: a low-rate file.
        tags: its tags.
        video: what is in it.
        first: the stamp of its first frame.
        length: how many frames are restored.

    Returns:
        None for frames at a constant rate. A sentence, empty where there is nothing to say.
    """
    varying = not video.constant if tags is None else tags.timed
    if not varying or video.times is None:
        return None, ""
    timeline = Timeline(first.ratio, first.group_length)
    begin = timeline.high_begin(first.index)
    table = attached_times(source)
    lows = range(first.index, first.index + int(video.clip.num_frames))
    shown = [timeline.shown(n, begin + length) for n in lows]
    if table is not None and begin + length <= table.size:
        off = (table[shown] - table[shown[0]]) - (video.times - video.times[0])
        if np.abs(off).max() <= _NEAR:
            return table[begin : begin + length] - table[begin], ""
    step = 1.0 / float(first.rate) if first.rate else 0.0
    times = times_between(shown, video.times, range(begin, begin + length), step)
    why = "has lost the table of its frames' times" if table is None else "was cut or joined"
    return times - times[0], f"{source} {why}: removed frames are spread evenly between the others"
