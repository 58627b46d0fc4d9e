"""What workers bring, measured on one machine: the part of bench.py that needs a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from vs_cvrs.evaluation import EvaluationError
from vs_cvrs.programs.ffmpeg import find_ffmpeg

__all__ = ["ClusterSpeed", "cluster_table", "measure_cluster"]

_COMMAND = [sys.executable, "-m", "vs_cvrs"]
_SEGMENT = 120  # low-rate frames
_SHORT = 4  # a group


@dataclass
class ClusterSpeed:
    """How a film is encoded in one way.

    Attributes:
        way: by what.
        fps: high-rate frames in a second, of what a film takes longer than one of half its length.
        fixed_seconds: what is left of the shorter film's time: starting, planning, joining.
        per_segment: seconds that each further segment costs in segments of one group.
    """

    way: str
    fps: float
    fixed_seconds: float
    per_segment: float


@contextmanager
def _farm(workers: int) -> Iterator[list[str]]:
    """A scheduler and workers of one thread each; the options that a job needs."""
    processes = []
    try:
        with tempfile.TemporaryFile("w+") as log:

            def begin(*words: str, until: str) -> str:
                command = [*_COMMAND, "cluster", *words]
                processes.append(subprocess.Popen(command, stderr=log, start_new_session=True))
                end = time.monotonic() + 120
                while time.monotonic() < end and processes[-1].poll() is None:
                    log.seek(0)
                    if found := re.search(until, log.read()):
                        return found[1]
                    time.sleep(0.1)
                raise EvaluationError(f"vs-cvrs cluster {words[0]} does not start")

            address = begin("start", "--port", "0", until=r"listens at (\S+);")
            count = str(workers)
            begin("join", address, "--workers", count, "--threads", "1", until="(workers at)")
            yield ["--cluster", address]
    finally:
        for process in processes:
            process.terminate()
            process.wait(30)


def _seconds(film: Path, folder: Path, words: list[str], segment: int) -> float:
    out = folder / "low.mkv"
    command = [*_COMMAND, "encode", str(film), str(out), "--segment", str(segment), "--overwrite"]
    begin = time.monotonic()
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EvaluationError(done.stderr.strip().splitlines()[-1])
    return time.monotonic() - begin


def measure_cluster(frames: int, size: str) -> list[ClusterSpeed]:
    """Encode a film with `lite` in one process with two threads, and by 1 and 2 workers of one.

    Args:
        frames: of the shorter film; the longer one has twice as many.
        size: of the film, like 448x256.

    Raises:
        EvaluationError: a command fails.
    """
    os.environ["OMP_NUM_THREADS"] = "2"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = []
        for count in (frames, 2 * frames):
            films.append(folder / f"{count}.mkv")
            source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30"]
            encoder = ["-c:v", "libx264", "-preset", "ultrafast", "-frames:v", str(count)]
            command = [find_ffmpeg(), "-v", "error", *source, *encoder, str(films[-1])]
            subprocess.run(command, check=True)

        def measure(way: str, words: list[str]) -> ClusterSpeed:
            # The first run reads the film into memory, and on a cluster the model, too.
            _seconds(films[0], folder, words, _SEGMENT)
            short, long = (_seconds(film, folder, words, _SEGMENT) for film in films)
            cut = _seconds(films[0], folder, words, _SHORT)
            more = frames / 2 / _SHORT - frames / 2 / _SEGMENT
            work = long - short
            return ClusterSpeed(way, frames / work, short - work, (cut - short) / more)

        speeds = [measure("one process, two threads", [])]
        for workers in (1, 2):
            with _farm(workers) as words:
                noun = "worker" if workers == 1 else "workers"
                speeds.append(measure(f"{workers} {noun} of one thread", words))
        return speeds


def cluster_table(title: str, speeds: list[ClusterSpeed]) -> Table:
    """The results, to print."""
    table = Table(title=title, title_justify="left")
    table.add_column("encode by", no_wrap=True)
    for heading in ("fps", "start, plan and join, s", "a further segment, s"):
        table.add_column(heading, justify="right")
    for row in speeds:
        table.add_row(
            row.way, f"{row.fps:.1f}", f"{row.fixed_seconds:.1f}", f"{row.per_segment:.3f}"
        )
    return table
