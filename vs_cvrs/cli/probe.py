"""``vs-cvrs info``: whether a file carries hidden motion, and whether it arrived intact."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs
from rich.progress import track

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.levels import read_stamp
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.cli.clips import Video, core, each_frame, frame_array, open_video, to_low_rate
from vs_cvrs.cli.marks import checksum_of, read_marks, stamp_of_marks
from vs_cvrs.cli.quality import Quality
from vs_cvrs.cli.running import console
from vs_cvrs.cli.tags import Tags, read_tags
from vs_cvrs.cli.times import Times, constant_clock, table_clock
from vs_cvrs.cli.timetable import restored_times
from vs_cvrs.plugin.statements import Stated
from vs_cvrs.timeline import Timeline

__all__ = ["Finding", "State", "info", "probe"]

_SAMPLES = 32


class State(enum.IntEnum):
    """What a file is found to be; the value is the command's exit code."""

    INTACT = 0
    NONE = 3
    ALTERED = 4
    CUT = 5
    UNKNOWN = 6
    MARKED = 7


@dataclass(frozen=True)
class Finding:
    """What is known of a file.

    Attributes:
        state: the verdict; CUT is intact frames of groups that are not whole, MARKED those that
            were meant to be encoded with loss.
        because: the verdict in a sentence.
        looked_at, good: frames looked at, and those whose stamp fits.
        first: the stamp of the first frame, worked out from a later one where need be.
        tags: the file's.
        stamps: those that fit, in the order of the frames.
        frames: that the file has.
        joined: it was made of several parts.
        times: of the restored frames, where they are at no constant rate.
        marked: what marks tell, where there is no stamp.
    """

    state: State
    because: str
    looked_at: int
    good: int
    first: Stamp | None
    tags: Tags | None
    stamps: list[Stamp] = field(default_factory=list)
    frames: int = 0
    joined: bool = False
    times: Times | None = None
    marked: Stated | None = None


def info(path: Path, every: bool, as_json: bool) -> int:
    """Print what is found; the exit code is a `State`."""
    found = probe(path, every)
    first = found.first or (found.tags.first if found.tags else None)
    if found.marked is not None:
        first = _first_of(found.marked, found.frames, first)
    facts: dict[str, Any] = {"file": str(path), "state": found.state.name.lower()}
    facts |= {"because": found.because, "frames looked at": found.looked_at, "intact": found.good}
    if first is not None:
        timeline = Timeline(first.ratio, first.group_length)
        restored = max(0, timeline.restored_count(found.frames, first.index, first.length))
        facts |= {
            "model": found.tags.model if found.tags else _bundled(first.checksum),
            "checksum": first.checksum,
            "restores": f"{restored} frames of {first.width}x{first.height}",
            "rate": _rate(first, found.times),
            "time factor": str(first.ratio),
            "group": first.group_length,
            "first frame": first.index,
            "low-rate frames sent": timeline.low_count(first.length),
        }
        quality = Quality.of(found.stamps)
        if quality is not None:
            clock = constant_clock(first.rate)
            if found.times is not None and first.index == 0:
                clock = table_clock(found.times)
            facts |= quality.facts(clock)
        if found.joined:  # what says where something was in the clip that was sent
            for key in ("first frame", "low-rate frames sent", "worst group"):
                facts.pop(key, None)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        width = max(len(key) for key in facts)
        for key, value in facts.items():
            print(f"{key.capitalize():{width}}  {value}")
    return int(found.state)


def probe(path: Path, every: bool = False) -> Finding:
    """Look at frames spread over a file, or at every one.

    Raises:
        CliError: the file cannot be read.
    """
    tags = read_tags(path)
    video = open_video(path, any_times=True)
    found = _probe(video, tags, every)
    if found.first is None:
        return found
    timeline = Timeline(found.first.ratio, found.first.group_length)
    length = timeline.restored_count(
        int(video.clip.num_frames), found.first.index, found.first.length
    )
    times, _ = restored_times(path, tags, video, found.first, length) if length > 0 else (None, "")
    return replace(found, times=times)


def _probe(video: Video, tags: Tags | None, every: bool) -> Finding:
    clip = video.clip
    source_format = clip.format
    rgb = to_low_rate(clip)
    total = int(rgb.num_frames)
    if not stamp.fits(rgb.width, rgb.height):
        why = f"frames of {rgb.width}x{rgb.height} are too small to carry a stamp"
        return Finding(State.UNKNOWN, why, 0, 0, None, tags)
    numbers = range(total) if every else np.unique(np.linspace(0, total - 1, _SAMPLES).astype(int))
    found, lost = _look(rgb, numbers)
    if len(found) < total and _is_joined(found):
        found, lost = _look(rgb, range(total))  # only all of them tell whether groups are whole
    good = {n: s for n, s in found.items() if s is not None}
    looked_at = len(found)
    if not good:
        marked = read_marks(rgb)
        if marked is not None:
            why = "frames are marked: they hide what outlives encoders with loss"
            return Finding(State.MARKED, why, looked_at, 0, None, tags, frames=total, marked=marked)
        if tags is None:
            why = "no CVRS tags, and no frame with a stamp: not one of our files, or altered"
            return Finding(State.NONE, why, looked_at, 0, None, None)
        why = _what_happened(rgb, source_format, tags)
        return Finding(State.ALTERED, why, looked_at, 0, None, tags, frames=total)
    n, some = next(iter(good.items()))
    first = replace(some, index=max(some.index - n, 0))
    if len(good) < looked_at:
        state = State.ALTERED
        why = f"{looked_at - len(good)} of {looked_at} frames are not as they were sent"
        if lost:
            why += f"; {lost} of them cannot be decoded"
    elif _is_joined(found):
        state, why = _joined(list(good.values()))
    else:
        state, why = _of_one_part(first, total)
    stamps = list(good.values())
    joined = _is_joined(found)
    return Finding(state, why, looked_at, len(good), first, tags, stamps, total, joined)


def _is_joined(found: Mapping[int, Stamp | None]) -> bool:
    """Whether frames are missing or repeated in a file, or are of several clips."""
    good = [(n, s) for n, s in found.items() if s is not None]
    return any(
        s.index - n != good[0][1].index - good[0][0] or not s.same_clip(good[0][1]) for n, s in good
    )


def _of_one_part(first: Stamp, total: int) -> tuple[State, str]:
    """The verdict on a file whose frames follow one another, from its first frame's stamp on."""
    sent = Timeline(first.ratio, first.group_length).low_count(first.length)
    off_grid = [
        f"{where} at frame {place}, {place % first.group_length} into a group of "
        f"{first.group_length}"
        for where, place in (("begins", first.index), ("ends", first.index + total))
        if place % first.group_length and place != sent
    ]
    if off_grid:
        return State.CUT, f"frames are intact, but the file {' and '.join(off_grid)}"
    why = "every frame that was looked at is as it was sent"
    if total < sent:
        why += f"; the file holds {total} of {sent} frames, cut between groups"
    return State.INTACT, why


def _joined(stamps: Sequence[Stamp]) -> tuple[State, str]:
    """The verdict on a file whose frames, all of them intact, do not follow one another."""
    kinds = {(s.ratio, s.group_length, s.width, s.height, s.checksum) for s in stamps}
    if len(kinds) > 1:
        why = "frames are intact, but of clips of several models, sizes or time factors"
        return State.CUT, f"{why}: cut it where they meet"
    timeline = Timeline(stamps[0].ratio, stamps[0].group_length)
    parts, n = 0, 0
    broken: list[int] = []
    while n < len(stamps):
        one = stamps[n]
        last = min(one.index + timeline.group_length, timeline.low_count(one.length))
        group = [replace(one, index=index) for index in range(one.index, last)]
        if one.index % timeline.group_length or list(stamps[n : n + len(group)]) != group:
            broken.append(n)
            group = [one]
        before = stamps[n - 1] if n else None
        parts += before is None or before.index + 1 != one.index or not before.same_clip(one)
        n += len(group)
    if broken:
        why = (
            f"frames are intact, but {len(broken)} of {len(stamps)} are of groups that are not "
            f"whole, the first of them frame {broken[0]}: some are missing, repeated, or of "
            "another clip"
        )
        return State.CUT, why
    return State.INTACT, f"every group is whole and as it was sent, in {parts} parts joined here"


def _first_of(marked: Stated, frames: int, told: Stamp | None) -> Stamp:
    """The first frame's stamp as marks tell it, with what tags tell besides."""
    first = stamp_of_marks(marked, frames, checksum_of(marked, "auto") or "unknown")
    if told is None or (told.ratio, told.group_length) != (first.ratio, first.group_length):
        return first
    return replace(first, rate=told.rate, checksum=told.checksum)


def _look(rgb: Any, numbers: Iterable[int]) -> tuple[dict[int, Stamp | None], int]:
    """The stamps of these frames, and how many of them cannot be decoded."""
    wanted = [int(n) for n in numbers]
    picked = core.std.Splice([rgb[n] for n in wanted]) if len(wanted) < rgb.num_frames else rgb
    frames = track(
        each_frame(picked), "reading frames", len(wanted), console=console, transient=True
    )
    found: dict[int, Stamp | None] = {}
    lost = 0
    for n, frame in zip(wanted, frames, strict=True):
        lost += frame is None
        found[n] = None if frame is None else read_stamp(frame_array(frame))
    return found, lost


def _what_happened(rgb: Any, source_format: Any, tags: Tags) -> str:
    """The likeliest reason why no stamp fits in a file that has our tags."""
    if (rgb.width, rgb.height) != (tags.low_width, tags.low_height):
        return (
            f"scaled or cropped from {tags.low_width}x{tags.low_height} to {rgb.width}x{rgb.height}"
        )
    if source_format.subsampling_w or source_format.subsampling_h:
        return f"converted to {source_format.name}: the chroma is subsampled"
    if source_format.color_family == vs.YUV and source_format.bits_per_sample < 10:
        return f"converted to {source_format.name}, which does not hold every RGB colour"
    return "encoded with loss, filtered, or read with another matrix"


def _rate(first: Stamp, times: Times | None) -> str:
    """The restored frames' rate, as `info` says it."""
    if first.rate is None:
        return "unknown"
    if times is None:
        return str(first.rate)
    return f"{first.rate} for most frames, which have times of their own: {times[-1]:.3f} s"


def _bundled(checksum: str) -> str:
    """Name of the bundled model with these weights."""
    from vs_cvrs.checkpoints import zoo

    return zoo.name_of(checksum) or "not bundled"
