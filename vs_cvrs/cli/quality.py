"""What comes back of a file, as its sender measured it and wrote it into the stamps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from vs_cvrs.carrier.levels import read_stamp
from vs_cvrs.carrier.stamp import Mode, Stamp, psnr_of
from vs_cvrs.cli.clips import core, each_frame, frame_array, open_video, to_low_rate
from vs_cvrs.cli.running import CliError, console, say
from vs_cvrs.cli.times import Clock
from vs_cvrs.timeline import Timeline

__all__ = ["Quality", "say_what_comes_back", "stamps_of", "time_code"]

_WORST = 3


@dataclass(frozen=True)
class Quality:
    """Of the groups that were looked at.

    Attributes:
        psnr: PSNR in dB of all their frames together, infinite where they are exact. Each group
            counts as stamps say it: rounded down to half a dB.
        lowest: the groups that come back worst, worst first: the first of their restored frames,
            and their PSNR.
        groups: how many there are.
        interpolated: how many of them hide nothing.
    """

    psnr: float
    lowest: list[tuple[int, float]]
    groups: int
    interpolated: int

    @classmethod
    def of(cls, stamps: Iterable[Stamp]) -> Quality | None:
        """What stamps say; None where none of them knows."""
        found: dict[tuple[int, bytes], float] = {}
        frames: dict[tuple[int, bytes], int] = {}
        interpolated = 0
        for one in stamps:
            psnr = psnr_of(one.sent.quality)
            timeline = Timeline(one.ratio, one.group_length)
            low = one.index - one.index % one.group_length
            first = timeline.high_begin(low)
            group = first, one.group
            if psnr is None or group in found:
                continue
            found[group] = psnr
            frames[group] = min(timeline.high_begin(low + one.group_length), one.length) - first
            interpolated += one.sent.mode != Mode.HIDDEN
        if not found:
            return None
        error = sum(n * 10.0 ** (-found[group] / 10.0) for group, n in frames.items())
        mean = error / sum(frames.values())
        return cls(
            psnr=-10.0 * math.log10(mean) if mean > 0.0 else math.inf,
            lowest=sorted(
                ((first, psnr) for (first, _), psnr in found.items()),
                key=lambda place: (place[1], place[0]),
            )[:_WORST],
            groups=len(found),
            interpolated=interpolated,
        )

    @classmethod
    def read(cls, path: Path) -> Quality | None:
        """Of a whole file of ours that begins with its first group."""
        clip = to_low_rate(open_video(path, any_times=True).clip)
        first = read_stamp(frame_array(clip.get_frame(0)))
        return None if first is None else cls.of(stamps_of(clip, first.group_length))

    def facts(self, clock: Clock) -> dict[str, Any]:
        """What `info` prints."""
        place, least = self.lowest[0]
        return {
            "comes back at": f"{_decibels(self.psnr)} PSNR, the worst group at {_decibels(least)}",
            "worst group": f"from {time_code(place, clock)}",
            "interpolated": f"{self.interpolated} of {self.groups} groups hide nothing",
        }

    def sentence(self, clock: Clock, begin: int = 0) -> str:
        """What will come back, and where it is worst.

        Args:
            clock: of the source's frames.
            begin: which of them is the clip's first; less than 0 where the clip was cut.
        """
        text = f"{_decibels(self.psnr)} PSNR on the whole, {self.places(clock, begin)}"
        if self.interpolated:
            text += f"; {self.interpolated} of {self.groups} groups are interpolated"
        return text

    def places(self, clock: Clock, begin: int = 0) -> str:
        """The worst groups."""
        return "lowest " + ", ".join(
            f"{_decibels(psnr)} at {time_code(max(0, begin + frame), clock)}"
            for frame, psnr in self.lowest
        )


def stamps_of(clip: Any, every: int) -> Iterator[Stamp]:
    """The stamps of every so-many-th frame of a low-rate clip, where there are some."""
    picked: Any = core.std.SelectEvery(clip, every, 0)
    frames = track(
        each_frame(picked),
        "reading it back",
        picked.num_frames,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    found = (read_stamp(frame_array(frame)) for frame in frames if frame is not None)
    return (one for one in found if one is not None)


def say_what_comes_back(output: Path, clock: Clock, begin: int, least: float | None) -> None:
    """Say what of a file that was just made comes back.

    Args:
        output: the file.
        clock: of the source's frames.
        begin: which of them is the clip's first.
        least: dB; raise CliError where a group comes back at less.
    """
    quality = Quality.read(output)
    if quality is None:
        say("encode: the frames are too small for stamps, so nothing is known of what comes back")
    elif least is not None and quality.lowest[0][1] < least:
        raise CliError(
            f"{output} is whole, but not all of it comes back at --min-psnr {least:g}: "
            f"{quality.places(clock, begin)}"
        )
    else:
        say(f"{output}: comes back at {quality.sentence(clock, begin)}")


def time_code(frame: int, clock: Clock) -> str:
    """When a frame is shown, as "0:01:02.480"; its number where nothing tells."""
    time = clock(frame)
    if time is None:
        return f"frame {frame}"
    seconds, milliseconds = divmod(round(1000 * time), 1000)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"


def _decibels(psnr: float) -> str:
    return f"{psnr:.1f} dB"
