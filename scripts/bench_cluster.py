"""What workers bring, measured on one machine: the part of bench.py that needs a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.table import Table

from vs_cvrs.cli.clips import open_video
from vs_cvrs.evaluation import EvaluationError
from vs_cvrs.programs.ffmpeg import find_ffmpeg

__all__ = ["FILM", "SHORT_FILM", "ClusterSpeed", "IndexSpeed", "cluster_tables", "measure_cluster"]

FILM = 192
"""High-rate frames that are encoded."""

SHORT_FILM = 96
"""The same where it is only to be seen that everything works."""

_BOUND = 300.0  # seconds that everything may take
_COMMAND = [sys.executable, "-m", "vs_cvrs"]
_LONG, _SHORT = 16, 4  # low-rate frames in a segment; the latter is a group
_FACTOR = 2  # high-rate frames for each of them
_LOOK_SECONDS = 0.02
_SEGMENT_FILE = re.compile(r"\d{5,}\.(nut|mkv)")


@dataclass
class ClusterSpeed:
    """How a film is encoded in one way.

    Attributes:
        way: by what.
        fps: high-rate frames in a second, while all workers have segments.
        per_segment: seconds that a worker spends on a segment beside those on its frames.
        shared_per_segment: seconds of processor time that the job's own process and the scheduler,
            of which there is one whatever the number of workers, spend while one of the shorter
            segments is made; None where that process encodes, too.
        start_seconds: from the command until frames are encoded: planning, opening, a model.
        join_seconds: from the last segment to the end.
    """

    way: str
    fps: float
    per_segment: float
    shared_per_segment: float | None
    start_seconds: float
    join_seconds: float


@dataclass
class IndexSpeed:
    """How fast BestSource reads a film before its first frame, which one machine does for all.

    Attributes:
        size: of the film.
        fps: its frames in a second, by the clock.
    """

    size: str
    fps: float


@dataclass(frozen=True)
class _Run:
    """When a run's segments were there, in seconds after the command."""

    segments: Sequence[float]
    end: float
    shared: float  # processor time of the job's own process and the scheduler, for each segment

    def seconds_each(self, workers: int) -> float:
        """What a worker takes for a segment, while every worker has one."""
        done = self.segments
        return workers * (done[-1] - done[workers - 1]) / (len(done) - workers)


class _Bench:
    """Films and runs in a folder, with one limit for the time of all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._end = time.monotonic() + _BOUND

    def left(self) -> float:
        """Seconds of the limit. Raises EvaluationError where there are none."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise EvaluationError(
                f"--cluster takes more than {_BOUND:g} s here; a smaller size in --sizes may do"
            )
        return seconds

    def film(self, size: str, frames: int) -> Path:
        """A film of moving pictures."""
        path = self._folder / f"{size}.mkv"
        source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30"]
        encoder = ["-c:v", "libx264", "-preset", "ultrafast", "-frames:v", str(frames)]
        command = [find_ffmpeg(), "-v", "error", "-y", *source, *encoder, str(path)]
        subprocess.run(command, check=True, timeout=self.left())
        return path

    def index(self, size: str, frames: int) -> IndexSpeed:
        """Have BestSource read a film."""
        film = self.film(size, frames)
        begin = time.monotonic()
        open_video(film, index=self._folder / f"index-{size}")
        return IndexSpeed(size, frames / (time.monotonic() - begin))

    def encode(
        self, film: Path, words: Sequence[str], segment: int, scheduler: psutil.Process | None
    ) -> _Run:
        """Encode a film with `lite`. Raises EvaluationError where that fails or takes too long."""
        out = self._folder / "low.mkv"
        command = [*_COMMAND, "encode", str(film), str(out), "--segment", str(segment)]
        found: dict[str, float] = {}
        shared: list[float] = []
        begin = time.monotonic()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [*command, "--overwrite", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
            watched = [psutil.Process(process.pid)]
            if scheduler is not None:
                watched.append(scheduler)
            try:
                while process.poll() is None:
                    new = _segments(out.with_name(f"{out.name}.part")) - found.keys()
                    if new:
                        found |= dict.fromkeys(new, time.monotonic() - begin)
                        shared.append(sum(map(_processor_seconds, watched)))
                    self.left()
                    time.sleep(_LOOK_SECONDS)
            except BaseException:
                process.kill()
                raise
            end = time.monotonic() - begin
            if process.returncode:
                log.seek(0)
                raise EvaluationError((log.read().strip().splitlines() or ["encode fails"])[-1])
        return _Run(sorted(found.values()), end, (shared[-1] - shared[0]) / (len(found) - 1))

    @contextmanager
    def farm(self, workers: int) -> Iterator[tuple[list[str], psutil.Process]]:
        """A scheduler and workers of one thread each: a job's options, and the former."""
        processes: list[subprocess.Popen[bytes]] = []
        try:
            with tempfile.TemporaryFile("w+") as log:

                def begin(*words: str, until: str) -> str:
                    command = [*_COMMAND, "cluster", *words]
                    processes.append(subprocess.Popen(command, stderr=log))
                    while processes[-1].poll() is None:
                        self.left()
                        log.seek(0)
                        if found := re.search(until, log.read()):
                            return found[1]
                        time.sleep(0.1)
                    raise EvaluationError(f"vs-cvrs cluster {words[0]} does not start")

                address = begin("start", "--port", "0", until=r"listens at (\S+);")
                count = str(workers)
                begin("join", address, "--workers", count, "--threads", "1", until="(workers at)")
                yield ["--cluster", address], psutil.Process(processes[0].pid)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(30)


def _segments(folder: Path) -> set[str]:
    """The finished segments in a job's folder, which comes and goes."""
    try:
        return {file.name for file in folder.iterdir() if _SEGMENT_FILE.fullmatch(file.name)}
    except FileNotFoundError:
        return set()


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure_cluster(
    frames: int, sizes: Sequence[str]
) -> tuple[list[ClusterSpeed], list[IndexSpeed]]:
    """Encode a film with `lite` in one process with two threads, and by 1 and 2 workers of one.

    Args:
        frames: of the film: whole rounds of both workers' segments of both lengths.
        sizes: of the film, like 448x256; others than the first are only read for their index.

    Raises:
        EvaluationError: a command fails, or all takes too long.
    """
    os.environ["OMP_NUM_THREADS"] = "2"
    with tempfile.TemporaryDirectory() as name:
        bench = _Bench(Path(name))
        film = bench.film(sizes[0], frames)

        def measure(
            way: str, workers: int, words: list[str], scheduler: psutil.Process | None
        ) -> ClusterSpeed:
            long, short = (
                bench.encode(film, words, length, scheduler) for length in (_LONG, _SHORT)
            )
            each = [run.seconds_each(workers) for run in (long, short)]
            # A worker's seconds for a segment are those that each takes, and so many for a frame.
            beside = (_LONG * each[1] - _SHORT * each[0]) / (_LONG - _SHORT)
            return ClusterSpeed(
                way,
                fps=workers * _LONG * _FACTOR / each[0],
                per_segment=beside,
                shared_per_segment=None if scheduler is None else short.shared,
                start_seconds=long.segments[0] - each[0],
                join_seconds=long.end - long.segments[-1],
            )

        speeds = [measure("one process, two threads", 1, [], None)]
        for workers in (1, 2):
            with bench.farm(workers) as (words, scheduler):
                noun = "worker" if workers == 1 else "workers"
                way = f"{workers} {noun} of one thread"
                speeds.append(measure(way, workers, words, scheduler))
        return speeds, [bench.index(size, frames) for size in sizes]


def cluster_tables(
    title: str, speeds: Sequence[ClusterSpeed], indexes: Sequence[IndexSpeed]
) -> list[Table]:
    """The results, to print."""
    encoding = Table(title=title, title_justify="left")
    encoding.add_column("encode by", no_wrap=True)
    headings = ("fps", "s a segment", "s a segment, shared", "s to start", "s to join")
    for heading in headings:
        encoding.add_column(heading, justify="right")
    for row in speeds:
        shared = "" if row.shared_per_segment is None else f"{row.shared_per_segment:.4f}"
        encoding.add_row(
            row.way,
            f"{row.fps:.1f}",
            f"{row.per_segment:.3f}",
            shared,
            f"{row.start_seconds:.1f}",
            f"{row.join_seconds:.1f}",
        )
    reading = Table(title="Reading a film for its index", title_justify="left")
    reading.add_column("size", no_wrap=True)
    reading.add_column("fps", justify="right")
    for one in indexes:
        reading.add_row(one.size, f"{one.fps:.0f}")
    return [encoding, reading]
