"""A file in the making, in segments that survive an interruption.

Where they are until then is `vs_cvrs.cli.folder`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from vs_cvrs.cli.folder import JobFolder, check_output, saying_why
from vs_cvrs.cli.joining import Beside, join
from vs_cvrs.cli.recipes import Recipe
from vs_cvrs.cli.running import at_interrupt, counted, say, size_text
from vs_cvrs.cli.segments import Encoding, Segment
from vs_cvrs.cli.times import Times
from vs_cvrs.programs.system import sync

__all__ = ["Job", "Runner"]


class Runner(Protocol):
    """Makes a job's segments, here or elsewhere."""

    def __call__(
        self, job: Job, missing: Sequence[Segment], advance: Callable[[int], None]
    ) -> None:
        """Make the files of these segments, in any order.

        Args:
            job: whose folder is locked by this process.
            missing: the segments that are not there.
            advance: to be called with how many more frames are done; fewer than none where a
                part of a segment is lost.
        """


@dataclass(frozen=True)
class Job:
    """One output file.

    Attributes:
        recipe: of its frames.
        frames, rate: how many, and how many in a second.
        output: where the file goes.
        encoding: of the frames.
        beside: what is copied beside them.
        tags: global tags.
        identity: what makes this job another one than its neighbour; JSON values.
        segments: all of them.
        segment: frames in a segment, as the user wants them.
        times: of each frame, where they do not follow each other at ``rate``.
    """

    recipe: Recipe
    frames: int
    rate: Fraction
    output: Path
    encoding: Encoding
    beside: Beside
    tags: dict[str, str]
    identity: dict[str, Any]
    segments: Sequence[Segment]
    segment: int
    times: Times | None = None

    @property
    def folder(self) -> Path:
        """Where the job's temporary files are."""
        return JobFolder(self.output).path

    def segment_file(self, segment: Segment) -> Path:
        """A finished segment's file."""
        return self.folder / f"{segment.number:05d}.{self.encoding.container}"

    def run(
        self, runner: Runner, resume: bool, overwrite: bool, progress: Callable[[int], None]
    ) -> int:
        """Write the file.

        Args:
            runner: makes the segments.
            resume: use the segments of an earlier run of this job.
            overwrite: replace the output, and an earlier run's segments, where there are some.
            progress: called with the number of frames that are done.

        Returns:
            How many frames are of groups that are not as they were sent, those of earlier runs too.

        Raises:
            CliError: there is something in the way, a disk is full, or ffmpeg fails.
        """
        check_output(self.beside.path, self.output, resume, overwrite)
        folder = JobFolder(self.output)
        identity = self.identity | {"segment": self.segment}
        with folder.locked(identity, overwrite and not resume):
            at_interrupt(self.folder, self._left_behind)
            files = {self.segment_file(segment): segment for segment in self.segments}
            folder.clear_unfinished(set(files))
            missing = [segment for file, segment in files.items() if not file.exists()]
            done = self.frames - sum(segment.frames for segment in missing)
            progress(done)

            forecast = _Forecast(self, list(files))

            def advance(frames: int) -> None:
                nonlocal done
                done += frames
                progress(done)
                forecast()

            with saying_why(self.folder):
                runner(self, missing, advance)
                parts = [(file, segment.frames) for file, segment in files.items()]
                join(
                    *(parts, self.rate, self.encoding, self.beside, self.tags, folder.joined),
                    self.times,
                )
                sync(folder.joined)
                folder.joined.replace(self.output)
                sync(self.output.parent)
            damaged = folder.damaged(files)
            folder.remove()
        return damaged

    def _left_behind(self) -> str:
        if not self.folder.exists():
            return ""
        return f"Temporary files are in {self.folder}: --resume goes on from them."


class _Forecast:
    """Says once how large the file will be, when its first segment is there."""

    def __init__(self, job: Job, files: list[Path]) -> None:
        self._job = job
        self._first = files[0]
        self._said = len(files) == 1

    def __call__(self) -> None:
        if self._said or not self._first.exists():
            return
        self._said = True
        job, frames = self._job, self._job.segments[0].frames
        size = size_text(self._first.stat().st_size * job.frames / frames)
        beside = " beside audio and other tracks" if job.beside.tracks else ""
        say(f"{job.output} will have about {size}{beside}, by its first {counted(frames)}")
