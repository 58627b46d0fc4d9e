"""Times of frames that follow each other at no constant rate.

A low-rate file of such frames has the times of the frames that it shows, and an attachment with
those of all frames that were sent: "timestamp format v2" of MKVToolNix, a line for each frame.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vs_cvrs.cli.encoder import Ffmpeg
from vs_cvrs.cli.running import CliError, trial_folder
from vs_cvrs.programs.ffmpeg import file_url, find_ffmpeg

__all__ = [
    "TABLE",
    "Clock",
    "Times",
    "attached_times",
    "check_retiming",
    "constant_clock",
    "retiming",
    "table_clock",
    "table_text",
    "times_between",
]

Times = npt.NDArray[np.float64]
"""When each frame is shown, in seconds; rising."""

Clock = Callable[[int], Fraction | None]
"""When a frame is shown, in seconds; None where nothing tells."""

TABLE = "cvrs-timestamps.txt"
"""The attachment's name."""

_HEADER = "# timestamp format v2"
_TICKS = 90_000  # in a second: as fine as any container of ours takes


def constant_clock(rate: Fraction | None) -> Clock:
    """Of frames at a constant rate; None: it is unknown."""
    return lambda frame: None if rate is None else frame / rate


def table_clock(times: Times) -> Clock:
    """Of frames that have these times."""
    return lambda frame: Fraction(float(times[min(frame, times.size - 1)]))


def table_text(times: Times) -> str:
    """The attachment's content."""
    return "\n".join([_HEADER, *(f"{1000 * time:.3f}" for time in times - times[0])]) + "\n"


def attached_times(path: Path) -> Times | None:
    """The times that are attached to a low-rate file; None where none are, or not such ones.

    Raises:
        FileNotFoundError: there is no ffmpeg.
    """
    with trial_folder() as folder:
        file = folder / TABLE
        command = [find_ffmpeg(), "-v", "error", "-nostdin"]
        command += [f"-dump_attachment:m:filename:{TABLE}", str(file), "-i", file_url(path)]
        command += ["-map", "0:v:0", "-c", "copy", "-t", "0", "-f", "null", "-"]
        subprocess.run(command, capture_output=True, check=False)
        if not file.exists():
            return None
        try:
            times = np.loadtxt(file, comments="#", ndmin=1) / 1000.0
        except ValueError:
            return None
    whole = times.ndim == 1 and times.size > 0 and np.isfinite(times).all()
    return times if whole and (np.diff(times) >= 0).all() else None


def times_between(shown: Sequence[int], low: Times, wanted: range, step: float) -> Times:
    """Times of high-rate frames, from those of the low-rate frames that show some of them.

    Args:
        shown: which high-rate frame each low-rate frame shows, rising.
        low: when.
        wanted: the high-rate frames.
        step: seconds between two of them behind the last that is shown.
    """
    numbers = np.array(wanted)
    behind = np.maximum(numbers - shown[-1], 0) * step
    times: Times = np.interp(numbers, shown, low) + behind
    return times


def retiming(times: Times, rate: Fraction) -> str:
    """A bitstream filter of ffmpeg that gives packets of a constant rate the times of a table.

    Args:
        times: of each frame.
        rate: that the packets come at. Where frames are stored in another order than they are
            shown in, decoding times begin before the first frame.
    """
    ticks = [round(float(time) * _TICKS) for time in times - times[0]]
    step = round(_TICKS / rate)
    table = f"if(lt(ld(0),0),ld(0)*{step},{_look_up(ticks, 0)})"
    to_ticks = _to_ticks("" if _rescales() else "*TB/TB_OUT")
    looked_up = (f"{of}='st(0,round({of.upper()}*TB*{rate}));{table}'" for of in ("pts", "dts"))
    return f"{to_ticks},setts={':'.join(looked_up)}"


def _to_ticks(factor: str) -> str:
    """A bitstream filter that counts time in ticks; ``factor``: "" or "*..." for each time."""
    said = ":".join(f"{of}={of.upper()}{factor}" for of in ("pts", "dts", "duration"))
    return f"setts=time_base=1/{_TICKS}:{said}"


@functools.lru_cache
def _rescales() -> bool:
    """Whether setts expects times of the old time base where it sets a new one: releases differ.

    ffmpeg 9 takes what an expression gives to the new time base, 7.0 takes it as it is.

    Raises:
        FileNotFoundError: there is no ffmpeg.
    """
    picture = ["-f", "lavfi", "-i", "color=s=16x16:r=25:d=0.08", "-c:v", "rawvideo"]
    words = ["-v", "error", "-nostdin", *picture, "-bsf:v", _to_ticks(""), "-f", "framecrc", "-"]
    said = subprocess.run([find_ffmpeg(), *words], capture_output=True, text=True, check=False)
    lines = [line for line in said.stdout.splitlines() if not line.startswith("#")]
    return bool(lines) and lines[-1].split(",")[2].strip() == str(_TICKS // 25)


def _look_up(ticks: Sequence[int], first: int) -> str:
    """An expression for the tick of frame number ld(0), by halves."""
    if len(ticks) == 1:
        return str(ticks[0])
    half = len(ticks) // 2
    before, after = _look_up(ticks[:half], first), _look_up(ticks[half:], first + half)
    return f"if(lt(ld(0),{first + half}),{before},{after})"


def check_retiming() -> None:
    """Raise CliError for an ffmpeg that cannot be given a table of times; worth knowing early."""
    with trial_folder() as folder:
        (folder / "table").write_text(retiming(np.zeros(2), Fraction(25)))
        picture = ["-f", "lavfi", "-i", "color=s=16x16:d=0.04", "-c:v", "rawvideo"]
        words = ["-v", "error", "-nostdin", *picture, "-/bsf:v", "table", "-f", "null", "-"]
        try:
            with Ffmpeg(words, folder):
                pass
        except CliError as error:
            raise CliError(
                "a variable frame rate needs ffmpeg 7 or newer (the one in imageio-ffmpeg is); "
                f"--constant-rate does without; {error}"
            ) from error
