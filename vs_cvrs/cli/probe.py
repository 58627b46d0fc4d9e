"""``vs-cvrs info``: whether a file carries hidden motion, and whether it arrived intact."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs
from rich.progress import track

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.levels import read_stamp
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.cli.clips import core, each_frame, frame_array, open_video, to_low_rate
from vs_cvrs.cli.quality import Quality
from vs_cvrs.cli.running import console
from vs_cvrs.cli.tags import Tags, read_tags
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


@dataclass(frozen=True)
class Finding:
    """What is known of a file.

    Attributes:
        state: the verdict; CUT is intact frames that do not follow the grid of groups.
        because: the verdict in a sentence.
        looked_at, good: frames looked at, and those whose stamp fits.
        first: the stamp of the first frame, worked out from a later one where need be.
        tags: the file's.
        stamps: those that fit, in the order of the frames.
    """

    state: State
    because: str
    looked_at: int
    good: int
    first: Stamp | None
    tags: Tags | None
    stamps: list[Stamp] = field(default_factory=list)


def info(path: Path, every: bool, as_json: bool) -> int:
    """Print what is found; the exit code is a `State`."""
    found = probe(path, every)
    first = found.first or (found.tags.first if found.tags else None)
    facts: dict[str, Any] = {"file": str(path), "state": found.state.name.lower()}
    facts |= {"because": found.because, "frames looked at": found.looked_at, "intact": found.good}
    if first is not None:
        timeline = Timeline(first.ratio, first.group_length)
        facts |= {
            "model": found.tags.model if found.tags else _bundled(first.checksum),
            "checksum": first.checksum,
            "restores": f"{first.length} frames of {first.width}x{first.height}",
            "rate": "unknown" if first.rate is None else str(first.rate),
            "time factor": str(first.ratio),
            "group": first.group_length,
            "first frame": first.index,
            "low-rate frames sent": timeline.low_count(first.length),
        }
        quality = Quality.of(found.stamps)
        if quality is not None:
            facts |= quality.facts(first.rate)
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
    clip = open_video(path, any_times=True).clip
    source_format = clip.format
    rgb = to_low_rate(clip)
    total = int(rgb.num_frames)
    if not stamp.fits(rgb.width, rgb.height):
        why = f"frames of {rgb.width}x{rgb.height} are too small to carry a stamp"
        return Finding(State.UNKNOWN, why, 0, 0, None, tags)
    numbers = range(total) if every else np.unique(np.linspace(0, total - 1, _SAMPLES).astype(int))
    found, lost = _look(rgb, numbers)
    good = {n: s for n, s in found.items() if s is not None}
    looked_at = len(found)
    if not good:
        if tags is None:
            why = "no CVRS tags, and no frame with a stamp: not one of our files, or altered"
            return Finding(State.NONE, why, looked_at, 0, None, None)
        why = _what_happened(rgb, source_format, tags)
        return Finding(State.ALTERED, why, looked_at, 0, None, tags)
    stamps = list(good.values())
    n, some = next(iter(good.items()))
    offset = some.index - n
    first = replace(some, index=offset) if offset >= 0 else some
    if len(good) < looked_at:
        why = f"{looked_at - len(good)} of {looked_at} frames are not as they were sent"
        if lost:
            why += f"; {lost} of them cannot be decoded"
        return Finding(State.ALTERED, why, looked_at, len(good), first, tags, stamps)
    consistent = all(s.index - n == offset and s.same_clip(some) for n, s in good.items())
    if not consistent or offset < 0:
        why = "frames are intact, but some are missing, repeated, or of another clip"
        return Finding(State.CUT, why, looked_at, len(good), first, tags, stamps)
    sent = Timeline(some.ratio, some.group_length).low_count(some.length)
    begin, end = offset, offset + total
    off_grid = [
        f"{where} at frame {place}, {place % some.group_length} into a group of {some.group_length}"
        for where, place in (("begins", begin), ("ends", end))
        if place % some.group_length and place != sent
    ]
    if off_grid:
        why = f"frames are intact, but the file {' and '.join(off_grid)}"
        return Finding(State.CUT, why, looked_at, len(good), first, tags, stamps)
    why = "every frame that was looked at is as it was sent"
    if total < sent:
        why += f"; the file holds {total} of {sent} frames, cut between groups"
    return Finding(State.INTACT, why, looked_at, len(good), first, tags, stamps)


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


def _bundled(checksum: str) -> str:
    """Name of the bundled model with these weights."""
    from vs_cvrs.checkpoints import zoo

    return zoo.name_of(checksum) or "not bundled"
